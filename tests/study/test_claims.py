"""Verdicts against numbers worked out by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from study import paper
from study.aggregate import summarise
from study.claims import claims, judge, students
from study.records import Record, read_records
from study.unmasking import summarise_attacks
from study.views import words

USUAL = {"random_forest": 100, "adaboost": 100}


def found(records, histories=None):
    summary = summarise(records) | summarise_attacks(records)
    return claims(summary, records, histories or {}, USUAL)


def measured(kind, what, metrics, trial="a", **changes):
    values = {"gaussian": 384, "categorical": 20, "batch_size": 16, "instance": 0} | changes
    key = f"{kind}/{trial}/{sorted(what.items())}/{sorted(values.items())}"
    return Record(kind=kind, key=key, trial=trial, **values, what=what, metrics=metrics)


def classified(classifier, draw, accuracy, *, dataset="cifar100", classes=3, protocol="shared", **changes):
    what = {"representation": "masked", "dataset": dataset, "classes": classes, "draw": draw}
    metrics = dict.fromkeys(("accuracy", "precision", "recall"), accuracy)
    return measured("classification", what | {"protocol": protocol, "classifier": classifier}, metrics, **changes)


@pytest.mark.parametrize(
    ("interval", "repetitions", "verdict"),
    [
        ([0.1, 0.2], 10, "confirmed"),
        ([0.0, 0.2], 10, "confirmed"),
        ([-0.1, 0.2], 10, "undecided"),
        ([-0.2, -0.1], 10, "refuted"),
        ([0.1, 0.2], 3, "undecided"),
        (None, 10, "undecided"),
    ],
)
def test_a_verdict_is_where_the_interval_lies(interval, repetitions, verdict):
    assert judge(interval, 0.0, math.inf, repetitions) == verdict


@pytest.mark.parametrize(
    ("dataset", "classes", "lead", "verdicts"),
    [
        ("cifar100", 3, 0.1, {1: "confirmed"}),
        ("cifar100", 4, -0.1, {1: "refuted"}),
        ("cifar100", 2, 0.02, {1: "confirmed", 2: "confirmed"}),
        ("cifar100", 2, 0.2, {1: "confirmed", 2: "refuted"}),
        ("mnist", 10, 0.02, {1: "confirmed", 4: "confirmed"}),
        ("mnist", 10, 0.2, {1: "confirmed", 4: "refuted"}),
        ("mnist", 3, 0.02, {1: "confirmed"}),
        ("digits", 10, 0.2, {1: "confirmed"}),
    ],
)
def test_the_network_beside_classical_classifiers(dataset, classes, lead, verdicts):
    place = {"dataset": dataset, "classes": classes}
    records = [
        classified(name, draw, 0.6 + 0.01 * draw + more, trial=f"{encoder}", instance=encoder, **place)
        for encoder in range(2)
        for draw in range(5)
        for name, more in (("mlp", lead), ("random_forest", 0.0))
    ]
    rows = found(records)
    assert {row["claim"]: row["verdict"] for row in rows} == verdicts
    assert {row["control"] for row in rows} == {"random_forest"}
    assert all(row["estimate"] == pytest.approx(lead) for row in rows)


def test_one_classical_algorithm_is_enough():
    accuracies = {"mlp": 0.98, "random_forest": 0.7, "random_forest_onehot": 0.975, "adaboost": 0.96}
    records = [
        classified(name, 0, a + 1e-3 * i, dataset="mnist", classes=10, trial=f"{i}", instance=i)
        for i in range(4)
        for name, a in accuracies.items()
    ]
    (row,) = [row for row in found(records) if row["claim"] == 4]
    assert (row["control"], row["verdict"], row["estimate"]) == ("adaboost", "confirmed", pytest.approx(0.02))
    assert row["paper"] == pytest.approx(0.983 - 0.689)  # outside the range of the paper's words


def test_accuracy_lost_stands_beside_the_papers_loss_with_welchs_interval_over_four_cells():
    rng = np.random.default_rng(0)
    accuracy = {2: rng.normal(0.85, 0.05, 10), 4: rng.normal(0.75, 0.05, 10)}
    records = [
        classified("random_forest", draw, a, classes=classes, protocol="paper")
        for classes, values in accuracy.items()
        for draw, a in enumerate(values)
    ]
    (row,) = found(records)
    theirs = {n: paper.TABLE_1["random_forest", n]["accuracy"] for n in (2, 4)}
    difference = accuracy[2].mean() - accuracy[4].mean() - (theirs[2][0] - theirs[4][0])
    parts = [v.var(ddof=1) / 10 for v in accuracy.values()] + [sigma**2 / 10 for _, sigma in theirs.values()]
    half = stats.t.ppf(0.975, sum(parts) ** 2 / sum(p**2 / 9 for p in parts)) * math.sqrt(sum(parts))
    assert (row["claim"], row["verdict"]) == (3, "refuted")
    assert row["estimate"] == pytest.approx(difference)
    assert row["interval"] == pytest.approx([difference - half, difference + half])


@pytest.mark.parametrize(
    ("lost", "verdicts"),
    [(0.02, ("refuted", "refuted")), (0.04, ("refuted", "confirmed")), (0.5, ("confirmed", "confirmed"))],
)
def test_what_classical_algorithms_lose_is_measured_by_the_networks_loss(lost, verdicts):
    """The network loses 0.03 and ends at 0.77; ten times as much is claim 10, more than it is claim 12."""
    ends = {"mlp": (0.80, 0.77), "adaboost": (0.79, 0.79 - lost)}
    spread = np.linspace(-0.003, 0.003, 10)
    records = [
        classified(name, draw, accuracy + more, classes=classes, protocol="paper")
        for name, accuracies in ends.items()
        for classes, accuracy in zip((2, 4), accuracies, strict=True)
        for draw, more in enumerate(spread)
    ]
    rows = {row["claim"]: row for row in found(records)}
    # Draws move both alike: what one loses less r times what the other loses varies by 1 - r of their deviation.
    half = stats.t.ppf(0.975, 18) * spread.std(ddof=1) * math.sqrt(2 / 10)
    assert rows[10]["estimate"] == pytest.approx(lost / 0.03)
    ends = [(lost + half) / (0.03 + half), (lost - half) / (0.03 - half)]
    assert rows[10]["interval"] == rows[12]["interval"] == pytest.approx(sorted(ends))
    assert rows[10]["paper"] == pytest.approx((0.804 - 0.592) / (0.852 - 0.769))
    assert (rows[10]["verdict"], rows[12]["verdict"]) == verdicts
    assert (rows[11]["verdict"], rows[11]["paper"]) == ("confirmed", 0.769)


def test_losses_are_compared_where_classifiers_are_tested_on_the_same_images():
    records = [
        classified(name, draw, accuracy + 1e-3 * draw, classes=classes, protocol=protocol)
        for protocol, few in (("paper", 0.70), ("shared", 0.76))
        for name, accuracies in {"mlp": (0.80, 0.70), "adaboost": (few, 0.50)}.items()
        for classes, accuracy in zip((2, 4), accuracies, strict=True)
        for draw in range(5)
    ]
    rows = [row for row in found(records) if row["claim"] in (10, 12)]
    assert [row["estimate"] for row in rows] == pytest.approx([2.6, 2.6])


def test_a_study_that_was_stopped_compares_the_draws_that_both_classifiers_have():
    spread = np.random.default_rng(0).normal(0, 0.02, 10)
    whole = [
        classified(name, draw, accuracy + more, classes=classes)
        for name, accuracies in {"mlp": (0.80, 0.70), "adaboost": (0.79, 0.50)}.items()
        for classes, accuracy in zip((2, 4), accuracies, strict=True)
        for draw, more in enumerate(spread)
    ]

    def intervals(lacking):
        records = [r for r in whole if (r.what["classifier"], r.what["draw"]) not in lacking]
        return [row["interval"] for row in found(records) if row["claim"] == 12]

    names = ("mlp", "adaboost")
    assert intervals({("mlp", 9)}) == intervals({(name, 9) for name in names})
    assert intervals({("mlp", 9), ("adaboost", 0)}) == intervals({(name, draw) for name in names for draw in (0, 9)})
    assert intervals({("mlp", draw) for draw in range(5)} | {("adaboost", draw) for draw in range(5, 10)}) == [None]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_a_stopped_study_holds_can_be_told(seed):
    """Of the published records, some: no warning, and numbers that JSON has."""
    rng = np.random.default_rng(seed)
    records = read_records(Path(__file__).parents[2] / "results" / "paper")
    rest = [r for r in records if r.kind != "trial"]
    kept = rng.permutation(len(rest))[: rng.integers(1, 60) if seed % 2 else rng.integers(1, len(rest))]
    records = [r for r in records if r.kind == "trial"] + [rest[i] for i in kept]
    summary = summarise(records) | summarise_attacks(records)
    json.dumps([summary, claims(summary, records, {}, USUAL)], allow_nan=False)
    assert words.plain_words(summary)


def test_a_ratio_has_no_interval_where_the_network_may_lose_nothing():
    spread = np.linspace(-0.1, 0.1, 10)
    records = [
        classified(name, draw, accuracy + more, classes=classes, protocol="paper")
        for name, accuracies in {"mlp": (0.80, 0.79), "adaboost": (0.79, 0.5)}.items()
        for classes, accuracy in zip((2, 4), accuracies, strict=True)
        for draw, more in enumerate(spread)
    ]
    (row,) = [row for row in found(records) if row["claim"] == 10]
    assert (row["interval"], row["verdict"]) == (None, "undecided")


@pytest.mark.parametrize(("gain", "verdict"), [(0.005, "confirmed"), (0.05, "refuted")])
def test_more_estimators_are_compared_on_the_autoencoders_that_have_them(gain, verdict):
    records = [
        classified(name, draw, 0.6 + 0.02 * draw + more, protocol="paper", **source)
        for draw in range(6)
        for name, more, source in (
            ("adaboost", 0.0, {"trial": "a"}),
            ("adaboost", 0.3, {"trial": "b", "instance": 1}),
            ("adaboost@10", -0.4, {"trial": "a"}),
            ("adaboost@300", gain, {"trial": "a"}),
        )
    ]
    (row,) = found(records)
    assert (row["claim"], row["control"], row["verdict"]) == (5, "adaboost", verdict)
    assert row["estimate"] == pytest.approx(gain)


def test_fewer_estimators_than_usual_are_no_increase():
    records = [
        classified(name, draw, 0.6, protocol="paper") for draw in range(6) for name in ("adaboost", "adaboost@9")
    ]
    assert found(records) == []


@pytest.mark.parametrize(("ratio", "verdict"), [(170.0, "confirmed"), (32.0, "refuted"), (100.0, "undecided")])
def test_orders_of_magnitude_between_pairs(ratio, verdict):
    matched = 0.003 * np.exp(np.random.default_rng(0).normal(0, 0.1, 4))
    records = [
        measured(
            "reconstruction",
            {"decoder": f"{decoder}", "images": "V", "pair": "matched" if encoder == decoder else "unmatched"},
            {"mse": matched[encoder] * (1 if encoder == decoder else ratio), "n": 9}
            | {"sigma_images": 0.001, "sigma_batches": 0.001},
            trial=f"{encoder}",
            instance=encoder,
        )
        for encoder in range(4)
        for decoder in range(4)
    ]
    if ratio == 100:
        for record, factor in zip(records, np.tile([0.5, 2], 8), strict=True):
            record.metrics["mse"] *= factor if record.what["pair"] == "unmatched" else 1
    (row,) = found(records)
    assert (row["claim"], row["on"], row["n"], row["verdict"]) == (6, "images V", "4 encoders", verdict)
    assert row["estimate"] == pytest.approx(ratio, rel=0.5)
    assert row["paper"] == pytest.approx(0.112298 / 0.003550)


#: What an attacker restores, by attack and number of pairs, among the yardsticks.
ERRORS = {
    ("key", 0): 0.003, ("mean_image", 0): 0.07, ("random_image", 0): 0.12, ("random_latent", 0): 0.1,
    ("clear", 0): 0.12, ("other_decoder", 0): 0.15, ("ridge", 30): 0.04, ("ridge", 1000): 0.015,
    ("stitch_affine", 1000): 0.05,
}  # fmt: skip


def attacked(errors, draws=3, **changes):
    return [
        Record(
            kind="attack", key=f"{attack}{k}{draw}", batch_size=16,
            **{"trial": "a", "gaussian": 384, "categorical": 20, "instance": 0} | changes,
            what={"attack": attack, "dataset": "cifar100", "representation": "masked", "k": k, "draw": draw},
            metrics={"mse": error + 0.001 * draw, "sigma_images": 0.02, "n": 400}
            | dict.fromkeys(("psnr", "ssim", "top1", "top5", "mrr", "recognised"), 0.5),
            detail={"target": 0.02, "own": "", "pool": 1000}, seconds=1.0,
        )
        for (attack, k), error in errors.items()
        for draw in range(draws if k else 1)
    ]  # fmt: skip


def test_one_attack_that_restores_refutes_the_key_and_one_that_fails_does_not():
    rows = {row["quantity"]: row for row in found(attacked(ERRORS))}
    assert {quantity: row["verdict"] for quantity, row in rows.items()} == {
        "error of other_decoder": "undecided",
        "error of ridge, 30 leaked pairs": "undecided",
        "error of ridge, 1,000 leaked pairs": "refuted",
    }
    half = stats.t.ppf(0.975, 399) * 0.02 / 20
    assert rows["error of ridge, 1,000 leaked pairs"]["interval"] == pytest.approx([0.015 - half, 0.017 + half])


def test_nothing_is_said_of_the_key_where_the_key_does_not_restore():
    assert found(attacked(ERRORS | {("key", 0): 0.021})) == []


def test_a_later_measurement_takes_the_place_of_the_one_before():
    later = attacked({("stitch_affine", 1000): 0.001})
    rows = {row["quantity"]: row["estimate"] for row in found(attacked(ERRORS) + later)}
    assert rows["error of stitch_affine, 1,000 leaked pairs"] == pytest.approx(0.002)


@pytest.mark.parametrize(
    ("smaller", "encoders", "verdict"), [(0.03, 4, "confirmed"), (0.005, 4, "refuted"), (0.03, 3, "undecided")]
)
def test_the_shortest_latent_is_compared_with_the_longest_at_the_most_pairs(smaller, encoders, verdict):
    records = []
    for i in range(encoders):
        for gaussian, error in ((384, 0.015), (64, 0.9), (32, smaller)):
            errors = ERRORS | {("ridge", 1000): error + 1e-3 * i}
            records += attacked(errors, trial=f"{gaussian}-{i}", instance=i, gaussian=gaussian)
    (row,) = [row for row in found(records) if row["claim"] == 8]
    assert (row["quantity"], row["verdict"]) == ("error with 1,000 leaked pairs less that of 384+20", verdict)
    assert row["estimate"] == pytest.approx(smaller - 0.015)


@pytest.mark.parametrize(("sign", "verdicts"), [(-1, ["confirmed", "undecided"]), (1, ["refuted", "undecided"])])
def test_a_search_correlates_length_and_restoration(sign, verdicts):
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.arange(10, 70))
    errors = 0.02 + sign * 1e-4 * lengths + rng.normal(0, 1e-3, 60)
    keys = errors + rng.normal(0, 1e-3, 60)  # the key fails where the attack does
    records = [
        measured(
            "trial", {"status": "complete", "role": "search"}, {"objective.mse_at_k": e, "held_out_mse": k},
            trial=f"{length}", gaussian=int(length), categorical=0,
        )
        for length, e, k in zip(lengths, errors, keys, strict=True)
    ]  # fmt: skip
    rows = [row for row in found(records) if row["claim"] == 8]
    rho = stats.spearmanr(lengths, errors).statistic
    assert [row["verdict"] for row in rows] == verdicts
    assert (rows[0]["n"], rows[0]["estimate"]) == ("60 trials", pytest.approx(rho))
    half = stats.norm.ppf(0.975) * math.sqrt((1 + rho**2 / 2) / 57)
    assert np.arctanh(rows[0]["interval"]) == pytest.approx([np.arctanh(rho) - half, np.arctanh(rho) + half])


def test_losses_are_judged_by_their_ends_and_by_their_way():
    records = [measured("trial", {"status": "complete"}, {}, trial=f"{i}", instance=i) for i in range(4)]
    histories = {
        f"{i}": [
            {"generating_loss": g + i, "discriminator_loss": d}
            for g, d in ((5.0, 1.0), (1.0, 9.0), (2.0 + 0.01 * i, 0.5 + 0.01 * i))
        ]
        for i in range(4)
    }
    rows = found(records, histories)
    assert [(r["claim"], r["verdict"], pytest.approx(r["estimate"])) for r in rows] == [
        (9, "confirmed", -2.985),
        (9, "confirmed", -0.5),  # ranks 3, 1, 2
        (9, "refuted", -0.485),
        (9, "refuted", -0.5),
    ]


def test_losses_that_are_switched_off_say_nothing():
    records = [measured("trial", {"status": "complete"}, {}, trial=f"{i}", instance=i) for i in range(4)]
    epoch = {"generating_loss": 0.0, "discriminator_loss": 0.0}
    assert found(records, {f"{i}": [epoch, epoch] for i in range(4)}) == []


def test_students_interval_is_scipys():
    values = [0.1, 0.4, 0.2, 0.7]
    mean, interval = students(values)
    assert mean == pytest.approx(0.35)
    assert interval == pytest.approx(stats.t.interval(0.95, 3, np.mean(values), stats.sem(values)))
    assert students([0.3]) == (pytest.approx(0.3), None)
