"""One line each, never torn, one driver."""

import gzip
import subprocess
import sys

import pytest

from study.config import InputError
from study.records import Record, RecordFile, frame, locked, read_records, write_whole
from study.seeds import derive, identity


def record(n):
    return Record(
        kind="classification",
        key=f"k{n}",
        trial="t",
        gaussian=1,
        categorical=0,
        batch_size=2,
        instance=0,
        what={"dataset": "digits"},
        metrics={"accuracy": n / 10},
        detail={"confusion": [[1, 0]]},
    )


def test_what_is_appended_is_read(tmp_path):
    with RecordFile(tmp_path) as file:
        file.append(record(1))
        assert read_records(tmp_path) == [record(1)]
        file.append(record(2))
    assert read_records(tmp_path) == [record(1), record(2)]
    table = frame(read_records(tmp_path), "classification")
    assert table[["dataset", "accuracy"]].to_numpy().tolist() == [["digits", 0.1], ["digits", 0.2]]


def test_a_torn_line_is_dropped_and_measured_again(tmp_path):
    with RecordFile(tmp_path) as file:
        file.append(record(1))
        file.append(record(2))
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    assert read_records(tmp_path) == [record(1)]
    with RecordFile(tmp_path) as file:
        assert file.keys == {"k1"}
        file.append(record(2))
    assert read_records(tmp_path) == [record(1), record(2)]


def test_a_second_driver_is_refused(tmp_path):
    code = f"from pathlib import Path\nfrom study.records import locked\nlocked(Path({str(tmp_path)!r})).__enter__()"
    with locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "another study is running there" in done.stderr
    with locked(tmp_path), RecordFile(tmp_path) as file:
        assert file.records == []


def test_packed_records_are_read_and_unpacked_by_who_goes_on(tmp_path):
    with RecordFile(tmp_path) as file:
        file.append(record(1))
        file.append(record(2))
    lines = (tmp_path / "records.jsonl").read_bytes()
    (tmp_path / "records.jsonl").unlink()
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress(lines))
    assert [r.key for r in read_records(tmp_path)] == ["k1", "k2"]
    with locked(tmp_path), RecordFile(tmp_path) as file:
        assert file.keys == {"k1", "k2"}
    assert (tmp_path / "records.jsonl").read_bytes() == lines
    assert not (tmp_path / "records.jsonl.gz").exists()
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress(lines)[:-9])
    with pytest.raises(InputError, match="not a file of records"):
        read_records(tmp_path)


@pytest.mark.parametrize("content", ["hello\n", '{"kind": 1}\n', "[]\n"])
def test_a_foreign_file_is_told(tmp_path, content):
    (tmp_path / "records.jsonl").write_text(content)
    with pytest.raises(InputError, match="not a file of records"):
        read_records(tmp_path)


def test_nothing_is_half_written(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr("study.records.os.fdopen", None)
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_seeds_come_from_names_alone():
    assert derive(0, "draw", "cifar100", 2, 0) == 481412120
    assert derive(0, "a") != derive(0, "b") != derive(1, "b")
    assert identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})
