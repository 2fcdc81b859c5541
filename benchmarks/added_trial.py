"""What one more trial costs the driver of a search, at 10, 100 and 1,000 trials: `python -m benchmarks.added_trial`.

A trial that costs nothing: asked for, told, recorded, mirrored in `optuna.db`. Ray is not in it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.timing import write_page
from study.config import StudyConfig
from study.proposals import Mirrors, Proposals
from study.records import Record, RecordFile
from study.search_config import SearchConfig


def measure(sampler: str, sizes: list[int]) -> dict[int, dict[str, float]]:
    """Median seconds of ten additions, at each number of trials."""
    config = StudyConfig(search=SearchConfig(trials=max(sizes) + 10, sampler=sampler))
    found: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name, RecordFile(Path(name)) as records:
        proposals, mirrors = Proposals(config, [], []), Mirrors(config, Path(name))
        steps: list[dict[str, float]] = []
        for number in range(max(sizes) + 10):
            steps.append(_add(proposals, mirrors, records, number))
            if number + 1 - 10 in sizes:
                last = steps[-10:]
                found[number + 1 - 10] = {key: statistics.median(step[key] for step in last) for key in last[0]}
    return found


def _add(proposals: Proposals, mirrors: Mirrors, records: RecordFile, number: int) -> dict[str, float]:
    begin = time.perf_counter()
    asked = proposals.ask()
    assert asked is not None
    spec, point = asked
    proposed = time.perf_counter()
    metrics = {"objective.accuracy": (number * 7 % 100) / 100, "objective.held_out_mse": 1 / (1 + number)}
    proposals.tell(spec.id, "complete", metrics)
    record = Record(
        kind="trial", key=f"trial/{spec.id}", trial=spec.id, gaussian=spec.config.latent.gaussian,
        categorical=spec.config.latent.categorical, batch_size=spec.config.training.batch_size, instance=0,
        what={"status": "complete", "role": "search"}, metrics=metrics, detail={"params": point},
    )  # fmt: skip
    records.append(record)
    recorded = time.perf_counter()
    mirrors.add([record])
    end = time.perf_counter()
    return {"propose": proposed - begin, "record": recorded - proposed, "mirror": end - recorded}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samplers", nargs="+", default=["random", "tpe"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000])
    options = parser.parse_args()
    table = "| sampler | trials recorded | proposed, ms | recorded, ms | into optuna.db, ms |\n|---|---|---|---|---|\n"
    for sampler in options.samplers:
        for size, seconds in measure(sampler, options.sizes).items():
            table += f"| {sampler} | {size:,} | {' | '.join(f'{1000 * s:.1f}' for s in seconds.values())} |\n"
    note = "A trial that costs nothing, Ray not in it. Medians of ten additions.\n"
    print(write_page("added_trial", ["## One more trial\n", note, table]).read_text())
