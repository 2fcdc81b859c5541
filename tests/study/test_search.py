"""Spaces, proposals, objectives, fronts and verdicts, all without Ray."""

import dataclasses
import json
import math
import sys

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig
from aae.networks import Autoencoder
from attacks import AttacksConfig
from classifiers import ClassifiersConfig
from classifiers.config import ForestConfig
from study import objectives
from study.config import DataConfig, InputError, StudyConfig, TaskConfig
from study.config_text import identified, read_config, refused_changes
from study.datasets import ImageSet, split
from study.front import finalists, hypervolume, judgement, on_front, paired
from study.manifest import write_manifest
from study.proposals import Mirrors, Proposals, search_spec
from study.records import Record
from study.search_config import SPACE, Dimension, ObjectiveConfig, SearchConfig, configured, point_of
from study.seeds import derive, identity
from study.trial import TrialSpec, trial_specs
from study.verdict import summarise_search

WIDTHS = Dimension(key="network.widths", choices=((4, 4, 4), (16, 32, 64)))
RATE = Dimension(key="training.learning_rate", low=1e-4, high=1e-2, log=True)


def searching(**changes):
    values = {"trials": 20, "space": (*SPACE, WIDTHS, RATE), "sampler": "random"} | changes
    return StudyConfig(seed=3, search=SearchConfig(**values))


def ended(config, asked, status="complete", accuracy=0.5, mse=0.1, role="search", noted=None):
    spec, point = asked
    metrics = {"objective.accuracy": accuracy, "objective.held_out_mse": mse} if status == "complete" else {}
    latent = spec.config.latent
    return Record(
        kind="trial", key=f"trial/{spec.id}", trial=spec.id, gaussian=latent.gaussian, categorical=latent.categorical,
        batch_size=spec.config.training.batch_size, instance=spec.instance, seconds=2.0, metrics=metrics,
        what={"status": status, "role": role},
        detail={"params": point, "sampler": noted or {}} | ({} if status == "complete" else {"reason": "OutOfMemory"}),
    )  # fmt: skip


def on_fresh_seeds(config, spec, values):
    """The records of one configuration on so many fresh seeds; `values` are of its objectives, by seed."""
    point = identity(identified(spec.config))
    for i, metrics in enumerate(values):
        again = dataclasses.replace(spec, instance=i, seed=derive(config.seed, "fresh", i))
        record = ended(config, (again, {}), role="fresh")
        measured = {f"objective.{name}": value for name, value in metrics.items()}
        yield dataclasses.replace(record, what=record.what | {"point": point}, metrics=measured)


