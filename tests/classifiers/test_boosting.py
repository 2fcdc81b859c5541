"""Stumps over sorted features against scikit-learn's own trees and its own AdaBoost."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import AdaBoostClassifier
from sklearn.tree import DecisionTreeClassifier

from classifiers.boosting import Stump, StumpBoost, build_adaboost
from classifiers.config import BoostingConfig


def clouds(n=300, d=12, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return (rng.standard_normal((n, d)) + rng.standard_normal((classes, d))[y]).astype(np.float32), y


def impurity(x, y, weight, feature, threshold):
    """Weighted Gini impurity of a split, written as in a textbook."""
    total = 0.0
    for side in (x[:, feature] <= threshold, x[:, feature] > threshold):
        shares = np.bincount(y[side], weight[side]) / weight[side].sum()
        total += weight[side].sum() * (1 - (shares**2).sum())
    return total / weight.sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("classes", [2, 5])
def test_a_stump_is_scikit_learns(seed, classes):
    x, y = clouds(classes=classes, seed=seed)
    weight = np.random.default_rng(seed).random(300)
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit(x, y, sample_weight=weight)
    stump = Stump().fit(x, y, sample_weight=weight)
    assert (stump.feature_, stump.threshold_) == (tree.tree_.feature[0], tree.tree_.threshold[0])
    np.testing.assert_allclose(stump.predict_proba(x), tree.predict_proba(x), rtol=1e-9)


def test_repeated_values_are_never_split():
    x, y = clouds(n=200, d=5, classes=3)
    x = np.round(x)
    weight = np.random.default_rng(1).random(200)
    stump = Stump().fit(x, y, sample_weight=weight)
    tree = DecisionTreeClassifier(max_depth=1, random_state=0).fit(x, y, sample_weight=weight)
    theirs = impurity(x, y, weight, tree.tree_.feature[0], tree.tree_.threshold[0])
    assert stump.threshold_ % 1 == 0.5
    assert impurity(x, y, weight, stump.feature_, stump.threshold_) == pytest.approx(theirs, rel=1e-9)


def test_constant_vectors_have_no_split():
    stump = Stump().fit(np.ones((10, 3), np.float32), np.arange(10) % 2, sample_weight=np.arange(10.0))
    assert stump.threshold_ == np.inf
    np.testing.assert_allclose(stump.predict_proba(np.ones((1, 3), np.float32)), [[20 / 45, 25 / 45]])


@pytest.mark.parametrize("labels", [np.array([3, -1, 7, 8]), np.array(["a", "b", "c", "d"])])
def test_adaboost_is_scikit_learns(labels):
    x, y = clouds(n=500, d=30)
    ours = build_adaboost(BoostingConfig(estimators=40), 0).fit(x, labels[y])
    theirs = AdaBoostClassifier(n_estimators=40, random_state=0).fit(x, labels[y])
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-9)
    fresh, _ = clouds(d=30, seed=9)
    np.testing.assert_array_equal(ours.predict(fresh), theirs.predict(fresh))


def test_weights_that_became_tiny_split_as_scikit_learns_do():
    """Late rounds put nearly all weight on a few vectors: differences of squares are then rounding alone."""
    x, y = load_digits(return_X_y=True)
    x, y = x[np.isin(y, (3, 8))], y[np.isin(y, (3, 8))]
    ours = build_adaboost(BoostingConfig(estimators=300), 0).fit(x, y)
    theirs = AdaBoostClassifier(n_estimators=300, random_state=0).fit(x, y)
    assert len(ours.estimators_) == len(theirs.estimators_)
    np.testing.assert_allclose(ours.estimator_errors_, theirs.estimator_errors_, rtol=1e-6)


def test_vectors_without_weight_count_nothing():
    x, y = clouds(n=60, d=5, classes=2)
    weight = np.where(np.arange(60) < 20, 0.0, 1.0)
    stump, tree = Stump().fit(x, y, weight), DecisionTreeClassifier(max_depth=1, random_state=0).fit(x[20:], y[20:])
    theirs = impurity(x[20:], y[20:], weight[20:], tree.tree_.feature[0], tree.tree_.threshold[0])
    assert impurity(x[20:], y[20:], weight[20:], stump.feature_, stump.threshold_) == pytest.approx(theirs, rel=1e-9)


def test_a_side_without_weight_says_what_the_other_does():
    x, y, weight = np.array([[0.0], [1.0], [2.0]]), np.array([0, 1, 1]), np.array([0.0, 1.0, 1.0])
    assert np.isfinite(Stump().fit(x, y, weight).proportions_).all()
    for part in (slice(None), slice(None, None, -1)):
        ours = build_adaboost(BoostingConfig(estimators=3), 0).fit(x[part], y[part], weight[part])
        theirs = AdaBoostClassifier(n_estimators=3, random_state=0).fit(x[part], y[part], weight[part])
        np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_another_estimator_or_none_is_scikit_learns():
    x, y = clouds(n=60, d=5)
    ours, theirs = (make(n_estimators=5, random_state=0).fit(x, y) for make in (StumpBoost, AdaBoostClassifier))
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_one_vector_has_no_split():
    assert Stump().fit(np.zeros((1, 3)), [7]).predict(np.ones((2, 3))).tolist() == [7, 7]


def test_a_second_fit_on_the_same_array_sorts_again():
    x, y = clouds()
    boost = StumpBoost(estimator=Stump(), n_estimators=5, random_state=0).fit(x, y)
    before = boost.predict(x)
    x *= -1
    np.testing.assert_array_equal(boost.fit(x, y).predict(x), before)
    x[:] = np.random.default_rng(5).permutation(x)
    assert not np.array_equal(boost.fit(x, y).predict(x), before)
