"""Images to report, on Ray, once; then many looks at what it left."""

import json
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from aae.keys import load_key
from study.config import StudyConfig
from study.config_text import from_plain
from study.records import read_records
from tests.conftest import run_study

ROOT = Path(__file__).parent.parent.parent


def timeless(folder):
    return sorted(json.dumps({**vars(r), "seconds": 0, "host": ""}, sort_keys=True) for r in read_records(folder))


class TestWhatARunLeaves:
    def test_a_record_for_everything_and_nothing_twice(self, finished):
        records = read_records(finished)
        assert len({r.key for r in records}) == len(records)
        kinds = pd.Series([r.kind for r in records]).value_counts()
        assert kinds["trial"] == 3
        # two instances: two decoders and three controls; one: one and three; on P, and on T and V of both sets
        assert kinds["reconstruction"] == 5 * (2 * 5 + 1 * 4)
        draws, classifiers = 3, 4  # two draws of two classes, one of all ten
        masked = 3 * 2 * classifiers * draws + 2 * 2 * draws  # encoders, protocols; the first one, two counts of two
        controls = (classifiers - 1) * draws + 3 * 2 * classifiers * draws
        defended = classifiers * draws  # one defence, one encoder
        mirrored = 3 * (classifiers - 1) * draws  # encoders; no one-hot targets
        assert kinds["classification"] == masked + controls + defended + mirrored

    def test_accuracy_is_above_chance(self, finished):
        summary = json.loads((finished / "summary.json").read_text())
        rows = [r for r in summary["classification"] if r["classes"] == 2 and r["representation"] == "masked"]
        assert min(r["accuracy"]["mean"] for r in rows) > 0.6

    def test_its_own_decoder_restores_best(self, finished):
        summary = json.loads((finished / "summary.json").read_text())
        mse = {(r["gaussian"], r["images"], r["pair"]): r["mean"] for r in summary["reconstruction"]}
        assert mse[12, "V", "matched"] < mse[12, "V", "unmatched"]
        assert mse[12, "V", "matched"] < mse[12, "V", "mean image"]

    def test_the_configuration_is_complete_and_comes_back(self, finished):
        config = from_plain(StudyConfig, json.loads((finished / "config.json").read_text()))
        assert (config.seed, config.draws, config.latents[1].batch_size) == (7, 2, 32)

    def test_the_manifest_says_where_numbers_come_from(self, finished):
        manifest = json.loads((finished / "manifest.json").read_text())
        assert manifest["seed"] == 7
        assert len(manifest["trial_seeds"]) == 3
        assert set(manifest["data"]) == {"photos", "digits"}
        assert {"ray", "torch", "scikit-learn"} <= set(manifest["runs"][0]["packages"])
        assert manifest["runs"][0]["commit"]

    def test_keys_are_private_and_pairs_match(self, finished):
        folders = list((finished / "trials").iterdir())
        assert len(folders) == 3
        for folder in folders:
            assert {p.name for p in folder.iterdir()} == {"encoder.safetensors", "decoder.safetensors", "result.json"}
            keys = [load_key(folder / f"{part}.safetensors", part) for part in ("encoder", "decoder")]
            assert keys[0].pair == keys[1].pair
            assert stat.S_IMODE((folder / "decoder.safetensors").stat().st_mode) == 0o600

    def test_tables_are_csv(self, finished):
        table = pd.read_csv(finished / "tables" / "classification.csv")
        assert {"dataset", "classes", "accuracy_mean", "accuracy_sigma"} <= set(table.columns)
        assert {p.name for p in (finished / "tables").iterdir()} == {
            "trials.csv", "classification.csv", "differences.csv", "drops.csv", "reconstruction.csv", "attacks.csv",
            "unmasking.csv", "claims.csv",
        }  # fmt: skip

    def test_the_report_shows_its_figures_and_escapes_what_it_was_given(self, finished):
        page = (finished / "report.html").read_text()
        assert "<title>Tiny &lt;study&gt;</title>" in page
        assert page.count('src="data:image/') == len(list((finished / "figures").glob("*.csv"))) >= 5
        text = (finished / "report.md").read_text()
        for figure in (finished / "figures").iterdir():
            assert f"figures/{figure.name}" in text

    def test_the_end_says_where_everything_lies(self, finished):
        printed = (finished.parent / "stdout").read_text()
        assert str(finished / "report.html") in printed
        assert "Accuracy on masked images" in printed

    def test_nothing_of_ray_is_left_or_shown(self, finished):
        assert not (finished / ".tune").exists()
        told = (finished.parent / "stderr").read_text()
        assert "WARNING" not in told
        assert "Traceback" not in told