class TestSpace:
    def test_the_papers_configuration_lies_in_the_usual_space(self):
        point = point_of(SPACE, AutoencoderConfig())
        assert point == {
            "latent.gaussian": 384, "latent.categorical.on": True, "latent.categorical": 20, "training.batch_size": 16,
        }  # fmt: skip

    @pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "random", "qmc"])
    def test_every_proposal_is_a_configuration_and_comes_back_as_its_point(self, sampler):
        config = searching(sampler=sampler)
        proposals = Proposals(config, [], [])
        base = config.autoencoder(config.latents[0])
        switched = set()
        for number in range(14):
            spec, point = proposals.ask()
            assert configured(base, point) == spec.config
            assert point_of(config.search.space, spec.config) == point
            assert 16 <= spec.config.latent.gaussian <= 1024
            assert spec.config.latent.categorical == 0 or 2 <= spec.config.latent.categorical <= 100
            assert spec.config.network.widths in WIDTHS.choices
            switched.add(spec.config.latent.categorical > 0)
            proposals.tell(
                spec.id, "complete", {"objective.accuracy": 1 / (2 + number), "objective.held_out_mse": number}
            )
        assert switched == {True, False}

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            ('search.space=[{key="latent.gausian", low=1, high=2}]', "search.space.*latent.gausian"),
            ('search.space=[{key="training.epochs", low=1, high=2}]', "epochs are what a scheduler spares"),
            (
                'search.space=[{key="latent.gaussian", low=9, high=2}]',
                "low, high = .9.0, 2.0.: must be a range of latent.gaussian",
            ),
            ('search.space=[{key="latent.gaussian", low=2, high=9000}]', "gaussian = 9000: must be from 1 to 8192"),
            ('search.space=[{key="training.schedule", low=1, high=2}]', "training.schedule is no number"),
            ('search.space=[{key="training.batch_size", low=0, high=2, log=true}]', "above 0 on a logarithmic"),
            ('search.space=[{key="latent.gaussian", choices=["a"]}]', "must be of the kind that"),
            ('search.space=[{key="latent.gaussian", choices=[16.5, 32]}]', "must be of the kind that"),
            ('search.space=[{key="training.betas", choices=[[0.5]]}]', "lists of 2"),
            ('search.space=[{key="network.widths", choices=[[[8]], [[16]]]}]', "must be of the kind that"),
            (
                "search.storage=postgresql://lab:s3cret@host/x",
                "^--set search.storage='…': must be a URL without a password",
            ),
            ("search.fresh_seeds=1", "fresh_seeds=1: must be from 2"),
            ("search.sampler=tpee", "sampler='tpee': must be one of tpe, nsga2"),
            ("encoders.from=x", "unset where a search trains"),
        ],
    )
    def test_what_cannot_be_searched_is_told(self, setting, told):
        with pytest.raises(InputError, match=told):
            read_config("quick", ["search.trials=3", setting])

    def test_a_whole_number_for_a_field_of_fractions_is_one_trial(self):
        """Its process and the driver must name it alike."""
        space = (Dimension(key="training.adversarial_weight", choices=(0, 1)),)
        spec, _ = Proposals(searching(space=space), [], []).ask()
        assert TrialSpec.from_plain(spec.plain()).id == spec.id

    @pytest.mark.parametrize(
        "key", ["training.adversarial_weight", "training.sample_noise", "training.contrastive_weight", "network.branch"]
    )
    def test_what_is_off_is_one_trial_too(self, key):
        base, space = AutoencoderConfig(), (Dimension(key=key, low=0.1, high=0.5, off=True),)
        off = {f"{key}.on": False}
        spec = TrialSpec(config=configured(base, off), instance=0, seed=1)
        assert TrialSpec.from_plain(json.loads(json.dumps(spec.plain()))).id == spec.id
        assert point_of(space, spec.config) == off
        on = TrialSpec(config=configured(base, {key: 0.25}), instance=0, seed=1)
        assert on.id != spec.id
        assert point_of(space, on.config) == {f"{key}.on": True, key: 0.25}

    def test_values_that_exclude_each_other_are_left_out(self):
        space = (
            Dimension(key="training.whiten", choices=(True, False)),
            Dimension(key="network.couplings", low=1, high=8),
        )
        proposals = Proposals(searching(space=space), [], [])
        asked = [proposals.ask() for _ in range(9)]
        assert [one[1]["training.whiten"] for one in asked if one] == [True] * 8
        assert asked[-1] is None

    def test_without_whitening_the_recipe_decides_on_couplings_again(self):
        base = AutoencoderConfig()
        plain = configured(base, {"training.whiten": False})
        assert (base.network.couplings, plain.network.couplings) == (4, 0)
        assert configured(plain, {"training.whiten": True}).network.couplings == 4

    def test_pairs_that_the_training_images_cannot_give_are_told_before(self):
        asked = searching(objectives=(ObjectiveConfig(name="mse_at_k"),))
        with pytest.raises(InputError, match=r"attacks.pairs = .*: there are 9 training images"):
            objectives.check(asked, 9)

    def test_an_unknown_objective_is_told(self):
        with pytest.raises(InputError, match="'speed' is not known: must be one of accuracy"):
            objectives.check(searching(objectives=(ObjectiveConfig(name="speed"),)), 1000)
        tested = dataclasses.replace(
            searching(), data=DataConfig(autoencoder="digits", held_out=0), tasks=(TaskConfig(data="digits"),)
        )
        with pytest.raises(InputError, match=r"data.held_out = 0: .* may not see"):
            objectives.check(tested, 1000)
        with pytest.raises(InputError, match="judged_by = 'prior_distance'"):
            objectives.check(searching(judged_by="prior_distance"), 1000)
        with pytest.raises(InputError, match=r"accuracy needs \[\[tasks\]\]"):
            objectives.check(dataclasses.replace(searching(), tasks=()), 1000)
        alone = dataclasses.replace(searching(), classifiers=ClassifiersConfig(names=("adaboost",)))
        with pytest.raises(InputError, match=r"search\.classifier = '.*': must be one of classifiers.names, adaboost"):
            objectives.check(alone, 1000)

    def test_going_on_may_ask_for_more_trials_and_not_for_another_space(self):
        old = searching()
        more = dataclasses.replace(old, search=dataclasses.replace(old.search, trials=30, time_budget=9.0))
        assert refused_changes(old, more) == []
        other = dataclasses.replace(old, search=dataclasses.replace(old.search, sampler="gp"))
        assert refused_changes(old, other) == ["search.sampler = 'gp' (it was 'random')"]
        secret = searching(objectives=(ObjectiveConfig(name="mse_at_k"),))
        more = dataclasses.replace(secret, attacks=AttacksConfig(pairs=(*secret.attacks.pairs, 20_000)))
        assert refused_changes(secret, more)[0].startswith("attacks.pairs = ")
        assert refused_changes(old, dataclasses.replace(old, attacks=more.attacks)) == []


