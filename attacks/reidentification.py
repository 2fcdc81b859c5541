"""Rung 6: which of N images belongs to which of N masked vectors?

Both rules of the NeuraCrypt challenge come down to how the restored images were made. *Matching plaintexts known*:
the attacker aligned the vectors with the very N images, in another order. *Only the distribution known*: with other
images of the same kind. What was restored is then looked up among the N candidates.

Shapes: N candidates, M restored images, P pixels, R principal components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from attacks.principal import principal

Floats = NDArray[np.float64]

#: Principal components of the candidates in which images are compared.
COMPONENTS = 300

#: What is added to every component's variance, in units of the largest: the smallest ones are restored worst.
FLOOR = 0.003

#: How often matches say how far each component can be believed, and the components match again.
ROUNDS = 2


@dataclass(frozen=True)
class Reidentified:
    """How well restored images point at their own among N candidates. Chance is 1/N for `top1`."""

    top1: float
    """Share whose own image is the one it is matched with."""
    top5: float
    mrr: float
    """Mean of one over the rank."""


def identify(truth_NHWC: NDArray[np.floating], restored_MHWC: NDArray[np.floating]) -> Reidentified:
    """Match restored images and candidates one to one; rank the candidates of each, the matched one first.

    The first score of a pair is the cosine of their principal components, scaled to nearly one deviation. A matching
    says, component by component, how much of a candidate is left in what was restored and how far it errs; from that
    follows the likelihood of every pair, and the next matching. All of it the attacker can do: it needs the candidates
    and what was restored, and no pair. Ties count half, so a restored image that says nothing has the middle rank, but
    for the one that is matched with its own by chance.

    Args:
        truth_NHWC: the candidates.
        restored_MHWC: what was restored of the first M of them.
    """
    _, basis_PR, scores_NR = principal(truth_NHWC.reshape(len(truth_NHWC), -1).astype(np.float64), COMPONENTS)
    variance_R = np.square(basis_PR).sum(axis=0)
    truth_NR = scores_NR * np.sqrt(variance_R)
    pixels_MP = restored_MHWC.reshape(len(restored_MHWC), -1).astype(np.float64)
    restored_MR = (pixels_MP - pixels_MP.mean(axis=0)) @ (basis_PR / np.sqrt(variance_R))
    scale_R = 1 / np.sqrt(variance_R + FLOOR * variance_R.max(initial=0))
    score_MN = _directions(restored_MR * scale_R) @ _directions(truth_NR * scale_R).T
    for _ in range(ROUNDS):
        score_MN = likelihood(restored_MR, truth_NR, matching(score_MN))
    score_MN = score_MN.round(9)  # equal candidates are ties, whatever rounding says
    own_M1, row_M, match_M = np.diag(score_MN)[:, None], np.arange(len(score_MN)), matching(score_MN)
    rank_M = 1 + (score_MN > own_M1).sum(axis=1) + ((score_MN == own_M1).sum(axis=1) - 1) / 2
    first_M = score_MN[row_M, match_M] - own_M1[:, 0]
    rank_M += np.where(first_M < 0, 1, np.where(first_M == 0, 0.5, 0))  # the match goes before, wherever it stood
    rank_M[match_M == row_M] = 1
    return Reidentified(float((rank_M < 2).mean()), float((rank_M < 6).mean()), float((1 / rank_M).mean()))


def grade(top1: float) -> str:
    """The challenge's grade of a mask: under 5% good, 5 to 20% moderate, over 20% bad."""
    return "good" if top1 < 0.05 else "moderate" if top1 <= 0.2 else "bad"


def likelihood(restored_MR: Floats, truth_NR: Floats, match_M: NDArray[np.int64]) -> Floats:
    """Of every pair, (M, N), up to a term of the row's: what a matching says of how far each component can be believed.

    A component keeps some share of the candidate's, and errs by a normal error.
    """
    matched_MR = truth_NR[match_M]
    kept_R = (restored_MR * matched_MR).mean(axis=0) / np.square(matched_MR).mean(axis=0).clip(min=1e-12)
    error_R = (restored_MR - kept_R * matched_MR).var(axis=0) + 1e-3 * restored_MR.var(axis=0) + 1e-12
    score_MN: Floats = (restored_MR * kept_R / error_R) @ truth_NR.T - np.square(truth_NR) @ (kept_R**2 / error_R) / 2
    return score_MN


def matching(score_MN: Floats) -> NDArray[np.int64]:
    """The best one-to-one matching, a candidate for each row; candidates are shuffled, so that a tie is no hint."""
    order_N = np.random.default_rng(0).permutation(score_MN.shape[1])
    return order_N[linear_sum_assignment(-score_MN[:, order_N])[1]]


def _directions(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 1e-12, length, np.inf)
