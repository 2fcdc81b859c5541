"""Rung 5: no pairs at all, only masked vectors and unrelated public images of the same distribution.

Both clouds of points are brought to principal coordinates of deviation 1, turned onto each other, and matched; a
ridge regression on the matches then restores. Nothing tells the attacker whether it worked.

Shapes: N victims, M public images, R principal coordinates, P pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from attacks.config import AttacksConfig
from attacks.knowledge import Knowledge, Restored, flat
from attacks.ridge import fit_ridge
from attacks.stitching import rotate

Floats = NDArray[np.float64]

#: Principal coordinates that are aligned: the later ones hold little but noise.
COORDINATES = 32


def moments(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Pair principal directions by their variance, orient each by its third moment, read pixels off the images' side.

    An encoder that whitens its latents leaves no order of variances to pair by.
    """
    pixels_MP = flat(knowledge.images)
    aligned_NR, (mean_P, basis_PR) = _oriented(knowledge.victims.astype(np.float64), pixels_MP)
    return knowledge.shaped(aligned_NR @ basis_PR.T + mean_P)


def transport(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Optimal transport: from the moments' alignment, alternate between the best one-to-one matching and the best
    rotation (Wasserstein Procrustes), then regress pixels on the matched vectors."""
    rng = np.random.default_rng(seed)
    pixels_MP, vectors_ND = flat(knowledge.images), knowledge.victims.astype(np.float64)
    aligned_NR, (mean_P, basis_PR) = _oriented(vectors_ND, pixels_MP)
    scores_MR = (pixels_MP - mean_P) @ (basis_PR / np.square(basis_PR).sum(axis=0).clip(min=1e-12))
    count = min(len(vectors_ND), len(pixels_MP), config.matched)
    some, others = rng.permutation(len(vectors_ND))[:count], rng.permutation(len(pixels_MP))[:count]
    turned_CR, target_CR = aligned_NR[some], scores_MR[others]
    order = np.arange(count)
    for _ in range(config.rounds):
        before = order
        order = linear_sum_assignment(cdist(turned_CR, target_CR, "sqeuclidean"))[1]
        turned_CR = rotate(turned_CR, target_CR[order], turned_CR)
        if np.array_equal(order, before):
            break
    fitted = fit_ridge(vectors_ND[some], pixels_MP[others[order]], config.penalties)
    return knowledge.shaped(fitted.predict(vectors_ND))


def _oriented(vectors_ND: Floats, pixels_MP: Floats) -> tuple[Floats, tuple[Floats, Floats]]:
    """The vectors' principal scores of deviation 1, signs chosen, and what a unit of each is in pixels."""
    mean_P, basis_PR, scores_MR = _principal(pixels_MP)
    _, _, aligned_NR = _principal(vectors_ND)
    count = min(scores_MR.shape[1], aligned_NR.shape[1])
    scores_MR, aligned_NR = scores_MR[:, :count], aligned_NR[:, :count]
    signs_R = np.sign(np.mean(scores_MR**3, axis=0) * np.mean(aligned_NR**3, axis=0))
    return aligned_NR * np.where(signs_R == 0, 1, signs_R), (mean_P, basis_PR[:, :count])


def _principal(points: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, leading directions times their deviations (dimensions, R), and scores of deviation 1 (points, R)."""
    mean = points.mean(axis=0)
    centred, tall = points - mean, len(points) >= points.shape[1]
    gram = centred.T @ centred if tall else centred @ centred.T
    first = max(0, len(gram) - COORDINATES)
    square, side = linalg.eigh(gram, subset_by_index=(first, len(gram) - 1))
    s_R, side = np.sqrt(square[::-1].clip(min=0)), side[:, ::-1]
    root = np.sqrt(len(points))
    kept = s_R > 1e-6 * max(s_R[0], root * float(np.abs(points).max()), 1e-12)  # a gram matrix resolves no less
    s_R, side = s_R[kept], side[:, kept]
    scores, directions = (centred @ side / s_R, side) if tall else (side, centred.T @ side / s_R)
    return mean, directions * (s_R / root), scores * root
