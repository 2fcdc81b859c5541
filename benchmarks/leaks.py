"""What leaked pairs restore: `python -m benchmarks.leaks DATA-DIR DIR ... [--pairs K ...] [--attacks NAME ...]`.

Each DIR holds what `study train` left. Pairs are images of the training part of CIFAR-100, the same for every DIR; the
victims are 2,000 images of its test part. Prints the mean squared error on the victims. `--without-flow` attacks each
encoder a second time, its flow taken off, and off its decoder.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch

import attacks
from aae.keys import load_key
from aae.masking import mask, unmask, without_flow
from attacks import AttacksConfig, Knowledge, metrics
from study import datasets


def main(data_dir: Path, folders: list[Path], counts: list[int], names: list[str], *, straight_too: bool) -> None:
    """Print one row for encoder and attack."""
    data, config = datasets.load("cifar100", data_dir), AttacksConfig()
    order = attacks.draw_pairs(len(data.train_images), max(counts), 0)
    victims = data.test_images[: config.victims]
    truth = victims.astype(np.float32) / np.float32(255)
    print("| encoder | attack | " + " | ".join(f"{k:,} pairs" for k in counts) + " | key | seconds |")
    print("|" + "---|" * (len(counts) + 4))
    for folder, flow in itertools.product(folders, (True, False) if straight_too else (True,)):
        encoder, decoder = (load_key(folder / f"{part}.safetensors", part).module for part in ("encoder", "decoder"))
        if not flow:
            encoder, decoder = without_flow(encoder), without_flow(decoder)
        masked, leaked = mask(encoder, victims), mask(encoder, data.train_images[order])
        key = metrics.mse(truth, unmask(decoder, masked)).mean()
        for name in names:
            begin, cells = time.perf_counter(), []
            for k in counts:
                knowledge = Knowledge(victims=masked, images=data.train_images[order[:k]], masked=leaked[:k])
                restored = attacks.restore(name, knowledge, config, seed=0)
                cells.append(f"{metrics.mse(truth, restored).mean():.4f}")
            taken = time.perf_counter() - begin
            print(
                f"| {folder.name}{'' if flow else ', no flow'} | {name} | "
                + " | ".join(cells)
                + f" | {key:.4f} | {taken:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path, metavar="DATA-DIR", help="where CIFAR-100 lies")
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="what `study train` left")
    parser.add_argument("--pairs", type=int, nargs="+", default=[100, 300, 1000, 3000, 10_000], metavar="K")
    parser.add_argument("--attacks", nargs="+", default=["ridge", "inversion"], metavar="NAME")
    parser.add_argument("--without-flow", action="store_true")
    options = parser.parse_args()
    main(options.data_dir, options.folders, options.pairs, options.attacks, straight_too=options.without_flow)