class TestProposals:
    def test_the_studys_latents_come_first(self):
        (spec, _), (other, _) = (proposals := Proposals(searching(), [], [])).ask(), proposals.ask()
        assert (spec.config.latent.gaussian, spec.config.latent.categorical) == (384, 20)
        assert other.config != spec.config

    def test_what_was_started_comes_first_and_what_was_finished_never_again(self):
        config = searching()
        proposals = Proposals(config, [], [])
        asked = [proposals.ask() for _ in range(4)]
        records = [ended(config, asked[0]), ended(config, asked[1], "failed"), ended(config, asked[2], "stopped")]
        again = Proposals(config, records, [asked[3][1]])
        assert again.ask()[0].id == asked[3][0].id
        later = {again.ask()[0].id for _ in range(10)}
        assert not later & {spec.id for spec, _ in asked}

    def test_a_space_that_is_used_up_ends(self):
        config = searching(space=(WIDTHS,), sampler="tpe")
        proposals = Proposals(config, [], [])
        found = {proposals.ask()[0].config.network.widths for _ in range(2)}
        assert found == set(WIDTHS.choices)
        assert proposals.ask() is None

    def test_nothing_stays_running_and_a_failure_is_not_forgotten_by_the_sampler(self):
        proposals = Proposals(searching(sampler="tpe"), [], [])
        for status in ("complete", "failed", "stopped"):
            spec, _ = proposals.ask()
            proposals.tell(spec.id, status, {"objective.accuracy": 0.5, "objective.held_out_mse": 0.1})
        states = [trial.state.name for trial in proposals.study.trials]
        assert states == ["COMPLETE", "PRUNED", "PRUNED"]

    def test_importances_know_which_way_is_better(self):
        space = (Dimension(key="latent.gaussian", low=16, high=1024), RATE)
        config = searching(space=space, objectives=(ObjectiveConfig(name="accuracy"),))
        proposals = Proposals(config, [], [])
        for _ in range(60):
            spec, point = proposals.ask()
            # flat but for a few large sizes, which alone are good: only looking at the good end shows it
            good = max(0.0, point["latent.gaussian"] - 900)
            proposals.tell(spec.id, "complete", {"objective.accuracy": good + 1e-6 * point["training.learning_rate"]})
        rated = proposals.importances()["accuracy"]
        assert rated["latent.gaussian"] > 0.8

    def test_all_trials_of_a_search_share_a_seed_and_fresh_ones_are_fresh_and_paired(self):
        config = searching()
        spec = search_spec(config, AutoencoderConfig())
        fresh = trial_specs(config, [AutoencoderConfig(latent=LatentConfig(gaussian=9))])
        assert len(fresh) == 8
        assert [s.seed for s in fresh[:4]] == [s.seed for s in fresh[4:]]
        assert spec.seed not in {s.seed for s in fresh}
        assert len({s.seed for s in fresh}) == 4


