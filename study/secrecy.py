"""Secrecy in numbers, for a search: what a curve of restoration error against leaked pairs says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import nn

import attacks
from aae.masking import mask
from attacks import AttacksConfig, Knowledge, metrics
from study.pictures import Images
from study.seeds import derive

#: The number of pairs at which configurations are compared; for finding images again, which takes far fewer.
COMPARED_AT, IDENTIFIED_AT = 1000, 30

#: Within so much of the key's error, an attacker restores as well as the key.
NEAR_KEY = 1.1


def pairs_to_reach(curve: Mapping[int, float], error: float) -> int | None:
    """The smallest number of pairs tried with at most this mean squared error; None: more than the largest tried."""
    return min((k for k, mse in curve.items() if mse <= error), default=None)


@dataclass(frozen=True)
class Secrecy:
    """What ridge regression restores from one encoder's masked forms, by the number of leaked pairs."""

    target: float
    """Mean squared error at which an image counts as unmasked."""
    curve: dict[int, float]
    """Mean squared error by number of pairs."""
    reidentification: float
    """Share of victims found again by what `IDENTIFIED_AT` pairs restore, or the nearest number tried."""

    @property
    def pairs_to_unmask(self) -> float:
        """Logarithm to base 10 of the pairs that reach the target; where none do, one more than of the most tried.

        Between two numbers tried the curve is taken to be straight, on logarithms of both.
        """
        reached = pairs_to_reach(self.curve, self.target)
        fewer = max((k for k in self.curve if reached and k < reached), default=None)
        if not reached or not fewer:
            return float(np.log10(reached or 10 * max(self.curve)))
        ends = np.log10([fewer, reached]), -np.log10([self.curve[fewer], max(self.curve[reached], 1e-12)])
        return float(np.interp(-np.log10(self.target), ends[1], ends[0]))

    @property
    def mse_at_k(self) -> float:
        """Error at `COMPARED_AT` pairs, or at the nearest number tried."""
        return self.curve[_nearest(self.curve, COMPARED_AT)]


def _nearest(counts: Iterable[int], wanted: int) -> int:
    return min(counts, key=lambda k: abs(k - wanted))


def measure(encoder: nn.Module, attacker: Images, victims: Images, config: AttacksConfig, seed: int) -> Secrecy:
    """Attack one encoder with ridge regression, the cheapest attack that works: seconds.

    Args:
        attacker: images whose pairs leak, uint8; a search gives training images.
        victims: images to restore, none of them among `attacker`; a search gives held-out images, so that the test
            part stays closed. The first `config.victims` are taken.
        config: `pairs` above `len(attacker)` are left out; at least one must remain.

    Raises:
        ValueError: fewer images than the smallest number of pairs.
    """
    counts = [k for k in config.pairs if k <= len(attacker)]
    if not counts:
        raise ValueError(f"attacks.pairs = {config.pairs}: there are {len(attacker)} images: ask for fewer pairs")
    order = attacks.draw_pairs(len(attacker), max(counts), derive(seed, "secrecy"))
    truth = victims[: config.victims].astype(np.float32) / np.float32(255)
    masked, leaked = mask(encoder, victims[: config.victims]), mask(encoder, attacker[order])
    curve, found = {}, 0.0
    for k in counts:
        knowledge = Knowledge(victims=masked, images=attacker[order[:k]], masked=leaked[:k])
        restored = attacks.restore("ridge", knowledge, config, seed)
        curve[k] = float(metrics.mse(truth, restored).mean())
        if k == _nearest(counts, IDENTIFIED_AT):
            found = attacks.identify(truth, restored).top1
    return Secrecy(config.target, curve, found)
