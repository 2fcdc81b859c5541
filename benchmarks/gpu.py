"""What a GPU is for: `python -m benchmarks.gpu`, on a machine that has one.

Captured training steps beside eager ones, neural networks in one program beside one after another, and four trials that
share the card beside four that follow each other. Shares need no Ray: the processes are those that Ray would start.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

import engine
from aae.config import AutoencoderConfig, TrainingConfig
from aae.training import LOSSES, TrainingState, _take, one_pass_step, train_epochs, two_phase_step
from benchmarks import autoencoder, classifier
from benchmarks.timing import Contender, section, write_page
from classifiers import MLP
from classifiers.together import fit_together
from study import datasets

BATCH = autoencoder.BATCH

#: Steps of a captured run; eager ones take fewer, for they need longer.
STEPS, EAGER_STEPS = 3000, 100

#: Networks that are fitted together, and vectors of each.
NETWORKS, VECTORS = 300, 1000


def training() -> str:
    images = datasets.load("photos", Path()).train_images
    plain = autoencoder.PlainTrainer(autoencoder.in_memory(images, "cuda"), "cuda")
    loaded = autoencoder.PlainTrainer(autoencoder.loaded(images), "cuda")
    contenders = [
        Contender("DataLoader, eager, three Adams", loaded.run),
        Contender("data on the GPU, eager, three Adams", plain.run),
        ours("two_phase", images, captured=False),
        ours("two_phase", images),
        ours("one_pass", images),
    ]
    eager, two = "data on the GPU, eager, three Adams", "ours, two_phase"
    targets = {(two, eager): 10.0, ("ours, one_pass", two): 1.5}
    note = (
        f"Two-phase training, 384 + 20 latent, batch {BATCH}, the same layers, images a second. Ours: an epoch of "
        f"{STEPS:,} steps with its capture."
    )
    return section("Autoencoder, one training step", "images", contenders, targets, note, "cuda")


def ours(recipe: str, images, *, captured: bool = True) -> Contender:
    config = AutoencoderConfig(training=TrainingConfig(recipe=recipe, batch_size=BATCH))
    state = TrainingState(config, seed=0, device="cuda")
    step = one_pass_step if recipe == "one_pass" else two_phase_step
    pixels, generator = torch.from_numpy(images).cuda(), torch.Generator("cuda").manual_seed(0)
    total = torch.zeros(len(LOSSES), device="cuda")
    state.nets.train()

    def run(steps: int) -> int:
        index = torch.randint(len(pixels), (steps, BATCH), device="cuda")
        rates = torch.full((steps,), 1e-3, dtype=torch.float64, device="cuda")
        take = partial(_take, step, state, pixels, generator, total)
        with engine.repeatable(state.device):
            if captured:
                engine.repeat(take, index, rates, generator=generator)
            else:
                for row in zip(index, rates, strict=True):
                    take(*row)
        torch.cuda.synchronize()
        return steps * BATCH

    with FlopCounterMode(display=False) as counter:
        run(1)
    name = f"ours, {recipe}" + ("" if captured else ", not captured")
    return Contender(name, partial(run, STEPS if captured else EAGER_STEPS), counter.get_total_flops() / BATCH)


def networks() -> str:
    x, y = classifier.clouds(VECTORS)
    tx, ty = torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda()

    def in_memory() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for index in torch.randperm(len(tx), device="cuda").split(4):
            yield tx[index], ty[index]

    torch.set_num_threads(1)
    plain = classifier.PlainClassifier(in_memory)
    plain.net.cuda()

    def together(count: int) -> int:
        fitted = [MLP(epochs=3, random_state=seed) for seed in range(count)]
        fit_together(fitted, [((x, y), None)] * count, "cuda")
        return 3 * count * VECTORS

    flops = 3 * 2 * (404 * 256 + 256 * 128 + 128 * 4)
    contenders = [
        Contender("one after another, eager, on the GPU", plain.run),
        Contender("ours alone, on one core", lambda: len(MLP(epochs=1, random_state=0).fit(x, y).classes_) and VECTORS),
        Contender("ours, 1 in a program", partial(together, 1), flops),
        Contender("ours, 30 in a program", partial(together, 30), flops),
        Contender(f"ours, {NETWORKS} in a program", partial(together, NETWORKS), flops),
    ]
    best = f"ours, {NETWORKS} in a program"
    targets = {(best, contenders[n].name): target for n, target in ((0, 20.0), (2, 20.0), (1, 1.0))}
    note = f"404 inputs, four classes, {VECTORS:,} vectors each; from arrays to networks on the CPU, three epochs."
    return section("Neural networks, batch 4", "vectors", contenders, targets, note, "cuda")


def trial(share: float, epochs: int, folder: Path) -> None:
    """One of several processes: warm up, wait until all are ready, train, tell how long it took since the start."""
    images = datasets.load("photos", Path()).train_images
    config = AutoencoderConfig(training=TrainingConfig(epochs=epochs + 2, batch_size=BATCH))  # the last fits a flow
    torch.set_num_threads(1)
    state = TrainingState(config, seed=os.getpid(), device=engine.claim(share))
    steps = train_epochs(state, images.repeat(4, axis=0), images[:1000])
    next(steps)
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
    begin = time.perf_counter()
    for _ in range(epochs):
        next(steps)
    print(time.perf_counter() - begin)


def at_once(count: int, epochs: int, environment: dict[str, str]) -> float:
    """Seconds until the last of so many processes has trained."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "benchmarks.gpu", "--trial", str(0.25), str(epochs), name]
        own = os.environ | {"OMP_NUM_THREADS": "1"} | environment  # as Ray starts them
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=own) for _ in range(count)]
        while len(list(Path(name).glob("ready-*"))) < count and all(one.poll() is None for one in running):
            time.sleep(0.05)
        (Path(name) / "go").touch()
        return max(float(one.communicate()[0]) for one in running)