class TestMirrors:
    @pytest.fixture
    def records(self):
        config = searching()
        proposals = Proposals(config, [], [])
        statuses = ("complete", "stopped", "failed", "complete")
        return [ended(config, proposals.ask(), status, accuracy=0.25) for status in statuses]

    def test_optunas_tools_see_the_true_states(self, tmp_path, records):
        Mirrors(searching(), tmp_path).add(records[:2])
        Mirrors(searching(), tmp_path).add(records)  # another run
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/optuna.db")
        assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE"]
        assert [t.user_attrs["trial"] for t in study.trials] == [r.trial for r in records]
        assert [t.params for t in study.trials] == [r.detail["params"] for r in records]
        assert study.trials[0].values == [0.25, 0.1]
        assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
        assert study.trials[2].user_attrs["reason"] == "OutOfMemory"
        assert study.trials[0].user_attrs["folder"] == str(tmp_path / "trials" / records[0].trial)
        assert not list(tmp_path.glob("*.beside"))

    def test_a_folder_of_another_name_holds_one_study(self, tmp_path, records):
        (tmp_path / "a").mkdir()
        Mirrors(searching(), tmp_path / "a").add(records[:2])
        (tmp_path / "a").rename(tmp_path / "b")
        Mirrors(searching(), tmp_path / "b").add(records)
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/b/optuna.db")
        assert study.study_name == "b"
        assert len(study.trials) == 4
        assert study.trials[0].user_attrs["folder"] == str(tmp_path / "b" / "trials" / records[0].trial)
        assert "folder" not in study.trials[1].user_attrs  # a stopped trial's is gone

    def test_a_folder_may_have_any_name(self, tmp_path, records):
        folder = tmp_path / "a?b#c%20d{e}"
        folder.mkdir()
        Mirrors(searching(), folder).add(records)
        (tmp_path / "plain.db").write_bytes((folder / "optuna.db").read_bytes())
        assert len(optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/plain.db").trials) == 4

    def test_another_storage_is_kept_up_to_date_and_tells_folders_apart(self, tmp_path, records):
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "log")))
        config = searching(storage=f"journal:{tmp_path / 'log'}")
        for parent in ("one", "other"):  # twice the same study, in folders of the same name
            write_manifest(tmp_path / parent / "x", config, [], [])
            Mirrors(config, tmp_path / parent / "x").add(records[:3])
        moved = (tmp_path / "one" / "x").rename(tmp_path / "moved")
        more = searching(storage=config.search.storage, trials=30)
        write_manifest(moved, more, [], [])
        Mirrors(more, moved).add(records)
        names = {
            json.loads((folder / "manifest.json").read_text())["study"]: folder
            for folder in (moved, tmp_path / "other" / "x")
        }
        studies = {one.study_name: one for one in optuna.get_all_study_summaries(storage)}
        assert studies.keys() == names.keys()
        found = {folder: optuna.load_study(study_name=name, storage=storage).trials for name, folder in names.items()}
        assert [t.user_attrs["trial"] for t in found[moved]] == [r.trial for r in records]
        assert [t.user_attrs["trial"] for t in found[tmp_path / "other" / "x"]] == [r.trial for r in records[:3]]

    def test_a_study_from_before_there_were_names_is_given_one_that_stays(self, tmp_path):
        write_manifest(tmp_path, searching(), [], [])
        older = json.loads((tmp_path / "manifest.json").read_text())
        (tmp_path / "manifest.json").write_text(json.dumps({k: v for k, v in older.items() if k != "study"}))
        told = []
        for _ in range(2):
            write_manifest(tmp_path, searching(), [], [])
            told.append(json.loads((tmp_path / "manifest.json").read_text()))
        assert told[0]["study"] == told[1]["study"]
        assert told[1]["runs"][:1] == older["runs"]
        assert len(told[1]["runs"]) == 3

    def test_a_storage_that_does_not_open_is_told(self, tmp_path):
        url = f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}"
        with pytest.raises(InputError, match=rf"search.storage = '{url}': cannot be opened"):
            Mirrors(searching(storage=url), tmp_path)

    def test_a_storage_without_its_driver_is_told(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "psycopg", None)
        with pytest.raises(InputError, match=r"needs the driver of its database: .*pip install"):
            Mirrors(searching(storage="postgresql+psycopg://lab@127.0.0.1/x"), tmp_path)


