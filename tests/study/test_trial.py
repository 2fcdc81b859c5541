"""A trial repeats, and an interrupted one ends as if it had not been."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig
from study.config import InputError, LatentPoint
from study.config_text import identified, read_config
from study.jobs import source_of
from study.opening import given_specs, read_folder_config
from study.records import read_records
from study.seeds import identity
from study.trial import TrialSpec, read_progress, read_result, run_trial, trial_specs


def spec(seed=1, epochs=3):
    config = AutoencoderConfig(
        latent=LatentConfig(gaussian=5, categorical=3),
        network=NetworkConfig(widths=(4, 4, 4), discriminator_widths=(8,)),
        training=TrainingConfig(epochs=epochs),
    )
    return TrialSpec(config=config, instance=0, seed=seed)


def finished(spec):
    """What stands in the `result.json` of a trial."""
    epoch = dict.fromkeys(("reconstruction_loss", "generating_loss", "discriminator_loss", "held_out_mse"), 0.5)
    return json.dumps({"trial": spec.plain(), "pair": "0" * 32, "history": [{"epoch": 1, "seconds": 2.0} | epoch]})


def timeless(history):
    return [{k: v for k, v in metrics.items() if k != "seconds"} for metrics in history]


@pytest.mark.parametrize("stop_after", [1, 2])
def test_interrupted_is_as_good_as_straight(images, tmp_path, stop_after):
    straight = list(run_trial(spec(), images[:80], images[80:], tmp_path / "a"))
    first = run_trial(spec(), images[:80], images[80:], tmp_path / "b")
    head = [next(first) for _ in range(stop_after)]
    first.close()
    assert (tmp_path / "b" / "checkpoint.safetensors").exists()
    tail = list(run_trial(spec(), images[:80], images[80:], tmp_path / "b"))
    assert timeless(head + tail) == timeless(straight) == timeless(read_result(tmp_path / "b")["history"])
    for part in ("encoder", "decoder"):
        one, other = (load_file(tmp_path / folder / f"{part}.safetensors") for folder in "ab")
        assert all(torch.equal(one[name], other[name]) for name in one)
    assert not (tmp_path / "b" / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("whole", [False, True])
def test_a_trial_does_not_go_on_with_other_images(images, tmp_path, whole):
    begun = run_trial(spec(), images[:80], images[80:], tmp_path)
    list(begun) if whole else next(begun)
    begun.close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="was trained on other images than these: choose another --out"):
        list(run_trial(spec(), images[1:81], images[80:], tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_killed_between_last_checkpoint_and_result(images, tmp_path, monkeypatch):
    straight = list(run_trial(spec(), images[:80], images[80:], tmp_path / "a"))
    with monkeypatch.context() as patch:
        patch.setattr("study.trial.save_pair", None)
        with pytest.raises(TypeError):
            list(run_trial(spec(), images[:80], images[80:], tmp_path / "b"))
    (last,) = run_trial(spec(), images[:80], images[80:], tmp_path / "b")
    assert timeless([last]) == timeless(straight[-1:])


def test_a_finished_trial_yields_its_last_epoch_again(images, tmp_path):
    *_, last = run_trial(spec(), images[:80], images[80:], tmp_path)
    assert list(run_trial(spec(), images[:80], images[80:], tmp_path)) == [last]
    assert {"fresh_gaussian", "fresh_categorical"} <= last.keys()


def test_what_a_kill_left_beside_a_finished_trial_goes(images, tmp_path):
    list(run_trial(spec(), images[:80], images[80:], tmp_path))
    finished = sorted(path.name for path in tmp_path.iterdir())
    torn = ".decoder.safetensors.x1y2", ".result.json.x1y2", ".started.json.x_y2"
    for name in ("checkpoint.safetensors", *torn):
        (tmp_path / name).touch()
    list(run_trial(spec(), images[:80], images[80:], tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == finished


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "null",
        "\xff",
        "[" * 100_000,
        finished(spec()).replace('"epochs": 3', '"epochs": -3'),
        finished(spec()).replace('"gaussian": 5', '"gaussian": "5"'),
        finished(spec()).replace('"held_out_mse"', '"mse"'),
        finished(spec()).replace('"history": [', '"history": [7, '),
        json.dumps(json.loads(finished(spec())) | {"history": []}),
        finished(spec()).replace('"gaussian": 5', '"gaussian": ' + '{"a":' * 900 + "5" + "}" * 900),
        json.dumps(json.loads(finished(spec())) | {"trial": {"config": {}, "instance": 0, "seed": 0}}),
    ],
    ids=range(12),
)
def test_a_result_that_is_damaged_or_another_programs_is_told(tmp_path, content):
    path = tmp_path / "result.json"
    path.write_text(finished(spec()))
    assert TrialSpec.from_plain(read_result(tmp_path)["trial"]) == spec()
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"result\.json: .*: bring it back"):
        read_result(tmp_path)


@pytest.mark.parametrize("header", [None, {"trial": "null", "history": "[]"}, {"trial": "[" * 100_000, "history": "7"}])
def test_another_programs_checkpoint_is_none_of_a_trial(images, tmp_path, header):
    save_file({"x": torch.zeros(2)}, tmp_path / "checkpoint.safetensors", metadata=header)
    assert read_progress(tmp_path) is None
    assert [metrics["epoch"] for metrics in run_trial(spec(), images[:80], images[80:], tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_checkpoint_that_is_cut_short_or_another_trials_is_not_used(images, tmp_path, damage):
    straight = list(run_trial(spec(), images[:80], images[80:], tmp_path / "a"))
    stopped = run_trial(spec(seed=1 if damage == "cut" else 2), images[:80], images[80:], tmp_path / "b")
    next(stopped)
    stopped.close()
    path = tmp_path / "b" / "checkpoint.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    assert timeless(run_trial(spec(), images[:80], images[80:], tmp_path / "b")) == timeless(straight)


def test_identities_tell_configuration_and_seed_apart():
    ids = {spec(seed, epochs).id for seed in (1, 2) for epochs in (3, 4)}
    assert len(ids) == 4
    assert all(one.startswith("g5-c3-b16-i0-") for one in ids)
    again = TrialSpec.from_plain(json.loads(json.dumps(spec().plain())))
    assert again == spec()
    assert again.id == spec().id


def test_instances_of_different_configurations_share_their_seeds():
    specs = trial_specs(read_config("quick", ["instances=2", "latents=[{gaussian=8},{gaussian=9}]"]))
    assert [s.seed for s in specs[:2]] == [s.seed for s in specs[2:]]
    assert specs[0].seed != specs[1].seed


def test_trained_pairs_are_taken_by_configuration_then_by_size(tmp_path, monkeypatch):
    """The preset `paper` has several configurations of one size; folders sort by hash."""
    trained = trial_specs(read_config("paper", []))
    others = trial_specs(read_config("paper", ["training.epochs=3"]))
    elsewhere = trial_specs(read_config("paper", ["latents=[{gaussian=8}]"]))
    for found in (*trained, *others, *elsewhere):
        folder = tmp_path / "trials" / found.id
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(finished(found))
    monkeypatch.setattr("study.opening.read_part", lambda *_: None)
    chosen = given_specs(read_config("paper", [f"encoders.from={tmp_path}"]))
    assert chosen[: len(trained)] == trained
    assert set(chosen[len(trained) :]) == set(others)
    alone = tmp_path / "alone"  # as `study train` leaves it
    alone.mkdir()
    (alone / "result.json").write_text(finished(trained[0]))
    assert given_specs(read_config("paper", [f"encoders.from={alone}"])) == trained[:1]
    with pytest.raises(InputError, match=r"no trained pair of .* images \(64 pixels a side, 3 channels\)"):
        given_specs(read_config("paper", [f"encoders.from={tmp_path}", "network.image_size=64"]))


def test_trials_keep_the_names_they_have_in_published_studies():
    """Else what repeats them finds nothing to repeat; a key of the configuration that is new must not count."""
    results = Path(__file__).parents[2] / "results"
    specs = trial_specs(read_config("paper", []))
    assert {spec.id for spec in specs} == {path.name for path in (results / "paper" / "trials").iterdir()}
    first = identity(identified(read_folder_config(results / "search").autoencoder(LatentPoint(batch_size=16))))
    assert first in {r.what.get("point") for r in read_records(results / "search")}
    contrastive = trial_specs(read_config("paper", ["training.contrastive_weight=0.01"]))
    assert not {spec.id for spec in contrastive[:4]} & {spec.id for spec in specs}


def test_a_trial_of_before_there_was_a_branch_has_none():
    spec = trial_specs(read_config("paper", ["training.recipe=contrastive", "network.branch=0"]))[0]
    plain = spec.plain()
    del plain["config"]["network"]["branch"]
    assert TrialSpec.from_plain(plain) == spec


def test_two_configurations_have_two_names():
    recipes = "[{}, {recipe='paper'}]"
    config = read_config("paper", ["instances=1", f"latents={recipes}"])
    first = trial_specs(config)[0]
    rates = (0.001, 0.002, 0.0012341, 0.0012338)
    specs = [
        replace(first, config=replace(first.config, training=replace(first.config.training, learning_rate=rate)))
        for rate in rates
    ]
    variants = [source_of(spec, config).variant for spec in specs]
    assert variants == ["", "learning_rate 0.002", "learning_rate 0.0012341", "learning_rate 0.0012338"]


def test_records_name_another_recipe_by_that_alone():
    """What a recipe decides is not said again; what was set beside it is."""
    recipes = "[{}, {recipe='paper'}, {recipe='contrastive'}, {recipe='contrastive', whiten=false}]"
    config = read_config("paper", ["instances=1", f"latents={recipes}"])
    variants = [source_of(spec, config).variant for spec in trial_specs(config)]
    assert variants == ["", "recipe paper", "recipe contrastive", "recipe contrastive, whiten False"]
