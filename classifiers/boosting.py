"""AdaBoost over decision stumps that sort the features once for all rounds.

scikit-learn's AdaBoost fits a tree a round, and each tree sorts every feature again. The order never changes, only the
weights do: here it is kept, and a round is a few cumulative sums.

Shapes: N vectors, F features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.ensemble import AdaBoostClassifier
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from classifiers.config import BoostingConfig

Floats = NDArray[np.float64]

#: Two values that are closer than this are not split, as in scikit-learn's trees.
GAP = 1e-7

#: Numbers that pass through the cumulative sums at once: few enough to stay in a processor's cache.
BLOCK = 100_000


def build_adaboost(config: BoostingConfig, seed: int) -> AdaBoostClassifier:
    """AdaBoost over stumps, unfitted."""
    return StumpBoost(estimator=Stump(), n_estimators=config.estimators, random_state=seed)


class StumpBoost(AdaBoostClassifier):
    """scikit-learn's own AdaBoost, whose stumps share one sorting for as long as `fit` lasts."""

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        if not isinstance(self.estimator, Stump):
            return super().fit(X, y, sample_weight)
        shared: dict[str, _Sorted] = {}
        self.estimator.shared = shared
        try:
            return super().fit(X, y, sample_weight)
        finally:
            shared.clear()
            self.estimator.shared = None


class Stump(ClassifierMixin, BaseEstimator):
    """A decision tree of depth one by the Gini impurity, exact; the same split as scikit-learn's `best` splitter.

    Attributes:
        classes_: the labels seen in `fit`.
        feature_, threshold_: the split; values up to the threshold go left. Without a split the threshold is inf.
        proportions_: weighted share of each class on the left and on the right, (2, C).
    """

    shared: dict[str, _Sorted] | None = None

    def __sklearn_clone__(self) -> Stump:
        twin = Stump()
        twin.shared = self.shared
        return twin

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Find the best split of (N, F) vectors with labels (N,) and weights (N,)."""
        found = None if self.shared is None else self.shared.get("sorted")
        if found is None or found.source[0] is not X or found.source[1] is not y:
            found = _sort(X, y, *validate_data(self, X, y))
            if self.shared is not None:
                self.shared["sorted"] = found
        self.n_features_in_, self.classes_ = found.x_NF.shape[1], found.classes
        weights = np.ones(len(found.y_N)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        self.feature_, self.threshold_ = found.best_split(weights)
        left_N = found.x_NF[:, self.feature_] <= self.threshold_
        sides = [np.bincount(found.y_N, weights * side, len(self.classes_)) for side in (left_N, ~left_N)]
        sides = [side if side.any() else sides[1 - place] for place, side in enumerate(sides)]
        self.proportions_ = np.stack([side / side.sum() for side in sides])
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:
        """Weighted share of each class on the vector's side, (N, C)."""
        check_is_fitted(self)
        x_NF = validate_data(self, X, reset=False)
        return self.proportions_[(x_NF[:, self.feature_] > self.threshold_).astype(np.intp)]

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        best_N = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best_N]


