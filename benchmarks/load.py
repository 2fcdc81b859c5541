"""Time and memory of the driver with many trials and records: `python -m benchmarks.load [--trials N] [--draws N]`.

A real study on Ray in which nothing takes long: autoencoders of a few numbers that see 64 images once, forests of one
tree. What is left is what the study itself costs. Then its report alone, and the same command again, which finds
nothing to do. Each is a process of its own, whose peak the system tells; Ray's own processes are not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def measure(trials: int, draws: int) -> str:
    """The rows of the table."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        toml, out = Path(name) / "load.toml", str(Path(name) / "load")
        latents = ", ".join(f"{{gaussian = {number}, categorical = 0}}" for number in range(1, trials + 1))
        toml.write_text(STUDY.format(draws=draws, latents=latents))
        run = ["run", str(toml), "--out", out, "--quiet"]
        for what, command in {"study run": run, "study report": ["report", out], "study run, again": run}.items():
            begin = time.monotonic()
            process = subprocess.Popen([sys.executable, "-m", "study.cli", *command], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0, what
            seconds, count = time.monotonic() - begin, len(read_records(Path(out)))
            row = {"what": what, "seconds": round(seconds, 1), "peak_mib": round(usage.ru_maxrss / 1024)}
            print(json.dumps({"trials": trials, "records": count, **row}), file=sys.stderr, flush=True)
            rows.append(f"| {trials:,} | {count:,} | {what} | {seconds:.0f} | {usage.ru_maxrss / 1024:,.0f} |\n")
    return "".join(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--draws", type=int, nargs="+", default=[100])
    options = parser.parse_args()
    head = "| trials | records | command | s | peak of the driver, MiB |\n|---|---|---|---|---|\n"
    table = head + "".join(measure(t, d) for t in options.trials for d in options.draws)
    print(write_page("load", ["## Load\n", table]).read_text())
