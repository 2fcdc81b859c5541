"""One class over all classifiers; then what is particular to each."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from classifiers import MLP, NAMES, NO_LABEL, ClassifiersConfig, OneHotForest, build, count_scores, fit, score
from classifiers.config import BoostingConfig, ForestConfig, MlpConfig
from classifiers.mlp import _Net

QUICK = ClassifiersConfig(
    mlp=MlpConfig(hidden=(16, 8), epochs=8),
    random_forest=ForestConfig(estimators=15),
    adaboost=BoostingConfig(estimators=15),
)


def blobs(classes=3, n=240, d=6, seed=0):
    """Gaussian clouds around different means."""
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    means = 3 * np.random.default_rng(99).standard_normal((classes, d))
    return (means[y] + rng.standard_normal((n, d))).astype(np.float32), y


@pytest.mark.parametrize("name", NAMES)
class TestEveryClassifier:
    def test_it_learns_what_can_be_learned(self, name):
        classifier = fit(build(name, QUICK, seed=1), blobs(), blobs(seed=1))
        x, y = blobs(seed=2)
        assert score(y, classifier.predict(x), 3).accuracy > 0.8

    def test_a_seed_repeats(self, name):
        x, _ = blobs(seed=2)
        first, second = (fit(build(name, QUICK, seed=4), blobs(), None).predict_proba(x) for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_labels_are_given_back_as_they_came(self, name):
        x, y = blobs(classes=2)
        labels = np.array([40, -7])[y]
        predicted = build(name, QUICK, 1).fit(x, labels).predict(x)
        assert predicted.shape == (240,)
        assert set(predicted) <= {40, -7, NO_LABEL}
        assert (predicted == labels).mean() > 0.8

    def test_it_leaves_its_input_alone(self, name):
        x, y = blobs()
        kept = x.copy()
        build(name, QUICK, 1).fit(x, y).predict(x)
        np.testing.assert_array_equal(x, kept)

    def test_it_can_be_cloned(self, name):
        classifier = build(name, QUICK, 1)
        x, y = blobs()
        np.testing.assert_array_equal(clone(classifier).fit(x, y).predict(x), classifier.fit(x, y).predict(x))


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match="'svm': must be one of mlp"):
        build("svm", QUICK, 1)


class TestMLP:
    def test_its_step_is_that_of_torch(self):
        """The written-out gradient and the fused step against an nn.Sequential and torch.optim.Adam."""
        sizes, torch_ = (6, 16, 8, 3), torch.nn
        net = _Net(sizes, 1e-3, torch.Generator().manual_seed(3))
        reference = torch_.Sequential(
            torch_.Linear(6, 16), torch_.ReLU(), torch_.Linear(16, 8), torch_.ReLU(), torch_.Linear(8, 3)
        )
        with torch.no_grad():
            for parameter, value in zip(reference.parameters(), net.layers, strict=True):
                parameter.copy_(value)
        adam = torch.optim.Adam(reference.parameters(), lr=1e-3)
        x, y = (torch.from_numpy(a) for a in blobs(n=101))
        for begin in range(0, 101, 4):  # the last batch is smaller
            loss = torch_.functional.cross_entropy(reference(x[begin : begin + 4]), y[begin : begin + 4])
            adam.zero_grad()
            loss.backward()
            adam.step()
        history = net.train_epoch(x, y, 4)
        for parameter, value in zip(reference.parameters(), net.layers, strict=True):
            torch.testing.assert_close(value, parameter.detach(), rtol=1e-4, atol=1e-6)
        assert 0 <= history["train_accuracy"] <= 1

    def test_the_best_epoch_on_the_validation_part_is_kept(self):
        x, y = blobs(n=60)
        noisy = blobs(n=60, seed=5)
        mlp = MLP(hidden=(64, 32), epochs=12, learning_rate=0.02, random_state=0).fit(x, y, *noisy)
        accuracies = [entry["validation_accuracy"] for entry in mlp.history_]
        assert mlp.best_epoch_ == 1 + max(range(12), key=lambda i: (accuracies[i], -mlp.history_[i]["validation_loss"]))
        assert (mlp.predict(noisy[0]) == noisy[1]).mean() == pytest.approx(max(accuracies))

    def test_averaged_weights_are_the_mean_over_the_ends_of_epochs(self):
        x, y = blobs()
        ends = [MLP(hidden=(16, 8), epochs=epochs, random_state=0).fit(x, y) for epochs in (1, 2, 3)]
        averaged = MLP(hidden=(16, 8), epochs=3, average=True, random_state=0).fit(x, y)
        for name, array in averaged.state().items():
            np.testing.assert_allclose(array, np.mean([end.state()[name] for end in ends], axis=0), atol=1e-6)
        assert averaged.history_ == ends[-1].history_  # its steps are the same

    def test_an_averaged_epoch_is_judged_by_the_weights_that_are_kept_of_it(self):
        x, y = blobs(n=60)
        noisy = blobs(n=60, seed=5)
        mlp = MLP(hidden=(64, 32), epochs=12, learning_rate=0.02, average=True, random_state=0).fit(x, y, *noisy)
        kept = mlp.history_[mlp.best_epoch_ - 1]["validation_accuracy"]
        assert (mlp.predict(noisy[0]) == noisy[1]).mean() == pytest.approx(kept)
        assert kept == max(entry["validation_accuracy"] for entry in mlp.history_)

    def test_its_state_makes_one_that_predicts_the_same(self):
        x, y = blobs()
        mlp = MLP(hidden=(16, 8), epochs=3, random_state=0).fit(x, y + 5)
        state = mlp.state()
        again = MLP.from_state(state, mlp.classes_)
        np.testing.assert_array_equal(again.predict_proba(x), mlp.predict_proba(x))
        np.testing.assert_array_equal(again.predict(x), mlp.predict(x))
        assert again.get_params()["hidden"] == (16, 8)
        state["W1"][:] = 0  # a copy: neither network changes
        np.testing.assert_array_equal(again.predict_proba(x), mlp.predict_proba(x))

    @pytest.mark.parametrize(
        "change", [{"W1": np.zeros(3)}, {"b2": np.zeros(1)}, {"W3": np.zeros((2, 8))}, {"W4": np.zeros(1)}, None]
    )
    def test_a_state_that_is_none_is_refused(self, change):
        x, y = blobs()
        state = MLP(hidden=(16, 8), epochs=1, random_state=0).fit(x, y).state() | (change or {})
        if change is None:
            state = {"W1": np.array(1.0)}
        with pytest.raises(ValueError, match="three layers for 3 classes"):
            MLP.from_state(state, range(3))

    def test_a_validation_label_that_training_lacks_is_refused(self):
        x, y = blobs(classes=2)
        with pytest.raises(ValueError, match="y_validation holds labels"):
            MLP(epochs=1).fit(x, y, x, y + 1)

    def test_half_a_validation_part_is_told(self):
        x, y = blobs(classes=2)
        for part in ({"X_validation": x}, {"y_validation": y}):
            with pytest.raises(ValueError, match="go together"):
                MLP(epochs=1).fit(x, y, **part)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            MLP(epochs=1).fit(x, y, x, y[1:])


class TestOneHotForest:
    @pytest.mark.parametrize("labels", [["a", "b"], [0, NO_LABEL], [1, 1], [0.5, 1.5]])
    def test_labels_that_a_row_without_one_could_be_taken_for_are_refused(self, labels):
        with pytest.raises(ValueError, match=r"two or more whole numbers|Unknown label type"):
            OneHotForest().fit(np.eye(4), np.repeat(labels, 2))

    @pytest.mark.parametrize("x", [np.full((4, 2), np.nan), np.zeros(4), np.zeros((3, 2))])
    def test_vectors_that_are_none_are_refused(self, x):
        with pytest.raises(ValueError, match=r"NaN|1D array|inconsistent"):
            OneHotForest().fit(x, [0, 0, 1, 1])

    def test_a_row_without_exactly_one_class_has_no_label(self):
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((300, 4)), rng.integers(4, size=300)
        forest = OneHotForest(build("random_forest", QUICK, 1)).fit(x, y)
        fresh = rng.standard_normal((300, 4))
        named = np.asarray(forest.forest_.predict(fresh)).sum(axis=1)
        predicted = forest.predict(fresh)
        assert (named != 1).any()
        np.testing.assert_array_equal(predicted == NO_LABEL, named != 1)


class TestScore:
    def test_it_agrees_with_scikit_learn(self):
        rng = np.random.default_rng(0)
        truth, predicted = rng.integers(4, size=200), rng.integers(4, size=200)
        scores = score(truth, predicted, 4)
        assert scores.accuracy == accuracy_score(truth, predicted)
        assert scores.precision == pytest.approx(precision_score(truth, predicted, average="macro"))
        assert scores.recall == pytest.approx(recall_score(truth, predicted, average="macro"))
        np.testing.assert_array_equal(np.array(scores.confusion)[:, :4], confusion_matrix(truth, predicted))

    def test_no_label_is_never_right_and_never_class_0(self):
        scores = score(np.array([0, 0, 1, 1]), np.array([NO_LABEL, 0, NO_LABEL, 1]), 2)
        assert scores.accuracy == 0.5
        assert scores.precision == 1.0
        assert scores.recall == 0.5
        assert scores.confusion == [[1, 0, 1], [0, 1, 1]]

    def test_a_class_that_is_never_predicted_counts_zero(self):
        assert score(np.array([0, 1]), np.array([0, 0]), 2).precision == 0.25


@pytest.mark.parametrize(
    ("cls", "values", "told"),
    [
        (ClassifiersConfig, {"names": ("mlp", "svm")}, "names = 'svm': must be one of"),
        (ClassifiersConfig, {"names": ()}, "one or more"),
        (ClassifiersConfig, {"names": ("mlp", "mlp")}, "each once"),
        (MlpConfig, {"hidden": (0, 1)}, "hidden"),
        (MlpConfig, {"batch_size": 0}, "batch_size = 0"),
        (ForestConfig, {"estimators": 0}, "estimators = 0"),
        (BoostingConfig, {"estimators": -3}, "estimators = -3"),
    ],
)
def test_a_wrong_setting_is_told(cls, values, told):
    with pytest.raises(ValueError, match=told):
        cls(**values)


@parametrize_with_checks(
    [MLP(hidden=(32, 16), epochs=60, random_state=0)],
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_counted_scores_hold_every_vector_once_in_its_own_and_the_others_rows():
    truth = np.array([0, 0, 1])
    counts = count_scores(truth, np.array([[1.0, 0.0], [0.5, 0.5], [0.05, 0.95]]))
    assert [sum(row) for row in counts["own"]] == [2, 1]
    assert [sum(row) for row in counts["others"]] == [1, 2]
    assert counts["own"][0][-1] == 1  # a score of one is in the last bin
    assert counts["own"][0][12] == 1
    assert counts["others"][0][1] == 1
