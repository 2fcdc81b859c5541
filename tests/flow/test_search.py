"""A search from its first proposal to its verdict, on Ray, once; and, slowly, on the real archives."""

import json
import os
from pathlib import Path

import optuna
import pytest

from study.records import read_records
from tests.conftest import known, listed, run_study
from tests.failing import sitecustomize as failing
from tests.failing.sitecustomize import KILLED, KILLED_ONCE, NOT_A_NUMBER, OUT_OF_MEMORY
from tests.kill import check_search, run_killed

SEARCH = """
title = "Tiny search"
seed = 7
draws = 1
controls = []
protocols = ["shared"]
[data]
autoencoder = "photos"
held_out = 0
train_images = 480
[training]
epochs = 3
batch_size = 32
[network]
widths = [4, 8, 8]
discriminator_widths = [16]
[[latents]]
gaussian = 12
categorical = 4
[[tasks]]
data = "digits"
classes = [2]
[classifiers]
names = ["random_forest"]
[classifiers.random_forest]
estimators = 5
[attacks]
names = ["ridge"]
pairs = [10, 100]
draws = 1
victims = 60
[search]
trials = 8
finalists = 1
fresh_seeds = 2
draws = 1
classifier = "random_forest"
sampler = "random"
scheduler = "asha"
concurrent = 1
objectives = [{name = "accuracy"}, {name = "held_out_mse"}, {name = "pairs_to_unmask"}, {name = "reidentification"}]
space = [
    {key = "latent.gaussian", low = 4, high = 32, log = true},
    {key = "latent.categorical", low = 2, high = 8, off = true},
    {key = "training.batch_size", choices = [32, 4096]},
    {key = "training.learning_rate", choices = [1e-2, 1e-9]},
]
"""


@pytest.fixture(scope="module")
def search_toml(tmp_path_factory):
    path = tmp_path_factory.mktemp("toml") / "search.toml"
    path.write_text(SEARCH)
    return path


@pytest.fixture(scope="module")
def searched(search_toml, tmp_path_factory):
    """The folder of a search that was killed twice, and in which trials with more than all images a batch fail."""
    out = tmp_path_factory.mktemp("search") / "tiny"
    assert run_killed(str(search_toml), out, 2, [], seed=0) == ["start", "finished trial"]
    check_search(out, trials=8)
    return out


def trials(folder, role):
    return [r for r in read_records(folder) if r.kind == "trial" and r.what["role"] == role]


class TestWhatASearchLeaves:
    def test_every_trial_is_recorded_as_what_it_is(self, searched):
        records = trials(searched, "search")
        assert len(records) == len({r.trial for r in records}) == 8
        assert {r.what["status"] for r in records} == {"complete", "stopped", "failed"}
        for record in records:
            too_large = record.detail["params"]["training.batch_size"] == 4096
            assert (record.what["status"] == "failed") == too_large
            if too_large:
                assert "ValueError: training.batch_size = 4096: must be at most the 480" in record.detail["reason"]
            if record.what["status"] == "stopped":  # what learns nothing, after what learned
                assert record.detail["params"]["training.learning_rate"] == 1e-9
                assert record.metrics["epoch"] == 1
            if record.what["status"] == "complete":
                named = ("accuracy", "held_out_mse", "pairs_to_unmask", "reidentification")
                assert {f"objective.{name}" for name in named} <= record.metrics.keys()
                assert record.metrics["epoch"] == 3

    def test_optunas_own_tools_see_the_same_parameters(self, searched):
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{searched}/optuna.db")
        told = {t.user_attrs["trial"]: t.params for t in study.trials}
        assert told == {r.trial: r.detail["params"] for r in trials(searched, "search")}

    def test_the_finalist_and_the_studys_own_configuration_are_confirmed_on_fresh_paired_seeds(self, searched):
        fresh = trials(searched, "fresh")
        seeds = {}
        for record in fresh:
            seeds.setdefault(record.what["point"], set()).add(record.seed)
        assert len(fresh) == 4
        assert len(seeds) == 2
        assert len({frozenset(one) for one in seeds.values()}) == 1
        assert sorted({r.variant.partition(" ")[0] for r in fresh}) == ["", "learning_rate"]
        assert not {r.seed for r in fresh} & {r.seed for r in trials(searched, "search")}
        classified = {r.trial for r in read_records(searched) if r.kind == "classification"}
        assert classified == {r.trial for r in fresh}
        pairs = {r.what["pair"] for r in read_records(searched) if r.kind == "reconstruction"}
        assert {"matched", "unmatched"} <= pairs

    def test_disk_holds_what_finished_and_nothing_else(self, searched):
        complete = {r.trial for r in read_records(searched) if r.kind == "trial" and r.what["status"] == "complete"}
        assert {path.name for path in (searched / "trials").iterdir()} == complete
        for folder in (searched / "trials").iterdir():
            assert {p.name for p in folder.iterdir()} == {"encoder.safetensors", "decoder.safetensors", "result.json"}
        assert not (searched / ".tune").exists()

    def test_the_report_shows_and_decides(self, searched):
        search = json.loads((searched / "summary.json").read_text())["search"]
        assert len(search["hypervolume"]) == sum(t["status"] == "complete" for t in search["trials"])
        assert search["hypervolume"] == sorted(search["hypervolume"])
        assert any(t["front"] for t in search["trials"])
        assert search["finalists"][1]["seeds"] == 2
        text = (searched / "report.md").read_text()
        assert search["recommendation"] in text
        for name in ("front", "hypervolume", "importances", "parallel", "slices"):
            assert f"figures/{name}.svg" in text
            assert (searched / "figures" / f"{name}.csv").read_text().count("\n") > 1

    def test_a_latent_outside_the_space_is_told(self, searched):
        told = (searched.parent / f"{searched.name}.log").read_text()
        assert "latents, 12+4: lies outside search.space" in " ".join(told.split())

    def test_every_file_has_its_line(self, searched):
        patterns = [name for title in ("Files", "After a search") for (names,) in listed(title) for name in names]
        files = [str(path.relative_to(searched)) for path in searched.rglob("*") if path.is_file()]
        assert "optuna.db" in files
        assert [name for name in files if not known(name, patterns)] == []


