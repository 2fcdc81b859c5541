"""Means, deviations and intervals against known grids."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from study import paper
from study.aggregate import describe, summarise
from study.records import Record


def test_mean_and_sigma_of_a_known_grid():
    cell = describe(pd.DataFrame([[0.1, 0.3], [0.5, 0.9]]), seed=0)
    assert cell["mean"] == pytest.approx(0.45)
    assert cell["sigma"] == pytest.approx((np.std([0.1, 0.3], ddof=1) + np.std([0.5, 0.9], ddof=1)) / 2)
    assert (cell["encoders"], cell["draws"]) == (2, 2)


def test_nothing_repeated_has_no_interval():
    assert describe(pd.DataFrame([[0.4]]), 0) == {
        "mean": 0.4, "sigma": None, "draws": 1, "encoders": 1, "interval": None,
    }  # fmt: skip


def test_a_missing_cell_is_left_out():
    cell = describe(pd.DataFrame([[0.2, np.nan], [0.4, 0.6]]), 0)
    assert cell["mean"] == pytest.approx(0.4)
    assert all(np.isfinite(cell["interval"]))


@pytest.mark.parametrize(("encoders", "draws"), [(4, 1), (1, 4), (4, 10), (4, 30)])
def test_the_interval_covers_about_as_often_as_it_says(encoders, draws):
    """Crossed random effects: encoders and draws, both random."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(300):
        grid = rng.standard_normal((encoders, 1)) * 0.01 + rng.standard_normal((1, draws)) * 0.08 * (draws > 1)
        noise = rng.standard_normal((encoders, draws)) * 0.005
        low, high = describe(pd.DataFrame(0.7 + grid + noise), trial)["interval"]
        hits += low <= 0.7 <= high
    assert 0.92 <= hits / 300 <= 0.98


def test_two_encoders_that_differ_as_draws_do_share_their_degrees_of_freedom():
    encoders, draws = np.array([[-1.0], [1.0]]), np.linspace(-2.0, 2.0, 10)[None]
    low, high = describe(pd.DataFrame(0.5 + 0.01 * (encoders + draws)), 0)["interval"]
    parts = [(np.var(values, ddof=1) / n, n) for values, n in ((encoders, 2), (draws, 10))]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / (n - 1) for part, n in parts)
    assert 1 < freedom < 9
    assert (high - low) / 2 == pytest.approx(0.01 * stats.t.ppf(0.975, freedom) * variance**0.5, rel=0.1)


def test_configurations_that_differ_in_more_than_their_latents_are_not_added_up():
    records = [record("a", "mlp", 0, 0.6), record("b", "mlp", 0, 0.8, variant="learning_rate 0.01")]
    rows = summarise(records)["classification"]
    assert [(row["latent"], row["accuracy"]["mean"]) for row in rows] == [
        ("384+20", 0.6),
        ("384+20, learning_rate 0.01", 0.8),
    ]


def record(trial, classifier, draw, accuracy, representation="masked", protocol="shared", **changes):
    classes = changes.pop("classes", 2)
    values = {"gaussian": 384, "categorical": 20, "batch_size": 16, "instance": 0} | changes
    return Record(
        kind="classification",
        key=f"{trial}/{classifier}/{classes}/{draw}/{representation}/{protocol}",
        trial=trial,
        **values,
        what={
            "representation": representation,
            "dataset": "cifar100",
            "classes": classes,
            "draw": draw,
            "protocol": protocol,
            "classifier": classifier,
        },
        metrics={"accuracy": accuracy, "precision": accuracy, "recall": accuracy},
    )


def test_differences_are_paired_by_draw():
    accuracies = [0.6, 0.9, 0.7]
    records = [record(t, "mlp", d, a + 0.01 * (t == "y")) for t in "xy" for d, a in enumerate(accuracies)]
    records += [record(t, "adaboost", d, a - 0.05) for t in "xy" for d, a in enumerate(accuracies)]
    records += [record("pca", "mlp", d, a - 0.1, "pca", batch_size=0) for d, a in enumerate(accuracies)]
    rows = {(r["classifier"], r["against"]): r["accuracy"] for r in summarise(records)["differences"]}
    assert rows["mlp", "pca"]["mean"] == pytest.approx(0.105)
    wider = stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975) * np.sqrt(2)  # two encoders resampled are 0.1 to 0.11
    assert rows["mlp", "pca"]["interval"] == pytest.approx([0.105 - 0.005 * wider, 0.105 + 0.005 * wider])
    assert rows["mlp", "adaboost"]["mean"] == pytest.approx(0.055)


