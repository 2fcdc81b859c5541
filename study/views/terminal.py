"""Progress: a live view on a terminal, plain lines elsewhere, JSON lines for programs; tables in the end."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from study.views.report import printed_tables

#: Seconds between plain lines.
INTERVAL = 5.0

#: Trials shown at once.
SHOWN = 12


class Progress:
    """Shows where a study is: its phase, how much of it is done, the time left, running trials, the best so far.

    Everything goes to the error stream but JSON lines, one for each piece of work, which are the only thing on the
    output.
    """

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._json = as_json
        self._console = Console(stderr=True, quiet=quiet or as_json, highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("{task.description:<15}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[last]}"),
            console=self._console,
        )
        self._task: TaskID | None = None
        self._trials: dict[str, dict[str, float]] = {}
        self._name, self._label, self._total, self._done = "", "", 0, 0
        self._work, self._worked = 0.0, 0.0
        self._begin = self._shown = 0.0
        live = self._console.is_terminal and not (quiet or as_json)
        self._live = Live(get_renderable=self._view, console=self._console, refresh_per_second=2) if live else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def phase(self, name: str, total: int, work: float | None = None, pieces: str = "") -> None:
        """Begin a phase of so many pieces; `work` is how much they are, in any unit, where they differ."""
        self._name, self._total, self._done = name, total, 0
        self._label = f"{name}, {pieces}" if pieces else name
        self._work, self._worked = total if work is None else work, 0.0
        self._begin = time.monotonic()
        self._task = self._bar.add_task(self._label, total=max(total, 1), completed=0 if total else 1, left="", last="")
        self._tell(phase=name, done=0, total=total)
        if not self._live:
            self._console.print(f"{self._label}: {total or 'nothing'} to do")

    def trial(self, name: str, metrics: dict[str, float]) -> None:
        """An epoch of a trial is done."""
        self._trials.pop(name, None)
        self._trials[name] = metrics
        self._tell(trial=name, **{key: metrics[key] for key in ("epoch", "reconstruction_loss", "held_out_mse")})

    def advance(self, last: str = "", work: float = 1.0) -> None:
        """One piece of the phase is done."""
        self._done, self._worked = self._done + 1, self._worked + work
        now = time.monotonic()
        left = (now - self._begin) / self._worked * max(0.0, self._work - self._worked)
        self._tell(phase=self._name, done=self._done, total=self._total, seconds_left=round(left, 1), last=last)
        if self._task is not None:
            self._bar.update(self._task, advance=1, left=_span(left), last=escape(last))
        if not self._live and (now - self._shown > INTERVAL or self._done == self._total):
            self._shown = now
            self._console.print(f"{self._label} {self._done}/{self._total}, {_span(left)} left  {last}", markup=False)

    def note(self, text: str) -> None:
        """Say something that must not be missed."""
        self._tell(note=text)
        if self._console.quiet and not self._json:
            print(text, file=sys.stderr)
        self._console.print(text, markup=False)

    def _tell(self, **content: object) -> None:
        if self._json:
            print(json.dumps(content), flush=True)

    def _view(self) -> Group:
        """The bars, the trials that reported last, the best of all, the machine."""
        parts: list[Bar | Table | str] = [self._bar]
        if self._trials and self._name == "trials":
            table = Table("trial", "epoch", "reconstruction", "held-out MSE", box=box.SIMPLE_HEAD)
            for name, metrics in list(self._trials.items())[-SHOWN:]:
                losses = (f"{metrics[key]:.5f}" for key in ("reconstruction_loss", "held_out_mse"))
                table.add_row(escape(name), f"{metrics['epoch']:.0f}", *losses)
            best = min(self._trials, key=lambda name: self._trials[name]["held_out_mse"])
            parts += [table, f"lowest held-out MSE so far  {self._trials[best]['held_out_mse']:.5f}  {escape(best)}"]
        parts.append(f"load here {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        return Group(*parts)


def _span(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def print_end(folder: Path, again: str) -> None:
    """Print the tables of a finished study, where everything lies, and what to try next."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    for title, table in printed_tables(folder):
        shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for column in table.columns:
            shown.add_column(str(column))
        for row in table.itertuples(index=False):
            shown.add_row(*(escape(str(value)) for value in row))
        console.print(shown)
    lines = {
        "report": folder / "report.html",
        "tables": folder / "tables",
        "records": folder / "records.jsonl",
        "look": f"tensorboard --logdir {folder / 'tensorboard'}",
        "next": f"{again}   (more draws: narrower intervals; nothing is measured twice)",
    }
    for name, value in lines.items():
        console.print(f"{name:<8} {value}", markup=False, soft_wrap=True)
