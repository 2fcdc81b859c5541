"""The owner masks, the receiver learns, the owner restores: the commands of docs/own-data.md, as written there."""

import io
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits

from classifiers import ClassifiersConfig
from classifiers.config import MlpConfig
from study.cli import main
from study.handover import _over_splits, learn_model
from study.masked_file import open_masked
from study.model_file import read_model, write_model
from tests.masked import file_of

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "own-data.md").read_text()
SMALL_NET = ClassifiersConfig(mlp=MlpConfig(hidden=(32, 16), epochs=10))
SMALL = ["--set", "data.train_images=600", "--set", "training.epochs=1", "--set", "latents=[{gaussian=12}]"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Class folders of handwritten digits, three classes of 60, as PNG."""
    folder = tmp_path_factory.mktemp("own") / "pictures"
    digits = load_digits()
    for number in range(3):
        (folder / f"digit {number}").mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == number][:60]):
            picture = Image.fromarray((image * 15.9).astype(np.uint8)).resize((40, 48))
            picture.save(folder / f"digit {number}" / f"{i:03}.png")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two trained pairs of one configuration."""
    folder = tmp_path_factory.mktemp("pairs")
    for seed in (1, 2):
        assert main(["train", "quick", "--out", str(folder / str(seed)), *SMALL, "--set", f"seed={seed}"]) == 0
    return folder


@pytest.fixture
def masked(pictures, pairs, tmp_path):
    path = tmp_path / "masked.parquet"
    assert main(["mask", str(pictures), "--encoder", str(pairs / "1" / "encoder.safetensors"), "--out", str(path)]) == 0
    return path


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("study: ")
    assert "Traceback" not in told
    return told


def test_the_page_works_as_written(pictures, tmp_path, monkeypatch, capsys):
    (tmp_path / "pictures").symlink_to(pictures)
    monkeypatch.chdir(tmp_path)
    (shell,) = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in shell.splitlines():
        assert main(shlex.split(line)[1:]) == 0
    printed = capsys.readouterr().out
    accuracy = {name: float(value) for name, value in re.findall(r"^(\w+) +accuracy ([\d.]+)", printed, re.MULTILINE)}
    assert accuracy.keys() == {"mlp", "random_forest"}
    assert min(accuracy.values()) > 0.6
    assert len(list((tmp_path / "restored").iterdir())) == 180
    assert Image.open(tmp_path / "restored" / "000000.png").size == (32, 32)
    assert "kind         masked forms" in printed
    assert "kind         encoder" in printed
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table.columns) == ["number", "class", "probability"]
    assert list(table["number"]) == list(range(180))
    assert table["probability"].between(1 / 3, 1).all()
    told = np.array(pq.read_table(tmp_path / "masked.parquet")["label"].to_pylist())
    assert f"accuracy {(table['class'] == told).mean():.3f}\n" in printed
    assert (table["class"] == told).mean() > 0.6


def test_the_python_works_as_written():
    first, second = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(compile(first, "own-data.md", "exec"), names)
    assert names["masked"].shape == (60, 28)
    exec(compile(second, "own-data.md", "exec"), names)
    assert len(names["search"].cv_results_["params"]) == 2


def test_names_and_labels_stay_at_home_unless_asked_for(masked):
    assert pq.read_schema(masked).names == ["masked"]
    content = masked.read_bytes()
    assert b"digit" not in content
    assert b"000.png" not in content


def test_a_file_is_what_it_holds_whatever_its_name(masked, tmp_path, capsys):
    shutil.copy(masked, tmp_path / "masked.safetensors")
    assert main(["inspect", str(tmp_path / "masked.safetensors")]) == 0
    assert "kind         masked forms" in capsys.readouterr().out


def test_labels_and_names_come_along_when_asked_for(pictures, pairs, tmp_path):
    path = tmp_path / "named.parquet"
    key = str(pairs / "1" / "encoder.safetensors")
    assert main(["mask", str(pictures), "--encoder", key, "--out", str(path), "--labels", "--names"]) == 0
    table = pq.read_table(path)
    assert set(table["label"].to_pylist()) == {"digit 0", "digit 1", "digit 2"}
    assert table["name"][0].as_py() == "digit 0/000.png"


