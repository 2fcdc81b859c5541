"""What a study says of the place it runs in."""

import dataclasses
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from aae.config import NetworkConfig
from study import datasets
from study.cli import main
from study.config import DataConfig, InputError, ResourcesConfig, StudyConfig, TaskConfig
from study.jobs import reconstruction_sets
from study.manifest import write_manifest
from study.opening import NOT_PRIVATE, check_folder, load_data, open_folder
from study.run import class_sizes


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


class TestData:
    """One's own archive: a set that is trained on and a task, without a test part."""

    @pytest.fixture
    def given(self, tmp_path):
        """Write so many images of each class; return the configuration of a study of them."""

        def write(*counts, names=(), **changes):
            labels = np.repeat(np.arange(len(counts)), counts)
            images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8), dtype=np.uint8)
            np.savez(
                tmp_path / "own.npz",
                train_images=images,
                train_labels=labels,
                class_names=np.array([*map(str, range(len(counts))), *names]),
            )
            own = f"npz:{tmp_path}/own.npz"
            return StudyConfig(
                data=DataConfig(autoencoder=own, held_out=10),
                tasks=(TaskConfig(data=own, classes=(2,)),),
                network=NetworkConfig(image_size=8, channels=1),
                **changes,
            )

        return write

    def test_a_study_does_not_go_on_with_other_images_of_the_same_name(self, given, tmp_path):
        out, config = tmp_path / "out", given(20, 20, 20)
        data = load_data(config, tmp_path)
        sets = [data.autoencoder, *data.tasks.values()]
        open_folder(out, config)
        check_folder(out, config, sets)  # a study that was stopped before it wrote where its data came from
        write_manifest(out, config, [], sets)
        check_folder(out, config, sets)
        given(20, 20, 21)
        before = {path: path.read_bytes() for path in out.iterdir()}
        with pytest.raises(InputError, match=r"was measured on another npz:.*: bring that back, or choose another"):
            check_folder(out, config, [load_data(config, tmp_path).autoencoder])
        assert {path: path.read_bytes() for path in out.iterdir()} == before

    def test_a_class_that_some_part_would_lack_is_told(self, given, tmp_path):
        with pytest.raises(InputError, match="class '1' has no validation image in protocol paper: give more images"):
            load_data(given(20, 2, 20), tmp_path)
        load_data(given(20, 5, 20), tmp_path)

    def test_a_known_set_without_its_test_part_is_no_task(self, given, tmp_path):
        """As `cifar10.npz` of training images alone, all of which train: it has nothing that an encoder did not see."""
        config = given(20, 20, 20)
        (tmp_path / "own.npz").rename(tmp_path / "cifar10.npz")
        data = DataConfig(autoencoder="cifar10", held_out=10)
        alone = dataclasses.replace(config, data=data, tasks=(TaskConfig(data="digits", classes=(2,)),))
        assert len(load_data(alone, tmp_path).train) == 50
        with pytest.raises(InputError, match="class '0' has no test image in protocol paper: give more images"):
            load_data(
                dataclasses.replace(config, data=data, tasks=(TaskConfig(data="cifar10", classes=(2,)),)), tmp_path
            )

    def test_no_command_trains_on_what_a_task_tests(self, given, tmp_path):
        config = given(20, 20, 20)
        data = load_data(config, tmp_path)
        own = datasets.load(config.data.autoencoder, tmp_path, size=8, channels=1)
        tested = {image.tobytes() for image in data.tasks[config.data.autoencoder].test_images}
        assert tested
        assert not tested & {image.tobytes() for image in own.train_images}
        np.testing.assert_array_equal(datasets.autoencoder_parts(own, config.data)[0], data.train)

    def test_nor_on_what_a_task_of_another_study_tests(self, given, tmp_path):
        """Under another name, by another seed, or in a study without that task."""
        config = given(20, 20, 20)
        tested = {image.tobytes() for image in load_data(config, tmp_path).tasks[config.data.autoencoder].test_images}
        other = f"npz:{tmp_path}/./own.npz"
        for changed in (
            dataclasses.replace(config, seed=1),
            dataclasses.replace(config, tasks=(TaskConfig(data="digits", classes=(2,)),)),
            dataclasses.replace(config, data=DataConfig(autoencoder=other, held_out=10)),
        ):
            trained = load_data(changed, tmp_path).train
            assert len(trained) == 48 - 10
            assert not tested & {image.tobytes() for image in trained}

    def test_sets_of_less_than_two_images_are_not_restored(self, given, tmp_path):
        data = load_data(given(20, 20, 20), tmp_path)
        name = data.autoencoder.name
        few = dataclasses.replace(data, held_out=data.held_out[:1])
        assert {"T", "V", f"{name} T", f"{name} V"} < set(reconstruction_sets(given(20, 20, 20), data))
        assert "V" not in reconstruction_sets(given(20, 20, 20), few)

    def test_more_names_than_images_leave_no_job_without_work(self, given, tmp_path):
        data = load_data(given(20, 20, 20, names=map(str, range(300))), tmp_path)
        assert class_sizes(data) == {data.autoencoder.name: 20}
