"""Studies side by side: what may differ, and by how much."""

import dataclasses
import json

import numpy as np
import pytest

from study.records import Record
from study.views.compare import chance, compare


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


def test_what_chance_explains_is_named_and_does_not_count(tmp_path, capsys):
    assert compare(studies(tmp_path, noise(0.015)), 0.01) == 0
    told = capsys.readouterr().out
    assert told.count("by chance") == 3
    assert "15 cells: 0 differ by more than 0.01" in told
    assert "3 more differ by more than 0.01, but not by more than chance" in told


def test_what_is_more_than_chance_counts(tmp_path, capsys):
    assert compare(studies(tmp_path, noise(0.025)), 0.01) == 1
    assert "15 cells: 3 differ by more than 0.01" in capsys.readouterr().out


def test_a_shift_of_every_cell_is_no_chance(tmp_path):
    assert compare(studies(tmp_path, noise() + 0.025), 0.01) == 1


@pytest.mark.parametrize(("added", "status"), [(0.009, 0), (0.011, 1)])
def test_what_was_not_repeated_has_the_tolerance_alone(tmp_path, added, status):
    assert compare(studies(tmp_path, noise(added, draws=1)), 0.01) == status


def test_without_a_tolerance_chance_does_not_count(tmp_path):
    assert compare(studies(tmp_path, noise()), 0.0) == 1
    assert compare(studies(tmp_path, noise(deviation=0.0)), 0.0) == 0


def test_a_mean_of_chance_alone_is_within_its_margin_as_often_as_the_level_says():
    rng = np.random.default_rng(2)
    beyond = 0
    for _ in range(20):
        differences = rng.standard_normal((50, 4)) * 0.018
        margin = chance([records(0.0 * differences), records(differences)])
        limits = [value for cell, value in margin.items() if cell[-1] == "accuracy"]
        beyond += int((np.abs(differences.mean(axis=1)) > limits).sum())
    assert 0.03 <= beyond / 1000 <= 0.07
