"""What attacks leave in a study's folder, and the card made from it."""

import shutil

import numpy as np
import pandas as pd
import pytest

from attacks import NAMES, WITH_PAIRS
from study.artifacts import read_arrays
from study.attack import CONTROLS, NEEDED, YARDSTICKS
from study.cli import main
from study.records import frame, read_records


@pytest.fixture(scope="module")
def table(finished):
    return frame(read_records(finished), "attack")


@pytest.fixture(scope="module")
def copy(finished, tmp_path_factory):
    """For cards: they are files more, and other tests list what a study leaves."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("card") / "tiny")


def test_one_encoder_meets_every_attack_once(table):
    masked = table[table["representation"] == "masked"]
    assert masked["trial"].nunique() == 1
    assert set(masked["attack"]) == {*NAMES, *YARDSTICKS, "other_decoder", "known_plaintexts"}
    tried = masked[masked["attack"].isin(WITH_PAIRS)].groupby("attack")["k"].agg(sorted)
    assert tried.map(tuple).unique().tolist() == [(10, 10, 300, 300)]  # 100,000 pairs are more than there are
    assert set(table.loc[table["representation"] == "noise@1", "attack"]) == {"key", "ridge", "inversion"}
    control = table[table["representation"] == "random_projection"]
    assert set(control["trial"]) == {"random_projection-g12-c4"}
    assert set(control["attack"]) == {*NEEDED, "ridge", "inversion", "known_plaintexts"}


def test_every_number_is_finite_and_the_clear_image_is_perfect(table):
    numbers = table.drop(columns="mse_optimised").select_dtypes("number")
    assert np.isfinite(numbers.to_numpy()).all()
    clear = table[table["attack"] == "clear"].iloc[0]
    assert (clear["mse"], clear["top1"]) == (0, 1)
    assert set(table.dropna(subset="mse_optimised")["attack"]) == set(CONTROLS)


def test_three_hundred_pairs_unmask_better_than_the_mean_image(table):
    mse = table[table["representation"] == "masked"].groupby(["attack", "k"])["mse"].mean()
    assert mse["ridge", 300] < 0.6 * mse["mean_image", 0]
    control = table[table["representation"] == "random_projection"].groupby(["attack", "k"])["mse"].mean()
    assert control["ridge", 300] < 0.6 * control["mean_image", 0]
    assert control["mean_image", 0] == mse["mean_image", 0]


def test_the_split_is_written_down_and_disjoint(finished):
    parts = read_arrays(finished / "artifacts" / "attack-parts-digits.npz")
    every = [index for part in parts.values() for index in part.tolist()]
    assert len(set(every)) == len(every)
    assert len(parts["victims"]) == 60


def test_restored_pictures_are_kept(finished, table):
    (folder,) = (finished / "artifacts").glob("attack-g*-digits")
    assert read_arrays(folder / "ridge-300.npz")["restored"].shape == (12, 32, 32, 3)
    assert len(list(folder.iterdir())) == len(table[table["representation"] == "masked"].groupby(["attack", "k"]))


def test_the_report_has_the_curve_and_the_numbers(finished):
    text = (finished / "report.md").read_text()
    assert "## Is it a mask?" in text
    assert "pairs to MSE 0.02" in text
    assert "over draws of the attacker's images alone (of each configuration one instance was attacked)" in text
    assert "Defence 12+4, batch 16, digits, noise@1: the owner's key restores to" in text
    assert "Defences met ridge regression and, with the most pairs of the first draw, a trained inversion" in text
    curve = pd.read_csv(finished / "figures" / "unmasking.csv")
    assert set(curve["attack"]) == set(WITH_PAIRS)
    assert (finished / "figures" / "unmasked.png").exists()


class TestCard:
    def test_it_names_the_encoder_and_what_attackers_restore(self, copy, table, capsys):
        assert main(["card", str(copy)]) == 0
        assert capsys.readouterr().out.strip() == str(copy / "card.html")
        text = (copy / "card.md").read_text()
        assert table["trial"].iloc[0] in text
        assert "12 Gaussian and 4 categorical" in text
        ridge = table[table["attack"].isin(WITH_PAIRS) & (table["representation"] == "masked")]
        assert f"{ridge.groupby(['attack', 'k'])['mse'].mean().min():.4f}" in text
        assert "Which masked image is that of a known one? Shares found among 60 of digits" in text
        assert "Masking is not encryption" in text

    def test_an_encoder_nobody_attacked_gets_no_comfort(self, copy, table):
        other = next(r.trial for r in read_records(copy) if r.kind == "trial" and r.gaussian == 8)
        assert main(["card", str(copy), "--trial", other]) == 0
        assert "Treat its masked images as you would treat the images themselves" in (copy / "card.md").read_text()
        assert "Each attacker" not in (copy / "card.md").read_text()

    def test_what_is_not_there_is_told(self, copy, tmp_path, capsys):
        assert main(["card", str(tmp_path)]) == 2
        assert "holds no study" in capsys.readouterr().err
        assert main(["card", str(copy), "--trial", "nobody"]) == 2
        assert "choose one of g12" in capsys.readouterr().err