@dataclass(frozen=True)
class _Sorted:
    """What does not change from round to round."""

    source: tuple[Any, Any]
    x_NF: NDArray[np.floating[Any]]
    y_N: NDArray[np.intp]
    classes: NDArray[Any]
    order_FN: NDArray[np.int32]
    """Vectors in the order of each feature."""
    by_class_FN: NDArray[np.int32]
    """The same, class after class."""
    place_FN: NDArray[np.int32]
    """Where each entry of `order_FN` stands in `by_class_FN`."""
    together_FN: NDArray[np.bool_]
    """Whether an entry and its next are too close to be split."""

    def best_split(self, weight_N: Floats) -> tuple[int, float]:
        """The feature and threshold with the lowest weighted Gini impurity; the first of equals.

        With L and R the class weights on either side, that is the highest |L|² / ΣL + |R|² / ΣR. Both squares are
        cumulative sums along the order: a vector of weight w and class k adds w (2 L_k + w) to |L|², and
        |R|² = |T|² - 2 T·L + |L|² with T the weights of all.
        """
        count, classes = len(weight_N), len(self.classes)
        if count < 2:
            return 0, np.inf
        total_C, size_C = np.bincount(self.y_N, weight_N, classes), np.bincount(self.y_N, minlength=classes)
        first_C = np.cumsum(size_C) - size_C
        # Weights and w T_k side by side: one gather and one cumulative sum serve both.
        pair_N = torch.from_numpy(weight_N + 1j * (weight_N * total_C[self.y_N]))
        weights, whole, best = torch.from_numpy(weight_N), total_C.sum(), (-np.inf, 0, np.inf)
        rows = max(1, BLOCK // count)
        for begin in range(0, len(self.order_FN), rows):
            part = slice(begin, begin + rows)
            own_FN = _gathered(weights, self.by_class_FN[part])
            sum_FN = np.cumsum(own_FN, axis=1)
            before_FC = sum_FN[:, first_C] - own_FN[:, first_C]
            gain_FN = own_FN * (2 * (sum_FN - np.repeat(before_FC, size_C, axis=1)) - own_FN)
            square_FN = np.cumsum(_gathered(torch.from_numpy(gain_FN), self.place_FN[part]), axis=1)[:, :-1]
            both_FN = np.cumsum(_gathered(pair_N, self.order_FN[part]), axis=1)[:, :-1]
            left_FN, crossed_FN = both_FN.real, both_FN.imag
            # A side without weight says nothing, and no side scores above its weight, whatever rounding says of the
            # difference of large squares.
            right_FN = np.maximum(whole - left_FN, 0)
            other_FN = np.maximum(total_C @ total_C - 2 * crossed_FN + square_FN, 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                score_FN = np.fmin(square_FN / left_FN, left_FN)
                score_FN += np.fmin(other_FN / right_FN, right_FN)
            np.copyto(score_FN, -np.inf, where=self.together_FN[part])
            row, column = np.unravel_index(np.argmax(score_FN), score_FN.shape)
            if score_FN[row, column] > best[0]:
                feature = begin + int(row)
                low, high = (float(self.x_NF[n, feature]) for n in self.order_FN[feature, column : column + 2])
                middle = low / 2 + high / 2
                best = float(score_FN[row, column]), feature, middle if low <= middle < high else low
        return best[1], best[2]


def _sort(X: Any, y: Any, x_NF: NDArray[Any], labels_N: NDArray[Any]) -> _Sorted:
    classes, y_N = np.unique(labels_N, return_inverse=True)
    x_FN = np.ascontiguousarray(x_NF.T)
    order_FN = np.argsort(x_FN, axis=1, kind="stable").astype(np.int32)
    sorting_FN = np.argsort(y_N.astype(np.int32)[order_FN], axis=1, kind="stable").astype(np.int32)
    place_FN = np.empty_like(sorting_FN)
    np.put_along_axis(place_FN, sorting_FN, np.arange(len(y_N), dtype=np.int32)[None], axis=1)
    value_FN = np.take_along_axis(x_FN, order_FN, axis=1)
    by_class_FN = np.take_along_axis(order_FN, sorting_FN, axis=1)
    together_FN = value_FN[:, 1:] <= value_FN[:, :-1] + GAP
    # Places count through a block of features, as its flat array does.
    place_FN += (np.arange(len(place_FN)) % max(1, BLOCK // len(y_N)) * len(y_N)).astype(np.int32)[:, None]
    return _Sorted((X, y), x_NF, y_N, classes, order_FN, by_class_FN, place_FN, together_FN)


def _gathered(values: Tensor, index_FN: NDArray[np.int32]) -> NDArray[Any]:
    """Values at 32-bit indices; NumPy would widen the indices first."""
    return values.reshape(-1).index_select(0, torch.from_numpy(index_FN).view(-1)).view(index_FN.shape).numpy()
