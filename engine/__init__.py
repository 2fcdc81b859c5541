"""Many small steps, one after another, as fast as the device can take them.

A step of a small network is hundreds of kernels of a few microseconds, and Python takes longer to start one than a GPU
to run it. On a GPU `repeat` takes the first steps as they are and captures the next as a CUDA graph, which is replayed.

Shapes: S steps.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

#: Steps taken before one is captured: in them libraries choose their algorithms and reserve memory.
WARM = 3

#: Fewer steps are taken one by one: to capture one costs more than it saves.
FEWEST = 25

log = logging.getLogger(__name__)


def repeat(step: Callable[..., None], *rows: Tensor, generator: torch.Generator | None = None) -> None:
    """Call `step(rows[0][i], rows[1][i], ...)` for i from 0 to S - 1.

    On a GPU most calls are replays of one captured call; what the step computes and draws is the same. A step that
    cannot be captured is called every time, with a warning in the log.

    Args:
        step: changes tensors in place, and never waits for the device (no `.item()`, no branch on a tensor's value).
        rows: (S, ...) each, on the device of the step.
        generator: where the step draws its random numbers, on the same device.
    """
    count, device = len(rows[0]), rows[0].device
    if device.type != "cuda":
        for row in zip(*rows, strict=True):
            step(*row)
        return
    with torch.cuda.device(device):  # graphs are captured on the current one
        _repeat_on_gpu(step, rows, count, generator)


def _repeat_on_gpu(
    step: Callable[..., None], rows: tuple[Tensor, ...], count: int, generator: torch.Generator | None
) -> None:
    done = torch.zeros(1, dtype=torch.long, device=rows[0].device)

    def once() -> None:
        step(*(tensor.index_select(0, done)[0] for tensor in rows))
        done.add_(1)

    alone = count if count < FEWEST else WARM
    usual, side = torch.cuda.current_stream(), _side(torch.cuda.current_device())
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        for _ in range(alone):
            once()
    usual.wait_stream(side)
    if alone < count:
        again = _captured(once, side, generator)
        for _ in range(count - alone):
            again()


@functools.cache
def _side(device: int) -> torch.cuda.Stream:
    """What has run on a stream of its own may be captured there; one for all, for each keeps a workspace for good."""
    return torch.cuda.Stream(device)


def _captured(
    once: Callable[[], None], side: torch.cuda.Stream, generator: torch.Generator | None
) -> Callable[[], None]:
    """What does as `once` does, in one launch; nothing is executed here."""
    graph, usual = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    before = None
    if generator is not None:
        before = generator.clone_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.14 finds the generators of a capture itself, and says so
            graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph, stream=side):
            once()
    except RuntimeError as error:
        torch.cuda.set_stream(usual)
        if generator is not None and before is not None:
            generator.graphsafe_set_state(before)
        log.warning("steps run one by one, for one could not be captured: %s", " ".join(str(error).split())[:200])
        return once
    return graph.replay


def claim(share: float) -> str:
    """The device to compute on with this share of a GPU; of a shared one no more memory is taken than the share."""
    if not share:
        return "cpu"
    if not torch.cuda.is_available():
        log.warning("a share of a GPU is given and torch %s sees none: this runs on the CPU", torch.__version__)
        return "cpu"
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    return "cuda"


def device_name(device: str | torch.device) -> str:
    """What a device is called in results."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, let convolutions choose algorithms that give the same numbers every time."""
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before
