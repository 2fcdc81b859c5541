"""Changes of the masked vector before it is handed out: what they cost in use, and whether they hide anything.

All are in units of each component's deviation over the vectors given, which the owner knows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def defend(masked_ND: NDArray[np.float32], name: str, seed: int) -> NDArray[np.float32]:
    """`noise@S`: Gaussian noise of S deviations, drawn anew for every vector. `rounded@S`: to whole multiples of S
    deviations; a component that does not vary is left alone. `dropped@S`: a share S of the components, the same for all
    vectors, is replaced by its mean."""
    kind, _, amount = name.partition("@")
    rng, size = np.random.default_rng(seed), float(amount)
    deviation_D = masked_ND.std(axis=0, dtype=np.float64)  # in float32 a constant component seems to vary
    if kind == "noise":
        return masked_ND + (size * deviation_D * rng.standard_normal(masked_ND.shape)).astype(np.float32)
    if kind == "rounded":
        varies_D = deviation_D > 1e-8
        step_D = np.where(varies_D, size * deviation_D, 1).astype(np.float32)
        return np.where(varies_D, np.rint(masked_ND / step_D) * step_D, masked_ND)
    assert kind == "dropped", name
    dropped = rng.permutation(masked_ND.shape[1])[: max(1, round(size * masked_ND.shape[1]))]
    defended_ND = masked_ND.copy()
    defended_ND[:, dropped] = masked_ND[:, dropped].mean(axis=0)
    return defended_ND
