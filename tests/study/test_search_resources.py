"""Shares of a GPU, on a logical one: Ray counts it, and nothing here computes on it."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig
from aae.networks import Autoencoder
from classifiers import ClassifiersConfig
from classifiers.config import BoostingConfig, ForestConfig, MlpConfig
from study.config import ResourcesConfig, StudyConfig
from study.datasets import ImageSet
from study.evaluate import ClassificationJob, Source
from study.jobs import programs
from study.objectives import Bench
from study.search_config import SearchConfig
from study.trial import TrialSpec


@pytest.fixture
def one_logical_gpu(monkeypatch):
    import ray

    from study.cluster import ENVIRONMENT

    for key, value in (ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(key, value)
    ray.init("local", num_cpus=8, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def test_a_quarter_of_a_gpu_puts_four_trials_on_one(one_logical_gpu, images, tmp_path):
    from study.search import _places, run_trials

    resources = ResourcesConfig(gpu=0.25)
    assert _places(resources) == 4
    config = AutoencoderConfig(
        latent=LatentConfig(gaussian=4, categorical=0),
        network=NetworkConfig(widths=(4, 4, 4), discriminator_widths=(8,)),
        training=TrainingConfig(epochs=30),  # long enough for four to be seen at once on a busy machine
    )
    specs = [TrialSpec(config=config, instance=i, seed=i) for i in range(5)]
    taken, ended = [], []
    (tmp_path / "config.json").touch()  # as in a study's folder

    def on_epoch(spec, metrics):
        taken.append(1 - one_logical_gpu.available_resources().get("GPU", 0))

    bench = Bench(images[:64], images[64:])
    run_trials(specs, bench, tmp_path, None, resources, None, [], on_epoch, ended.append)
    assert max(taken) == 1
    assert sorted(one.spec.id for one in ended if one.status == "complete") == sorted(spec.id for spec in specs)
    taken.clear()
    specs = [TrialSpec(config=config, instance=i, seed=i) for i in range(5, 8)]
    run_trials(specs, bench, tmp_path, None, resources, 2, [], on_epoch, ended.append)
    assert max(taken) <= 0.5  # of a card with room for all three


def test_no_trial_begins_when_the_time_is_spent_but_those_that_were_begun(tmp_path):
    from ray.tune.search import Searcher

    from study.proposals import Proposals
    from study.search import STARTED, _Asking

    config = StudyConfig(search=SearchConfig(trials=9, sampler="random"))
    point = {"latent.gaussian": 16, "latent.categorical.on": False, "training.batch_size": 16}
    asking = _Asking(Proposals(config, [], [point]), tmp_path, 10.0, [])
    asking.spent = 10.0
    begun = asking.suggest("a")
    assert begun["spec"]["config"]["latent"] == {"gaussian": 16, "categorical": 0}
    assert asking.suggest("b") == Searcher.FINISHED
    asking.spent = 9.9
    assert asking.suggest("c") != Searcher.FINISHED
    assert len(list(tmp_path.glob(f"trials/*/{STARTED}"))) == 2


def test_every_machine_must_reach_what_the_driver_writes(one_logical_gpu, tmp_path):
    from study.bucket import Bucket
    from study.cluster import check_nodes
    from study.config import InputError

    check_nodes(tmp_path, None)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"s3://lab/x: machine [\d.]+ does not reach it \(StorageError"):
        check_nodes(tmp_path, Bucket("s3://lab/x", "http://127.0.0.1:9", patience=0))


def test_a_task_that_is_lost_for_good_is_told(one_logical_gpu):
    from study.config import InputError
    from study.fanout import _as_done

    @one_logical_gpu.remote(max_retries=0)
    def lost():
        os._exit(1)

    @one_logical_gpu.remote
    def wrong():
        raise ZeroDivisionError

    @one_logical_gpu.remote
    def needs(found):
        return found

    for call in (lost.remote, lambda: needs.remote(lost.remote())):
        with pytest.raises(InputError, match=r"a task was lost \(WorkerCrashedError"):
            list(_as_done([call]))
    with pytest.raises(ZeroDivisionError):
        list(_as_done([wrong.remote]))


def test_neural_networks_are_given_to_a_gpu_in_programs(one_logical_gpu, images, monkeypatch):
    from study import fanout
    from study.fanout import FanOut

    started, options = [], fanout._classify_together.options
    monkeypatch.setattr(fanout._classify_together, "options", lambda **k: started.append(k) or options(**k))
    monkeypatch.setattr(fanout.ray, "cluster_resources", dict)  # as where no machine with a GPU has come yet

    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    pixels = np.clip(images[labels] + rng.normal(0, 40, (400, 32, 32, 3)), 0, 255).astype(np.uint8)
    data = ImageSet("toy", pixels[:300], labels[:300], pixels[300:], labels[300:], tuple("abcd"))
    latent, network = LatentConfig(gaussian=6, categorical=3), NetworkConfig(widths=(4, 4, 4))
    settings = ClassifiersConfig(
        mlp=MlpConfig(hidden=(8, 8), epochs=3),
        random_forest=ForestConfig(estimators=3),
        adaboost=BoostingConfig(estimators=3),
    )
    encoder = Source(trial="a", gaussian=6, categorical=3, batch_size=16, instance=0)
    raw = Source(trial="raw", gaussian=0, categorical=0, batch_size=0, instance=0)
    jobs = [
        ClassificationJob(
            source=raw if representation == "raw" else encoder,
            dataset="toy",
            classes=classes,
            class_names=tuple("abcd"[c] for c in classes),
            draw=draw,
            protocol="shared",
            classifier=classifier,
            representation=representation,
            seed=draw,
        )
        for draw, classes in enumerate([(0, 1), (1, 3), (0, 2, 3)])
        for representation in ("masked", "mirrored", "raw")
        for classifier in ("mlp", "random_forest")
    ]
    torch.manual_seed(0)
    masking = Autoencoder(latent, network).encoder
    grouped = programs(jobs, {"toy": 100}, 3072, settings)
    assert sorted(len(program) for program in grouped) == [3, 3, 3]

    def measured(missing, gpu):
        fan_out = FanOut(settings, seed=1)
        fan_out.add_module("a/encoder", lambda: masking)
        fan_out.add_images(data)
        found = fan_out.classifications(missing, {"toy": 100}, grouped if gpu else (), gpu)
        measures = {job: records[0].metrics for job, records in found}
        assert not fan_out._modules
        assert not fan_out._masked
        return measures

    alone, together = measured(jobs, 0.0), measured(jobs, 0.5)
    assert started == [{"num_gpus": 0.5}] * 3
    assert alone.keys() == together.keys() == set(jobs)
    if not torch.cuda.is_available():
        assert together == alone
    assert measured(jobs[:2], 0.5) == {job: together[job] for job in jobs[:2]}


def test_what_a_kill_left_of_a_point_goes_and_with_it_a_trial_that_is_nothing_else(tmp_path):
    from study.search import STARTED, _started

    for place in ("new", "begun"):
        (tmp_path / "trials" / place).mkdir(parents=True)
        (tmp_path / "trials" / place / f".{STARTED}.x1y2").touch()
    (tmp_path / "trials" / "begun" / STARTED).write_text('{"latent.gaussian": 9}')
    assert list(_started(tmp_path, set())) == [{"latent.gaussian": 9}]
    assert [path.name for path in tmp_path.rglob("*")] == ["trials", "begun", STARTED]


@pytest.mark.parametrize("scheduler", ["asha", "median"])
def test_a_scheduler_goes_on_beside_a_trial_that_failed(scheduler):
    """Tune hands a scheduler the last thing a trial reported, whatever that was."""
    from study.search import _FAILED, _scheduler

    class Trial:
        def __init__(self, name):
            self.trial_id = self.name = name

    judge = _scheduler(StudyConfig(search=SearchConfig(trials=9, scheduler=scheduler, grace=1)))
    tune = SimpleNamespace(get_live_trials=list)
    trials = [Trial(name) for name in "abcde"]
    for trial in trials:
        judge.on_trial_add(tune, trial)
    judge.on_trial_complete(tune, trials[0], _FAILED | {"failed": "it raised"})
    running = dict(enumerate(trials[1:]))
    for epoch in (1, 2, 3):
        for number, trial in list(running.items()):
            if judge.on_trial_result(tune, trial, {"epoch": epoch, "judged": number / 10}) == "STOP":
                del running[number]
    assert 0 in running
    assert 3 not in running