def test_a_longer_control_is_not_compared():
    records = [record("x", "mlp", 0, 0.5), record("pca", "mlp", 0, 0.4, "pca", gaussian=10, batch_size=0)]
    assert summarise(records)["differences"] == []


def test_mirrored_vectors_are_compared_with_those_of_the_same_configuration():
    records = [record("x", "mlp", 0, 0.5), record("x", "mlp", 0, 0.6, "mirrored")]
    records += [record("y", "mlp", 0, 0.7, variant="other"), record("y", "mlp", 0, 0.9, "mirrored", variant="other")]
    rows = {row["latent"]: row["accuracy"]["mean"] for row in summarise(records)["differences"]}
    assert rows == {"384+20": pytest.approx(-0.1), "384+20, other": pytest.approx(-0.2)}


def test_a_defence_on_one_encoder_is_compared_with_that_encoder():
    records = [record(f"{i}", "mlp", 0, 0.5 + 0.1 * i, instance=i) for i in range(3)]
    records.append(record("1", "mlp", 0, 0.55, "noise@1", instance=1))
    (row,) = summarise(records)["differences"]
    assert row["accuracy"]["mean"] == pytest.approx(0.05)


def test_other_encoders_are_no_pair():
    """As a study that was stopped may hold them."""
    for encoders in ("y", "yz"):
        records = [record(t, "mlp", 0, 0.9) for t in ("w", "x")]
        records += [record(t, "mlp", 0, 0.5, "mirrored") for t in encoders]
        assert summarise(records)["differences"] == []


def test_the_papers_cell_stands_beside_ours_with_welchs_interval():
    rng = np.random.default_rng(1)
    ours = rng.normal(0.86, 0.07, 10)
    records = [record("x", "mlp", d, a, protocol="paper") for d, a in enumerate(ours)]
    (row,) = summarise(records)["classification"]
    cell = row["accuracy"]["paper"]
    mean, sigma = paper.TABLE_1["mlp", 2]["accuracy"]
    theirs = stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), 10, mean, sigma, 10, equal_var=False)
    low, high = cell["interval"]
    assert cell["difference"] == pytest.approx(ours.mean() - mean)
    assert (low < 0 < high) == (theirs.pvalue > 0.05)
    half = (high - low) / 2
    assert stats.t.sf(abs(theirs.statistic), 18) * 2 == pytest.approx(theirs.pvalue, rel=0.1)
    assert half == pytest.approx(2.1 * np.hypot(ours.std(ddof=1), sigma) / 10**0.5, rel=0.03)


def test_the_drop_is_from_the_fewest_to_the_most_classes():
    rng = np.random.default_rng(2)
    few, many = rng.normal(0.8, 0.05, 10), rng.normal(0.5, 0.1, 10)
    records = [record("x", "random_forest", d, a) for d, a in enumerate(few)]
    records += [record("x", "random_forest", d, a, classes=4) for d, a in enumerate(many)]
    records += [record("x", "random_forest", d, 0.1, classes=3) for d in range(10)]
    (row,) = summarise(records)["drops"]
    assert (row["few"], row["many"]) == (2, 4)
    assert row["drop"] == pytest.approx(few.mean() - many.mean())
    assert row["paper"] == pytest.approx(0.387)
    theirs = stats.ttest_ind(few, many, equal_var=False).confidence_interval(0.95)
    assert row["interval"] == pytest.approx([theirs.low, theirs.high])


def test_every_cell_of_the_papers_tables_is_there():
    assert len(paper.TABLE_1) == 9
    assert paper.reported("cifar100", "random_forest_onehot", 4, "recall") == (0.428, 0.102)
    assert paper.reported("mnist", "mlp", 10, "accuracy") == (0.983, None)
    assert paper.reported("digits", "mlp", 10, "accuracy") is None
