"""Contenders take turns, so that a noisy machine is noisy to all; medians, ratios, and how far from the machine."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from study.manifest import commit, processor, versions
from study.records import write_whole
from study.views.terminal import Progress

#: Rounds in which every contender has its turn.
ROUNDS = 5

FOLDER = Path(__file__).parent.parent / "results" / "benchmarks"


class Clock(Progress):
    """When each phase of a study begins."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.begun: dict[str, float] = {}

    def phase(self, name: str, total: int, work: float | None = None, pieces: str = "") -> None:
        self.begun[name] = time.monotonic()
        super().phase(name, total, work, pieces)


@dataclass(frozen=True)
class Contender:
    """One way to do the same work; `run` does a piece of it and returns how many units (images, vectors) that was."""

    name: str
    run: Callable[[], int]
    flops: float = 0.0
    """Floating-point operations a unit, where they were counted."""


def rates(contenders: list[Contender], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Units a second of every contender, one number a round, after one round that does not count."""
    measured: dict[str, list[float]] = {c.name: [] for c in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            begin = time.perf_counter()
            units = contender.run()
            if number:
                measured[contender.name].append(units / (time.perf_counter() - begin))
    return measured


def section(
    title: str,
    unit: str,
    contenders: list[Contender],
    targets: dict[tuple[str, str], float],
    note: str = "",
    device: str = "cpu",
) -> str:
    """Time contenders and write the result as a part of a Markdown page.

    Args:
        targets: (ours, baseline) -> the ratio of medians that is wanted.
    """
    measured = rates(contenders)
    limit = product_flops(device) if any(c.flops for c in contenders) else 0.0
    median = {name: statistics.median(values) for name, values in measured.items()}
    lines = [f"## {title}", "", note, "", f"| what | {unit}/s, median of {ROUNDS} | lowest to highest | of the limit |"]
    lines += ["|---|---|---|---|"]
    for contender in contenders:
        values = measured[contender.name]
        share = f"{median[contender.name] * contender.flops / limit:.0%}" if contender.flops else ""
        lowest, middle, highest = map(_rate, (min(values), median[contender.name], max(values)))
        lines.append(f"| {contender.name} | {middle} | {lowest} to {highest} | {share} |")
    if limit:
        lines += [
            "",
            f"Limit: a large matrix product of 32-bit floats in the same process, {limit / 1e9:,.0f} GFLOP/s.",
        ]
    lines += ["", "| ratio of medians | measured | target | |", "|---|---|---|---|"]
    for (ours, baseline), wanted in targets.items():
        if ours in median and baseline in median:
            ratio = median[ours] / median[baseline]
            lines.append(
                f"| {ours} over {baseline} | {ratio:.2f} | {wanted:g} | {'met' if ratio >= wanted else 'missed'} |"
            )
    return "\n".join(lines) + "\n"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def product_flops(device: str = "cpu") -> float:
    """What a large matrix product reaches on the cores or GPU at hand, floating-point operations a second."""
    a = torch.rand(2048 if device == "cpu" else 8192, 2048, device=device)

    def product() -> int:
        out = a @ a[:2048]
        if device != "cpu":
            torch.cuda.synchronize()
        return 2 * out.numel() * 2048

    return max(rates([Contender("product", product)])["product"])


def write_page(name: str, sections: list[str], command: str = "") -> Path:
    """Keep sections, and the command that makes them again, as `results/benchmarks/<name>_<hardware>_<date>.md`."""
    now = datetime.now(UTC)
    hardware = torch.cuda.get_device_name().replace(" ", "-") if torch.cuda.is_available() else f"cpu{os.cpu_count()}"
    packages = ", ".join(f"{k} {v}" for k, v in versions().items())
    head = [
        f"# {name}, {now:%Y-%m-%d}",
        "",
        f"Machine: {processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads.",
        f"Commit {commit()}; {packages}.",
        f"Made by `{command or f'python -m benchmarks.{name}'}`.",
        "",
    ]
    path = FOLDER / f"{name}_{hardware}_{now:%Y-%m-%d}.md"
    write_whole(path, "\n".join([*head, *sections]))
    return path
