"""A study is one TOML file: every key documented, typed, and checked before anything starts."""

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aae.config import AutoencoderConfig, TrainingConfig
from attacks import AttacksConfig
from study.config import InputError, LatentPoint, StudyConfig, TaskConfig
from study.config_text import documentation, from_plain, presets, read_config, refused_changes, to_plain
from study.jobs import source_of
from study.opening import read_folder_config
from study.trial import trial_specs


def written(tmp_path, text):
    path = tmp_path / "study.toml"
    path.write_text(text)
    return str(path)


def test_a_message_is_nothing_that_a_terminal_obeys():
    assert str(InputError("a\x1b[2Jb\n" + "c" * 10_000)) == "a?[2Jb\n" + "c" * 2000


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_has_a_title(name):
    assert read_config(name, []).title


def test_the_contrastive_preset_differs_from_the_papers_by_its_encoders_and_averaged_networks():
    paper, ours = (read_config(name, []) for name in ("paper", "contrastive"))
    white, raw = map(ours.autoencoder, ours.latents)
    assert [one.network.branch for one in (raw, white)] == [0.25, 0.25]
    assert [one.network.couplings for one in (raw, white)] == [0, 4]
    assert white == dataclasses.replace(
        raw,
        network=dataclasses.replace(raw.network, couplings=4),
        training=dataclasses.replace(raw.training, whiten=True),
    )
    assert [one.classifiers.mlp.average for one in (paper, ours)] == [False, True]
    averaged = dataclasses.replace(paper.classifiers, mlp=ours.classifiers.mlp)
    paper = dataclasses.replace(paper, classifiers=averaged)
    named = {"title", "training", "latents", "estimators"}
    assert {k: v for k, v in vars(ours).items() if k not in named} == {
        k: v for k, v in vars(paper).items() if k not in named
    }


def test_the_papers_preset_is_the_papers_protocol():
    config = read_config("paper", [])
    autoencoder = config.autoencoder(config.latents[0])
    assert (autoencoder.latent.gaussian, autoencoder.latent.categorical) == (384, 20)
    assert (autoencoder.training.batch_size, autoencoder.training.learning_rate) == (16, 1e-3)
    assert (config.instances, config.draws) == (4, 10)
    assert {task.data: task.classes for task in config.tasks} == {"cifar100": (2, 3, 4), "mnist": (10,)}
    assert config.classifiers.mlp.batch_size == 4
    assert config.classifiers.random_forest.estimators == config.classifiers.adaboost.estimators == 100


def test_every_key_is_documented():
    rows = list(documentation())
    assert {
        "seed",
        "latents[].gaussian",
        "training.recipe",
        "classifiers.mlp.hidden",
        "encoders.from",
        "attacks.pairs",
    } <= {row[0] for row in rows}
    assert all(kind and meaning.endswith(".") for _, kind, _, meaning in rows)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sede = 1", r"unknown key sede: did you mean seed\?"),
        ("[training]\nepoch = 1", r"unknown key training.epoch: did you mean epochs\?"),
        ('seed = "1"', "seed = '1': must be a whole number"),
        ("seed = true", "seed = True: must be a whole number"),
        ("[training]\nlearning_rate = nan", "training.learning_rate = nan: must be a finite number"),
        ("[training]\nbetas = [0.9]", r"training.betas = \[0.9\]: must be a list"),
        ("[[latents]]\ngaussian = 0", r"latents\[0\].gaussian = 0: must be from 1"),
        pytest.param(f"[training]\nlearning_rate = 1{'0' * 400}", "must be a finite number", id="huge"),
        ("[search]\nstorage = 'postgresql://u@h/x?password=secret'", "search.storage = '…': must be a URL without"),
        ("[search]\nstorage = 'postgresql://[x'", "search.storage: is no URL"),
        ("[[latents]]\ngaussian = -4", r"latents\[0\].gaussian = -4"),
        ("[[latents]]\ngaussian = 1000000000", "must be from 1 to 8192"),
        (
            "[[latents]]\nratio = 0.1\ngaussian = 8",
            r"latents\[0\].gaussian = 8: must be unset, because `ratio` sets it",
        ),
        ("[[latents]]\nratio = 0.0", r"latents\[0\].ratio = 0.0: must be above 0"),
        ("[[latents]]\nratio = 0.1\ngaussian = 384", r"latents\[0\].gaussian = 384: must be unset"),
        (
            "[[latents]]\n[[latents]]\nratio = 0.001\ncategorical = 3",
            r"latents\[1\].ratio = 0.001: of an image of 3072 numbers it makes gaussian = 0: must be from 1 to 8192",
        ),
        ("[[latents]]\nratio = 8.0", r"latents\[0\].ratio = 8.0: of .* it makes gaussian = 24556: must be from 1"),
        ("[[latents]]\nbatch_size = 0", r"latents\[0\].batch_size = 0: must be from 2"),
        ('[encoders]\nfrom = ""', "encoders.from = '': must be a folder"),
        (
            "[[latents]]\nratio = 0.125\ncategorical = 0\n[[latents]]\ncategorical = 0",
            "different latent configurations",
        ),
        ("latents = []", "at least one latent configuration"),
        ("latents = 3", "latents = 3: must be a list"),
        ("[[latents]]\n[[latents]]", "different latent configurations"),
        ("[[tasks]]\nclasses = [2]", r"tasks\[0\].data is missing"),
        ('[[tasks]]\ndata = "mnist"\nclasses = [1]', "classes"),
        ('protocols = ["papre"]', r"protocols\[0\] = 'papre': must be one of paper, shared"),
        ("[resources]\ngpu = 1.5", "resources.gpu = 1.5: must be a share"),
        ("[network]\ncouplings = 2\n[training]\nwhiten = false", "network.couplings = 2: must be 0 without"),
        ("[network]\nimage_size = 31", "network.image_size = 31: must be a multiple of 4"),
        ('[attacks]\nnames = ["magic"]', "attacks.names = 'magic': must be one of"),
        ("[attacks]\npairs = [100, 10]", "attacks.pairs"),
        ("seed = [", "cannot be read as TOML"),
        pytest.param("seed = " + "[" * 100_000, "cannot be read as TOML", id="deep"),
    ],
)
def test_what_is_amiss_is_told_by_file_key_value_and_way_out(tmp_path, text, told):
    with pytest.raises(InputError, match=told) as caught:
        read_config(written(tmp_path, text), [])
    assert "study.toml" in str(caught.value)


