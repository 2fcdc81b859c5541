"""What can be learned from masked vectors. Nothing here knows where the vectors come from.

A classifier is a scikit-learn estimator; `build` makes one by name. The neural network alone takes a validation
part, as `fit(x, y, x_validation, y_validation)`; see `fit`, which treats all alike. What needs scikit-learn or torch is
imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from classifiers.config import NAMES, ClassifiersConfig

if TYPE_CHECKING:
    from classifiers.estimators import build, first, fit
    from classifiers.forest import OneHotForest
    from classifiers.metrics import NO_LABEL, Scores, count_scores, score
    from classifiers.mlp import MLP, layer_shapes

__all__ = [
    "MLP", "NAMES", "NO_LABEL", "ClassifiersConfig", "OneHotForest", "Scores", "build", "count_scores", "first",
    "fit", "layer_shapes", "score",
]  # fmt: skip

_PLACES = {
    **dict.fromkeys(("build", "first", "fit"), "estimators"),
    "OneHotForest": "forest",
    **dict.fromkeys(("NO_LABEL", "Scores", "count_scores", "score"), "metrics"),
    **dict.fromkeys(("MLP", "layer_shapes"), "mlp"),
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(import_module(f"classifiers.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
