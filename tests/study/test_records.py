"""One line each, never torn, one driver."""

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from study.config import InputError
from study.records import SHAPES, Record, RecordFile, frame, locked, read_records, write_whole
from study.seeds import derive, identity


def record(n):
    return Record(
        kind="sample",
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
    table = frame(read_records(tmp_path), "sample")
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
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(InputError, match="not a file of records"):
        read_records(tmp_path)
    with pytest.raises(InputError, match="not a file of records"), locked(tmp_path):
        pass


def test_packed_records_that_come_back_undo_nothing(tmp_path):
    """As where `git checkout` restores them beside what was measured since."""
    with RecordFile(tmp_path) as file:
        file.append(record(1))
        packed = gzip.compress(file.path.read_bytes())
        file.append(record(2))
    (tmp_path / "records.jsonl.gz").write_bytes(packed)
    assert [r.key for r in read_records(tmp_path)] == ["k1", "k2"]
    with locked(tmp_path), RecordFile(tmp_path) as file:
        assert file.keys == {"k1", "k2"}
    assert not (tmp_path / "records.jsonl.gz").exists()
    other = gzip.compress(gzip.decompress(packed).replace(b'"k1"', b'"k3"'))
    (tmp_path / "records.jsonl.gz").write_bytes(other)
    with (
        pytest.raises(InputError, match=r"holds records\.jsonl\.gz and records\.jsonl, .* remove one"),
        locked(tmp_path),
    ):
        pass
    assert (tmp_path / "records.jsonl.gz").read_bytes() == other


@pytest.mark.parametrize("content", ["hello\n", '{"kind": 1}\n', "[]\n"])
def test_a_foreign_file_is_told(tmp_path, content):
    (tmp_path / "records.jsonl").write_text(content)
    with pytest.raises(InputError, match="not a file of records"):
        read_records(tmp_path)


def test_records_of_two_studies_in_one_file_are_told(tmp_path):
    with RecordFile(tmp_path) as file:
        for n in (1, 2, 3):
            file.append(record(n))
    path = tmp_path / "records.jsonl"
    path.write_text(path.read_text() + path.read_text())
    with pytest.raises(InputError, match=r"line 4: 'k1' stands in line 1 too: remove one of them"):
        read_records(tmp_path)


def test_nothing_is_half_written(tmp_path, monkeypatch):
    write_whole(tmp_path / "a", "old")
    monkeypatch.setattr("study.records.os.fsync", None)
    with pytest.raises(TypeError):
        write_whole(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_seeds_come_from_names_alone():
    assert derive(0, "draw", "cifar100", 2, 0) == 481412120
    assert derive(0, "a") != derive(0, "b") != derive(1, "b")
    assert identity({"b": 1, "a": 2}) == identity({"a": 2, "b": 1})


def measured(kind):
    what = {"attack": "ridge", "dataset": "x", "representation": "masked", "k": 10, "draw": 0, "images": "V"}
    what |= {"decoder": "t", "pair": "matched", "status": "complete", "recipe": "paper", "classes": 2}
    what |= {"protocol": "paper", "classifier": "mlp", "class_names": ["a", "b"]}
    names = "mse sigma_images sigma_batches n accuracy precision recall psnr ssim top1 top5 mrr recognised"
    numbers = dict.fromkeys([*names.split(), *SHAPES["trial complete"]["metrics"]], 0.5)
    detail = {"target": 0.02, "pool": 10, "confusion": [[1, 0], [0, 1]]}
    return dataclasses.replace(record(1), kind=kind, what=what, metrics=numbers, detail=detail)


@pytest.mark.parametrize("kind", ["trial", "reconstruction", "classification", "attack"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metrics": {}}, "metrics.* is missing"),
        ({"metrics": []}, "metrics = .*: must be a table"),
        ({"metrics": dict.fromkeys(measured("trial").metrics, "0.5")}, "metrics.* = '0.5': must be a"),
        ({"what": {}}, "what.* is missing"),
        ({"seed": "1"}, "seed = '1': must be a whole number"),
        ({"seconds": float("inf")}, "seconds = inf: must be a finite number"),
    ],
)
def test_a_record_that_no_view_can_show_is_told(tmp_path, kind, change, told):
    path, good = tmp_path / "records.jsonl", measured(kind)
    path.write_text(json.dumps(dataclasses.asdict(good)) + "\n")
    assert read_records(tmp_path) == [good]
    with path.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(good) | change) + "\n")
    with pytest.raises(InputError, match=rf"records.jsonl: line 2: {told}.*: remove the line"):
        read_records(tmp_path)


@pytest.mark.parametrize("kind", ["reconstruction", "classification", "attack"])
def test_a_number_that_is_none_is_told(tmp_path, kind):
    nothing = dict.fromkeys(measured(kind).metrics, float("nan"))
    odd = dataclasses.replace(measured(kind), metrics=nothing)
    (tmp_path / "records.jsonl").write_text(json.dumps(dataclasses.asdict(odd)) + "\n")
    with pytest.raises(InputError, match=r"metrics.* = nan: must be a finite number"):
        read_records(tmp_path)


@pytest.mark.parametrize("study", ["paper", "contrastive", "search", "length"])
def test_the_published_records_are_whole(study):
    assert read_records(Path(__file__).parents[2] / "results" / study)
