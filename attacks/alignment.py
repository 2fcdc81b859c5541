"""Rung 5: no pairs at all, only masked vectors and unrelated public images of the same distribution.

Both clouds of points are brought to principal coordinates of deviation 1, turned onto each other, and matched; a
ridge regression on the matches then restores. Nothing tells the attacker whether it worked.

Shapes: N victims, L vectors in all, M public images, R principal coordinates, P pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from attacks.config import AttacksConfig
from attacks.knowledge import Knowledge, Restored, flat
from attacks.principal import principal
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
    aligned_LR, (mean_P, basis_PR) = _oriented(_all_vectors(knowledge), pixels_MP)
    return knowledge.shaped(aligned_LR[: len(knowledge.victims)] @ basis_PR.T + mean_P)


def transport(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Optimal transport: from the moments' alignment, alternate between the best one-to-one matching and the best
    rotation (Wasserstein Procrustes), then regress pixels on the matched vectors."""
    rng = np.random.default_rng(seed)
    pixels_MP, vectors_LD = flat(knowledge.images), _all_vectors(knowledge)
    aligned_LR, (mean_P, basis_PR) = _oriented(vectors_LD, pixels_MP)
    scores_MR = (pixels_MP - mean_P) @ (basis_PR / np.square(basis_PR).sum(axis=0).clip(min=1e-12))
    count = min(len(vectors_LD), len(pixels_MP), config.matched)
    some, others = rng.permutation(len(vectors_LD))[:count], rng.permutation(len(pixels_MP))[:count]
    turned_CR, target_CR = aligned_LR[some], scores_MR[others]
    order = np.arange(count)
    for _ in range(config.rounds):
        before = order
        order = linear_sum_assignment(cdist(turned_CR, target_CR, "sqeuclidean"))[1]
        turned_CR = rotate(turned_CR, target_CR[order], turned_CR)
        if np.array_equal(order, before):
            break
    fitted = fit_ridge(vectors_LD[some], pixels_MP[others[order]], config.penalties)
    return knowledge.shaped(fitted.predict(knowledge.victims))


def _all_vectors(knowledge: Knowledge) -> Floats:
    """The victims' first, then what else was handed out."""
    others = [] if knowledge.others is None else [knowledge.others]
    return np.concatenate([knowledge.victims, *others]).astype(np.float64)


def _oriented(vectors_LD: Floats, pixels_MP: Floats) -> tuple[Floats, tuple[Floats, Floats]]:
    """The vectors' principal scores of deviation 1, signs chosen, and what a unit of each is in pixels."""
    mean_P, basis_PR, scores_MR = principal(pixels_MP, COORDINATES)
    _, _, aligned_LR = principal(vectors_LD, COORDINATES)
    count = min(scores_MR.shape[1], aligned_LR.shape[1])
    scores_MR, aligned_LR = scores_MR[:, :count], aligned_LR[:, :count]
    signs_R = np.sign(np.mean(scores_MR**3, axis=0) * np.mean(aligned_LR**3, axis=0))
    return aligned_LR * np.where(signs_R == 0, 1, signs_R), (mean_P, basis_PR[:, :count])
