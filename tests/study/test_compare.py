"""Studies side by side: what may differ, and by how much."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from study.records import Record, read_records
from study.views.compare import _repeated, chance, compare


def records(accuracies):
    """One a value; a configuration down, a draw across."""
    return [
        Record(
            kind="classification",
            key=f"{gaussian}/{draw}",
            trial=f"t{gaussian}",
            gaussian=gaussian,
            categorical=0,
            batch_size=4,
            instance=0,
            what={
                "representation": "masked",
                "dataset": "cifar100",
                "classes": 4,
                "draw": draw,
                "protocol": "shared",
                "classifier": "mlp",
                "class_names": ["bee", "cup", "fox", "sea"],
            },
            metrics=dict.fromkeys(("accuracy", "precision", "recall"), float(value)),
            detail={"confusion": [[1]]},
        )
        for (gaussian, draw), value in np.ndenumerate(accuracies)
    ]


def studies(tmp_path, differences):
    """Two folders; in the second every accuracy has its difference more."""
    accuracies = 0.7 + 0.05 * np.random.default_rng(0).standard_normal(differences.shape)
    for name, values in (("one", accuracies), ("other", accuracies + differences)):
        (tmp_path / name).mkdir(exist_ok=True)
        lines = [json.dumps(dataclasses.asdict(record)) + "\n" for record in records(values)]
        (tmp_path / name / "records.jsonl").write_text("".join(lines))
    return [tmp_path / "one", tmp_path / "other"]


def noise(mean=0.0, deviation=0.018, draws=10):
    """Differences, their mean as given in the first of five configurations, and zero in the others."""
    values = np.random.default_rng(1).standard_normal((5, draws)) * deviation
    values -= values.mean(axis=1, keepdims=True)
    values[0] += mean
    return values


def accuracies(differences):
    """The margins of accuracy between two studies that differ so."""
    one, other = (_repeated(records(values)) for values in (0.0 * differences, differences))
    return {cell[1]: value for cell, value in chance(one, other).items() if cell[-1] == "accuracy"}


def test_what_chance_explains_is_named_and_does_not_count(tmp_path, capsys):
    assert compare(studies(tmp_path, noise(0.015)), 0.01) == 0
    told = capsys.readouterr().out
    assert told.count("by chance (0.01)") == 3
    assert "15 cells: 0 differ by more than 0.01 and chance, 3 by more than 0.01 alone, 0 not in every" in told


def test_what_is_more_than_chance_counts(tmp_path, capsys):
    assert compare(studies(tmp_path, noise(0.028)), 0.01) == 1
    assert "15 cells: 3 differ by more than 0.01 and chance" in capsys.readouterr().out


def test_a_shift_of_every_cell_is_no_chance(tmp_path):
    assert compare(studies(tmp_path, noise() + 0.028), 0.01) == 1


@pytest.mark.parametrize(("added", "status"), [(0.009, 0), (0.011, 1)])
def test_what_was_not_repeated_has_the_tolerance_alone(tmp_path, added, status):
    assert compare(studies(tmp_path, noise(added, draws=1)), 0.01) == status


def test_without_a_tolerance_chance_does_not_count(tmp_path):
    assert compare(studies(tmp_path, noise()), 0.0) == 1
    assert compare(studies(tmp_path, noise(deviation=0.0)), 0.0) == 0


def test_means_of_other_draws_have_no_margin(tmp_path):
    longer = noise(0.015, draws=20)
    one, other = _repeated(records(longer)), _repeated(records(0.0 * longer[:, :10]))
    assert not chance(one, other)


def test_of_three_studies_each_pair_has_its_own_margin(tmp_path):
    differences = noise(0.015)
    one, other = studies(tmp_path, differences)
    third = tmp_path / "third"
    shutil.copytree(other, third)
    assert compare([one, other, third], 0.01) == 0
    text = (third / "records.jsonl").read_text()
    (third / "records.jsonl").write_text(text.replace('"key": "', '"key": "other '))
    assert compare([one, other, third], 0.01) == 1


def test_a_mean_of_chance_alone_is_within_its_margin_as_often_as_the_level_says():
    rng = np.random.default_rng(2)
    beyond = 0
    for _ in range(20):
        differences = rng.standard_normal((50, 4)) * 0.018
        limits = accuracies(differences)
        beyond += sum(abs(mean) > limits[f"{cell}"] for cell, mean in enumerate(differences.mean(axis=1)))
    assert 0.03 <= beyond / 1000 <= 0.07


def test_cells_that_are_alike_lend_each_other_their_deviation():
    differences = noise(deviation=0.0)
    differences[0] += np.linspace(-0.1, 0.1, 10)
    half = stats.t.ppf(0.975, 45) * (differences.var(axis=1, ddof=1).mean() / 10) ** 0.5
    assert accuracies(differences) == pytest.approx(dict.fromkeys("01234", half))


def test_attacks_have_a_margin_too():
    paper = read_records(Path(__file__).parents[2] / "results" / "paper")
    moved = [
        dataclasses.replace(r, metrics=r.metrics | {"mse": r.metrics["mse"] + 0.01 * (r.what["draw"] - 1)})
        if r.kind == "attack"
        else r
        for r in paper
    ]
    margin = chance(_repeated(paper), _repeated(moved))
    drawn = {cell: value for cell, value in margin.items() if cell[0] == "attack" and "ridge" in cell}
    assert drawn
    assert all(value > 0.01 for cell, value in drawn.items() if cell[-1] == "mse")
    assert not any(value for cell, value in drawn.items() if cell[-1] == "top1")
