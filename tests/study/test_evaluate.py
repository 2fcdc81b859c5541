"""Measurements against the same thing done by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

import classifiers
from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig
from aae.masking import mask, unmask
from aae.networks import Autoencoder
from classifiers import ClassifiersConfig
from classifiers.config import BoostingConfig, ForestConfig, MlpConfig
from study.controls import Projection, fit_control, fit_restoration
from study.datasets import ImageSet, split
from study.evaluate import ClassificationJob, ReconstructionJob, Source, classify, classify_together, reconstruct

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]

SOURCE = Source(trial="a", gaussian=6, categorical=3, batch_size=16, instance=0)
QUICK = ClassifiersConfig(
    mlp=MlpConfig(hidden=(16, 16), epochs=20),
    random_forest=ForestConfig(estimators=5),
    adaboost=BoostingConfig(estimators=5),
)


def job(**changes):
    values = {
        "source": SOURCE,
        "dataset": "toy",
        "classes": (1, 3),
        "class_names": ("b", "d"),
        "draw": 0,
        "protocol": "shared",
        "classifier": "mlp",
        "representation": "masked",
        "seed": 5,
    }
    return ClassificationJob(**values | changes)


@pytest.fixture(scope="module")
def toy():
    """Vectors of four well separated classes, and a data set whose labels they carry."""
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 4
    images = rng.integers(0, 256, (500, 4, 4, 3), dtype=np.uint8)
    data = ImageSet("toy", images[:400], labels[:400], images[400:], labels[400:], tuple("abcd"))
    vectors = (4 * np.eye(4)[labels] + rng.standard_normal((500, 4))).astype(np.float32)
    return data, vectors


class TestClassify:
    @pytest.mark.parametrize("protocol", ["paper", "shared"])
    @pytest.mark.parametrize("classifier", ["mlp", "random_forest", "adaboost"])
    def test_the_drawn_classes_alone_are_learned(self, toy, protocol, classifier):
        data, vectors = toy
        work = job(protocol=protocol, classifier=classifier)
        parts = split(data, protocol, work.classifier, 1)
        (record,) = classify(work, vectors, data.labels, parts, QUICK)
        drawn = np.isin(data.labels[parts.test], (1, 3)).sum()
        assert record.metrics["test_size"] == drawn == np.sum(record.detail["confusion"])
        assert record.metrics["accuracy"] > 0.9
        assert record.key == f"classification/a/masked/toy/2/0/{protocol}/{classifier}"

    @pytest.mark.parametrize("classifier", ["random_forest", "adaboost"])
    def test_further_numbers_of_estimators_are_what_fitting_so_many_gives(self, toy, classifier):
        data, vectors = toy
        parts, noisy = split(data, "paper", classifier, 1), vectors + 3 * vectors[::-1]
        work = job(protocol="paper", classifier=classifier, estimators=(2, 9))
        records = classify(work, noisy, data.labels, parts, QUICK)
        assert [r.what["classifier"] for r in records] == [classifier, f"{classifier}@2", f"{classifier}@9"]
        assert [r.key for r in records] == list(work.keys.values())
        for record, count in zip(records, (5, 2, 9), strict=True):
            alone = replace(QUICK, **{classifier: replace(getattr(QUICK, classifier), estimators=count)})
            (wanted,) = classify(job(protocol="paper", classifier=classifier), noisy, data.labels, parts, alone)
            assert (record.metrics, record.detail) == (wanted.metrics, wanted.detail)
        assert len({str(r.detail["scores"]) for r in records}) == 3

    @pytest.mark.parametrize("device", DEVICES)
    def test_networks_in_one_program_say_what_they_say_alone(self, toy, device):
        data, vectors = toy
        parts = split(data, "shared", "mlp", 1)
        jobs = [job(draw=draw, classes=classes, seed=draw) for draw, classes in enumerate([(0, 1), (1, 3), (0, 2, 3)])]
        jobs.append(job(representation="mirrored"))
        own = [*[vectors] * 3, np.stack((vectors, vectors[:, ::-1]))]
        found = classify_together(jobs, own, data.labels, parts, QUICK, device)
        for (record,), work, mine in zip(found, jobs, own, strict=True):
            (alone,) = classify(work, mine, data.labels, parts, QUICK)
            assert record.key == alone.key
            assert record.metrics == pytest.approx(alone.metrics, abs=0.021)  # one test image of 50
            assert record.detail.pop("device")
            assert record.detail.keys() == alone.detail.keys()

    def test_scaling_is_learned_on_the_training_part_and_makes_units_irrelevant(self, toy):
        data, vectors = toy
        parts = split(data, "shared", "mlp", 1)
        scores = [
            classify(job(), scaled, data.labels, parts, QUICK)[0].metrics["accuracy"]
            for scaled in (vectors, (vectors * 1024 - 512).astype(np.float32))
        ]
        assert scores[0] == scores[1]

    @pytest.mark.parametrize("classifier", ["mlp", "random_forest", "adaboost"])
    def test_mirrored_learns_from_both_views_and_judges_by_their_mean(self, toy, classifier):
        data, vectors = toy
        parts, work = split(data, "shared", classifier, 1), job(representation="mirrored", classifier=classifier)
        views = np.stack((vectors + 2 * vectors[::-1], vectors - 2 * vectors[::-1]))
        (record,) = classify(work, views, data.labels, parts, QUICK)

        mean, deviation = views[:, parts.train].mean(axis=(0, 1)), views[:, parts.train].std(axis=(0, 1))
        inputs, wanted = [], []
        for part in (parts.train, parts.validation, parts.test):
            chosen = part[np.isin(data.labels[part], (1, 3))]
            inputs.append((views[:, chosen] - mean) / deviation)
            wanted.append(data.labels[chosen] // 2)
        train, validation = ((x.reshape(-1, 4), np.tile(y, 2)) for x, y in zip(inputs[:2], wanted[:2], strict=True))
        fitted = classifiers.fit(classifiers.build(classifier, QUICK, work.seed), train, validation)
        certainty = fitted.predict_proba(inputs[2][0]) + fitted.predict_proba(inputs[2][1])
        assert record.metrics["accuracy"] == pytest.approx((certainty.argmax(axis=1) == wanted[2]).mean(), abs=0.02)
        assert (record.metrics["train_size"], record.metrics["test_size"]) == (len(train[0]), len(wanted[2]))

    def test_it_repeats(self, toy):
        data, vectors = toy
        parts = split(data, "shared", "mlp", 1)
        (one,), (two,) = (classify(job(), vectors, data.labels, parts, QUICK) for _ in range(2))
        assert (one.metrics, one.detail) == (two.metrics, two.detail)


@pytest.fixture(scope="module")
def measured(images):
    torch.manual_seed(0)
    config = NetworkConfig(widths=(4, 4, 4), normalise_latent=True)
    nets = [Autoencoder(LatentConfig(gaussian=6, categorical=3), config).eval() for _ in range(2)]
    work = ReconstructionJob(source=SOURCE, decoders=("a", "b"), images="V", shown=3, seed=1)
    mean = images.mean(axis=0, keepdims=True).astype(np.uint8)
    records, pictures = reconstruct(work, nets[0].encoder, [n.decoder for n in nets], images, mean)
    assert [r.key for r in records] == work.keys  # what a study looks for before it measures again
    return nets, {r.what["decoder"]: r for r in records}, pictures


class TestReconstruct:
    def test_matched_and_unmatched_are_the_mean_over_all_components(self, images, measured):
        nets, records, _ = measured
        masked = mask(nets[0].encoder, images)
        for name, net, kind in (("a", nets[0], "matched"), ("b", nets[1], "unmatched")):
            error = np.square(unmask(net.decoder, masked) - images / 255.0)
            record = records[name]
            assert record.what["pair"] == kind
            assert record.metrics["mse"] == pytest.approx(error.mean(), rel=1e-5)
            by_image = error.reshape(96, -1).mean(axis=1)
            assert record.metrics["sigma_images"] == pytest.approx(by_image.std(ddof=1), rel=1e-5)
            by_batch = by_image.reshape(6, 16).mean(axis=1)
            assert record.metrics["sigma_batches"] == pytest.approx(by_batch.std(ddof=1), rel=1e-5)

    def test_controls_are_what_they_say(self, images, measured):
        _, records, _ = measured
        x = images / 255.0
        mean = images.mean(axis=0, keepdims=True).astype(np.uint8) / 255.0
        assert records["mean image"].metrics["mse"] == pytest.approx(np.square(x - mean).mean(), rel=1e-5)
        pair = np.mean([np.square(x[i] - x[j]).mean() for i in range(96) for j in range(96) if i != j])
        assert records["random image"].metrics["mse"] == pytest.approx(pair, rel=0.15)
        assert {"a", "b", "mean image", "random image", "random latent"} == set(records)

    def test_pictures_are_those_of_the_first_images(self, images, measured):
        nets, _, pictures = measured
        np.testing.assert_array_equal(pictures.originals, images[:3])
        assert pictures.restored.shape == (2, 3, 32, 32, 3)
        own = np.rint(unmask(nets[0].decoder, pictures.masked) * 255)
        np.testing.assert_array_equal(pictures.restored[0], own)


class TestControls:
    CONFIG = AutoencoderConfig(latent=LatentConfig(gaussian=6, categorical=3))

    def test_pca_is_scikit_learns(self, images):
        small = np.ascontiguousarray(images[:, ::2, ::2])
        projected = mask(fit_control("pca", self.CONFIG, small, 0), small)
        expected = PCA(9, svd_solver="full").fit_transform(small.reshape(96, -1) / 255.0)
        assert projected.shape == (96, 9)
        np.testing.assert_allclose(np.abs(projected), np.abs(expected), rtol=1e-4, atol=1e-3)

    def test_components_there_are_not_are_zero(self, images):
        config, small = AutoencoderConfig(latent=LatentConfig(gaussian=100, categorical=0)), images[:, ::2, ::2].copy()
        assert (mask(fit_control("pca", config, small, 0), small)[:, 96:] == 0).all()

    def test_a_random_projection_keeps_distances(self, images):
        config = AutoencoderConfig(latent=LatentConfig(gaussian=800, categorical=0))
        projected = mask(fit_control("random_projection", config, images, 3), images)
        flat = images.reshape(96, -1) / 255.0
        before, after = np.linalg.norm(flat[1:] - flat[0], axis=1), np.linalg.norm(projected[1:] - projected[0], axis=1)
        np.testing.assert_allclose(after, before, rtol=0.25)

    @pytest.mark.parametrize("name", ["pca", "random_projection"])
    def test_a_linear_control_is_undone_about_as_well_as_by_least_squares(self, images, name):
        small = np.ascontiguousarray(images[:, ::2, ::2])
        control = fit_control(name, self.CONFIG, small, 3)
        vectors, flat = mask(control, small), small.reshape(96, -1) / 255.0
        expected = LinearRegression().fit(vectors, flat).predict(vectors).clip(0, 1).reshape(small.shape)
        restored = unmask(fit_restoration(control, small), vectors)
        errors = [np.square(some - small / 255.0).mean() for some in (restored, expected)]
        assert errors[1] <= errors[0] < 1.05 * errors[1]

    @pytest.mark.parametrize("length", [60, 63, 64, 70, 200])
    def test_as_many_numbers_as_images_do_no_harm(self, images, length):
        """Least squares alone would restore others worse than the mean image does, by far."""
        config = AutoencoderConfig(latent=LatentConfig(gaussian=length, categorical=0))
        own, others = images[:70], images[70:]  # 63 fit, 7 judge
        control = fit_control("random_projection", config, own, 3)
        restored = unmask(fit_restoration(control, own), mask(control, others))
        errors = [np.square(some - others / 255.0).mean() for some in (restored, own.mean(axis=0) / 255.0)]
        assert errors[0] < 1.1 * errors[1]

    def test_vectors_that_do_not_vary_give_the_mean_image(self, images):
        class Nothing(Projection):
            def forward(self, x_BCHW):
                return 0 * super().forward(x_BCHW)

        control = fit_control("random_projection", self.CONFIG, images, 3)
        restored = unmask(fit_restoration(Nothing(control.mean, control.matrix), images), mask(control, images)[:2])
        mean = images[np.arange(96) % 10 > 0].mean(axis=0) / 255.0
        np.testing.assert_allclose(restored, np.stack((mean, mean)), atol=1e-6)

    def test_an_untrained_encoder_has_the_statistics_of_its_images(self, images):
        encoder = fit_control("untrained", self.CONFIG, images, 3)
        assert mask(encoder, images).shape == (96, 9)
        convolution, norm = encoder.features[:2]
        with torch.no_grad():
            h_BCHW = convolution(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
        torch.testing.assert_close(norm.running_mean, h_BCHW.mean(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, h_BCHW.var(dim=(0, 2, 3)), rtol=1e-4, atol=1e-5)
