"""Several studies side by side, cell by cell of their summaries, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from study.aggregate import CLASSIFICATION, METRICS, POINT, summarise
from study.config import InputError
from study.records import read_records
from study.unmasking import PLACE, summarise_attacks
from study.views.tables import Summary

#: A cell's place in a summary: kind, then the values that name it, then the number's name.
Cells = dict[tuple[str, ...], float]


def compare(folders: list[Path], tolerance: float | None) -> int:
    """Print the studies side by side; return 1 if a tolerance is given and a cell is missing or differs by more.

    Raises:
        InputError: fewer than two studies, a folder without records, or a tolerance that is not a number from 0.
    """
    if len(folders) < 2:
        raise InputError(f"{folders[0]}: stands alone: name two or more studies to compare")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"--tolerance {tolerance}: must be 0 or more")
    studies = [_read(folder) for folder in folders]
    keys = sorted(set().union(*studies))
    different = [key for key in keys if _differs([study.get(key) for study in studies], tolerance or 0.0)]
    _print(folders, studies, keys, set(different))
    missing = sum(any(key not in study for study in studies) for key in keys)
    allowed = f" by more than {tolerance:g}" if tolerance else ""
    print(f"{len(keys)} cells: {len(different)} differ{allowed}, {missing} of them not in every study")
    return int(tolerance is not None and bool(different))


def cells(summary: Summary) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a summary that two studies may share, under its name."""
    for row in summary["classification"]:
        name = tuple(f"{row[key]}" for key in CLASSIFICATION)
        for metric in METRICS:
            yield ("classification", *name, metric), row[metric]["mean"]
    for row in summary["reconstruction"]:
        yield ("reconstruction", *(f"{row[key]}" for key in [*POINT, "images", "pair"]), "mse"), row["mean"]
    for row in summary["attacks"]:
        name = tuple(f"{row[key]}" for key in [*PLACE, "attack", "k"])
        yield ("attack", *name, "mse"), row["mse"]["mean"]
        yield ("attack", *name, "top1"), row["top1"]["mean"]
    for row in summary["trials"]:
        if row["status"] == "complete":
            name = tuple(f"{row[key]}" for key in [*POINT, "instance"])
            for metric in ("reconstruction_loss", "held_out_mse"):
                yield ("trial", *name, row["trial"], metric), row[metric]


def _read(folder: Path) -> Cells:
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records of a study: run `study run` on it first")
    return dict(cells(summarise(records) | summarise_attacks(records)))


def _differs(values: list[Any], tolerance: float) -> bool:
    known = [value for value in values if value is not None]
    return len(known) < len(values) or not max(known) - min(known) <= tolerance


def _print(folders: list[Path], studies: list[Cells], keys: list[tuple[str, ...]], different: set[Any]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if Console().is_terminal else 200)
    names = [folder.name for folder in folders]
    heads = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("cell", *heads, ""):
        table.add_column(escape(head))
    for key in keys:
        values = [study.get(key) for study in studies]
        shown = ["missing" if value is None else f"{value:.6g}" for value in values]
        table.add_row(escape(" ".join(key)), *shown, "differs" if key in different else "")
    console.print(table)
