"""What the report and the card say of attacks, sentence by sentence, of studies known by construction."""

import pytest

from study.attack import YARDSTICKS
from study.unmasking import summarise_attacks
from study.views import card
from study.views.attacks import ATTACKERS, curve, ladder, plain_words
from study.views.mask import defences, section, use
from tests.study.test_unmasking import YARDSTICK, classified, record


def yardsticks(trial="a", **errors):
    return [record(name, (YARDSTICK | errors)[name], trial=trial) for name in YARDSTICKS]


def under(defence, key, *attacks):
    """Attacks as (name, pairs, error)."""
    return [record("key", key, representation=defence)] + [
        record(name, error, k, representation=defence) for name, k, error in attacks
    ]


def told(*records):
    records = [*yardsticks(), record("ridge", 0.015, 100), *(r for group in records for r in group)]
    return defences(summarise_attacks(records), use(records))


class TestDefences:
    NONE = "None of the defences tried protects against an attacker with pairs."
    WEAK = under("noise@1", 0.012, ("ridge", 10, 0.05), ("ridge", 100, 0.018))
    RUINED = under("noise@9", 0.06, ("ridge", 10, 0.06), ("ridge", 100, 0.05))
    STRONG = under("dropped@0.1", 0.018, ("ridge", 10, 0.05), ("ridge", 100, 0.03))

    def test_without_any_nothing_is_said(self):
        assert told() == []

    def test_one_that_pairs_undo_protects_nobody(self):
        words = told(self.WEAK)
        assert words[0] == (
            "Defence 8+2, toy, noise@1: the owner's key restores to a mean squared error of 0.0120 (0.0100 without "
            "it); 100 pairs reach the target of 0.02."
        )
        assert words[1:] == ["Ridge regression alone was tried on defences: better attackers do better.", self.NONE]

    def test_one_that_ruins_the_mask_is_no_protection(self):
        words = told(self.RUINED)
        assert "of 0.0600 (0.0100 without it): it spoils the key too; 100 pairs do not reach the target" in words[0]
        assert words[-1].startswith("The key misses the target under 8+2, toy, noise@9: what is hidden from attackers")
        assert "Nothing says" not in " ".join(words)

    def test_beside_a_ruined_one_those_that_keep_the_key_are_judged_alone(self):
        words = told(self.WEAK, self.RUINED)
        assert (
            "None of the defences under which the key still reaches the target protects against an attacker with pairs."
            in words
        )
        assert self.NONE not in words

    def test_one_that_keeps_the_key_and_holds_is_named(self):
        words = told(self.WEAK, self.RUINED, self.STRONG)
        (holds,) = [line for line in words if "Nothing says that more pairs would miss it" in line]
        assert "and the key did not, under 8+2, toy, dropped@0.1." in holds
        assert not any(line.startswith("None of") for line in words)

    def test_a_key_that_was_no_use_before_is_not_spoilt(self):
        records = [*yardsticks(key=0.03), *under("noise@1", 0.031, ("ridge", 100, 0.03))]
        assert ": no use as a key, with it or without;" in defences(summarise_attacks(records), [])[0]

    def test_use_stands_beside_use_without_it(self):
        learned = [
            [classified("a", 0.9), classified("a", 0.5, classes=4), classified("b", 0.99, classes=4)],
            [classified("a", 0.8, "noise@1"), classified("a", 0.4, "noise@1", classes=4)],
        ]
        words = told(self.WEAK, *learned)
        assert "the best accuracy on 4 classes is 0.400 (0.500 without it)" in words[0]

    def test_the_better_attacker_is_named_where_it_was_tried(self):
        words = told(under("noise@1", 0.012, ("ridge", 100, 0.03), ("inversion", 100, 0.02)))
        assert "100 pairs (fewer were not tried) reach the target" in words[0]
        assert words[1].startswith(
            "Defences met ridge regression and, with the most pairs of the first draw, a trained"
        )


