"""Bad input: exit status 2, one clear line, nothing half-written."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from study.cli import main

#: A published study, and its encoder that was attacked first.
LENGTH = Path(__file__).parents[2] / "results" / "length"
TRIAL = sorted(path.name for path in LENGTH.glob("trials/*"))[0]


@pytest.fixture
def refused(capsys, tmp_path):
    """Run a command that must be refused; return its one line."""

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.startswith("study: ")]
        assert len(lines) == 1
        assert "Traceback" not in captured.err
        assert captured.out == ""
        return lines[0]

    return run


@pytest.fixture
def out(tmp_path):
    """A folder that must not be there in the end."""
    folder = tmp_path / "out"
    yield folder
    assert not folder.exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["trianing.epochs=1"], "unknown key trianing: did you mean training?"),
        (["training.epochs=soon"], "--set training.epochs='soon': must be a whole number"),
        (["latents=[{gaussian=0}]"], "latents[0].gaussian = 0"),
        (["latents=[{gaussian=-2}]"], "latents[0].gaussian = -2"),
        (["latents=[{gaussian=99999999}]"], "latents[0].gaussian = 99999999"),
        (["training.batch_size=60000"], "batch_size = 60000: photos gives"),
        (["tasks=[{data='digits', classes=[11]}]"], "digits has 10 classes: 11 cannot be drawn"),
        (["data.autoencoder=imagenet"], "data set 'imagenet': must be one of"),
        (["data.held_out=100000"], "data.held_out = 100000"),
        (["attacks.pairs=[5000]"], "attacks.pairs = (5000,): digits has 719 images that may leak: ask for fewer"),
        (["encoders.from=nowhere"], "encoders.from = 'nowhere': holds no trained pair"),
        (["resources.cpu=1000"], "resources.cpu = 1000: this machine has"),
    ],
)
def test_a_setting_that_cannot_be_is_told(refused, out, settings, told):
    assert told in refused("run", "quick", "--out", out, *(a for s in settings for a in ("--set", s)))


def test_an_unknown_preset_is_told(refused, out):
    assert "preset 'quikc': is not known: did you mean quick?" in refused("run", "quikc", "--out", out)


def test_a_missing_file_is_told(refused, out, tmp_path):
    assert "there is no such file" in refused("run", tmp_path / "x.toml", "--out", out)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None, np.zeros((3, 3))])
def test_a_bad_archive_is_told(refused, out, tmp_path, content):
    path = tmp_path / "x.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, train_images=content)
    assert str(path) in refused("run", "quick", "--out", out, "--set", f"data.autoencoder=npz:{path}")


def test_a_foreign_or_unwritable_folder_is_told_and_left_alone(refused, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not empty and holds no study" in refused("run", "quick", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below"):
        assert f"{out}: cannot be written" in refused("run", "quick", "--out", out)


@pytest.mark.parametrize("address", ["foo", "foo:", ":6379", "foo:bar", ""])
def test_an_address_that_is_none_is_told(refused, out, address):
    told = refused("run", "quick", "--out", out, "--address", address)
    assert told == f"study: --address {address}: must be `auto` or HOST:PORT"


@pytest.mark.parametrize("command", [["report"], ["compare", "x"], ["run", "quick", "--out"]])
def test_a_name_that_no_terminal_prints_is_told(refused, command):
    assert "'x\\udcff' is not UTF-8: choose another name" in refused(*command, "x\udcff")


def test_a_cluster_file_that_nests_too_deeply_is_told(refused, tmp_path):
    (tmp_path / "deep.yaml").write_text("[" * 100_000)
    assert "deep.yaml: is nested too deeply" in refused("check", tmp_path / "deep.yaml")


@pytest.mark.parametrize("action", ["list", "fetch", "verify"])
def test_an_unknown_set_is_told_with_the_known_ones(refused, action):
    assert "data set 'nope': must be one of cifar10, " in refused("datasets", action, "digits", "nope")


def test_an_address_that_does_not_answer_is_told(refused, out):
    assert "--address 127.0.0.1:1: no Ray cluster answers there" in refused(
        "run", "quick", "--out", out, "--address", "127.0.0.1:1"
    )


def test_a_report_of_nothing_is_told(refused, tmp_path):
    assert "holds no study" in refused("report", tmp_path)
    assert "nowhere" in refused("report", tmp_path / "nowhere")


def test_studies_that_cannot_be_compared_are_told(refused, tmp_path):
    assert "stands alone" in refused("compare", tmp_path)
    assert "holds no records" in refused("compare", tmp_path, tmp_path)
    assert "--tolerance -1.0: must be 0 or more" in refused("compare", tmp_path, tmp_path, "--tolerance", "-1")


def test_a_view_of_nothing_is_told(refused, tmp_path):
    assert "holds no study" in refused("tensorboard", tmp_path)


@pytest.fixture
def study(tmp_path):
    """A study's folder as it is published, less its pictures."""
    folder = tmp_path / "study"
    shutil.copytree(LENGTH, folder, ignore=shutil.ignore_patterns("figures", "report.md"))
    return folder


