"""Shares of a GPU, on a logical one: Ray counts it, and nothing here computes on it."""

import os

import pytest

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig
from study.config import ResourcesConfig
from study.objectives import Bench
from study.trial import TrialSpec


@pytest.fixture
def one_logical_gpu(monkeypatch):
    import ray

    from study.cluster import ENVIRONMENT

    for key, value in (ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(key, value)
    ray.init(num_cpus=8, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_a_quarter_of_a_gpu_puts_four_trials_on_one(one_logical_gpu, images, tmp_path):
    from study.search import _places, run_trials

    resources = ResourcesConfig(gpu=0.25)
    assert _places(resources) == 4
    config = AutoencoderConfig(
        latent=LatentConfig(gaussian=4, categorical=0),
        network=NetworkConfig(widths=(4, 4, 4), discriminator_widths=(8,)),
        training=TrainingConfig(epochs=2),
    )
    specs = [TrialSpec(config=config, instance=i, seed=i) for i in range(5)]
    taken, ended = [], []
    (tmp_path / "config.json").touch()  # as in a study's folder

    def on_epoch(spec, metrics):
        taken.append(1 - one_logical_gpu.available_resources().get("GPU", 0))

    run_trials(specs, Bench(images[:64], images[64:]), tmp_path, None, resources, [], on_epoch, ended.append)
    assert max(taken) == 1
    assert sorted(one.spec.id for one in ended if one.status == "complete") == sorted(spec.id for spec in specs)


def test_every_machine_must_reach_what_the_driver_writes(one_logical_gpu, tmp_path):
    from study.bucket import Bucket
    from study.cluster import check_nodes
    from study.config import InputError

    check_nodes(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"s3://lab/x: machine [\d.]+ does not reach it \(StorageError"):
        check_nodes(tmp_path, Bucket("s3://lab/x", "http://127.0.0.1:9", attempts=1))


def test_a_task_that_is_lost_for_good_is_told(one_logical_gpu):
    from study.config import InputError
    from study.fanout import _as_done

    @one_logical_gpu.remote(max_retries=0)
    def lost():
        os._exit(1)

    @one_logical_gpu.remote
    def wrong():
        raise ZeroDivisionError

    with pytest.raises(InputError, match=r"a task was lost \(WorkerCrashedError"):
        list(_as_done([lost.remote]))
    with pytest.raises(ZeroDivisionError):
        list(_as_done([wrong.remote]))


def test_memory_is_capped_in_proportion(monkeypatch):
    import torch

    from study.search import _device

    capped = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", capped.append)
    assert [_device(share) for share in (0.25, 1.0, 0.0)] == ["cuda", "cuda", "cpu"]
    assert capped == [0.25]