@contextlib.contextmanager
def service() -> Iterator[dict[str, str]]:
    """NVIDIA's Multi-Process Service while it lasts; yields what its clients need in their environment."""
    with tempfile.TemporaryDirectory() as name:
        own = {"CUDA_MPS_PIPE_DIRECTORY": f"{name}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{name}/log"}
        for folder in own.values():
            Path(folder).mkdir()
        subprocess.run(["nvidia-cuda-mps-control", "-d"], env=os.environ | own, check=True)
        try:
            yield own
        finally:
            subprocess.run(["nvidia-cuda-mps-control"], input="quit\n", text=True, env=os.environ | own, check=True)


def shares(epochs: int = 4) -> str:
    lines = ["| how | one trial, s | four at once, s | over one after another | target |", "|---|---|---|---|---|"]
    ways = {"processes share the card in turns": contextlib.nullcontext({})}
    if shutil.which("nvidia-cuda-mps-control"):
        ways["with NVIDIA's Multi-Process Service"] = service()
    fastest = float("inf")  # who trains one after another does without the service
    for name, way in ways.items():
        with way as environment:
            alone, four = (at_once(count, epochs, environment) for count in (1, 4))
        fastest = min(fastest, alone)
        ratio = 4 * fastest / four
        met = "met" if ratio >= 2.5 else "missed"
        lines.append(f"| {name} | {alone:.2f} | {four:.2f} | {ratio:.2f} | 2.5, {met} |")
    note = f"Trials at 384 + 20, batch {BATCH}, {epochs} epochs each after one to warm up, once."
    return "\n".join(["## Four trials at gpu = 0.25", "", note, "", *lines]) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trial", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.trial:
        trial(float(options.trial[0]), int(options.trial[1]), Path(options.trial[2]))
    elif not torch.cuda.is_available():
        sys.exit("benchmarks.gpu: this machine has no GPU that torch sees: run it on one")
    else:
        sections = []
        for measure in (training, networks, shares):
            sections.append(measure())
            print(sections[-1], flush=True)
        print(write_page("gpu", sections))