@pytest.mark.parametrize(
    ("view", "name", "content"),
    [
        *((view, "config.json", c) for view in ("report", "tensorboard", "card") for c in (b'"\xff"', b'{"seed": 0}')),
        *((view, "manifest.json", c) for view in ("report", "card") for c in (b"{", b"{}")),
        *((view, f"trials/{TRIAL}/result.json", b"{}") for view in ("report", "tensorboard", "card")),
    ],
)
def test_a_damaged_study_is_told_by_every_view_and_nothing_is_written(refused, study, view, name, content):
    (study / name).write_bytes(content)
    before = sorted(study.rglob("*"))
    told = refused(view, study, *(["--trial", TRIAL] if view == "card" else []))
    assert f"{study / name}: is damaged" in told
    assert sorted(study.rglob("*")) == before


def test_a_manifest_without_the_set_trained_on_is_told(refused, study):
    manifest = json.loads((study / "manifest.json").read_text())
    (study / "manifest.json").write_text(json.dumps(manifest | {"data": {}}))
    assert f"{study / 'manifest.json'}: does not name cifar10" in refused("card", study)


@pytest.mark.parametrize("view", ["report", "tensorboard", "card"])
def test_a_view_of_no_study_is_told(refused, study, view):
    if view != "tensorboard":
        (study / "manifest.json").unlink()
        assert f"{study / 'manifest.json'}: cannot be read" in refused(view, study)
    (study / "config.json").unlink()
    (study / "tensorboard").mkdir()
    assert "holds no study (no config.json)" in refused(view, study)


@pytest.mark.parametrize("view", ["report", "compare", "card", "tensorboard"])
@pytest.mark.parametrize("metrics", [{}, {"mse": float("nan")}])
def test_a_record_without_its_numbers_is_told_by_every_view(refused, study, view, metrics):
    lines = gzip.decompress((study / "records.jsonl.gz").read_bytes()).decode().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "attack")
    lines[number] = json.dumps(json.loads(lines[number]) | {"metrics": metrics})
    (study / "records.jsonl.gz").write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    folders = [study, LENGTH] if view == "compare" else [study]
    assert f"records.jsonl: line {number + 1}: metrics" in refused(view, *folders)


@pytest.mark.parametrize("content", [b"{}", b"[]", b"[" * 100_000], ids=range(3))
def test_another_programs_result_is_told_by_who_trains_or_takes_its_pair(refused, out, tmp_path, content):
    folder = tmp_path / "pair"
    folder.mkdir()
    (folder / "result.json").write_bytes(content)
    told = f"{folder / 'result.json'}: is damaged"
    assert told in refused("train", "quick", "--out", folder)
    assert told in refused("run", "quick", "--out", out, "--set", f"encoders.from={folder}")
    (folder / "result.json").unlink()
    save_file({"x": np.zeros(2)}, folder / "checkpoint.safetensors")
    assert "holds no trial" in refused("train", "quick", "--out", folder)


def test_another_programs_configuration_is_told_by_who_would_go_on(refused, tmp_path):
    (tmp_path / "config.json").write_bytes(b"[" * 100_000)
    assert f"{tmp_path / 'config.json'}: is damaged" in refused("run", "quick", "--out", tmp_path)


def test_a_known_set_that_is_absent_is_told(refused, tmp_path):
    assert "study datasets fetch cifar10" in refused("datasets", "verify", "cifar10", "--data-dir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["presets"], ["quick", "paper"]),
        (["presets", "--keys"], ["latents[].gaussian", "training.recipe"]),
        (["datasets"], ["cifar10", "comes with scikit-learn"]),
        (["datasets", "verify", "digits"], ["1437 + 360 images, 10 classes, sha256 "]),
    ],
)
def test_what_is_asked_for_is_listed(capsys, arguments, shown):
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in shown)


def test_help_and_a_bad_setting_are_told_without_what_takes_seconds_to_import():
    heavy = "torch", "sklearn", "scipy", "pandas", "matplotlib", "ray", "optuna"
    code = (
        f"import sys\nfor name in {heavy}:\n    sys.modules[name] = None\nfrom study.cli import main\n"
        "assert main(['run', 'quick', '--set', 'draws=0', '--out', 'nowhere']) == 2\nmain(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--set draws=0: must be" in done.stderr
    assert "usage: study" in done.stdout


@pytest.mark.parametrize("command", [[], ["run"], ["report"], ["tensorboard"], ["compare"], ["presets"], ["datasets"]])
def test_help_reads_well(capsys, command):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: study")
    assert max(map(len, text.splitlines())) <= 110
