"""Principal components, by the smaller of the two Gram matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]


def principal(points: Floats, count: int) -> tuple[Floats, Floats, Floats]:
    """Mean, leading directions times their deviations (dimensions, R), and scores of deviation 1 (points, R).

    R is `count`, or as many as the points vary in.
    """
    mean = points.mean(axis=0)
    centred, tall = points - mean, len(points) >= points.shape[1]
    gram = centred.T @ centred if tall else centred @ centred.T
    first = max(0, len(gram) - count)
    square, side = linalg.eigh(gram, subset_by_index=(first, len(gram) - 1))
    s_R, side = np.sqrt(square[::-1].clip(min=0)), side[:, ::-1]
    root = np.sqrt(len(points))
    kept = s_R > 1e-6 * max(s_R[0], root * float(np.abs(points).max()), 1e-12)  # a gram matrix resolves no less
    s_R, side = s_R[kept], side[:, kept]
    scores, directions = (centred @ side / s_R, side) if tall else (side, centred.T @ side / s_R)
    return mean, directions * (s_R / root), scores * root
