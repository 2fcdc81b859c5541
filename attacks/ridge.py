"""Ridge regression that chooses its penalty on the pairs it is given.

Shapes: K pairs, D inputs, P outputs, J judged ones, R singular values, N vectors to predict from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]

#: Outputs whose leave-one-out errors choose the penalty: more tell the same at a price.
JUDGED = 384


@dataclass(frozen=True)
class Ridge:
    """A fitted regression."""

    mean: Floats
    """Of the inputs, (D,)."""
    offset: Floats
    """Mean of the outputs, (P,)."""
    weight: Floats
    """(D, P)."""
    penalty: float
    """The chosen one, in units of the largest squared singular value."""
    residual: Floats
    """Of each pair by a fit without it, on the outputs that `judged` picks, (K, J)."""

    @property
    def left_out(self) -> Floats:
        """Mean squared error of each pair by a fit without it, (K,)."""
        error_K: Floats = np.square(self.residual).mean(axis=1)
        return error_K

    def predict(self, vectors_ND: NDArray[np.floating]) -> Floats:
        return (vectors_ND - self.mean) @ self.weight + self.offset


def judged(values_NP: Floats) -> Floats:
    """The outputs whose errors choose: evenly spread ones, `JUDGED` at most, of every colour."""
    step = max(1, -(-values_NP.shape[1] // JUDGED))
    return values_NP[:, :: step + (step % 3 == 0)]


def fit_ridge(vectors_KD: Floats, targets_KP: Floats, penalties: tuple[float, ...]) -> Ridge:
    """Fit with intercept. One singular value decomposition serves every penalty.

    The penalty has the smallest closed-form leave-one-out error: that of pair i is its residual over one less its
    leverage. Directions in which the vectors do not vary get no weight, so constant vectors give the mean target.
    """
    mean_D, mean_P = vectors_KD.mean(axis=0), targets_KP.mean(axis=0)
    centred_KP = targets_KP - mean_P
    u_KR, s_R, vt_RD = linalg.svd(vectors_KD - mean_D, full_matrices=False, check_finite=False)
    scale = np.abs(vectors_KD).max()  # rounding of a constant column is no direction
    kept = s_R > max(s_R[0], scale) * max(vectors_KD.shape) * np.finfo(np.float64).eps
    u_KR, s_R, vt_RD = u_KR[:, kept], s_R[kept], vt_RD[kept]
    if not len(s_R):
        residual_KJ = judged(centred_KP) * (len(centred_KP) / max(1, len(centred_KP) - 1))
        return Ridge(mean_D, mean_P, np.zeros((len(mean_D), len(mean_P))), max(penalties), residual_KJ)
    seen_KJ = judged(centred_KP)
    projected_RJ = u_KR.T @ seen_KJ

    def left_out(penalty: float) -> Floats:
        shrink_R = s_R**2 / (s_R**2 + penalty * s_R[0] ** 2)
        leverage_K = 1 / len(u_KR) + (u_KR**2) @ shrink_R
        residual_KJ: Floats = (seen_KJ - (u_KR * shrink_R) @ projected_RJ) / np.maximum(1 - leverage_K, 1e-15)[:, None]
        return residual_KJ

    penalty = min(sorted(penalties), key=lambda penalty: np.square(left_out(penalty)).mean(axis=1).mean())
    weight_DP = (vt_RD.T * (s_R / (s_R**2 + penalty * s_R[0] ** 2))) @ (u_KR.T @ centred_KP)
    return Ridge(mean_D, mean_P, weight_DP, penalty, left_out(penalty))
