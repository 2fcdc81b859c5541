"""Time and memory of the attacks in closed form on CIFAR-100: `python -m benchmarks.attacks --data-dir DIR`.

Rungs 1, 2 (closed forms), 5 and 6 on all 60,000 masked forms of the first published encoder, one after the other in one
process, with as many threads as cores; each includes finding the victims again. The trained attacks state their time in
every record.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

from aae import load_key, mask
from attacks import WITHOUT_PAIRS
from benchmarks.timing import FOLDER, write_page
from study import datasets
from study.attack import AttackJob, Scene, attack, fit_recogniser
from study.config_text import read_config
from study.evaluate import Source
from study.seeds import derive

#: The trained ones, and those whose encoder is asked.
TRAINED = ("inversion", "stitch_mlp", "oracle", "weights")


def measure(data_dir: Path) -> tuple[list[str], float]:
    """Rows of the table, and the seconds of all."""
    config = read_config("paper", [])
    first, other = sorted((FOLDER.parent / "paper" / "trials").glob("g384-c20-b16-i[01]-*"))[:2]
    encoder, decoder, *own = (
        load_key(folder / f"{part}.safetensors").module for folder in (first, other) for part in ("encoder", "decoder")
    )
    rows, begin = [], time.perf_counter()

    def row(what: str, pairs: int, since: float, error: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append(f"| {what} | {pairs or ''} | {time.perf_counter() - since:.1f} | {peak:,.0f} | {error} |\n")
        print(rows[-1], end="", flush=True)

    data = datasets.load("cifar100", data_dir)
    parts = datasets.attack_parts(data, config.attacks.victims, config.seed)
    recogniser = fit_recogniser(data.images, data.labels, parts, config.classifiers, config.seed)
    masked = mask(encoder, data.images)
    row("reading, masking, a classifier of clear images", 0, begin, "")
    scene = Scene(
        images=data.images, labels=data.labels, masked=masked, parts=parts, encoder=encoder, decoder=decoder,
        own=(own[0], own[1]), recogniser=recogniser,
    )  # fmt: skip
    source = Source(trial=first.name, gaussian=384, categorical=20, batch_size=16, instance=0)
    names = [name for name in config.attacks.names if name not in TRAINED]
    ladder = [("other_decoder", 0), ("known_plaintexts", 0)]
    ladder += [(n, k) for n in names for k in ((0,) if n in WITHOUT_PAIRS else config.attacks.pairs)]
    for name, k in ladder:
        since, seed = time.perf_counter(), derive(config.seed, "attack", "cifar100", name, k, 0)
        job = AttackJob(
            source=source, dataset="cifar100", attack=name, k=k, own=other.name, seed=seed,
            pairs_seed=derive(config.seed, "attack pairs", "cifar100", 0),
        )  # fmt: skip
        record, _ = attack(job, scene, config.attacks, 0)
        row(name, k, since, f"{record.metrics['mse']:.4f}")
    return rows, time.perf_counter() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="where cifar100.npz lies")
    found, seconds = measure(parser.parse_args().data_dir)
    head = "| attack | pairs | s | peak of the process, MiB | MSE |\n|---|---|---|---|---|\n"
    note = f"{seconds:.0f} s in all, one draw. Target: 300 s and 4 GB (3,815 MiB).\n"
    sections = ["## Attacks in closed form\n", note, head + "".join(found)]
    page = write_page("attacks", sections, "python -m benchmarks.attacks --data-dir DIR")
    print(page.read_text())
