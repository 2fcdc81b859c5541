"""Pairs to unmask, and objectives for a search, against curves known by construction."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from attacks import AttacksConfig
from study.attack import NEEDED, YARDSTICKS
from study.records import Record
from study.secrecy import Secrecy, measure, pairs_to_reach
from study.unmasking import summarise_attacks
from study.views import attacks as views
from study.views.attacks import ATTACKERS, ladder, pairs_to_unmask, plain_words
from study.views.mask import front_chart, traded, use, use_and_secrecy

CURVES = {  # attack -> number of pairs -> error in each of two draws
    "ridge": {10: (0.05, 0.06), 100: (0.019, 0.025), 1000: (0.012, 0.012)},
    "inversion": {10: (0.055, 0.07), 100: (0.03, 0.03), 1000: (0.0105, 0.0105)},
}


def record(attack, mse, k=0, draw=0, representation="masked", trial="a"):
    return Record(
        kind="attack",
        key=f"{trial}/{attack}/{k}/{draw}/{representation}",
        trial=trial,
        gaussian=8,
        categorical=2,
        batch_size=16,
        instance=0,
        what={"attack": attack, "dataset": "toy", "representation": representation, "k": k, "draw": draw},
        metrics={"mse": mse, "psnr": 1, "ssim": 0, "top1": 0.1, "top5": 0.2, "mrr": 0.2, "recognised": 0.3, "n": 50},
        detail={"target": 0.02, "pool": 3000},
    )


def classified(trial, accuracy, representation="masked", draw=0, classes=2):
    what = {"representation": representation, "dataset": "toy", "classes": classes, "draw": draw}
    return Record(
        kind="classification", key=f"{trial}/{representation}/{classes}/{draw}", trial=trial, gaussian=8, categorical=2,
        batch_size=16, instance=0, what=what | {"protocol": "shared", "classifier": "mlp"},
        metrics={"accuracy": accuracy, "precision": accuracy, "recall": accuracy},
    )  # fmt: skip


YARDSTICK = {"key": 0.01, "mean_image": 0.07, "random_latent": 0.1, "random_image": 0.12, "clear": 0.0}


def records():
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS] + [record("transport", 0.08)]
    for attack, curve in CURVES.items():
        found += [record(attack, mse, k, draw) for k, pair in curve.items() for draw, mse in enumerate(pair)]
    return found + [record("ridge", 0.04, k, 0, "noise@1") for k in (10, 100, 1000)]


class TestSummary:
    def place(self, representation="masked"):
        return next(r for r in summarise_attacks(records())["unmasking"] if r["representation"] == representation)

    def test_the_three_numbers_are_those_of_the_best_attack(self):
        row = self.place()
        assert row["reach_target"] == 1000  # ridge has a mean of 0.022 at 100
        assert row["reach_target_range"] == [100, 1000]  # one draw reaches it with 100
        assert row["reach_key"] == 1000  # by the inversion decoder: 0.0105
        assert row["mse_at_k"] == 0.0105
        assert row["best"] == {"10": "ridge", "100": "ridge", "1000": "inversion"}

    def test_what_is_never_reached_is_none(self):
        row = self.place("noise@1")
        assert (row["reach_target"], row["reach_key"], row["largest"]) == (None, None, 1000)
        assert row["key"] == 0.01

    def test_what_was_tried_on_one_draw_alone_is_no_spread(self):
        """Under a defence the slow attack meets the first draw, the quick one all."""
        found = [*records(), record("ridge", 0.04, 1000, 1, "noise@1"), record("inversion", 0.015, 1000, 0, "noise@1")]
        row = next(r for r in summarise_attacks(found)["unmasking"] if r["representation"] == "noise@1")
        assert (row["reach_target"], row["reach_target_range"]) == (1000, [1000, 1000])

    def test_no_pairs_at_all_are_summarised(self):
        (row,) = summarise_attacks([record(name, YARDSTICK[name]) for name in YARDSTICKS])["unmasking"]
        assert (row["largest"], row["reach_target"], row["reach_target_range"]) == (0, None, [None, None])

    def test_how_many_images_an_attacker_held_is_told(self):
        found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
        oracle = record("oracle", 0.01)
        oracle.detail["images"] = 700
        rows = {r["attack"]: r for r in summarise_attacks([*found, oracle])["attacks"]}
        assert (rows["oracle"]["images_n"], rows["key"]["images_n"]) == (700, None)
        table = ladder({"attacks": list(rows.values())}).set_index("attacker")
        assert table.loc[ATTACKERS["oracle"], "images held"] == "700"

    def test_an_attack_no_better_than_a_control_says_so(self):
        helps = {(r["attack"], r["k"]): r["helps"] for r in summarise_attacks(records())["attacks"]}
        assert helps["ridge", 10]
        assert not helps["transport", 0]

    def test_an_attack_better_on_one_encoder_alone_is_not_shown_to_be_better(self):
        two = [
            record(name, error, trial=trial)
            for trial in "ab"
            for name, error in (YARDSTICK | {"transport": 0.06}).items()
        ]
        two += [record("moments", error, trial=trial) for trial, error in (("a", 0.04), ("b", 0.09))]
        rows = {r["attack"]: r for r in summarise_attacks(two)["attacks"]}
        assert rows["transport"]["gain"]["mean"] == pytest.approx(0.01)  # the mean image has 0.07
        assert rows["transport"]["helps"]
        assert rows["moments"]["gain"]["mean"] == pytest.approx(0.005)
        assert not rows["moments"]["helps"]
        verdicts = dict(ladder({"attacks": list(rows.values())})[["attacker", "verdict"]].to_numpy())
        assert verdicts[ATTACKERS["moments"]] == "not shown to be better than a control"
        assert verdicts[ATTACKERS["transport"]] == ""

    def test_intervals_are_over_draws(self):
        row = next(r for r in summarise_attacks(records())["attacks"] if (r["attack"], r["k"]) == ("ridge", 10))
        assert row["mse"]["mean"] == pytest.approx(0.055)
        half = 0.005 * stats.t.ppf(0.975, 1) / stats.norm.ppf(0.975) * np.sqrt(2)  # of two draws, 0.05 and 0.06
        assert row["mse"]["interval"] == pytest.approx([0.055 - half, 0.055 + half])

    def test_what_has_no_yardsticks_yet_is_left_out(self):
        assert summarise_attacks([r for r in records() if r.what["attack"] != "key"])["unmasking"] == []
        assert summarise_attacks([]) == {"attacks": [], "unmasking": []}


def test_pairs_to_reach():
    assert pairs_to_reach({10: 0.3, 100: 0.1, 1000: 0.05}, 0.1) == 100
    assert pairs_to_reach({10: 0.3}, 0.1) is None


class TestObjectives:
    MEASURED = Secrecy(0.02, {10: 0.05, 300: 0.01, 3000: 0.005}, 0.5)

    def test_their_values(self):
        measured = self.MEASURED
        way = np.log(0.05 / 0.02) / np.log(0.05 / 0.01)  # from 10 to 300 pairs
        assert measured.pairs_to_unmask == pytest.approx(1 + way * np.log10(30))
        assert Secrecy(0.02, {10: 0.02, 100: 0.01}, 0.0).pairs_to_unmask == 1
        assert measured.mse_at_k == 0.01  # at the number nearest to 1,000

    def test_a_target_never_reached_is_finite_and_best(self):
        assert Secrecy(0.02, {10: 0.5, 100: 0.4}, 0.0).pairs_to_unmask == 3

    def test_a_mask_that_hides_nothing_and_one_that_hides_all(self, images):
        class Pooled(nn.Module):
            def __init__(self, said):
                super().__init__()
                self.register_buffer("said", torch.tensor(said))

            def forward(self, x_BCHW):
                return self.said * nn.functional.avg_pool2d(x_BCHW, 8).flatten(1)

        config = AttacksConfig(pairs=(20, 60, 500))
        plain, hidden = (measure(Pooled(said), images[:70], images[70:], config, 1) for said in (1.0, 0.0))
        assert set(plain.curve) == {20, 60}
        assert plain.curve[60] < 1e-4  # the test's images are constant over what is pooled
        assert plain.reidentification > 0.9
        assert hidden.curve[60] > 0.05
        assert hidden.reidentification <= 2 / 26  # as many as a random order leaves in their place

    def test_too_few_images_are_told(self, images):
        with pytest.raises(ValueError, match="there are 5 images: ask for fewer pairs"):
            measure(nn.Flatten(), images[:5], images[5:], AttacksConfig(), 1)


def test_a_study_that_has_not_ended_shows_what_it_has_and_says_that_less_may_do():
    """One encoder was attacked with 1,000 pairs so far, a defence of it with 10."""
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
    found += [record("inversion", 0.01, 1000), record("ridge", 0.05, 10, representation="noise@1")]
    summary = summarise_attacks(found)
    masked, noisy = pairs_to_unmask(summary).to_dict("records")
    assert (masked["pairs to MSE 0.02"], noisy["pairs to MSE 0.02"]) == ("at most 1,000", "more than 10")
    learned = use([*found, classified("a", 0.9), classified("a", 0.9, "noise@1")])
    assert use_and_secrecy(traded(summary, learned)).empty


def test_use_and_secrecy_compares_by_the_attacks_that_all_met():
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
    found += [record("inversion", 0.01, 1000), record("ridge", 0.03, 1000)]
    found += [record("ridge", 0.04, 1000, representation="noise@1")]
    summary = summarise_attacks(found)
    learned = use([*found, classified("a", 0.9), classified("a", 0.9, "noise@1")])
    rows = use_and_secrecy(traded(summary, learned)).to_dict("records")
    assert [(row["secrecy: MSE"], row["of the best of"]) for row in rows] == [("0.0300", "ridge"), ("0.0400", "ridge")]


def test_three_places_make_a_chart_of_use_and_secrecy(tmp_path):
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
    found += [
        record("ridge", 0.03, 1000),
        *(record("ridge", e, 1000, representation=f"noise@{e}") for e in (0.04, 0.05)),
    ]
    learned = use([*found, *(classified("a", 0.9 - e, f"noise@{e}") for e in (0.04, 0.05)), classified("a", 0.9)])
    front = traded(summarise_attacks(found), learned)
    (shown,) = front_chart(tmp_path, front)
    assert (tmp_path / shown.file).exists()
    numbers = pd.read_csv(tmp_path / "traded.csv")
    assert numbers[["defence", "accuracy", "mse"]].to_numpy().tolist() == [
        ["none", 0.9, 0.03], ["noise@0.04", 0.86, 0.04], ["noise@0.05", 0.85, 0.05]
    ]  # fmt: skip
    assert front_chart(tmp_path, front[:2]) == []


def test_a_control_that_was_attacked_stands_beside_the_encoders_under_its_own_name(tmp_path):
    """By its own key, and by the attack that all met; it is no defence."""
    control = {"representation": "random_projection", "trial": "random_projection-g8-c2"}
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
    found += [record("ridge", 0.03, 1000), record("inversion", 0.01, 1000)]
    beside = [record(name, (YARDSTICK | {"key": 0.02})[name], **control) for name in NEEDED]
    beside += [record("ridge", 0.021, k, **control) for k in (100, 1000)]
    beside = [dataclasses.replace(one, batch_size=0) for one in beside]
    summary = summarise_attacks([*found, *beside])
    table = pairs_to_unmask(summary)[["latent, data", "the key", "pairs to within 10% of the key"]]
    assert table.to_numpy().tolist() == [
        ["8+2, toy", "0.0100", "at most 1,000"], ["random projection, 10, toy", "0.0200", "at most 100"]
    ]  # fmt: skip
    assert plain_words(summary)[1].startswith("What do leaked pairs undo? random projection, 10, toy: up to 1,000")
    learned = [classified("a", 0.9), classified("a", 0.8, "noise@1")]
    assert use_and_secrecy(traded(summary, use([*found, *beside, *learned]))).empty  # of the control no use is known
    assert views.lacking(summary, AttacksConfig(names=("ridge",), pairs=(1000,))) == []
    assert views.lacking(summary, AttacksConfig(names=("ridge",), pairs=(1000,), controls=("pca",))) == [
        "attacks on pca"
    ]
    assert views.lacking(summary, AttacksConfig(names=("inversion",), pairs=(10, 1000))) == [
        "attack inversion in 1 of 2 cases", "attacks on random projection"
    ]  # fmt: skip
    learned += [dataclasses.replace(classified(control["trial"], 0.7, control["representation"]), batch_size=0)]
    noisy = record("ridge", 0.05, 1000, representation="noise@1")
    summary = summarise_attacks([*found, *beside, noisy])
    front = traded(summary, use([*found, *beside, noisy, *learned]))
    front_chart(tmp_path, front)
    numbers = pd.read_csv(tmp_path / "traded.csv")[["latent", "defence", "accuracy", "mse"]].to_numpy().tolist()
    assert sorted(numbers) == [
        ["8+2", "noise@1", 0.8, 0.05], ["8+2", "none", 0.9, 0.03], ["random projection, 10", "none", 0.7, 0.021]
    ]  # fmt: skip
    views.curve(tmp_path, summary)
    drawn = pd.read_csv(tmp_path / "unmasking.csv")
    assert drawn.loc[drawn["representation"] == "random_projection", "k"].tolist() == [100, 1000]


def test_use_is_that_of_the_encoders_that_were_attacked():
    """Instance b was classified too, and not attacked: what it reaches is no use of a."""
    found = [record(name, YARDSTICK[name]) for name in YARDSTICKS]
    found += [record("ridge", mse, 1000, draw) for draw, mse in enumerate((0.03, 0.05))]
    found += [record("ridge", 0.04, 1000, representation="noise@1")]
    learned = [
        classified(trial, accuracy, draw=draw) for trial, accuracy in (("a", 0.6), ("b", 0.9)) for draw in (0, 1)
    ]
    learned += [classified("a", 0.5, "noise@1", draw) for draw in (0, 1)]
    rows = use_and_secrecy(traded(summarise_attacks(found), use([*found, *learned]))).to_dict("records")
    assert [row["use: accuracy"] for row in rows] == ["0.600 [0.600, 0.600]", "0.500 [0.500, 0.500]"]
    assert rows[0]["secrecy: MSE"].startswith("0.0400 [0.0")
