"""Masking many images beside the bare forward pass at its best batch size."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from aae.config import AutoencoderConfig, LatentConfig
from aae.masking import mask
from aae.networks import Autoencoder
from benchmarks.timing import Contender, section, write_page
from study import datasets


def measure() -> str:
    images = datasets.load("photos", Path()).train_images[:4000]
    encoder = Autoencoder(LatentConfig(), AutoencoderConfig().network).encoder.eval()
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255

    def bare(batch: int) -> int:
        with torch.no_grad():
            return sum(len(encoder(part)) for part in x.split(batch))

    sizes = (50, 100, 250, 500, 1000, 2000)
    contenders = [Contender(f"forward pass, batch {size}", lambda s=size: bare(s)) for size in sizes]
    contenders.append(Contender("mask", lambda: len(mask(encoder, images))))
    targets = {("mask", contender.name): 0.9 for contender in contenders[:-1]}
    note = "From uint8 to float32 vectors, beside the encoder alone on floats that lie ready."
    return section("Masking", "images", contenders, targets, note)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(write_page("masking", [measure()]))
