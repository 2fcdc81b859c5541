"""A file of masked forms is read in little memory; whatever else a file holds is told."""

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study.config import InputError
from study.masked_file import open_masked
from tests.masked import file_of


def test_reading_holds_a_few_rows_at_a_time(tmp_path):
    path = file_of(tmp_path / "m.parquet", np.random.default_rng(0).normal(size=(40_000, 10)))
    pq.write_table(pq.read_table(path), path, row_group_size=1000)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in open_masked(path).chunks()]
    assert len(held) == 40
    assert max(held) < path.stat().st_size / 8


@settings(
    max_examples=2000, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_of_masked_forms_is_told_or_read(tmp_path, data):
    whole = tmp_path / "whole.parquet"
    if not whole.exists():
        file_of(whole, np.random.default_rng(0).normal(size=(9, 10)), labels=["a", "b", "c"] * 3, names=["n"] * 9)
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 9))] = data.draw(st.integers(0, 255))  # between the marks
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(bytes(content))
    with contextlib.suppress(InputError):  # and nothing else
        for vectors, labels, names in open_masked(damaged).chunks():
            assert vectors.shape[1] == 10
            assert len(vectors) == len(labels or vectors) == len(names or vectors)


def test_a_long_label_on_many_rows_is_told_before_it_fills_the_memory(tmp_path):
    path = file_of(tmp_path / "x.parquet", np.zeros((1000, 10)), labels=["a" * 50_000] * 1000)
    assert path.stat().st_size < 200_000
    usual, counted = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(counted)
    try:
        with pytest.raises(InputError, match=r"a label of 50,000 bytes: must be 4,096 at most"):
            list(open_masked(path).chunks())
    finally:
        pa.set_memory_pool(usual)
    assert counted.max_memory() < 5e6


FLOATS = pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("columns", "lengths", "told"),
    [
        ({"masked": pa.array([[1.0] * 9, [1.0] * 11], type=FLOATS)}, (8, 2), "not 10 finite numbers"),
        ({"masked": pa.array([None, [1.0] * 20], type=FLOATS)}, (8, 2), "not 10 finite numbers"),
        ({"masked": pa.array([[], []], type=FLOATS)}, (0, 0), "does not say how long"),
        ({"masked": pa.array([[1.0]], type=pa.list_(pa.float64()))}, (1, 0), "must be lists of float32"),
        ({"masked": pa.array([[1.0]], type=FLOATS), "label": pa.array([{"a": 1}])}, (1, 0), "must be text"),
        ({"masked": pa.array([[1.0]], type=FLOATS), "name": pa.array([["a"]])}, (1, 0), "must be text"),
    ],
)
def test_a_whole_file_of_another_make_is_told(tmp_path, columns, lengths, told):
    header = {"format": "1", "pair": "ab" * 16, "gaussian": str(lengths[0]), "categorical": str(lengths[1])}
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata(header), path)
    with pytest.raises(InputError, match=told):
        list(open_masked(path).chunks())


def test_two_columns_of_one_name_are_told(tmp_path):
    header = {"format": "1", "pair": "ab" * 16, "gaussian": "1", "categorical": "0"}
    column = pa.array([[1.0]], type=FLOATS)
    table = pa.Table.from_arrays([column, column], names=["masked", "masked"]).replace_schema_metadata(header)
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(InputError, match="several columns of one name"):
        open_masked(tmp_path / "m.parquet")
