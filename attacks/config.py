"""Settings of the attacks, checked when built. Errors are `ValueError`: key, value, way out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

#: Attacks with known pairs (rung 2), in the order of the tables.
WITH_PAIRS = ("stitch_orthogonal", "stitch_affine", "stitch_mlp", "ridge", "inversion")

#: Attacks with no pairs at all (rung 5).
WITHOUT_PAIRS = ("moments", "transport")

#: Linear maps that encoders are compared with; who made one restores by a linear map back.
Linear = Literal["pca", "random_projection"]
LINEAR: tuple[Linear, ...] = get_args(Linear)

#: Every attack, in the order of the ladder: rungs 2, 3, 4 and 5.
NAMES = (*WITH_PAIRS, "oracle", "weights", *WITHOUT_PAIRS)


def _require(holds: bool, key: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"{key} = {value!r}: must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class AttacksConfig:
    """Which attacks are tried on masked images, and how hard they try."""

    names: tuple[str, ...] = NAMES
    """Any of stitch_orthogonal, stitch_affine, stitch_mlp, ridge, inversion, oracle, weights, moments and transport;
    none: nothing is attacked."""
    pairs: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000, 10_000)
    """Numbers of leaked pairs (image, masked vector); what the data cannot give is left out, and told."""
    draws: int = 3
    """Random choices of the leaked pairs, and of the public images of who has no pairs, for the intervals."""
    victims: int = 2000
    """Masked test images to restore, at most."""
    public: int = 10_000
    """Public images an attacker without pairs uses, at most."""
    encoders: int | None = None
    """Attack only the first so many latent configurations; unset, all of them."""
    every_instance: bool = False
    """Attack every instance of a latent configuration, not only the first."""
    target: float = 0.02
    """Mean squared error at which an image counts as unmasked, pixels from 0 to 1."""
    defences: tuple[str, ...] = ()
    """Changes of the masked vector before it is handed out, attacked by ridge, and with the most pairs by inversion
    where that is among `names`, and classified beside it: `noise@S` (S deviations of each component), `rounded@S` (to
    whole multiples of S deviations), `dropped@S` (a share S)."""
    controls: tuple[Linear, ...] = ("random_projection",)
    """Linear maps to as many numbers, attacked beside the encoders by ridge, and with the most pairs by inversion where
    that is among `names`, and with transport by who has the images in another order: any of pca and random_projection.
    What training is worth as a mask is the difference."""
    penalties: tuple[float, ...] = (1e-12, 1e-9, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 1e4)
    """Of every ridge regression, in units of the largest squared singular value; the attacker's pairs choose."""
    width: int = 8
    """Channels of the convolutions that refine a restored image."""
    steps: int = 2000
    """Training steps of an inversion or a network between latents, at most; the learning rate falls to zero."""
    batch_size: int = 64
    """Pairs a step."""
    learning_rate: float = 1e-3
    """Of Adam, in everything trained."""
    patience: int = 20
    """Training ends when so many checks, 25 steps apart, brought nothing on the attacker's held-back pairs."""
    optimised: int = 200
    """Images restored by optimisation with known weights, at most: it is the slowest attack."""
    descents: int = 100
    """Steps of that optimisation, at most."""
    smoothness: tuple[float, ...] = (0.0, 0.001, 0.01, 0.1)
    """Weights of its total-variation prior; the attacker's own images choose."""
    matched: int = 1000
    """Images and vectors that optimal transport matches, at most."""
    rounds: int = 10
    """Alternations of matching and rotation in optimal transport."""

    def __post_init__(self) -> None:
        for name in self.names:
            _require(name in NAMES, "names", name, "one of " + ", ".join(NAMES))
        _require(len(set(self.names)) == len(self.names), "names", self.names, "different names")
        rising = all(a < b for a, b in zip(self.pairs, self.pairs[1:], strict=False))
        _require(
            len(self.pairs) >= 1 and rising and self.pairs[0] >= 2, "pairs", self.pairs, "rising whole numbers from 2"
        )
        for name in self.defences:
            found = re.fullmatch(r"(noise|rounded|dropped)@(\d+(?:\.\d+)?)", name)
            holds = found is not None and 0 < float(found[2]) < (1 if found[1] == "dropped" else 1000)
            _require(holds, "defences", name, "noise@S, rounded@S or dropped@S with S above 0 (dropped: below 1)")
        _require(len(set(self.defences)) == len(self.defences), "defences", self.defences, "different names")
        for name in self.controls:
            _require(name in LINEAR, "controls", name, "one of " + ", ".join(LINEAR))
        _require(len(set(self.controls)) == len(self.controls), "controls", self.controls, "different names")
        _require(self.encoders is None or self.encoders >= 1, "encoders", self.encoders, "1 or more")
        _require(0 < self.target <= 1, "target", self.target, "above 0, up to 1")
        _require(
            len(self.penalties) >= 1 and all(p > 0 for p in self.penalties), "penalties", self.penalties, "above 0"
        )
        _require(all(s >= 0 for s in self.smoothness), "smoothness", self.smoothness, "0 or more")
        _require(len(self.smoothness) >= 1, "smoothness", self.smoothness, "one or more weights")
        _require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, up to 1")
        for key, least in _LEAST.items():
            value, most = getattr(self, key), _MOST.get(key, 10_000_000)
            _require(least <= value <= most, key, value, f"from {least} to {most}")


#: Smallest value of each whole number.
_LEAST = {
    "draws": 1, "victims": 2, "public": 10, "width": 1, "steps": 1, "batch_size": 1, "patience": 1, "optimised": 2,
    "descents": 1, "matched": 10, "rounds": 1,
}  # fmt: skip

#: And the largest, where it is not ten million: matrices of victims by victims take 3 GB there.
_MOST = {"victims": 10_000}
