"""Attacks as a study runs them, without Ray: jobs, the split, records, defences."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch

from aae.config import LatentConfig, NetworkConfig
from aae.flow import Flow
from aae.masking import mask, unmask
from aae.networks import Autoencoder
from attacks import AttacksConfig
from classifiers import ClassifiersConfig
from classifiers.config import ForestConfig
from study.attack import CONTROLS, NEEDED, AttackJob, Scene, _knowledge, attack, fit_recogniser
from study.config import InputError, LatentPoint, StudyConfig, TaskConfig
from study.datasets import ImageSet, attack_parts
from study.defences import defend
from study.evaluate import Source
from study.jobs import attack_jobs, classification_jobs
from study.opening import Data
from study.trial import trial_specs

CONFIG = AttacksConfig(
    pairs=(10, 30, 500),
    draws=2,
    victims=24,
    public=40,
    width=4,
    steps=30,
    optimised=5,
    descents=25,
    rounds=3,
    controls=(),
)


def source(trial="a", instance=0, gaussian=6):
    return Source(trial=trial, gaussian=gaussian, categorical=3, batch_size=16, instance=instance)


def toy(seed=0, train=96, test=30):
    """Two classes of smooth images; two test images stand in the training part too."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(2, size=train + test)
    coarse = rng.integers(0, 128, size=(train + test, 2, 2, 3)) + 100 * labels[:, None, None, None]
    images = coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    images[train : train + 2] = images[:2]
    return ImageSet("toy", images[:train], labels[:train], images[train:], labels[train:], ("dark", "light"))


@pytest.fixture(scope="module")
def scene():
    torch.manual_seed(0)
    network = NetworkConfig(image_size=8, widths=(4, 4, 4), normalise_latent=True)
    nets = [Autoencoder(LatentConfig(gaussian=6, categorical=3), network).eval() for _ in range(2)]
    data = toy()
    parts = attack_parts(data, CONFIG.victims, 3)
    forest = ClassifiersConfig(random_forest=ForestConfig(estimators=20))
    return Scene(
        images=data.images,
        labels=data.labels,
        masked=mask(nets[0].encoder, data.images),
        parts=parts,
        encoder=nets[0].encoder,
        decoder=nets[0].decoder,
        own=(nets[1].encoder, nets[1].decoder),
        recogniser=fit_recogniser(data.images, data.labels, parts, forest, 1),
    )


def run(scene, name, k=0, **changes):
    values = {"source": source(), "dataset": "toy", "attack": name, "k": k, "seed": 5, "pairs_seed": 6} | changes
    return attack(AttackJob(**values), scene, CONFIG, shown=3)


class TestParts:
    def test_attacker_and_victims_share_no_image(self):
        data = toy()
        parts = attack_parts(data, 100, 3)
        every = np.concatenate(list(vars(parts).values()))
        assert len(set(every)) == len(every)
        held = {data.images[i].tobytes() for i in np.concatenate((parts.pairs, parts.public))}
        assert not held & {data.images[i].tobytes() for i in parts.victims}
        assert (len(parts.pairs), len(parts.public), len(parts.victims)) == (48, 48, 28)

    def test_victims_are_capped_and_a_larger_cap_keeps_them(self):
        few, many = (attack_parts(toy(), n, 3).victims for n in (5, 20))
        np.testing.assert_array_equal(few, many[:5])

    def test_too_few_images_are_told(self):
        with pytest.raises(InputError, match=r"toy has too few different images.*attacks.names = \[\]"):
            attack_parts(toy(test=2), 10, 3)