def test_a_full_disk_leaves_nothing_behind(masked, pairs, tmp_path):
    key, out = pairs / "1" / "decoder.safetensors", tmp_path / "restored"
    command = shlex.join(
        [sys.executable, "-m", "study.cli", "unmask", str(masked), "--key", str(key), "--out", str(out)]
    )
    done = subprocess.run(["bash", "-c", f"ulimit -f 1; exec {command}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "File too large: choose another place, make room" in done.stderr
    assert not list(tmp_path.glob("*restored*"))


def test_another_trial_in_the_folder_is_told_and_left_alone(pairs, tmp_path, capsys):
    shutil.copytree(pairs / "1", tmp_path / "1")
    before = (tmp_path / "1" / "encoder.safetensors").read_bytes()
    told = refused(capsys, "train", "quick", "--out", tmp_path / "1", *SMALL, "--set", "seed=2")
    assert re.search(r"holds trial g12-\S+, and this is g12-\S+: choose another --out", told)
    assert (tmp_path / "1" / "encoder.safetensors").read_bytes() == before


def test_a_strangers_decoder_is_refused_unless_asked_for(masked, pairs, tmp_path, capsys):
    key = pairs / "2" / "decoder.safetensors"
    told = refused(capsys, "unmask", masked, "--key", key, "--out", tmp_path / "x")
    assert len(set(re.findall(r"\b[0-9a-f]{32}\b", told))) == 2
    assert not (tmp_path / "x").exists()
    assert main(["unmask", str(masked), "--key", str(key), "--out", str(tmp_path / "x"), "--anyway"]) == 0
    assert len(list((tmp_path / "x").iterdir())) == 180


def test_a_locked_decoder_opens_by_its_passphrase_alone(masked, pairs, tmp_path, capsys, monkeypatch):
    key, phrase = tmp_path / "decoder.safetensors", tmp_path / "phrase"
    shutil.copy(pairs / "1" / "decoder.safetensors", key)
    clear = key.read_bytes()
    phrase.write_text("a long enough passphrase\n")
    given = ["--passphrase-file", str(phrase)]
    assert main(["lock", str(key), *given]) == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "is already locked" in refused(capsys, "lock", key, *given)
    assert main(["inspect", str(key), *given]) == 0
    assert "locked       True" in capsys.readouterr().out
    assert main(["unmask", str(masked), "--key", str(key), "--out", str(tmp_path / "x"), *given]) == 0
    assert len(list((tmp_path / "x").iterdir())) == 180
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert "there is no terminal" in refused(capsys, "unmask", masked, "--key", key, "--out", tmp_path / "y")

    def left(_):
        raise EOFError

    with monkeypatch.context() as patch:
        patch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
        patch.setattr("getpass.getpass", left)
        assert "no passphrase was given" in refused(capsys, "unmask", masked, "--key", key, "--out", tmp_path / "y")
    phrase.write_text("another long passphrase")
    assert "not the right one" in refused(capsys, "unlock", key, *given)
    phrase.write_text("a long enough passphrase")
    assert main(["unlock", str(key), *given]) == 0
    assert key.read_bytes() == clear
    assert "give the decoder" in refused(capsys, "lock", pairs / "1" / "encoder.safetensors", *given)
    phrase.write_text("short")
    assert "must have 12 or more" in refused(capsys, "lock", key, *given)
    assert key.read_bytes() == clear


def test_an_archive_masks_as_the_same_pictures_do(pairs, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (1203, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(1203) % 2, class_names=np.array(["even", "odd"]))
    key = str(pairs / "1" / "encoder.safetensors")
    assert (
        main(["mask", str(tmp_path / "x.npz"), "--encoder", key, "--out", str(tmp_path / "a.parquet"), "--labels"]) == 0
    )
    table = pq.read_table(tmp_path / "a.parquet")
    assert len(table) == 1203
    assert table["label"][:3].to_pylist() == ["even", "odd", "even"]
    np.savez_compressed(tmp_path / "y.npz", train_images=images[1000:])
    assert main(["mask", str(tmp_path / "y.npz"), "--encoder", key, "--out", str(tmp_path / "b.parquet")]) == 0
    last = np.array(table["masked"].to_pylist(), dtype=np.float32)[1000:]
    np.testing.assert_allclose(np.array(pq.read_table(tmp_path / "b.parquet")["masked"].to_pylist()), last, atol=1e-5)


def test_many_splits_of_the_same_images_do_not_make_an_interval_vanish():
    """The corrected resampled t: variance over splits times (1 / splits + test over training images)."""
    values = np.array([0.4, 0.5, 0.6, 0.5])
    half = stats.t.ppf(0.975, 3) * values.std(ddof=1) * np.sqrt(1 / 4 + 0.2 / 0.64)
    assert _over_splits(values) == pytest.approx([0.5 - half, 0.5 + half])


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Labelled masked forms of two classes, and what was learned from them, with its file."""
    folder = tmp_path_factory.mktemp("model")
    labels = np.arange(100) % 2
    vectors = np.random.default_rng(0).normal(size=(100, 10)) * 2 + 4 * labels[:, None]
    path = file_of(folder / "known.parquet", vectors, labels=[("a", "b")[i] for i in labels])
    model = learn_model(open_masked(path), SMALL_NET, seed=0)
    write_model(folder / "model.safetensors", model)
    return path, model, folder / "model.safetensors"


class TestASavedModel:
    def test_it_predicts_what_was_learned_chunk_by_chunk(self, learned, tmp_path, capsys):
        _, model, file = learned
        vectors = np.random.default_rng(1).normal(size=(2300, 10)).astype(np.float32) * 9
        names = [f'x, "{i}"\n.png' for i in range(2300)]
        other = file_of(tmp_path / "other.parquet", vectors, labels=["a", "c"] * 1150, names=names)
        out = tmp_path / "new" / "p.csv"
        assert main(["classify", str(other), "--predict", str(file), "--out", str(out)]) == 0
        table = pd.read_csv(out)
        assert list(table["name"]) == names
        best, probability = (
            np.concatenate(parts)
            for parts in zip(*(model.predict(vectors[i : i + 1000]) for i in (0, 1000, 2000)), strict=True)
        )
        assert list(table["class"]) == [("a", "b")[i] for i in best]
        np.testing.assert_allclose(table["probability"], probability, atol=6e-7)
        right = (best[::2] == 0).sum() / 2300
        assert f"accuracy {right:.3f}; 1150 are of classes the model does not know" in capsys.readouterr().out
        assert [p.name for p in out.parent.iterdir()] == ["p.csv"]

    def test_a_strangers_text_is_no_formula_in_a_spreadsheet(self, tmp_path):
        vectors = np.random.default_rng(1).normal(size=(40, 10)).astype(np.float32)
        vectors[::2] += 9
        labels = ["=a", "b"] * 20
        path = file_of(tmp_path / "m.parquet", vectors, labels=labels, names=["=1+1", "@x", "-2", "+3", "a=b"] * 8)
        write_model(tmp_path / "model", learn_model(open_masked(path), SMALL_NET, seed=0))
        assert (
            main(["classify", str(path), "--predict", str(tmp_path / "model"), "--out", str(tmp_path / "p.csv")]) == 0
        )
        table = pd.read_csv(tmp_path / "p.csv")
        assert list(table["name"][:5]) == ["'=1+1", "'@x", "'-2", "'+3", "a=b"]
        assert set(table["class"]) == {"'=a", "b"}

    def test_the_seed_repeats_it_and_it_says_how_it_was_made(self, learned):
        path, model, file = learned
        again = learn_model(open_masked(path), SMALL_NET, seed=0)
        for name, array in again.network.state().items():
            np.testing.assert_array_equal(array, model.network.state()[name])
        info = read_model(file).info
        assert info.classes == ("a", "b")
        assert info.trained_on == 100
        assert info.validation_accuracy * 16 == round(info.validation_accuracy * 16) > 8

    def test_masked_forms_of_another_pair_or_length_are_refused(self, learned, tmp_path, capsys):
        _, _, file = learned
        strange = file_of(tmp_path / "s.parquet", np.ones((3, 10)), pair="cd" * 16)
        out = tmp_path / "p.csv"
        told = refused(capsys, "classify", strange, "--predict", file, "--out", out)
        assert {"ab" * 16, "cd" * 16} == set(re.findall(r"\b[0-9a-f]{32}\b", told))
        longer = file_of(tmp_path / "l.parquet", np.ones((3, 11)), lengths=(8, 3))
        told = refused(capsys, "classify", longer, "--predict", file, "--out", out)
        assert "of 8+3 numbers" in told
        assert "takes 8+2" in told
        assert not out.exists()

    def test_what_cannot_be_is_refused_and_leaves_nothing(self, learned, tmp_path, capsys):
        path, _, file = learned
        out = tmp_path / "p.csv"
        predict = ["classify", path, "--predict", file]
        assert "--save: does not go with --predict" in refused(capsys, *predict, "--save", out)
        assert "--classifiers: does not go" in refused(capsys, *predict, "--classifiers", "mlp")
        assert "needs --out" in refused(capsys, *predict)
        assert "is already there" in refused(capsys, *predict, "--out", file)
        assert "is already there" in refused(capsys, "classify", path, "--save", file)
        assert "is not a readable safetensors" in refused(capsys, "classify", path, "--predict", path, "--out", out)
        assert "cannot be written" in refused(capsys, *predict, "--out", file / "p.csv")
        huge = file_of(tmp_path / "h.parquet", np.full((1, 10), 3e38))
        assert "h.parquet: masked forms, or the" in refused(capsys, "classify", huge, "--predict", file, "--out", out)
        torn = bytearray(path.read_bytes())
        torn[4:40] = bytes(36)
        (tmp_path / "torn.parquet").write_bytes(torn)
        told = refused(capsys, "classify", tmp_path / "torn.parquet", "--predict", file, "--out", out)
        assert "is damaged" in told
        assert sorted(p.name for p in tmp_path.iterdir()) == ["h.parquet", "torn.parquet"]

    def test_an_identity_that_would_write_to_the_terminal_is_refused(self, tmp_path, capsys):
        path = file_of(tmp_path / "m.parquet", np.eye(10), pair="\x1b[2J", labels=["a", "b"] * 5)
        for command in ("classify", "inspect"):
            assert "names its pair '\\x1b[2J'" in refused(capsys, command, path)
        empty = file_of(tmp_path / "e.parquet", np.ones((0, 10)), labels=[])
        assert "holds no masked forms" in refused(capsys, "classify", empty)


class TestBadInput:
    def test_a_file_where_a_folder_must_be(self, pictures, pairs, tmp_path, capsys):
        key, file = pairs / "1" / "decoder.safetensors", tmp_path / "file"
        file.write_text("mine")
        masked = file_of(tmp_path / "m.parquet", np.eye(10), labels=["a", "b"] * 5)
        own = tmp_path / "own.parquet"
        assert (
            main(["mask", str(pictures), "--encoder", str(key.with_name("encoder.safetensors")), "--out", str(own)])
            == 0
        )
        for command in (
            ("unmask", own, "--key", key, "--out", file),
            ("train", "quick", "--out", file),
            ("classify", masked, "--out", file / "table.csv"),
        ):
            assert str(file) in refused(capsys, *command)
        assert "is already there" in refused(capsys, "classify", masked, "--out", file)
        assert file.read_text() == "mine"

    def test_pictures(self, pictures, pairs, tmp_path, capsys):
        key, out = pairs / "1" / "encoder.safetensors", tmp_path / "m.parquet"
        folder = tmp_path / "mixed"
        folder.mkdir()
        assert "holds no pictures" in refused(capsys, "mask", folder, "--encoder", key, "--out", out)
        (folder / "broken.png").write_bytes(b"not a picture")
        Image.new("L", (9, 9)).save(folder / "good.png")
        (folder / "link.png").symlink_to(pictures / "digit 0" / "000.png")
        assert "broken.png: is not a picture" in refused(capsys, "mask", folder, "--encoder", key, "--out", out)
        assert list(tmp_path.glob("*m.parquet*")) == []
        below = folder / "good.png" / "m.parquet"  # a picture is no folder
        assert "cannot be written" in refused(capsys, "mask", pictures, "--encoder", key, "--out", below)
        command = ["mask", str(folder), "--encoder", str(key), "--out", str(out), "--skip-broken"]
        assert main(command) == 0
        told = capsys.readouterr()
        assert "link that leaves" in told.err
        assert "1 masked forms" in told.out

    def test_a_picture_bomb_is_refused_before_it_is_unpacked(self, pairs, tmp_path, capsys):
        folder = tmp_path / "bomb"
        folder.mkdir()
        Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
        told = refused(
            capsys, "mask", folder, "--encoder", pairs / "1" / "encoder.safetensors", "--out", tmp_path / "m.parquet"
        )
        assert "bomb.png" in told

    def test_other_files(self, masked, pairs, tmp_path, capsys):
        (tmp_path / "x.parquet").write_bytes(b"PAR1")
        assert "not a readable Parquet" in refused(capsys, "inspect", tmp_path / "x.parquet")
        assert "no such file" in refused(capsys, "inspect", tmp_path / "none.parquet")
        assert "no such file" in refused(capsys, "inspect", tmp_path / "none.safetensors")
        assert "is the decoder" in refused(
            capsys, "mask", tmp_path, "--encoder", pairs / "1" / "decoder.safetensors", "--out", tmp_path / "z"
        )
        assert "has no labels: mask again" in refused(capsys, "classify", masked)
        Image.new("L", (9, 9)).save(tmp_path / "good.png")
        key = pairs / "1" / "encoder.safetensors"
        assert "is already there" in refused(capsys, "mask", tmp_path, "--encoder", key, "--out", masked)
        assert "--splits 0" in refused(capsys, "classify", masked, "--splits", "0")
        assert "--classifiers svm" in refused(capsys, "classify", masked, "--classifiers", "svm")
