"""Records: everything measured is one line, one set of numbers, with what produced it.

`records.jsonl` is written by the driver alone, a line at a time, and is the truth of a study together with its
checkpoints. A line that a crash cut short is dropped when the file is opened again.
"""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import re
import secrets
import socket
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from study.config import InputError
from study.shapes import UNREADABLE_TEXT, amiss

HOST = socket.gethostname()


@dataclass(frozen=True, kw_only=True)
class Record:
    """One measurement."""

    kind: str
    """`trial`, `reconstruction`, `classification` or `attack`."""
    key: str
    """Its identity within the study: what is there is never measured again."""
    trial: str
    """The autoencoder it belongs to."""
    gaussian: int
    categorical: int
    batch_size: int
    instance: int
    variant: str = ""
    """What else sets its configuration apart from the study's, in words."""
    what: dict[str, Any] = field(default_factory=dict)
    """What was measured: data set, draw, classifier, protocol, pair."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The numbers."""
    detail: dict[str, Any] = field(default_factory=dict)
    """What a picture needs: confusion, counts of scores, curves, reasons."""
    seed: int = 0
    seconds: float = 0.0
    host: str = HOST


#: What views take from a record beside, by its kind.
SHAPES: dict[str, Any] = {
    "trial": {"what": {"status": str, "recipe": str}},
    "trial complete": {
        "metrics": dict.fromkeys(
            (
                "reconstruction_loss",
                "held_out_mse",
                "mean_largest",
                "deviation_smallest",
                "deviation_largest",
                "effective_rank",
                "effective_rank_sample",
                "largest_correlation",
                "largest_correlation_sample",
                "marginal_distance",
                "marginal_distance_sample",
                "fresh_gaussian",
            ),
            int | float,
        )
    },
    "reconstruction": {
        "what": {"decoder": str, "images": str, "pair": str},
        "metrics": dict.fromkeys(("mse", "sigma_images", "sigma_batches", "n"), float),
    },
    "classification": {
        "what": {
            **dict.fromkeys(("representation", "dataset", "protocol", "classifier"), str),
            **dict.fromkeys(("classes", "draw"), int),
            "class_names": [str],
        },
        "metrics": dict.fromkeys(("accuracy", "precision", "recall"), float),
        "detail": {"confusion": [[int]]},
    },
    "attack": {
        "what": {**dict.fromkeys(("attack", "dataset", "representation"), str), "k": int, "draw": int},
        "metrics": dict.fromkeys(
            ("mse", "sigma_images", "psnr", "ssim", "top1", "top5", "mrr", "recognised", "n"), float
        ),
        "detail": {"target": float, "pool": int},
    },
}

#: What every record has.
SHAPE = {
    **dict.fromkeys(("kind", "key", "trial", "variant", "host"), str),
    **dict.fromkeys(("gaussian", "categorical", "batch_size", "instance", "seed"), int),
    **dict.fromkeys(("what", "metrics", "detail"), dict),
    "seconds": float,
}

#: What a study that is published may hold in place of its records; who goes on with it unpacks them.
PACKED = "records.jsonl.gz"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a study's folder and hold it: whatever is in it is one driver's alone to change."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}): choose another --out") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another study is running there: wait for it or choose another --out") from None
        except OSError as error:
            raise InputError(
                f"{folder}: lies where files cannot be locked ({error.strerror}), so that two studies could write "
                f"there: choose another --out, and storage.url for what machines share"
            ) from None
        if (folder / PACKED).exists():
            write_whole(folder / "records.jsonl", _content(folder))  # at least as long as what is there
            (folder / PACKED).unlink()
        yield


class RecordFile:
    """The open records of one study, whose folder is there and held; `check` raises where another has taken over."""

    def __init__(self, folder: Path, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self.path = folder / "records.jsonl"
        _drop_torn_line(self.path)
        self.records = read_records(folder)
        self.keys = {record.key for record in self.records}
        self._file = self.path.open("a", encoding="utf-8")

    def append(self, record: Record) -> None:
        """Keep a record: on disk when this returns."""
        self._check()
        assert record.key not in self.keys, record.key
        self._file.write(json.dumps(asdict(record)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)
        self.keys.add(record.key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_records(folder: Path) -> list[Record]:
    """All records of a study's folder; `InputError` for a file that is not ours, or a record that no view can show."""
    path, records = folder / "records.jsonl", []
    try:
        lines = _content(folder).decode().splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):
                records.append(Record(**json.loads(line)))
    except (TypeError, *UNREADABLE_TEXT) as error:
        where = f"line {len(records) + 1}, " if records else ""
        raise InputError(f"{path}: is not a file of records ({where}{error})") from None
    lines_of: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        if odd := _odd(record):
            raise InputError(f"{path}: line {number}: {odd}: remove the line, and `study run` measures it again")
        if (first := lines_of.setdefault(record.key, number)) < number:
            raise InputError(f"{path}: line {number}: {record.key!r} stands in line {first} too: remove one of them")
    return records


def _odd(record: Record) -> str:
    told, kind = vars(record), record.kind
    if odd := amiss(told, SHAPE) or amiss(told, SHAPES.get(kind, {})):
        return odd
    return amiss(told, SHAPES.get(f"{kind} {record.what.get('status')}", {}))


def _content(folder: Path) -> bytes:
    """All lines of a study, empty where there are none.

    Where packed records came back beside those that went on from them, as by `git checkout`, the longer ones count.
    """
    path, packed = folder / "records.jsonl", folder / PACKED
    plain = path.read_bytes() if path.exists() else b""
    if not packed.exists():
        return plain
    try:
        unpacked = gzip.decompress(packed.read_bytes())
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{packed}: is not a file of records ({error})") from None
    shorter, longer = sorted((plain, unpacked), key=len)
    if not longer.startswith(shorter):
        raise InputError(
            f"{folder}: holds {PACKED} and records.jsonl, of which neither goes on from the other: remove one"
        )
    return longer


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def frame(records: list[Record], kind: str) -> pd.DataFrame:
    """The records of one kind as a table, a column for every key of `what` and `metrics`."""
    rows = [
        {
            "key": r.key,
            "trial": r.trial,
            "gaussian": r.gaussian,
            "categorical": r.categorical,
            "batch_size": r.batch_size,
            "variant": r.variant,
            "instance": r.instance,
            **r.what,
            **r.metrics,
            "seconds": r.seconds,
        }
        for r in records
        if r.kind == kind
    ]
    return pd.DataFrame(rows)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file in one step: beside its place, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        with beside.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """A path beside `out` to write a long file to: it takes its place when all went well, and is gone where not.

    Raises:
        InputError: `out` is there already, or cannot be written.
    """
    if out.exists():
        raise InputError(f"{out}: is already there: choose another --out")
    beside = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}): choose another --out") from None
    finally:
        if beside.exists():  # which, unlike unlinking, may be asked below what is no folder
            beside.unlink()


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write a compressed `.npz` in one step."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_whole(path, content.getvalue())


def file_name(name: str) -> str:
    """The name of a data set as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", name)
