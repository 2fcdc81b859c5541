"""Many small steps, one after another, as fast as the device can take them.

A step of a small network is hundreds of kernels of a few microseconds, and Python takes longer to start one than a GPU
to run it. On a GPU `repeat` takes the first steps as they are and captures the next as a CUDA graph, which is replayed.

Shapes: S steps.
"""

from __future__ import annotations

import logging
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
    done = torch.zeros(1, dtype=torch.long, device=device)

    def once() -> None:
        step(*(tensor.index_select(0, done)[0] for tensor in rows))
        done.add_(1)

    alone = count if count < FEWEST else WARM
    side = torch.cuda.Stream(device)  # what has run on another stream than the first may be captured
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(alone):
            once()
    torch.cuda.current_stream(device).wait_stream(side)
    if alone < count:
        again = _captured(once, generator)
        for _ in range(count - alone):
            again()


def _captured(once: Callable[[], None], generator: torch.Generator | None) -> Callable[[], None]:
    """What does as `once` does, in one launch; nothing is executed here."""
    graph = torch.cuda.CUDAGraph()
    if generator is not None:
        graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            once()
    except RuntimeError as error:
        log.warning("steps run one by one, for one could not be captured: %s", " ".join(str(error).split())[:200])
        return once
    return graph.replay


def claim(share: float) -> str:
    """The device to compute on with this share of a GPU; of a shared one no more memory is taken than the share."""
    if not share or not torch.cuda.is_available():
        return "cpu"
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(share)
    return "cuda"


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """On a GPU, let convolutions choose algorithms that give the same numbers every time."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        yield
