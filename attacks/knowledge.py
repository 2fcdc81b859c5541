"""What an attacker knows: the one input of every attack, checked once."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Images = NDArray[np.uint8]
Vectors = NDArray[np.floating]
#: What an attack returns, (N, H, W, C) in [0, 1].
Restored = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Own:
    """An autoencoder of the attacker's own, trained without the victim's."""

    name: str
    encode: Callable[[Images], Vectors]
    """uint8 images (M, H, W, C) -> vectors (M, E); E need not be the victim's D."""
    decode: Callable[[Vectors], Restored]


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """What an attacker holds. Images are uint8, (M, H, W, C); vectors are floats, (M, D).

    Nothing of the victims but their masked vectors is here, and no image of theirs may stand in any other field:
    whoever builds this answers for it.
    """

    victims: Vectors
    """Masked vectors to restore, (N, D)."""
    images: Images
    """Leaked images (rung 2) or public ones (rungs 3 to 5), (K, H, W, C), at least two."""
    masked: Vectors | None = None
    """The masked vectors of `images`, in their order, (K, D); None where no pair is known."""
    others: Vectors | None = None
    """More masked vectors that were handed out, of images the attacker does not hold (rung 5), (L, D)."""
    encoder: nn.Module | None = None
    """The victim's encoder with its weights, from (B, C, H, W) in [0, 1] to (B, D) (rung 4)."""
    straighten: Callable[[Vectors], Vectors] | None = None
    """What the weights undo exactly of masked vectors, as a flow at the encoder's end (rung 4); None: nothing."""
    own: Own | None = None
    """For the attacks that stitch."""

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise ValueError(
                f"images of type {self.images.dtype} and shape {self.images.shape}: must be uint8, (K, H, W, C)"
            )
        if len(self.images) < 2:
            raise ValueError(f"{len(self.images)} images: an attack needs at least 2")
        _check_vectors("victims", self.victims)
        if self.masked is not None and len(self.masked) != len(self.images):
            raise ValueError(f"{len(self.images)} images and {len(self.masked)} masked vectors: give pairs")
        for name, vectors in (("masked", self.masked), ("others", self.others)):
            if vectors is not None:
                _check_vectors(name, vectors)
                if vectors.shape[1] != self.victims.shape[1]:
                    raise ValueError(
                        f"{name}: vectors of {vectors.shape[1]} numbers for victims of {self.victims.shape[1]}: "
                        f"both must come from one encoder"
                    )
        self._check_encoders()

    def _check_encoders(self) -> None:
        """An encoder of other images would stop an attack in its middle; one of a single number would not, and lie."""
        some = self.images[:2]
        size = f"images of shape {some.shape[1:]}"
        if self.encoder is not None:
            x_BCHW = torch.from_numpy(np.ascontiguousarray(some)).permute(0, 3, 1, 2).float() / 255
            encoder = deepcopy(self.encoder).eval()  # in training two images would change its running means
            try:
                with torch.no_grad():
                    found = tuple(encoder(x_BCHW).shape)
            except (RuntimeError, ValueError):
                raise ValueError(f"encoder: takes no {size}: give that of the victim") from None
            if found != (2, self.victims.shape[1]):
                raise ValueError(f"encoder: gives {found} for 2 images, where victims have {self.victims.shape[1]}")
        if self.own is not None:
            try:
                found = np.shape(self.own.encode(some))
            except (RuntimeError, ValueError):
                raise ValueError(f"own encoder: takes no {size}: train one for them") from None
            if len(found) != 2 or found[0] != 2:
                raise ValueError(f"own encoder: gives {found} for 2 images: must give a vector for each")

    def pairs(self, attack: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Masked vectors (K, D) and flat images (K, P) in [0, 1]; `ValueError` where the attacker holds no pairs."""
        if self.masked is None:
            raise ValueError(f"attack {attack}: needs known pairs: give the masked vectors of the images")
        return self.masked.astype(np.float64), flat(self.images)

    def straightened(self, vectors_ND: Vectors) -> Vectors:
        """Vectors without what the weights undo of them; `ValueError` where that is no finite vector for each."""
        straight_ND = vectors_ND if self.straighten is None else self.straighten(vectors_ND)
        if len(straight_ND) != len(vectors_ND) or not np.isfinite(straight_ND).all():
            raise ValueError(
                f"straighten: gives no finite vector for each of {len(vectors_ND)}: give that of the encoder, or None"
            )
        return straight_ND

    def shaped(self, pixels_NP: NDArray[np.floating]) -> Restored:
        """Flat pixels as images, cut to [0, 1]."""
        return pixels_NP.clip(0, 1).reshape(-1, *self.images.shape[1:]).astype(np.float32)


def flat(images: Images) -> NDArray[np.float64]:
    """Pixels in [0, 1], (M, P)."""
    return images.reshape(len(images), -1) / 255.0


def draw_pairs(pool: int, count: int, seed: int) -> NDArray[np.int64]:
    """A random choice of `count` out of `pool` pairs; smaller choices of one seed are parts of larger ones.

    Raises:
        ValueError: there are fewer pairs than asked.
    """
    if count > pool:
        raise ValueError(f"{count} pairs: there are {pool}: ask for fewer")
    return np.random.default_rng(seed).permutation(pool)[:count]


def _check_vectors(name: str, vectors: Vectors) -> None:
    if vectors.ndim != 2 or not vectors.size or vectors.dtype.kind != "f":
        raise ValueError(f"{name} of type {vectors.dtype} and shape {vectors.shape}: must be floats, (N, D)")
    if not np.isfinite(vectors).all():
        raise ValueError(f"{name}: holds values that are not finite: mask the images again")
