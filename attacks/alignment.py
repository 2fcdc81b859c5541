"""Rungs 5 and 6: no pairs at all, only masked vectors and images, unrelated ones or the very ones in another order.

An encoder that does not whiten its latents keeps distances, more or less: images that lie far from most have vectors
that lie far from most. Who compares points by their distances to all others has a matching to begin with, and from
that a rotation, a better matching, and in the end a ridge regression that restores. Nothing tells the attacker whether
it worked.

Shapes: N victims, L vectors in all, M public images, C matched, R principal coordinates, D components, P pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from attacks.config import AttacksConfig
from attacks.knowledge import Knowledge, Restored, flat
from attacks.principal import principal
from attacks.reidentification import likelihood, matching
from attacks.ridge import JUDGED, fit_ridge
from attacks.stitching import rotate

Floats = NDArray[np.float64]
Order = NDArray[np.int64]

#: Principal coordinates whose moments are compared: the later ones hold little but noise.
COORDINATES = 32

#: How many quantiles tell a point by its distances to all others.
QUANTILES = 60


def moments(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Pair principal directions by their variance, orient each by its third moment, read pixels off the images' side.

    An encoder that whitens its latents leaves no order of variances to pair by.
    """
    pixels_MP = flat(knowledge.images)
    aligned_LR, (mean_P, basis_PR) = _oriented(_all_vectors(knowledge), pixels_MP)
    return knowledge.shaped(aligned_LR[: len(knowledge.victims)] @ basis_PR.T + mean_P)


def transport(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Optimal transport: from points of like distances, alternate between the best one-to-one matching and the best
    rotation (Wasserstein Procrustes), then regress pixels on the matched vectors."""
    rng = np.random.default_rng(seed)
    pixels_MP, vectors_LD = flat(knowledge.images), _all_vectors(knowledge)
    count = min(len(vectors_LD), len(pixels_MP), config.matched)
    some, others = rng.permutation(len(vectors_LD))[:count], rng.permutation(len(pixels_MP))[:count]
    vectors_CD, pixels_CP = vectors_LD[some], pixels_MP[others]
    order_C = _transported(_placed(vectors_CD), _placed(pixels_CP), config.rounds)
    return knowledge.shaped(fit_ridge(vectors_CD, pixels_CP[order_C], config.penalties).predict(knowledge.victims))


def known_plaintexts(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 6: the images are the victims', in another order, and so every vector has one that is right.

    After the transport a ridge regression takes the rotation's place: what it makes of a vector when fitted without it
    is matched by likelihood, component by component, and the regression fitted again.
    """
    vectors_ND, pixels_NP = knowledge.victims.astype(np.float64), flat(knowledge.images)
    if len(vectors_ND) != len(pixels_NP):
        raise ValueError(f"{len(vectors_ND)} victims and {len(pixels_NP)} images: give theirs, in any order")
    scores_NR = _placed(pixels_NP)
    order_N = _transported(_placed(vectors_ND), scores_NR, config.rounds)
    for _ in range(config.rounds if scores_NR.any() else 0):
        matched_NR = scores_NR[order_N]
        without_NR = matched_NR - fit_ridge(vectors_ND, matched_NR, config.penalties).residual
        before, order_N = order_N, matching(likelihood(without_NR, scores_NR, order_N))
        if np.array_equal(order_N, before):
            break
    return knowledge.shaped(fit_ridge(vectors_ND, pixels_NP[order_N], config.penalties).predict(vectors_ND))


def _transported(from_CR: Floats, to_CR: Floats, rounds: int) -> Order:
    """Which of the other points belongs to each; both sets in principal coordinates, of as many points."""
    count = min(from_CR.shape[1], to_CR.shape[1])
    if not count:  # nothing to tell points by
        return np.arange(len(from_CR))
    from_CR, to_CR = from_CR[:, :count], to_CR[:, :count]
    order_C: Order = linear_sum_assignment(cdist(_profiles(from_CR), _profiles(to_CR), "sqeuclidean"))[1]
    for _ in range(rounds):
        turned_CR = rotate(from_CR, to_CR[order_C], from_CR)
        before, order_C = order_C, linear_sum_assignment(cdist(turned_CR, to_CR, "sqeuclidean"))[1]
        if np.array_equal(order_C, before):
            break
    return order_C


def _placed(points: Floats) -> Floats:
    """Principal coordinates, each at its own scale; as many as a ridge regression judges by."""
    _, basis, scores = principal(points, JUDGED)
    placed: Floats = scores * np.linalg.norm(basis, axis=0)
    return placed


def _profiles(points_CR: Floats) -> Floats:
    """Quantiles of each point's distances to all, in units of the mean distance, and of what they vary by."""
    distance_CC = cdist(points_CR, points_CR)
    profile = np.quantile(distance_CC / distance_CC.mean(), np.linspace(0, 1, QUANTILES), axis=1).T
    deviation = profile.std(axis=0)
    scaled: Floats = (profile - profile.mean(axis=0)) / np.where(deviation > 1e-9, deviation, 1)
    return scaled


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