def test_the_ceiling_of_what_is_recognised_is_in_the_table():
    clear = record("clear", 0.0)
    clear.metrics["recognised"] = 0.148
    records = [r for r in yardsticks() if r.what["attack"] != "clear"] + [clear]
    table = ladder(summarise_attacks(records)).set_index("attacker")
    assert table.loc[ATTACKERS["clear"], "class recognised"] == "0.15"


@pytest.mark.parametrize(
    ("trials", "told"),
    [
        ("a", "draws of the attacker's images alone (of each"),
        ("ab", "draws of the attacker's images and attacked inst"),
    ],
)
def test_it_says_what_intervals_rest_on(tmp_path, trials, told):
    records = [r for trial in trials for r in [*yardsticks(trial), record("ridge", 0.02, 100, trial=trial)]]
    summary = summarise_attacks(records)
    (shown,) = curve(tmp_path, summary)
    assert told in shown.caption
    assert told in section(tmp_path, summary, records).text[0]


def test_a_key_that_misses_the_target_is_told_beside_who_misses_it():
    missed = [record("ridge", 0.03, 100)]
    poor, good = (summarise_attacks([*yardsticks(key=key), *missed]) for key in (0.025, 0.01))
    assert "to a mean squared error of 0.02, which the key misses too;" in plain_words(poor)[0]
    assert "which the key misses too" not in plain_words(good)[0]
    assert "on toy the key itself misses the target of 0.02" in card._leaks(poor)
    assert "up to 100 pairs did not reach the target of 0.02, and nothing says that more would not" in card._leaks(good)


class TestCard:
    def found(self, *more):
        (again,) = [card._found_again(*one) for one in card._masked(summarise_attacks([*yardsticks(), *more]))]
        return again

    def paired(self, k, top1, attack="ridge"):
        found = record(attack, 0.05, k)
        found.metrics["top1"] = top1
        return found

    def test_what_was_not_tried_is_not_claimed(self):
        summary = summarise_attacks([*yardsticks(), record("moments", 0.08)])
        assert card._leaks(summary).endswith("learns to unmask: how many pairs that takes was not tried here.")
        assert "pairs, the fewest" not in self.found()
        assert "nobody tried" in self.found()

    def test_the_fewest_pairs_that_find_too_many_are_named_with_their_grade(self):
        told = self.found(self.paired(10, 0.04), self.paired(30, 0.35), self.paired(30, 0.1, "inversion"))
        assert "with 30 pairs, the fewest tried that find over 20%, 35% (bad)" in told
        assert "among 50 of toy" in told
        few = self.found(self.paired(10, 0.04), self.paired(30, 0.12), self.paired(0, 0.002, "transport"))
        assert "no number of pairs tried finds over 20%; with 30, 12% (moderate); without pairs, 0.2% (good)." in few

    def test_each_attacker_has_intervals_images_and_a_verdict(self):
        few = record("weights", 0.012)
        few.metrics["n"] = 20
        oracle = record("oracle", 0.03)
        oracle.detail["images"] = 700
        paired = [record("ridge", error, 100, draw) for draw, error in enumerate((0.044, 0.046))]
        records = [*yardsticks(), *paired, few, oracle, record("transport", 0.08), record("known_plaintexts", 0.0)]
        table = card._attackers(summarise_attacks(records)).set_index("who holds")
        pairs = table.loc["some images together with their masked vectors (100)"]
        assert pairs["MSE"].startswith("0.0450 [0.0")
        assert table.loc[f"{card.HOLDS['oracle']} (700)", "MSE"] == "0.0300"
        assert (table.loc[card.HOLDS["weights"], "on images"], pairs["on images"]) == ("20", "50")
        assert table.loc[card.HOLDS["transport"], "verdict"] == "no better than a control"
        assert pairs["verdict"] == ""
        assert table.loc[card.HOLDS["known_plaintexts"], ["MSE", "finds the image"]].tolist() == ["", "10%"]
