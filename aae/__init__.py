"""The adversarial autoencoder: networks, priors, training, masking, and keys. It needs torch and numpy alone.

`Masker`, the transformer, needs scikit-learn and is imported when asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aae.transformer import Masker

__all__ = ["Masker"]


def __getattr__(name: str) -> Any:
    if name == "Masker":
        from aae.transformer import Masker

        return Masker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
