"""What a study says of the place it runs in."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from study.cli import main
from study.config import DataConfig, InputError, ResourcesConfig, StudyConfig, TaskConfig
from study.opening import NOT_PRIVATE, load_data


@pytest.fixture
def begun(monkeypatch, tiny_toml, tmp_path, capsys):
    """What a study says until it writes its manifest; no Ray starts."""

    def stop(*_):
        raise InputError("far enough")

    def run(*settings, waiting="", private=True):
        monkeypatch.setattr("study.cluster.connected", lambda *_: nullcontext(waiting))
        monkeypatch.setattr("study.run.keeps_private", lambda _: private)
        monkeypatch.setattr("study.run.write_manifest", stop)
        words = [word for setting in settings for word in ("--set", setting)]
        assert main(["run", str(tiny_toml), "--out", str(tmp_path / "out"), *words]) == 2
        told = capsys.readouterr().err
        assert "far enough" in told
        return told

    return run


def test_a_folder_where_files_keep_no_mode_is_told(begun):
    assert NOT_PRIVATE not in begun()
    assert NOT_PRIVATE in begun(private=False)


def test_a_study_that_waits_for_a_machine_says_so(begun):
    assert "waiting for one\n" in begun(waiting="waiting for one")


def test_a_search_that_waits_says_that_it_asks_for_one_trial_at_a_time(begun):
    search = "search.trials=2", "search.space=[{key='latent.gaussian', low=2, high=9}]"
    assert "as search.concurrent is unset, trials run one at a time" in begun(*search, waiting="waiting for one")
    assert "one at a time" not in begun(*search, "search.concurrent=2", waiting="waiting for one")


def test_a_gpu_that_torch_does_not_see_is_told_once(tmp_path, monkeypatch):
    from study.run import _Shown

    notes, devices = [], {"a": "NVIDIA A10G", "b": "cpu", "c": "cpu"}
    monkeypatch.setattr("study.run.read_result", lambda folder: {"device": devices[folder.name]})
    progress = SimpleNamespace(phase=lambda *_, **__: None, note=notes.append)
    for gpu, expected in ((0.0, 0), (0.5, 1)):
        shown = _Shown(StudyConfig(resources=ResourcesConfig(gpu=gpu)), tmp_path, progress, "trials", 0)
        for name in "abc":
            shown.end(SimpleNamespace(spec=SimpleNamespace(id=name), status="complete", reason="", host="node"))
        assert len(notes) == expected
    assert notes[0].startswith("node: Ray gave a share of a GPU, but torch sees none")


def test_two_data_sets_that_would_share_files_are_told(tmp_path):
    for name in ("a-b", "a_b"):
        np.savez(
            tmp_path / f"{name}.npz", train_images=np.zeros((20, 32, 32), np.uint8), train_labels=np.arange(20) % 2
        )
    names = [f"npz:{tmp_path / name}.npz" for name in ("a-b", "a_b")]
    config = StudyConfig(data=DataConfig(autoencoder="digits"), tasks=tuple(TaskConfig(data=name) for name in names))
    with pytest.raises(InputError, match=r"tasks: .*a-b\.npz' and .*a_b\.npz' would share files .*: rename one"):
        load_data(config, tmp_path)