def test_an_unknown_preset_is_told_with_a_suggestion():
    with pytest.raises(InputError, match=r"preset 'quik': is not known: did you mean quick\?"):
        read_config("quik", [])


class TestSet:
    def test_values_are_toml_and_keys_are_dotted(self):
        settings = ["training.epochs=2", "title=no quotes", "latents=[{gaussian=9}]", "classifiers.mlp.hidden=[4,3]"]
        config = read_config("quick", settings)
        assert config.training.epochs == 2
        assert config.title == "no quotes"
        assert config.latents == (LatentPoint(gaussian=9),)
        assert config.classifiers.mlp.hidden == (4, 3)

    @pytest.mark.parametrize("setting", ["epochs", "=3", "title.x=3", "title=" + "[" * 100_000])
    def test_what_is_no_setting_is_told(self, setting):
        with pytest.raises(InputError, match="--set"):
            read_config("quick", [setting])

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ([f"draws={'9' * 5000}"], f"--set draws='{'9' * 199}: must be a whole number"),
            (["title.x=3"], "--set title.x: title is not a section"),
            (["draws=3", "training.epochs=-5", "seed=4"], "--set training.epochs=-5: must be from 1 to 100000"),
            (
                ["latents=[{gaussian=0}]"],
                "--set latents: latents[0].gaussian = 0: must be from 1 to 8192",
            ),
            (
                ["network.couplings=2", "training.whiten=false"],
                "--set training.whiten: network.couplings = 2: must be 0 without training.whiten",
            ),
        ],
        ids=range(5),
    )
    def test_what_a_setting_makes_amiss_is_told_under_it(self, tmp_path, settings, told):
        with pytest.raises(InputError) as caught:
            read_config("quick", settings)
        assert str(caught.value) == told
        path = written(tmp_path, "draws = -1")
        with pytest.raises(InputError, match=r"study.toml: draws = -1: must be from 1"):
            read_config(path, ["seed=3"])


@given(
    seed=st.integers(0, 2**63 - 1),
    gaussian=st.integers(1, 8192),
    categorical=st.sampled_from([0, 2, 4096]),
    batch=st.none() | st.integers(2, 99),
)
def test_a_configuration_survives_json(seed, gaussian, categorical, batch):
    point = LatentPoint(gaussian=gaussian, categorical=categorical, batch_size=batch)
    config = StudyConfig(seed=seed, latents=(point,))
    assert from_plain(StudyConfig, to_plain(config)) == config


def test_the_length_of_a_masked_form_may_be_a_share_of_the_image(tmp_path):
    path = written(tmp_path, "[[latents]]\nratio = 0.03125\ncategorical = 4\n[network]\nimage_size = 64\nchannels = 1")
    assert read_config(path, []).latents == (LatentPoint(gaussian=124, categorical=4),)  # 64 * 64 / 32


