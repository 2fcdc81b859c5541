"""Time and memory by the size of the images: `python -m benchmarks.sizes`.

One epoch over as many crops of photographs at 32, 64 and 128 pixels, latents of 384 + 20, batches of 16; then the same
images are masked. Each size is a process of its own, whose peak the system tells.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from aae.config import AutoencoderConfig, NetworkConfig
from aae.masking import mask
from aae.training import TrainingState, train_epochs
from benchmarks.timing import write_page
from study import datasets

SIZES = (32, 64, 128)

#: Images of an epoch.
IMAGES = 4000


def measure(size: int) -> str:
    """One row of the table, measured in this process."""
    photos = datasets.load("photos", Path(), size=size)
    config = AutoencoderConfig(network=NetworkConfig(image_size=size))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    state = TrainingState(config, seed=0, device=device)
    begin = time.perf_counter()
    metrics = next(train_epochs(state, photos.train_images[:IMAGES], photos.test_images))
    epoch = time.perf_counter() - begin
    begin = time.perf_counter()
    count = len(mask(state.nets.encoder, photos.train_images[:IMAGES]))
    masking = time.perf_counter() - begin
    parameters = sum(p.numel() for p in state.nets.encoder.parameters())
    memory = (
        torch.cuda.max_memory_allocated()
        if device == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    return (
        f"| {size} | {', '.join(map(str, config.network.widths))} | {parameters:,} | {epoch:.1f} "
        f"| {IMAGES / metrics['seconds']:,.0f} | {count / masking:,.0f} | {memory / 2**20:,.0f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.size:
        print(measure(options.size))
    else:
        command = [sys.executable, "-m", "benchmarks.sizes", "--size"]
        rows = [subprocess.check_output([*command, str(size)], text=True, env=os.environ) for size in SIZES]
        head = (
            "| pixels a side | convolutions | encoder's parameters | epoch, s | trained, images/s | masked, images/s "
            "| peak, MiB |\n|---|---|---|---|---|---|---|\n"
        )
        note = (
            f"An epoch is {IMAGES:,} images and its diagnostics; the peak is the whole process's, on a GPU the GPU's.\n"
        )
        page = write_page("sizes", ["## By size\n", note, head + "".join(rows)])
        print(page.read_text())
