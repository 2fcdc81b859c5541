"""The one way to make and fit any of the classifiers, and to look at the first members of an ensemble."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from classifiers.boosting import build_adaboost
from classifiers.config import NAMES, ClassifiersConfig
from classifiers.forest import OneHotForest, build_random_forest
from classifiers.mlp import MLP


def build(name: str, config: ClassifiersConfig, seed: int) -> Any:
    """Make the unfitted classifier of this name; `ValueError` for a name that is not in `NAMES`."""
    if name == "mlp":
        return MLP(**vars(config.mlp), random_state=seed)
    if name == "random_forest":
        return build_random_forest(config.random_forest, seed)
    if name == "random_forest_onehot":
        return OneHotForest(build_random_forest(config.random_forest, seed))
    if name == "adaboost":
        return build_adaboost(config.adaboost, seed)
    raise ValueError(f"classifier {name!r}: must be one of {', '.join(NAMES)}")


def fit(
    classifier: Any,
    train: tuple[NDArray[np.float32], NDArray[np.int64]],
    validation: tuple[NDArray[np.float32], NDArray[np.int64]] | None,
) -> Any:
    """Fit on (N, D) vectors and (N,) labels, handing the validation part to the one that can use it."""
    if isinstance(classifier, MLP) and validation is not None and len(validation[1]):
        return classifier.fit(*train, *validation)
    return classifier.fit(*train)


def first(ensemble: Any, count: int) -> Any:
    """The first `count` members of a fitted forest or AdaBoost: what fitting so many with its seed gives."""
    smaller = copy(ensemble).set_params(n_estimators=count)
    smaller.estimators_ = ensemble.estimators_[:count]
    if hasattr(ensemble, "estimator_weights_"):
        smaller.estimator_weights_ = ensemble.estimator_weights_[:count]
    return smaller
