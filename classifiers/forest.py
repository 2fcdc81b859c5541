"""Random Forest, on class labels and on one-hot targets."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from classifiers.config import ForestConfig
from classifiers.metrics import NO_LABEL


def build_random_forest(config: ForestConfig, seed: int) -> RandomForestClassifier:
    """A forest, unfitted."""
    return RandomForestClassifier(n_estimators=config.estimators, random_state=seed)


class OneHotForest(ClassifierMixin, BaseEstimator):
    """The same forest on one-hot targets, which the paper's figures look like (its rows for Random Forest).

    scikit-learn then fits one binary target a class, and a prediction may name no class, or several. Accuracy is
    exact match, so both count as `NO_LABEL`.
    """

    def __init__(self, forest: RandomForestClassifier | None = None) -> None:
        self.forest = forest

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Fit to (N, D) vectors and (N,) labels: whole numbers of two classes or more, `NO_LABEL` not among them."""
        vectors, labels = validate_data(self, X, y, dtype=None)
        check_classification_targets(labels)
        self.classes_, index_N = np.unique(labels, return_inverse=True)
        if self.classes_.dtype.kind not in "iu" or len(self.classes_) < 2 or NO_LABEL in self.classes_:
            raise ValueError(f"y holds {self.classes_[:3]}: must be two or more whole numbers other than {NO_LABEL}")
        forest = RandomForestClassifier() if self.forest is None else clone(self.forest)
        self.forest_: Any = forest.fit(vectors, np.eye(len(self.classes_), dtype=np.int64)[index_N])
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        check_is_fitted(self)
        named_NC = np.asarray(self.forest_.predict(X))
        single_N = named_NC.sum(axis=1) == 1
        return np.where(single_N, self.classes_[named_NC.argmax(axis=1)], NO_LABEL)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class by itself, (N, classes); a row need not add up to one."""
        check_is_fitted(self)
        return np.stack([p[:, -1] if p.shape[1] == 2 else np.ones(len(p)) for p in self.forest_.predict_proba(X)], 1)
