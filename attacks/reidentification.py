"""Rung 6: which of N images belongs to which of N masked vectors?

Both rules of the NeuraCrypt challenge come down to how the restored images were made. *Matching plaintexts known*:
the attacker aligned the vectors with the very N images, in another order. *Only the distribution known*: with other
images of the same kind. What was restored is then looked up among the N candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Reidentified:
    """How well restored images point at their own among N candidates. Chance is 1/N for `top1`."""

    top1: float
    top5: float
    mrr: float
    """Mean of one over the rank."""


def identify(truth_NHWC: NDArray[np.floating], restored_MHWC: NDArray[np.floating]) -> Reidentified:
    """Rank the candidates of each restored image by the cosine of their difference from the candidates' mean.

    Ties count half, so a restored image that says nothing has the middle rank.

    Args:
        truth_NHWC: the candidates.
        restored_MHWC: what was restored of the first M of them.
    """
    candidates_NP = truth_NHWC.reshape(len(truth_NHWC), -1).astype(np.float64)
    mean_P = candidates_NP.mean(axis=0)
    similar_MN = (
        _directions(restored_MHWC.reshape(len(restored_MHWC), -1) - mean_P) @ _directions(candidates_NP - mean_P).T
    )
    similar_MN = similar_MN.round(12)  # equal candidates are ties, whatever rounding says
    own_M = np.diag(similar_MN)[:, None]
    rank_M = 1 + (similar_MN > own_M).sum(axis=1) + ((similar_MN == own_M).sum(axis=1) - 1) / 2
    return Reidentified(float((rank_M < 2).mean()), float((rank_M < 6).mean()), float((1 / rank_M).mean()))


def grade(top1: float) -> str:
    """The challenge's grade of a mask: under 5% good, 5 to 20% moderate, over 20% bad."""
    return "good" if top1 < 0.05 else "moderate" if top1 <= 0.2 else "bad"


def _directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 1e-12, length, np.inf)