class TestObjectives:
    @pytest.fixture
    def trained(self):
        rng = np.random.default_rng(0)
        labels = np.arange(200) % 4
        coarse = rng.integers(0, 30, (200, 32, 32, 3)) + 60 * labels[:, None, None, None]
        images = coarse.astype(np.uint8)
        data = ImageSet("toy", images[:160], labels[:160], images[160:], labels[160:], tuple("abcd"))
        config = StudyConfig(
            tasks=(TaskConfig(data="toy", classes=(2,)),), search=SearchConfig(trials=1, classifier="random_forest")
        )
        draws = objectives.validation_draws(config, {"toy": data})
        few = ClassifiersConfig(random_forest=ForestConfig(estimators=5))
        bench = objectives.Bench(images, images[160:], draws, few, "random_forest")
        small = AutoencoderConfig(
            latent=LatentConfig(gaussian=6, categorical=3), network=NetworkConfig(widths=(4, 4, 4))
        )
        torch.manual_seed(1)
        nets = Autoencoder(small.latent, small.network)
        metrics = {"held_out_mse": 0.125, "fresh_gaussian": 0.75, "fresh_categorical": 0.5}
        return data, config, objectives.Trained(nets, small, 0, metrics, bench)

    def test_values(self, trained):
        values = objectives.measure(objectives.OBJECTIVES, trained[2])
        assert values["objective.held_out_mse"] == 0.125
        assert values["objective.prior_distance"] == 0.5
        assert values["objective.length"] == 9
        assert values["objective.accuracy"] > 0.9  # brightness tells the classes apart, masked or not

    def test_no_image_of_a_test_part_is_looked_at_and_scoring_is_on_validation_images(self, trained):
        data, config, one = trained
        parts = split(data, "shared", "mlp", config.seed)
        test = {image.tobytes() for image in data.test_images}
        validating = {image.tobytes() for image in data.images[parts.validation]}
        assert len(one.bench.draws) == 3
        for draw in one.bench.draws:
            assert not {image.tobytes() for image in draw.images} & test
            assert {image.tobytes() for image in draw.images[draw.split.test]} <= validating
            indices = np.concatenate((draw.split.train, draw.split.validation, draw.split.test))
            assert sorted(indices) == list(range(len(draw.images)))
            assert set(draw.labels) == set(draw.classes)

    def test_what_is_not_finite_is_an_error(self, trained):
        broken = dataclasses.replace(trained[2], metrics={"held_out_mse": math.nan})
        with pytest.raises(ArithmeticError, match="held_out_mse is nan"):
            objectives.measure(["held_out_mse"], broken)