def test_whatever_befalls_trials_the_search_ends_and_says_what_it_was(tmp_path, monkeypatch):
    """Real processes that die, once or as often as they are begun; no memory; an objective that is no number."""
    rates = [0.001, KILLED, KILLED_ONCE, OUT_OF_MEMORY, NOT_A_NUMBER]
    text = SEARCH.partition("space = [")[0].replace("trials = 8", "trials = 20").replace('"asha"', '"none"')
    text = text.replace("[[tasks]]", "batch_size = 32\n[[tasks]]").replace('names = ["ridge"]', "names = []")
    text += f'space = [{{key = "training.learning_rate", choices = {rates}}}]\n[resources]\nretries = 1\n'
    (tmp_path / "failing.toml").write_text(text)
    monkeypatch.setenv("FAILING", str(tmp_path / "log"))
    places = [str(Path(failing.__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    out = tmp_path / "out"
    run_study("run", tmp_path / "failing.toml", "--out", out)
    check_search(out, trials=len(rates))  # of 20: none is proposed again, none left running in Optuna's copy
    records = {r.detail["params"]["training.learning_rate"]: r for r in trials(out, "search")}
    reasons = {rate: r.detail["reason"] for rate, r in records.items() if r.what["status"] == "failed"}
    assert {rate for rate, r in records.items() if r.what["status"] == "complete"} == {0.001, KILLED_ONCE}
    assert reasons.keys() == {KILLED, OUT_OF_MEMORY, NOT_A_NUMBER}
    assert "died unexpectedly" in reasons[KILLED]
    assert reasons[OUT_OF_MEMORY].startswith("OutOfMemoryError: CUDA out of memory.")
    assert reasons[NOT_A_NUMBER] == "ArithmeticError: objective.held_out_mse is nan"
    seen = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    seen = {rate: [(int(epoch), pid) for of, epoch, pid in seen if float(of) == rate] for rate in rates}
    (_, first), (_, again), *_ = seen[KILLED]
    assert first != again
    epochs, processes = zip(*seen[KILLED_ONCE][:4], strict=True)  # fresh seeds come after
    assert epochs == (1, 2, 2, 3)  # the second process goes on from the checkpoint of the first epoch
    assert processes[0] == processes[1] != processes[2] == processes[3]
    assert {path.name for path in (out / "trials").iterdir()} == {
        r.trial for r in read_records(out) if r.kind == "trial" and r.what["status"] == "complete"
    }


@pytest.mark.slow
def test_the_preset_says_whether_anything_dominates_the_papers_configuration(some_of_the_archives, tmp_path):
    settings = [
        "search.trials=3", "search.finalists=1", "search.draws=1", "training.epochs=1", "data.train_images=2000",
        "data.held_out=2000",
        "draws=1", "controls=[]", "classifiers.mlp.epochs=2", "classifiers.random_forest.estimators=10",
        "attacks.names=['ridge']", "attacks.pairs=[10,100]", "attacks.draws=1", "attacks.victims=200",
    ]  # fmt: skip
    out = tmp_path / "search"
    run_study(
        "run", "search", "--data-dir", some_of_the_archives, "--out", out, *(a for s in settings for a in ("--set", s))
    )
    search = json.loads((out / "summary.json").read_text())["search"]
    assert search["trials"][0]["status"] == "complete"
    first, *others = search["finalists"]
    assert first["name"] == "384+20, batch 16"
    assert all(row["seeds"] == 4 for row in search["finalists"])
    assert others
    assert set(others[0]["differences"]) == {"test accuracy", "held_out_mse", "mse_at_k"}
    assert "fresh paired seeds" in search["recommendation"]
    assert "384+20, batch 16" in search["recommendation"]
