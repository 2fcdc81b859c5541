"""Event files of a study that was never run: records are enough."""

import json
from dataclasses import asdict, replace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from study.attack import NEEDED
from study.config import StudyConfig, TaskConfig
from study.config_text import to_plain
from study.records import Record
from study.views.tensorboard import scalar_tag, write_tensorboard
from study.views.tensorboard_results import ATTACK_METRICS

POINT = {"gaussian": 8, "categorical": 2, "batch_size": 16, "instance": 0}


@pytest.fixture
def write(tmp_path):
    """Make the view of a study with these records; return a function that reads one of its runs."""

    def made(*records):
        (tmp_path / "config.json").write_text(
            json.dumps(to_plain(StudyConfig(tasks=(TaskConfig(data="digits", classes=(2, 10)),))))
        )
        (tmp_path / "records.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in records))
        place = write_tensorboard(tmp_path)
        return lambda run: EventAccumulator(str(place / run)).Reload()

    return made


def attack(k, draw, mse, name="ridge"):
    what = {"attack": name, "dataset": "npz:my set.npz", "representation": "masked", "k": k, "draw": draw}
    numbers = dict.fromkeys(("sigma_images", "psnr", "ssim", "top1", "top5", "mrr", "recognised", "n"), 0.5) | {
        "mse": mse
    }
    detail = {"target": 0.02, "pool": 100}
    key = f"{name}/{k}/{draw}"
    return Record(kind="attack", key=key, trial="t", **POINT, what=what, metrics=numbers, detail=detail)


YARDS = [attack(0, 0, 0.5, name) for name in NEEDED]


def test_attacks_are_shown_by_leaked_pairs(write):
    superseded = replace(attack(10, 1, 0.9), key="by another own autoencoder")
    shown = superseded, attack(10, 0, 0.2), attack(10, 1, 0.4), attack(100, 0, 0.1)
    events = write(*YARDS, *shown)("attacks/g8-c2-b16/ridge")
    assert events.Tags()["scalars"] == [f"{name}/npz_my_set.npz" for name in ATTACK_METRICS]
    shown = [(event.step, round(event.value, 6)) for event in events.Scalars("mse/npz_my_set.npz")]
    assert shown == [(10, 0.3), (100, 0.1)]


def test_two_trainings_of_one_latent_never_share_a_run(write):
    both = [
        replace(one, key=f"{variant}{one.key}", variant=variant)
        for mse, variant in ((0.2, ""), (0.4, "whiten False"))
        for one in (*YARDS, attack(10, 0, mse))
    ]
    records = [
        replace(one, what=one.what | {"representation": name}, key=f"{name}{one.key}")
        for one in both
        for name in ("masked", "mirrored")
    ]
    for name in ("", "mirrored-"):
        for run, mse in (("g8-c2-b16", 0.2), ("g8-c2-b16-whiten_False", 0.4)):
            (event,) = write(*records)(f"attacks/{name}{run}/ridge").Scalars("mse/npz_my_set.npz")
            assert event.value == pytest.approx(mse)


def test_a_trial_that_failed_before_its_first_checkpoint_has_its_row(write):
    what = {"status": "failed", "recipe": "paper"}
    record = Record(kind="trial", key="trial/t", trial="t", **POINT, what=what, detail={"reason": "diverged"}, seed=3)
    content = write(record)("trials/t").PluginTagToContent("hparams")
    start, end = (
        plugin_data_pb2.HParamsPluginData.FromString(content[f"_hparams_/session_{name}_info"])
        for name in ("start", "end")
    )
    assert start.session_start_info.hparams["latent.gaussian"].number_value == 8
    assert end.session_end_info.status == 2  # STATUS_FAILURE


def test_the_columns_of_hparams_are_there_before_the_first_epoch(write):
    content = write()("study").PluginTagToContent("hparams")["_hparams_/experiment"]
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {"latent.gaussian", "training.recipe", "data.autoencoder", "seed"} <= {
        h.name for h in experiment.hparam_infos
    }
    tags = [info.name.tag for info in experiment.metric_infos]
    assert {"score/digits-2/mlp", "held_out/held_out_mse", "priors/fresh_gaussian"} <= set(tags)
    assert len(tags) == len(set(tags))


@pytest.mark.parametrize(
    ("metric", "tag"),
    [
        ("generating_loss", "losses/generating_loss"),
        ("held_out_mse", "held_out/held_out_mse"),
        ("seconds", "running/seconds"),
        ("effective_rank_sample", "priors/effective_rank_sample"),
        ("objective.worst accuracy", "objectives/worst_accuracy"),
    ],
)
def test_metrics_are_grouped(metric, tag):
    assert scalar_tag(metric) == tag
