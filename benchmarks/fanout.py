"""The fan-out on one core and on all, what the driver and Ray take of it: `python -m benchmarks.fanout [--draws N]`.

Thirty draws of four classes of digits, masked, by four classifiers: 120 tasks, on a Ray of each round's own. With one
core, all its processes run on that core alone. What tasks took is the sum of their own clocks.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import ROUNDS, Clock, write_page
from study.config import StudyConfig
from study.config_text import from_table
from study.records import read_records
from study.run import run


def measure(cores: int, draws: int) -> dict[str, float]:
    """Wall seconds of the classification, and the seconds of its tasks."""
    os.sched_setaffinity(0, range(cores))
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    from ray.cluster_utils import Cluster

    table = {
        "data": {"autoencoder": "photos", "held_out": 0, "train_images": 500},
        "training": {"recipe": "one_pass", "epochs": 1},
        "tasks": [{"data": "digits", "classes": [4]}],
        "draws": draws, "protocols": ["shared"], "controls": [], "attacks": {"names": []},
        "classifiers": {"names": ["mlp", "random_forest", "random_forest_onehot", "adaboost"]},
    }  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores})
    try:
        with tempfile.TemporaryDirectory() as name, Clock() as clock:
            out = Path(name) / "fanout"
            run(from_table(StudyConfig, table), out, Path(name), cluster.address, clock)
            begin = clock.begun["classification"]
            wall = min(t for t in [*clock.begun.values(), time.monotonic()] if t > begin) - begin
            tasks = [record.seconds for record in read_records(out) if record.kind == "classification"]
    finally:
        cluster.shutdown()
    assert len(tasks) == 4 * draws
    return {"wall": wall, "tasks": sum(tasks)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cores:
        print(json.dumps(measure(options.cores, options.draws)))
        sys.exit()
    counts = (1, os.cpu_count() or 1)
    command = [sys.executable, "-m", "benchmarks.fanout", "--draws", str(options.draws), "--cores"]
    rounds: dict[int, list[dict[str, float]]] = {cores: [] for cores in counts}
    for _ in range(ROUNDS):
        for cores in counts:
            rounds[cores].append(json.loads(subprocess.check_output([*command, str(cores)]).splitlines()[-1]))
            print(cores, rounds[cores][-1], file=sys.stderr, flush=True)
    lines = (
        "| cores | wall, s, median | lowest to highest | tasks' own clocks, s | beside tasks, share of cores x wall |\n"
    )
    lines += "|---|---|---|---|---|\n"
    for cores, rows in rounds.items():
        wall = [row["wall"] for row in rows]
        beside = statistics.median(1 - row["tasks"] / (cores * row["wall"]) for row in rows)
        tasks = statistics.median(row["tasks"] for row in rows)
        span = f"{min(wall):.1f} to {max(wall):.1f}"
        lines += f"| {cores} | {statistics.median(wall):.1f} | {span} | {tasks:.1f} | {beside:.1%} |\n"
    one, all_ = (statistics.median(row["wall"] for row in rounds[cores]) for cores in counts)
    slower = statistics.median(b["tasks"] / a["tasks"] for a, b in zip(*rounds.values(), strict=True))
    note = (
        f"{4 * options.draws} tasks, {ROUNDS} rounds. {counts[1]} cores over one: {one / all_:.2f} (target 1.85); "
        f"side by side the same tasks take {slower:.2f} of their time alone, by their own clocks. "
        f"Target for driver and Ray: under 5%.\n"
    )
    print(write_page("fanout", ["## Fan-out\n", note, lines]).read_text())
