"""Several studies side by side, cell by cell of their summaries, and whether they agree."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from scipy import stats

from attacks import LINEAR
from study.aggregate import CLASSIFICATION, LEVEL, METRICS, POINT, summarise
from study.config import InputError
from study.records import Record, frame, read_records
from study.unmasking import PLACE, attack_table, summarise_attacks
from study.views.tables import Summary

#: A cell's place in a summary: kind, then the values that name it, then the number's name.
Cell = tuple[str, ...]
Cells = dict[Cell, float]


def compare(folders: list[Path], tolerance: float | None) -> int:
    """Print the studies side by side; return 1 if a tolerance is given and a cell is missing or differs by more.

    A tolerance above zero is one for means: a cell whose means differ by more than the tolerance, but not by more than
    the tolerance and `chance` together, is named and does not count.

    Raises:
        InputError: fewer than two studies, a folder without records, or a tolerance that is not a number from 0.
    """
    if len(folders) < 2:
        raise InputError(f"{folders[0]}: stands alone: name two or more studies to compare")
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"--tolerance {tolerance}: must be 0 or more")
    records = [_read(folder) for folder in folders]
    studies = [dict(cells(summarise(study) | summarise_attacks(study))) for study in records]
    keys, allowed = sorted(set().union(*studies)), tolerance or 0.0
    repeated = [_repeated(study) for study in records] if tolerance else []
    margins = {pair: chance(repeated[pair[0]], repeated[pair[1]]) for pair in combinations(range(len(repeated)), 2)}
    marks = {key: _mark(key, studies, allowed, margins) for key in keys}
    _print(folders, studies, marks)
    found = list(marks.values())
    beyond, missing = found.count("differs"), sum(any(key not in study for study in studies) for key in keys)
    more = f" by more than {allowed:g} and chance, {sum(map(bool, found)) - beyond} by more than {allowed:g} alone"
    print(f"{len(keys)} cells: {beyond} differ{more if allowed else ''}, {missing} not in every study")
    return int(tolerance is not None and "differs" in found)


def _mark(key: Cell, studies: list[Cells], allowed: float, margins: dict[tuple[int, int], Cells]) -> str:
    """What is said of a cell: nothing, that it differs, or that chance explains it, and how large that is."""
    values = [study.get(key) for study in studies]
    if not _differs(values, allowed):
        return ""
    pairs = {pair: margin.get(key, 0.0) for pair, margin in margins.items()}
    if not pairs or any(_differs([values[i], values[j]], allowed + margin) for (i, j), margin in pairs.items()):
        return "differs"
    return f"by chance ({max(pairs.values()):.2g})"


def chance(one: pd.Series[float], other: pd.Series[float]) -> Cells:
    """Half the interval of the difference of two means whose studies repeat one another behind the same encoders.

    Rounding differs from processor to processor, and training makes much of it: one network, fitted again, scores
    otherwise, by what is chance. How far apart two fits fall is the deviation of all cells that differ in configuration
    and representation alone, each about its own mean: a shift of all does not excuse itself, but a few fits that went
    wrong widen it, which is why the margin is shown. Cells that are not of the same records in both studies have none,
    nor where no cell like them has several.

    Args:
        one, other: what `_repeated` gives of each study.
    """
    margin: Cells = {}
    for _, alike in (one - other).groupby(level="alike"):
        by_cell = alike.groupby(level="cell")
        n = by_cell.count()
        freedom = int((n - 1)[n > 1].sum())
        if freedom:
            variance = float(((alike - by_cell.transform("mean")) ** 2).sum()) / freedom
            half = stats.t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(variance / n)
            margin |= half[n == by_cell.size()].to_dict()
    return margin


def _repeated(records: list[Record]) -> pd.Series[float]:
    """Every number that a mean of the summary is of, by its cell, by what cells are alike in, and by its record."""
    tables = (
        ("classification", frame(records, "classification"), CLASSIFICATION, METRICS),
        ("attack", attack_table(records), [*PLACE, "attack", "k"], ("mse", "top1")),
    )
    rows = []
    for kind, table, names, metrics in tables:
        same = [name for name in names if name not in PLACE or name == "dataset"]
        for record in table.to_dict("records"):
            for metric in metrics:
                cell, alike = ((kind, *(f"{record[name]}" for name in some), metric) for some in (names, same))
                if kind == "attack" and record["representation"] in LINEAR:  # nothing trained: it hardly varies
                    alike = (*alike, "control")
                rows.append((cell, alike, record["key"], record[metric]))
    table = pd.DataFrame(rows, columns=["cell", "alike", "key", "value"])
    return table.set_index(["cell", "alike", "key"])["value"].astype(float)


def cells(summary: Summary) -> Iterator[tuple[Cell, float]]:
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


def _read(folder: Path) -> list[Record]:
    records = read_records(folder)
    if not records:
        raise InputError(f"{folder}: holds no records of a study: run `study run` on it first")
    return records


def _differs(values: list[Any], tolerance: float) -> bool:
    known = [value for value in values if value is not None]
    return len(known) < len(values) or not max(known) - min(known) <= tolerance


def _print(folders: list[Path], studies: list[Cells], marks: dict[Cell, str]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if Console().is_terminal else 200)
    names = [folder.name for folder in folders]
    heads = names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("cell", *heads, ""):
        table.add_column(escape(head))
    for key, mark in marks.items():
        values = [study.get(key) for study in studies]
        shown = ["missing" if value is None else f"{value:.6g}" for value in values]
        table.add_row(escape(" ".join(key)), *shown, mark)
    console.print(table)
