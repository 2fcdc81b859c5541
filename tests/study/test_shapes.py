"""What JSON holds is looked at before it is used."""

import pytest

from study.config import InputError
from study.shapes import amiss, read_json

SHAPE = {"name": str, "sizes": [int], "means": {str: float}, "why": str | None}
WHOLE = {"name": "a", "sizes": [1, 2], "means": {"x": 0.5, "y": 10**30}, "why": None, "more": []}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, ""),
        ({"name": 3}, "name = 3: must be text"),
        ({"sizes": []}, "sizes is no list of one or more"),
        ({"sizes": [1, "2"]}, "sizes[1] = '2': must be a whole number"),
        ({"means": []}, "means is no table"),
        ({"means": {"x": float("nan")}}, "means.x = nan: must be a finite number"),
        ({"means": {"x": 10**400}}, f"means.x = 1{'0' * 79}: must be a finite number"),
        ({"why": 1}, "why = 1: must be text or null"),
    ],
)
def test_what_is_amiss_is_told_by_its_key(change, told):
    assert amiss(WHOLE | change, SHAPE) == told


def test_what_is_missing_is_told_by_its_key():
    assert amiss({"a": {"b": 1}}, {"a": {"b": int, "c": int}}) == "a.c is missing"
    assert amiss([], {"a": int}) == "it is no table"


@pytest.mark.parametrize("content", [b"", b"{", b'"\xff"', b"[" * 100_000, b"[]", b"{}"], ids=range(6))
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x.json: is damaged.*: bring it back"):
        read_json(tmp_path / "x.json", {"a": int})


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"x.json: cannot be read"):
        read_json(tmp_path / "x.json", {})
