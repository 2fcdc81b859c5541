"""Accuracy, macro precision and recall, and the confusion of predictions with labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_fscore_support

#: The prediction of a classifier that names no class at all. It is never right, and never class 0.
NO_LABEL = -1

#: Equal steps from 0 to 1 into which class scores are counted.
SCORE_BINS = 25


@dataclass(frozen=True)
class Scores:
    """What the paper's tables hold, and the confusion behind it."""

    accuracy: float
    precision: float
    """Mean over the classes; a class that is never predicted counts 0."""
    recall: float
    """Mean over the classes."""
    confusion: list[list[int]]
    """Row: true class; column: predicted class, then a last column for `NO_LABEL`."""


def score(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> Scores:
    """Compare predictions (class 0 to classes - 1, or `NO_LABEL`) with the true classes, both (N,)."""
    precision, recall, _, _ = precision_recall_fscore_support(
        truth, predicted, labels=range(classes), average="macro", zero_division=0.0
    )
    confusion = np.zeros((classes, classes + 1), dtype=np.int64)
    np.add.at(confusion, (truth, np.where(predicted == NO_LABEL, classes, predicted)), 1)
    return Scores(float(np.mean(truth == predicted)), float(precision), float(recall), confusion.tolist())


def count_scores(truth: NDArray[np.int64], score_NC: NDArray[np.floating]) -> dict[str, list[list[int]]]:
    """How often each class got which score, for vectors of that class and for all others: what a PR curve needs.

    Returns:
        `own` and `others`, each a row for every class of `SCORE_BINS` counts, lowest score first.
    """
    bin_NC = (score_NC * SCORE_BINS).astype(np.int64).clip(0, SCORE_BINS - 1)
    own_NC = truth[:, None] == np.arange(score_NC.shape[1])

    def counted(chosen_NC: NDArray[np.bool_]) -> list[list[int]]:
        pairs = zip(bin_NC.T, chosen_NC.T, strict=True)
        return [np.bincount(column[chosen], minlength=SCORE_BINS).tolist() for column, chosen in pairs]

    return {"own": counted(own_NC), "others": counted(~own_NC)}