class TestAnotherRecipe:
    TEXT = (
        "network.normalise_latent = true\n[training]\nadversarial_weight = 0.5\nepochs = 3\n[[latents]]\n[[latents]]\n"
    )

    def test_it_comes_with_all_that_it_decides(self, tmp_path):
        config = read_config(written(tmp_path, self.TEXT + 'recipe = "paper"'), [])
        ours, papers = map(config.autoencoder, config.latents)
        assert ours.training.adversarial_weight == 0.5
        plain = AutoencoderConfig(latent=ours.latent, training=TrainingConfig(recipe="paper", epochs=3))
        assert papers == plain
        names = [source_of(spec, config).variant for spec in trial_specs(config)]
        assert names == ["", "recipe paper"]

    def test_without_whitening_there_is_no_flow(self, tmp_path):
        config = read_config(written(tmp_path, self.TEXT + "whiten = false"), [])
        ours, other = map(config.autoencoder, config.latents)
        assert (ours.training.whiten, ours.network.couplings) == (True, 4)
        assert (other.training.whiten, other.network.couplings) == (False, 0)
        assert other.training.adversarial_weight == 0.5
        assert [source_of(spec, config).variant for spec in trial_specs(config)] == ["", "whiten False"]

    def test_what_a_recipe_decides_is_told_where_it_is_decided_otherwise(self, tmp_path):
        more = 'recipe = "paper"\n[[latents]]\ngaussian = 32\ncategorical = 5\nrecipe = "paper"\nwhiten = true'
        config = read_config(written(tmp_path, self.TEXT + more), [])
        variants = [source_of(spec, config).variant for spec in trial_specs(config)]
        assert variants == ["", "recipe paper", "recipe paper, whiten True"]

    def test_the_studys_own_is_the_same_point_again(self, tmp_path):
        with pytest.raises(InputError, match="different latent configurations"):
            read_config(written(tmp_path, self.TEXT + 'recipe = "two_phase"'), [])


class TestGoingOn:
    OLD = StudyConfig(
        instances=2,
        tasks=(TaskConfig(data="x"),),
        latents=(LatentPoint(gaussian=8), LatentPoint(gaussian=9, instances=2)),
    )

    def test_more_encoders_may_be_attacked(self):
        one, two, every = (StudyConfig(attacks=AttacksConfig(encoders=count)) for count in (1, 2, None))
        assert refused_changes(one, two) == []
        assert refused_changes(two, one) == ["attacks.encoders = 1 (it was 2)"]
        assert refused_changes(two, every) == []
        assert refused_changes(every, one) == ["attacks.encoders = 1 (it was None)"]

    def test_every_instance_may_be_attacked_later(self):
        first, every = (StudyConfig(attacks=AttacksConfig(every_instance=value)) for value in (False, True))
        assert refused_changes(first, every) == []
        assert refused_changes(every, first) == ["attacks.every_instance = False (it was True)"]

    def test_the_published_study_goes_on_with_its_preset(self):
        published = Path(__file__).parents[2] / "results" / "paper"
        assert refused_changes(read_folder_config(published), read_config("paper", [])) == []

    def test_a_study_of_before_controls_were_attacked_goes_on_with_or_without_them(self, tmp_path):
        plain = to_plain(read_config("quick", []))
        del plain["attacks"]["controls"]
        (tmp_path / "config.json").write_text(json.dumps(plain))
        old = read_folder_config(tmp_path)
        assert old.attacks.controls == ()
        assert refused_changes(old, read_config("quick", [])) == []
        assert refused_changes(old, read_config("quick", ["attacks.controls=[]"])) == []
        assert refused_changes(read_config("quick", []), old) == ["attacks.controls = [] (it was ['pca'])"]

    @pytest.mark.parametrize(
        "change",
        [
            {"draws": 11},
            {"instances": 3},
            {"title": "new"},
            {"attacks": AttacksConfig(draws=4, defences=("noise@1",))},
            {"tasks": (TaskConfig(data="x", mirrored=True),)},
            {"latents": (LatentPoint(gaussian=8), LatentPoint(gaussian=7), LatentPoint(gaussian=9, instances=3))},
        ],
    )
    def test_more_may_be_asked_for(self, change):
        assert refused_changes(self.OLD, dataclasses.replace(self.OLD, **change)) == []

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"draws": 9}, "draws = 9 (it was 10)"),
            ({"seed": 1}, "seed = 1 (it was 0)"),
            ({"attacks": AttacksConfig(target=0.01)}, "attacks.target = 0.01 (it was 0.02)"),
            ({"attacks": AttacksConfig(names=("ridge",))}, "attacks.names"),
            ({"tasks": ()}, "tasks"),
            ({"tasks": (TaskConfig(data="y"),)}, "tasks"),
            ({"latents": (LatentPoint(gaussian=8),)}, "latents"),
            ({"latents": (LatentPoint(gaussian=9, instances=2), LatentPoint(gaussian=8))}, "latents"),
            ({"latents": (LatentPoint(gaussian=8, instances=1), LatentPoint(gaussian=9, instances=2))}, "latents"),
            ({"latents": (LatentPoint(gaussian=8), LatentPoint(gaussian=9, instances=1))}, "latents"),
        ],
    )
    def test_anything_else_is_named(self, change, told):
        (difference,) = refused_changes(self.OLD, dataclasses.replace(self.OLD, **change))
        assert told in difference

    def test_a_nested_key_is_named_in_full(self):
        old, new = (read_config("quick", [f"training.epochs={n}"]) for n in (2, 3))
        assert refused_changes(old, new) == ["training.epochs = 3 (it was 2)"]