class TestJobs:
    SOURCES = (source("a"), source("b", instance=1), source("c", gaussian=8), source("d", gaussian=4))

    def jobs(self, **changes):
        config = StudyConfig(attacks=dataclasses.replace(CONFIG, **changes))
        return list(attack_jobs(config, list(self.SOURCES), {"toy": attack_parts(toy(), 10, 3)}))

    def test_the_first_instance_of_each_configuration_is_attacked_once(self):
        jobs = self.jobs()
        assert {job.source.trial for job in jobs} == {"a", "c", "d"}
        assert len({job.key for job in jobs}) == len(jobs)

    def test_attacks_without_pairs_are_repeated_as_often_as_there_are_other_public_images(self):
        for public, draws in ((40, {0}), (24, {0, 1}), (10, {0, 1})):  # of 48, in two draws
            jobs = self.jobs(public=public)
            assert {job.draw for job in jobs if job.attack in ("moments", "transport")} == draws
            assert {job.draw for job in jobs if job.attack == "known_plaintexts"} == {0}

    def test_pairs_the_data_cannot_give_are_left_out(self):
        assert {job.k for job in self.jobs()} == {0, 10, 30}

    def test_an_own_autoencoder_is_another_instance_or_the_longest_other_latent(self):
        own = {job.source.trial: job.own for job in self.jobs() if job.attack == "stitch_affine"}
        assert own == {"a": "b", "c": "b", "d": "b"}  # the seed of instance 0 made a, c and d
        assert {job.source.trial for job in self.jobs() if job.attack == "other_decoder"} == {"a"}

    def test_the_same_seed_at_another_batch_size_is_no_other_instance(self):
        twin = dataclasses.replace(source("twin"), batch_size=32)
        for alone, own in (((twin, source("a")), {"twin": "a", "a": "twin"}), ((twin, *self.SOURCES), {"twin": "b"})):
            config, parts = StudyConfig(attacks=CONFIG), {"toy": attack_parts(toy(), 10, 3)}
            jobs = list(attack_jobs(config, list(alone), parts))
            assert {job.source.trial: job.own for job in jobs if job.attack == "stitch_mlp"}.items() >= own.items()
            assert "twin" not in {job.source.trial for job in jobs if job.attack == "other_decoder"}

    def test_every_instance_meets_the_next_one(self):
        sources, config = [source(name, instance=i) for i, name in enumerate("xyz")], StudyConfig()
        settings = dataclasses.replace(CONFIG, every_instance=True)
        config = dataclasses.replace(config, attacks=settings)
        jobs = attack_jobs(config, sources, {"toy": attack_parts(toy(), 10, 3)})
        own = {job.source.trial: job.own for job in jobs if job.attack == "other_decoder"}
        assert own == {"x": "y", "y": "z", "z": "x"}

    def test_where_the_first_instance_failed_the_next_is_attacked(self):
        config, parts = StudyConfig(attacks=CONFIG), {"toy": attack_parts(toy(), 10, 3)}
        assert {job.source.trial for job in attack_jobs(config, list(self.SOURCES[1:]), parts)} == {"b", "c", "d"}

    def test_another_own_autoencoder_is_another_attack(self):
        config, parts = StudyConfig(attacks=CONFIG), {"toy": attack_parts(toy(), 10, 3)}
        alone, beside = (
            {job.key for job in attack_jobs(config, list(self.SOURCES[:n]), parts) if job.source.trial == "a"}
            for n in (1, 2)
        )
        assert {key.split("/")[4] for key in alone - beside} == {"stitch_orthogonal", "stitch_affine", "stitch_mlp"}

    def test_every_instance_some_encoders_or_none(self):
        assert {job.source.trial for job in self.jobs(every_instance=True)} == {"a", "b", "c", "d"}
        assert {job.source.trial for job in self.jobs(encoders=1)} == {"a"}
        assert self.jobs(names=()) == []

    def test_mirror_images_that_are_handed_over_are_attacked_too(self):
        config = StudyConfig(attacks=CONFIG, tasks=(TaskConfig(data="toy", mirrored=True),))
        jobs = attack_jobs(config, list(self.SOURCES), {"toy": attack_parts(toy(), 10, 3)})
        mirrored = [(job.attack, job.k) for job in jobs if job.representation == "mirrored" and job.draw == 0]
        assert set(mirrored) == {("key", 0), ("ridge", 10), ("ridge", 30)}

    def test_defences_meet_ridge_and_once_with_the_most_pairs_what_is_better(self):
        tried = [
            (job.attack, job.k, job.draw)
            for job in self.jobs(encoders=1, defences=("noise@1",), draws=2)
            if job.representation == "noise@1"
        ]
        ridge = [("ridge", k, draw) for k in (10, 30) for draw in (0, 1)]
        assert sorted(tried) == sorted([("key", 0, 0), *ridge, ("inversion", 30, 0)])
        without = self.jobs(names=("ridge",), defences=("noise@1",))
        assert {job.attack for job in without if job.representation == "noise@1"} == {"key", "ridge"}

    def test_a_control_of_each_size_that_is_attacked_meets_the_same_pairs_once(self):
        jobs = self.jobs(encoders=2, controls=("random_projection",), every_instance=True)
        mine = [job for job in jobs if job.representation == "random_projection"]
        assert {job.source.trial for job in mine} == {"random_projection-g6-c3", "random_projection-g8-c3"}
        first = [(job.attack, job.k, job.draw) for job in mine if job.source.gaussian == 6]
        ridge = [("ridge", k, draw) for k in (10, 30) for draw in (0, 1)]
        bare = [(name, 0, 0) for name in (*NEEDED, "known_plaintexts")]
        assert sorted(first) == sorted([*bare, *ridge, ("inversion", 30, 0)])
        seeds = {job.pairs_seed for job in mine if job.draw == 1}
        assert seeds == {job.pairs_seed for job in jobs if job.draw == 1 and job.representation == "masked"}
        assert {job.source.trial for job in jobs if job not in mine} == {"a", "b", "c"}

    def test_one_control_serves_all_latents_of_one_length(self):
        sources = [source("a"), dataclasses.replace(source("b", gaussian=5), categorical=4)]
        config = StudyConfig(attacks=dataclasses.replace(CONFIG, controls=("pca", "random_projection")))
        jobs = attack_jobs(config, sources, {"toy": attack_parts(toy(), 10, 3)})
        controls = [job.source.trial for job in jobs if job.source.batch_size == 0]
        assert list(dict.fromkeys(controls)) == ["pca-g6-c3", "random_projection-g6-c3"]

    @pytest.mark.parametrize("every", [True, False])
    def test_what_is_attacked_under_a_defence_is_classified_under_it(self, every):
        settings = dataclasses.replace(CONFIG, defences=("noise@1",), every_instance=every, encoders=1)
        config = StudyConfig(
            attacks=settings,
            tasks=(TaskConfig(data="toy", classes=(2,)),),
            instances=2,
            latents=(LatentPoint(gaussian=6, categorical=3), LatentPoint(gaussian=8, categorical=3)),
        )
        data, specs = toy(), trial_specs(config)
        learned = classification_jobs(config, specs, Data(data, data.train_images, data.test_images, {"toy": data}))
        parts = {"toy": attack_parts(data, 10, 3)}
        met = attack_jobs(config, list({job.source: 0 for job in learned if job.representation == "masked"}), parts)
        trials = [{job.source.trial for job in jobs if job.representation == "noise@1"} for jobs in (learned, met)]
        assert trials[0] == trials[1] == {spec.id for spec in specs[: 2 if every else 1]}

    def test_all_attacks_of_a_draw_see_the_same_pairs(self):
        seeds = {job.draw: set() for job in self.jobs()}
        for job in self.jobs():
            seeds[job.draw].add(job.pairs_seed)
        assert all(len(found) == 1 for found in seeds.values())
        assert seeds[0] != seeds[1]

    def test_more_draws_change_no_other_job(self):
        assert set(self.jobs()) < set(self.jobs(draws=3))