class TestTheSameCommandAgain:
    def test_nothing_is_made_twice_and_more_may_be_asked_for(self, finished, tiny_toml):
        before = (finished / "records.jsonl").read_bytes()
        run_study("run", tiny_toml, "--out", finished, "--set", "draws=3")
        assert (finished / "records.jsonl").read_bytes().startswith(before)
        records = read_records(finished)
        assert len(records) == len({r.key for r in records})
        more = records[before.count(b"\n") :]
        assert {(r.kind, r.what["draw"]) for r in more} == {("classification", 2)}

    def test_a_changed_key_is_refused_by_name(self, finished, tiny_toml):
        done = run_study("run", tiny_toml, "--out", finished, "--set", "training.epochs=4", check=False)
        assert done.returncode == 2
        assert "training.epochs = 4 (it was 3)" in done.stderr


def test_a_report_needs_neither_ray_nor_data(finished):
    page = (finished / "report.md").read_text()
    code = (
        "import sys\nfor name in ('ray', 'optuna', 'torchvision'):\n    sys.modules[name] = None\n"
        f"from study.cli import main\nsys.exit(main(['report', {str(finished)!r}]))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (finished / "report.md").read_text() == page


@pytest.mark.slow
def test_trained_pairs_of_another_study_serve(finished, tiny_toml, tmp_path):
    out = tmp_path / "again"
    ran = run_study("run", tiny_toml, "--out", out, "--set", f"encoders.from={finished}", "--set", "controls=[]")
    assert "trials, epochs: 3 to do" in ran.stderr  # each tells its last epoch
    ours, theirs = ({r.key: r.metrics for r in read_records(folder)} for folder in (out, finished))
    assert len(ours) > 50
    assert all(theirs[key] == metrics for key, metrics in ours.items())
    assert json.loads((out / "manifest.json").read_text())["encoders_from"] == str(finished)


def test_a_truncated_encoder_is_told(finished, tiny_toml, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(finished / "trials", broken / "trials")
    victim = sorted((broken / "trials").iterdir())[0] / "encoder.safetensors"
    victim.write_bytes(victim.read_bytes()[:1000])
    done = run_study("run", tiny_toml, "--out", tmp_path / "out", "--set", f"encoders.from={broken}", check=False)
    assert done.returncode == 2
    assert "encoder.safetensors: is not a readable safetensors file" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_wheel_is_the_product_and_works_outside_the_checkout(tmp_path):
    source = tmp_path / "source"  # a build leaves files beside its sources, and takes old ones along
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "results", "*.egg-info"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"study/presets/quick.toml", "study/presets/paper.toml", "study/views/templates/page.html.j2"} <= set(names)
    assert not [n for n in names if n.startswith(("tests", "results", "benchmarks", "docs"))]
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = "import study.cli, sys; print(study.cli.__file__); sys.exit(study.cli.main(['presets']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(target)}, capture_output=True, text=True
    )
    assert str(target) in done.stdout, done.stderr
    assert "quick" in done.stdout


@pytest.mark.slow
def test_the_papers_study_runs_through_on_the_real_archives(some_of_the_archives, tmp_path):
    out = tmp_path / "paper"
    settings = [
        "training.epochs=1", "instances=2", "draws=2", "data.held_out=2000", "data.train_images=4000",
        "estimators=[]", "controls=['pca']",
        "classifiers.mlp.epochs=1", "classifiers.random_forest.estimators=3", "classifiers.adaboost.estimators=3",
        "attacks.names=['ridge']", "attacks.pairs=[10,100]", "attacks.draws=1", "attacks.victims=200",
        "latents=[{}, {recipe='paper', instances=1}]",
    ]  # fmt: skip
    run_study(
        "run", "paper", "--data-dir", some_of_the_archives, "--out", out, *(a for s in settings for a in ("--set", s))
    )
    summary = json.loads((out / "summary.json").read_text())
    cells = {(r["dataset"], r["classes"]) for r in summary["classification"]}
    assert cells == {("cifar100", 2), ("cifar100", 3), ("cifar100", 4), ("mnist", 10)}
    restored = {"P", "T", "V", "cifar100 T", "cifar100 V", "mnist T", "mnist V"}
    assert {r["images"] for r in summary["reconstruction"]} == restored
    text = (out / "report.md").read_text()
    for number in ("0.852 ± 0.068", "0.435 ± 0.113", "0.592 ± 0.070", "0.983", "0.003550 ± 0.000709", "+0.387"):
        assert number in text