class TestFront:
    def test_of_equal_points_one_is_on_the_front(self):
        points = np.array([[1.0, 2], [2, 1], [2, 2], [1, 2], [0, 5]])
        assert on_front(points).tolist() == [True, True, False, False, True]

    def test_hypervolume_by_hand(self):
        assert hypervolume(np.array([[1.0, 2], [2, 1], [3, 3]]), np.array([3.0, 3])) == 3
        assert hypervolume(np.array([[4.0, 0]]), np.array([3.0, 3])) == 0
        cubes = np.array([[0.0, 0, 1], [1, 1, 0]])
        assert hypervolume(cubes, np.array([2.0, 2, 2])) == 4 + 2 - 1

    @given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=8))
    def test_hypervolume_counts_unit_cubes(self, points):
        array = np.array(points, dtype=float)
        cells = np.stack(np.meshgrid(*[np.arange(5)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        dominated = (array[None] <= cells[:, None]).all(axis=2).any(axis=1).sum()
        assert hypervolume(array, np.array([5.0, 5, 5])) == dominated

    def test_finalists_cover_the_front_and_failures_are_none(self):
        config = searching(finalists=2)
        proposals = Proposals(config, [], [])
        # the first is the study's own, which is confirmed anyway
        ends = [(0.99, 0.01), (0.9, 0.5), (0.5, 0.1), (0.4, 0.4), (0.85, 0.15), None]
        records = [
            ended(config, proposals.ask(), *(("failed",) if end is None else ("complete", *end))) for end in ends
        ]
        chosen = finalists(config, records)
        assert chosen[0].metrics["objective.accuracy"] == 0.85
        assert len(chosen) == 2
        assert finalists(config, [records[0], records[5]]) == []

    @pytest.mark.parametrize(("own", "first"), [("complete", {0.61, 0.6}), ("failed", {0.9, 0.3})])
    def test_what_dominates_the_studys_own_trial_comes_before_what_covers_more(self, own, first):
        config = searching(finalists=4)
        proposals = Proposals(config, [], [])
        records = [ended(config, proposals.ask(), own, 0.55, 0.2)]
        for accuracy, mse in [(0.9, 0.3), (0.61, 0.199), (0.3, 0.001), (0.6, 0.198), (0.56, 0.1985), (0.1, 0.9)]:
            records.append(ended(config, proposals.ask(), "complete", accuracy, mse))
        chosen = [r.metrics["objective.accuracy"] for r in finalists(config, records)]
        assert set(chosen[:2]) == first
        assert set(chosen) == {0.9, 0.61, 0.3, 0.6}  # 0.56 dominates too, and 0.6 dominates it


class TestVerdict:
    def test_intervals_are_paired_and_widen_with_the_number_of_comparisons(self):
        ours, theirs = {0: 1.1, 1: 2.3, 2: 3.2, 3: 9.0}, {0: 1.0, 1: 2.0, 2: 3.0}
        one, many = paired(ours, theirs, 1), paired(ours, theirs, 6)
        assert one["seeds"] == 3
        assert one["mean"] == pytest.approx(0.2)
        half = 4.302652730 * 0.1 / math.sqrt(3)  # Student's t, 97.5%, 2 degrees of freedom
        assert one["interval"] == pytest.approx([0.2 - half, 0.2 + half])
        assert many["interval"][1] > one["interval"][1]
        assert paired({0: 1.0}, theirs, 1) is None

    @pytest.mark.parametrize(
        ("accuracy", "mse", "said"),
        [
            ([0.01, 0.03], [-0.2, -0.1], "dominates"),
            ([-0.03, -0.01], [0.1, 0.2], "is dominated"),
            ([0.01, 0.03], [-0.2, 0.1], "accuracy better, mse undecided"),
            ([0.01, 0.03], [0.1, 0.2], "accuracy better, mse worse"),
            ([0.01, 0.03], [0.0, 0.0], "dominates"),
            ([0.0, 0.0], [0.0, 0.0], "accuracy same, mse same"),
        ],
    )
    def test_only_intervals_on_one_side_of_zero_count(self, accuracy, mse, said):
        differences = {"accuracy": {"interval": accuracy}, "mse": {"interval": mse}}
        assert judgement(differences, {"accuracy": "maximize", "mse": "minimize"}) == said

    def test_a_dominating_configuration_is_recommended_and_a_lucky_one_is_not(self):
        config = searching()
        proposals = Proposals(config, [], [])
        asked = [proposals.ask() for _ in range(3)]
        records = [ended(config, one) for one in asked]

        def fresh(spec, accuracy, mse):
            noisy = [a + noise for a, noise in zip(accuracy, (0.0, 0.001, -0.001, 0.0005), strict=True)]
            records.extend(on_fresh_seeds(config, spec, [{"accuracy": a, "held_out_mse": mse} for a in noisy]))

        history = [{"seconds": 1.0, "held_out_mse": 0.2}, {"seconds": 1.0, "held_out_mse": 0.1}]
        fresh(asked[0][0], [0.80] * 4, 0.10)
        fresh(asked[1][0], [0.70, 0.95, 0.85, 0.75], 0.05)
        summary = summarise_search(config, records, lambda trial: history)
        assert summary["finalists"][1]["verdict"] == "accuracy undecided, held out mse better"
        assert summary["recommendation"].startswith("Keep 384+20, batch 16")
        fresh(asked[2][0], [0.90] * 4, 0.05)
        summary = summarise_search(config, records, lambda trial: history)
        assert summary["finalists"][2]["verdict"] == "dominates"
        assert summary["finalists"][2]["equal_seconds"]["mean"] == 0
        assert summary["recommendation"].startswith(f"Take {summary['finalists'][2]['name']}: on 4 fresh paired seeds")
        what = {"representation": "masked", "dataset": "x", "classes": 2, "draw": 0, "protocol": "shared"}
        fewer = [  # as of a search that has not ended
            dataclasses.replace(r, kind="classification", what=what | {"classifier": config.search.classifier})
            for r in records
            if r.what["role"] == "fresh" and r is not records[-1]
        ]
        tested = [dataclasses.replace(r, metrics={"accuracy": r.metrics["objective.accuracy"]}) for r in fewer]
        found = summarise_search(config, records + tested, lambda trial: history)["finalists"][2]
        assert (found["seeds"], found["differences"]["test accuracy"]["seeds"]) == (4, 3)
        assert found["verdict"] == "better in everything, but on 3 seeds, where it takes 4"
        last = records.pop()
        for more, said in (
            ([], "better in everything, but on 3 seeds, where it takes 4"),
            (
                [dataclasses.replace(last, what=last.what | {"status": "failed"}, metrics={})],
                "1 of the fresh trials failed",
            ),
        ):
            summary = summarise_search(config, [*records, *more], lambda trial: history)
            assert summary["finalists"][2]["verdict"].endswith(said)
            assert summary["recommendation"].startswith("Keep 384+20")

    def test_what_dominates_on_accuracy_and_error_alone_is_said_where_more_is_sought(self):
        names = ("accuracy", "held_out_mse", "length")
        config = searching(objectives=tuple(ObjectiveConfig(name=name) for name in names))
        proposals = Proposals(config, [], [])
        asked = [proposals.ask() for _ in range(4)]
        records = [ended(config, one) for one in asked]
        records = [dataclasses.replace(r, metrics=r.metrics | {"objective.length": 9.0}) for r in records]

        def fresh(number, accuracy, mse, length, seeds=4):
            values = [dict(zip(names, (accuracy + i / 1000, mse, length), strict=True)) for i in range(seeds)]
            records.extend(on_fresh_seeds(config, asked[number][0], values))

        fresh(0, 0.8, 0.1, 400.0)
        fresh(1, 0.9, 0.05, 500.0)
        fresh(2, 0.7, 0.05, 500.0, seeds=1)
        search = summarise_search(config, records, lambda trial: [{"seconds": 1.0, "held_out_mse": 0.1}])
        first, longer, alone = search["finalists"]
        assert longer["verdict"] == "accuracy better, held out mse better, length worse"
        assert (longer["verdict_on_use"], alone["verdict_on_use"]) == (
            "dominates",
            "accuracy unknown, held out mse unknown",
        )
        use = f"On accuracy and held out mse alone, {first['name']} is dominated by {longer['name']}."
        assert search["recommendation"].startswith("Keep 384+20")
        assert use in search["recommendation"]
        fresh(3, 0.9, 0.05, 300.0)
        search = summarise_search(config, records, lambda trial: [{"seconds": 1.0, "held_out_mse": 0.1}])
        best = search["finalists"][3]
        # its own seeds count, whatever another one has
        assert search["recommendation"].startswith(f"Take {best['name']}: on 4 fresh paired seeds it dominates 384+20")
        assert search["recommendation"].endswith(f"is dominated by {longer['name']} and {best['name']}.")

    def test_at_equal_seconds_each_counts_by_the_last_epoch_that_it_had_ended(self):
        config = searching()
        proposals = Proposals(config, [], [])
        asked = [proposals.ask() for _ in range(2)]
        records = [ended(config, one) for one in asked]
        values = [{"accuracy": 0.5, "held_out_mse": 0.1}] * 3
        for spec, _ in asked:
            records.extend(on_fresh_seeds(config, spec, values))
        quick = [{"seconds": 1.0, "held_out_mse": mse} for mse in (0.4, 0.3, 0.2, 0.1)]
        slow = [{"seconds": 1.6, "held_out_mse": mse} for mse in (0.25, 0.15)]  # 3.2 s, three epochs of the quick one
        late = [{"seconds": 9.0, "held_out_mse": 0.01}]  # longer than the quick one took: nothing to compare
        histories = {r.trial: late if r.instance == 2 else slow for r in records[-3:]}
        found = summarise_search(config, records, lambda trial: histories.get(trial, quick))["finalists"][1]
        assert found["equal_seconds"]["seeds"] == 2
        assert found["equal_seconds"]["mean"] == pytest.approx(0.15 - 0.2)