class TestAttack:
    def test_the_key_and_the_controls_are_what_they_say(self, scene):
        victims = scene.parts.victims
        truth = scene.images[victims] / 255
        key, _ = run(scene, "key")
        assert key.metrics["mse"] == pytest.approx(
            np.square(unmask(scene.decoder, scene.masked[victims]) - truth).mean(), rel=1e-5
        )
        mean = (scene.images[scene.parts.public] / 255).mean(axis=0)
        assert run(scene, "mean_image")[0].metrics["mse"] == pytest.approx(np.square(mean - truth).mean(), rel=1e-5)
        other = unmask(scene.own[1], scene.masked[victims])
        assert run(scene, "other_decoder", own="b")[0].metrics["mse"] == pytest.approx(
            np.square(other - truth).mean(), rel=1e-5
        )

    def test_clear_images_are_identified_and_recognised(self, scene):
        record, shown = run(scene, "clear")
        assert (record.metrics["mse"], record.metrics["ssim"], record.metrics["top1"]) == (0, 1, 1)
        assert record.metrics["recognised"] > 0.8
        np.testing.assert_array_equal(shown, scene.images[scene.parts.victims[:3]])

    @pytest.mark.parametrize(
        ("name", "k"),
        [*((name, 30) for name in ("stitch_orthogonal", "stitch_affine", "stitch_mlp", "ridge", "inversion"))]
        + [(name, 0) for name in ("oracle", "weights", "moments", "transport", "known_plaintexts", *CONTROLS)],
    )
    def test_every_record_is_finite_and_repeats(self, scene, name, k):
        own = "b" if name.startswith("stitch") else ""
        (one, shown), (two, _) = (run(scene, name, k, own=own) for _ in range(2))
        assert one.metrics == two.metrics
        assert all(np.isfinite(list(one.metrics.values())))
        assert one.key == f"attack/a/masked/toy/{name}/{k}/0" + ("/b" if own else "")
        assert one.metrics["n"] == (5 if name == "weights" else 24)
        assert shown.shape == (3, 8, 8, 3)

    def test_without_pairs_other_public_images_are_taken_in_every_draw(self, scene):
        config = dataclasses.replace(CONFIG, public=16)
        values = {"source": source(), "dataset": "toy", "attack": "moments", "seed": 5, "pairs_seed": 6}
        jobs = [AttackJob(**values, draw=draw) for draw in (0, 1)]
        seen = [_knowledge(job, scene, scene.parts.victims, config, np.random.default_rng(0)).images for job in jobs]
        assert {len(images) for images in seen} == {16}
        assert not {i.tobytes() for i in seen[0]} & {i.tobytes() for i in seen[1]}

    @pytest.mark.parametrize(
        ("name", "k", "held"),
        [
            ("ridge", 30, 30),
            ("oracle", 0, 40),
            ("weights", 0, 40),
            ("moments", 0, 40),
            ("known_plaintexts", 0, 24),
            ("mean_image", 0, 48),
            ("key", 0, 0),
        ],
    )
    def test_a_record_says_how_many_images_the_attacker_held(self, scene, name, k, held):
        assert run(scene, name, k)[0].detail["images"] == held
        if name == "oracle":  # of 48 public images more than all cannot be asked for
            job = AttackJob(source=source(), dataset="toy", attack=name, seed=5, pairs_seed=6)
            record, _ = attack(job, scene, dataclasses.replace(CONFIG, public=1000), 0)
            assert record.detail["images"] == 48

    def test_thirty_pairs_beat_the_mean_image(self, scene):
        ridge, mean = (run(scene, name, k)[0].metrics for name, k in (("ridge", 30), ("mean_image", 0)))
        assert ridge["mse"] < 0.5 * mean["mse"]

    def test_two_views_of_an_image_are_restored_together(self, scene):
        flipped = np.ascontiguousarray(scene.images[:, :, ::-1])
        both = dataclasses.replace(scene, masked=np.stack((scene.masked, mask(scene.encoder, flipped))))
        truth = scene.images[scene.parts.victims] / 255
        views = [unmask(scene.decoder, masked[scene.parts.victims]) for masked in both.masked]
        key = np.square((views[0] + views[1][:, :, ::-1]) / 2 - truth).mean()
        assert run(both, "key", representation="mirrored")[0].metrics["mse"] == pytest.approx(key, rel=1e-5)
        one, two = (
            run(held, "ridge", 10, representation=representation)[0].metrics["mse"]
            for held, representation in ((scene, "masked"), (both, "mirrored"))
        )
        assert two < one

    def test_the_attackers_own_flow_changes_nothing(self, scene):
        bent = tuple(deepcopy(part) for part in scene.own)
        for part in bent:
            torch.manual_seed(1)
            part.flow = Flow(6, 2)
            for parameter in part.flow.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
        assert not np.allclose(mask(bent[0], scene.images), mask(scene.own[0], scene.images), atol=0.1)
        plain, unbent = (
            run(dataclasses.replace(scene, own=own), "stitch_affine", 30, own="b")[1] for own in (scene.own, bent)
        )
        np.testing.assert_array_equal(plain, unbent)

    def test_without_another_autoencoder_principal_components_serve(self, scene):
        record, _ = attack(
            AttackJob(source=source(), dataset="toy", attack="stitch_affine", k=30, seed=5, pairs_seed=6),
            dataclasses.replace(scene, own=None),
            CONFIG,
            0,
        )
        assert record.detail["own"] == "principal components"
        assert record.metrics["mse"] < run(scene, "mean_image")[0].metrics["mse"]


