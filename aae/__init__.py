"""The adversarial autoencoder: networks, priors, training, masking, and keys. It needs torch and numpy alone.

What the public names need beside (`Masker`, the transformer, scikit-learn) is imported when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aae.keys import load_key, save_pair
    from aae.masking import mask, unmask
    from aae.transformer import Masker

__all__ = ["Masker", "load_key", "mask", "save_pair", "unmask"]

_PLACES = {"Masker": "transformer", "load_key": "keys", "mask": "masking", "save_pair": "keys", "unmask": "masking"}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"aae.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
