"""Time and memory of the driver with many trials and records: `python -m benchmarks.load [--trials N] [--draws N]`.

A real study on Ray in which nothing takes long: autoencoders of a few numbers that see 64 images once, forests of one
tree. What is left is what the study itself costs. Then its report alone, and the same command again, which finds
nothing to do. Each is a process of its own, whose peak the system tells; Ray's own processes are not in it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.timing import write_page
from study.records import read_records

STUDY = """
title = "Load"
draws = {draws}
protocols = ["shared"]
controls = []
data = {{autoencoder = "photos", held_out = 0, train_images = 64}}
training = {{epochs = 1, adversarial_weight = 0.0, whiten = false}}
network = {{widths = [2, 2, 2], discriminator_widths = [2]}}
latents = [{latents}]
tasks = [{{data = "digits", classes = [2]}}]
classifiers = {{names = ["random_forest"], random_forest = {{estimators = 1}}}}
attacks = {{names = []}}
"""


#: Nodes, trials of each at once, and trials of the study that is asked about.
NODES, SHARES, MANY = 100, 4, 10_000

#: Memory of the head in cluster.yaml, MiB.
HEAD = 16 * 1024

COMMANDS = RUN, REPORT, AGAIN = "study run", "study report", "study run, again"


@dataclass(frozen=True)
class Row:
    """What one command took; `cpu` is the driver's own time, without Ray's processes."""

    trials: int
    draws: int
    records: int
    command: str
    seconds: float
    cpu: float
    peak: float
    """Of the driver's memory, MiB."""


def measure(trials: int, draws: int) -> list[Row]:
    """A study of so many trials and draws, its report, and the study again."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        toml, out = Path(name) / "load.toml", str(Path(name) / "load")
        latents = ", ".join(f"{{gaussian = {number}, categorical = 0}}" for number in range(1, trials + 1))
        toml.write_text(STUDY.format(draws=draws, latents=latents))
        run = ["run", str(toml), "--out", out, "--quiet"]
        for what, command in zip(COMMANDS, (run, ["report", out], run), strict=True):
            begin = time.monotonic()
            process = subprocess.Popen([sys.executable, "-m", "study.cli", *command], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, what
            seconds, cpu = time.monotonic() - begin, usage.ru_utime + usage.ru_stime
            rows.append(Row(trials, draws, len(read_records(Path(out))), what, seconds, cpu, usage.ru_maxrss / 1024))
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: list[Row]) -> str:
    columns = "trials", "draws", "records", "command", "s", "s of the driver", "peak of the driver, MiB"
    lines = [
        (
            f"{r.trials:,}",
            f"{r.draws:,}",
            f"{r.records:,}",
            r.command,
            f"{r.seconds:.0f}",
            f"{r.cpu:.0f}",
            f"{r.peak:,.0f}",
        )
        for r in rows
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in (columns, ["---"] * len(columns), *lines))


def growth(rows: list[Row]) -> str:
    """The line through all numbers of draws, and how far from it the measurements lie."""
    told = []
    for command in COMMANDS:
        mine = [r for r in rows if r.command == command]
        records, seconds = [r.records for r in mine], np.array([r.seconds for r in mine])
        slope, start = np.polyfit(records, seconds, 1)
        off = np.abs(np.polyval((slope, start), records) / seconds - 1).max()
        told.append(
            f"- {command}: {start:.0f} s and {1000 * slope:.1f} ms a record; no measurement is further than {off:.0%} "
            f"from that line. Peak {mine[0].peak:,.0f} to {mine[-1].peak:,.0f} MiB.\n"
        )
    return "## By the number of draws\n\n" + "".join(told)


def limits(rows: list[Row]) -> str:
    """What breaks first, by the line through the two largest numbers of trials."""
    fewer, most = sorted({r.trials for r in rows})[-2:]
    ends = {c: [next(r for r in rows if (r.trials, r.command) == (t, c)) for t in (fewer, most)] for c in COMMANDS}

    def at(command: str, name: str, trials: float) -> float:
        low, high = (getattr(end, name) for end in ends[command])
        return float(low + (high - low) / (most - fewer) * (trials - fewer))

    def full(command: str) -> float:
        each = max(at(command, "peak", 1) - at(command, "peak", 0), 1e-3)
        return fewer + (HEAD - at(command, "peak", fewer)) / each

    each = at(RUN, "cpu", 1) - at(RUN, "cpu", 0)
    records = MANY * max(r.records for r in rows) // most
    told = [
        f"- {command}, {MANY:,} trials: {at(command, 'peak', MANY) / 1024:.1f} GiB, "
        f"{at(command, 'seconds', MANY) / 60:.0f} minutes on this machine. The {HEAD // 1024} GiB of the head in "
        f"`cluster.yaml` are full at {round(full(command), -2):,.0f} trials.\n"
        for command in COMMANDS
    ]
    first = min(COMMANDS, key=full)
    return (
        f"## What breaks first at {NODES} nodes and {MANY:,} trials\n\n"
        f"By the line through {fewer:,} and {most:,} trials, so beyond them a forecast, for {records:,} records:\n\n"
        f"{''.join(told)}"
        f"- A trial with its records takes {1000 * each:.0f} ms of the driver, which works on one core: it keeps "
        f"{NODES} nodes of {SHARES} trials each busy while a trial and its records take {NODES * SHARES * each:.0f} s "
        f"or more. Below that the driver is what breaks first; above it, the memory of `{first}`, at "
        f"{round(full(first), -2):,.0f} trials.\n"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--draws", type=int, nargs="+", default=[100])
    options = parser.parse_args()
    measured = [row for t in options.trials for d in options.draws for row in measure(t, d)]
    page = ["## Load\n", table(measured)]
    page += [limits(measured)] if len(options.trials) > 1 and len(options.draws) == 1 else []
    page += [growth(measured)] if len(options.draws) > 1 and len(options.trials) == 1 else []
    name = "growth" if len(options.draws) > 1 else "load"
    print(write_page(name, page, shlex.join(["python", "-m", "benchmarks.load", *sys.argv[1:]])).read_text())