class TestDefences:
    VECTORS = np.random.default_rng(0).standard_normal((4000, 6)).astype(np.float32) * np.float32([1, 2, 4, 8, 0, 1])

    def test_noise_has_its_size(self):
        added = defend(self.VECTORS, "noise@0.5", 1) - self.VECTORS
        np.testing.assert_allclose(added.std(axis=0), 0.5 * self.VECTORS.std(axis=0), rtol=0.1)
        assert len(np.unique(added[:, 0])) > 3900

    def test_rounded_components_have_few_values(self):
        rounded = defend(self.VECTORS, "rounded@1", 1)
        assert len(np.unique(rounded[:, 3])) < 12
        assert np.abs(rounded - self.VECTORS).max() <= 0.51 * self.VECTORS.std(axis=0).max()

    def test_rounding_leaves_components_alone_that_do_not_vary(self):
        vectors = self.VECTORS.copy()
        vectors[:, 4] = 0.3
        rounded = defend(vectors, "rounded@1", 1)
        np.testing.assert_array_equal(rounded[:, 4], vectors[:, 4])
        assert (rounded[:, 3] != vectors[:, 3]).mean() > 0.99

    def test_dropped_components_say_nothing(self):
        dropped = defend(self.VECTORS, "dropped@0.5", 1)
        assert (dropped[:, :4].std(axis=0) < 1e-4).sum() + (dropped[:, 5].std() < 1e-4) in (2, 3)
        assert dropped.shape == self.VECTORS.shape

    @pytest.mark.parametrize("name", ["blur@1", "noise", "noise@0", "dropped@1", "noise@-1"])
    def test_what_is_no_defence_is_told(self, name):
        with pytest.raises(ValueError, match="defences"):
            AttacksConfig(defences=(name,))
