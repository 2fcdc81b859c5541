"""What a search costs beside its training: `python -m benchmarks.search [--trials N] [--epochs N]`.

A real search on Ray, on the photographs that come with scikit-learn; trials differ in their learning rate alone, so
all take as long. Training is what the trials' own clocks say; the rest of cores x wall time is everything else: start
of Ray and of its workers, proposals, records, `optuna.db`, objectives, waiting.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Clock, write_page
from study.config import StudyConfig
from study.config_text import from_table
from study.records import read_records
from study.run import run
from study.trial import read_result


def measure(trials: int, epochs: int, cores: int = 2) -> dict[str, float]:
    """Seconds of the search phase, from the command's start, and of the training in it."""
    table = {
        "data": {"autoencoder": "photos", "held_out": 0},
        "training": {"recipe": "one_pass", "epochs": epochs},
        "tasks": [{"data": "digits", "classes": [4]}],
        "draws": 1, "protocols": ["shared"], "controls": [], "attacks": {"names": []},
        "classifiers": {"names": ["random_forest"]},
        "search": {
            "trials": trials, "classifier": "random_forest", "finalists": 1, "fresh_seeds": 2, "draws": 2,
            "concurrent": cores,
            "space": [{"key": "training.learning_rate", "low": 5e-4, "high": 2e-3, "log": True}],
        },
    }  # fmt: skip
    config = from_table(StudyConfig, table)
    with tempfile.TemporaryDirectory() as name:
        out, clock, begin = Path(name) / "search", Clock(), time.monotonic()
        with clock:
            run(config, out, Path(name), None, clock)
        wall = clock.begun["trials"] - begin
        searched = [r for r in read_records(out) if r.kind == "trial" and r.what["role"] == "search"]
        assert len(searched) == trials
        histories = [read_result(out / "trials" / record.trial)["history"] for record in searched]
    training = sum(epoch["seconds"] for history in histories for epoch in history)
    measuring = sum(epoch.get("measuring_seconds", 0.0) for history in histories for epoch in history)
    return {
        "trials": trials,
        "seconds a trial": training / trials,
        "wall": wall,
        "training": training,
        "measuring objectives": measuring,
        "beside training, share of cores x wall": 1 - training / (cores * wall),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6, help="about ten seconds each on one core")
    options = parser.parse_args()
    rows = "".join(f"| {what} | {value:,.3g} |\n" for what, value in measure(options.trials, options.epochs).items())
    note = "One search on both cores. Target: what is not training takes under 0.1 of cores x wall time.\n"
    print(write_page("search", ["## A search\n", note, "| what | |\n|---|---|\n" + rows]).read_text())
