"""Every attack by its name, behind one interface."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from attacks import alignment, inversion, stitching
from attacks.config import NAMES, AttacksConfig
from attacks.knowledge import Knowledge, Restored

_ATTACKS: dict[str, Callable[[Knowledge, AttacksConfig, int], Restored]] = {
    "stitch_orthogonal": stitching.orthogonal,
    "stitch_affine": stitching.affine,
    "stitch_mlp": stitching.mlp,
    "ridge": inversion.ridge,
    "inversion": inversion.inversion,
    "oracle": inversion.inversion,  # the same decoder: the attacker made the pairs by asking
    "weights": inversion.weights,
    "moments": alignment.moments,
    "transport": alignment.transport,
    "known_plaintexts": alignment.known_plaintexts,  # comes with transport, and has no name among those asked for
}


def restore(name: str, knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Run one attack: float32 images in [0, 1], (N, H, W, C), one for each of the victims' vectors, in their order.

    Penalties, training steps and smoothness are chosen on the attacker's own images. Vectors that are constant, or
    tell nothing, lead to the mean of the attacker's images, or to what an own decoder makes of the mean latent. The
    same knowledge, settings and seed give the same images on one machine; the input is left alone.

    Raises:
        ValueError: the name is not in `NAMES`, the knowledge lacks what the attack needs, or something in it leads to
            values that are not finite.
    """
    if name not in _ATTACKS:
        raise ValueError(f"attack {name!r}: must be one of {', '.join(NAMES)}")
    restored = _ATTACKS[name](knowledge, config, seed)
    if not np.isfinite(restored).all():
        raise ValueError(
            f"attack {name}: leads to values that are not finite: look for them in what the own decoder gives, and for "
            f"masked vectors too large to square"
        )
    return restored
