"""Memory and rate of `study mask` by the number of images: `python -m benchmarks.memory [--images N N]`.

Synthetic images in a compressed archive; each run is a process of its own, whose peak the system tells.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np

from aae.config import AutoencoderConfig
from aae.keys import save_pair
from aae.networks import Autoencoder
from benchmarks.timing import write_page

#: Images written at once.
BLOCK = 10_000


def write_archive(path: Path, count: int) -> None:
    """`images` of (count, 32, 32, 3), a random row each and else black, so that the file stays small."""
    block = np.zeros((BLOCK, 32, 32, 3), dtype=np.uint8)
    block[:, 0] = np.random.default_rng(0).integers(0, 256, block[:, 0].shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, 32, 32, 3)}
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(count // BLOCK):
            file.write(block.tobytes())


def measure(folder: Path, count: int) -> dict[str, float]:
    """Peak resident memory in MiB and images a second of one `study mask`, its start included."""
    archive, out = folder / f"{count}.npz", folder / f"{count}.parquet"
    write_archive(archive, count)
    encoder = str(folder / "encoder.safetensors")
    command = [sys.executable, "-m", "study.cli", "mask", str(archive), "--encoder", encoder, "--out", str(out)]
    begin = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    seconds, size = time.monotonic() - begin, out.stat().st_size
    archive.unlink()
    out.unlink()
    return {"images": count, "peak_mib": usage.ru_maxrss / 1024, "images_a_second": count / seconds, "bytes": size}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[100_000, 1_000_000], help=f"multiples of {BLOCK:,}")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        config = AutoencoderConfig()
        save_pair(Path(name), Autoencoder(config.latent, config.network), config.network)
        rows = [measure(Path(name), count) for count in options.images]
    table = "| images | peak, MiB | images/s | file, bytes |\n|---|---|---|---|\n"
    table += "".join(f"| {' | '.join(f'{value:,.0f}' for value in row.values())} |\n" for row in rows)
    growth = rows[-1]["peak_mib"] / rows[0]["peak_mib"] - 1
    note = f"From the last row to the first the peak differs by {growth:+.1%}; target: 5% at most.\n"
    about = '`study mask` of an archive, its start included; the rate beside the bare forward pass: `run`, "Masking".\n'
    print(write_page("memory", ["## By the number of images\n", about, table, note]).read_text())
