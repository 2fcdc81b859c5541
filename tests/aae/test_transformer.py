"""The transformer by scikit-learn's manners, and on images."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import aae
import aae.networks
from aae import Masker

SMALL = {"widths": (4, 4, 4), "epochs": 2, "random_state": 0}


@parametrize_with_checks([Masker(gaussian=4, categorical=2, epochs=1, widths=(2,), random_state=0)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("shape", [(32, 32, 3), (32, 32, 1), (32, 32), (16, 16, 3)])
def test_images_come_back_in_shape_and_type(images, shape):
    x = np.ascontiguousarray(images[:, : shape[0], : shape[1], : shape[2] if len(shape) == 3 else 1])
    x = x.reshape(len(x), *shape)
    masker = Masker(gaussian=6, categorical=3, **SMALL).fit(x)
    masked = masker.transform(x)
    assert masked.shape == (96, 9)
    restored = masker.inverse_transform(masked)
    assert (restored.shape, restored.dtype) == (x.shape, np.uint8)


def test_training_restores_better_than_the_mean(images):
    x = images.repeat(4, axis=0)
    masker = Masker(gaussian=64, categorical=4, epochs=12, random_state=0).fit(x)
    restored = masker.inverse_transform(masker.transform(x)).astype(float)
    assert np.square(restored - x).mean() < 0.5 * np.square(x.mean(axis=0) - x).mean()
    assert len(masker.history_) == 12


def test_a_seed_repeats_and_a_clone_is_fresh(images):
    masker = Masker(gaussian=5, categorical=0, **SMALL)
    first = masker.fit(images).transform(images)
    np.testing.assert_array_equal(clone(masker).fit(images).transform(images), first)
    other = clone(masker).set_params(random_state=1).fit(images).transform(images)
    assert not np.array_equal(other, first)


def test_the_public_names_are_those_of_the_commands(images, tmp_path):
    nets = aae.networks.Autoencoder(aae.config.LatentConfig(gaussian=4, categorical=2), aae.config.NetworkConfig())
    aae.save_pair(tmp_path, nets, aae.config.NetworkConfig())
    encoder, decoder = (aae.load_key(tmp_path / f"{part}.safetensors").module for part in ("encoder", "decoder"))
    assert aae.unmask(decoder, aae.mask(encoder, images)).shape == images.shape
    assert all(getattr(aae, name).__doc__ for name in aae.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'decrypt'"):
        _ = aae.decrypt


def test_it_is_searched_in_a_pipeline(images):
    flat, labels = images.reshape(96, -1), np.arange(96) % 2
    search = GridSearchCV(
        make_pipeline(Masker(categorical=0, epochs=1, widths=(2, 2, 2), random_state=0), LogisticRegression()),
        {"masker__gaussian": [3, 5]},
        cv=2,
    ).fit(flat, labels)
    assert search.best_params_["masker__gaussian"] in (3, 5)
    assert len(search.best_estimator_[0].get_feature_names_out()) == search.best_params_["masker__gaussian"]


def test_frames_carry_names(images):
    masker = Masker(gaussian=2, categorical=2, **SMALL).set_output(transform="pandas").fit(images)
    assert list(masker.transform(images).columns) == ["gaussian0", "gaussian1", "categorical0", "categorical1"]


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (np.zeros((4, 32, 32, 3)), "float64"),
        (np.zeros((4, 32, 30, 3), np.uint8), "must be uint8, square"),
        (np.zeros((1, 32, 32, 3), np.uint8), "1 sample"),
        (np.zeros((4, 30, 30, 3), np.uint8), "image_size = 30: must be a multiple of 4"),
    ],
)
def test_wrong_images_are_told(x, told):
    with pytest.raises(ValueError, match=told):
        Masker(gaussian=2, categorical=0, epochs=1).fit(x)


def test_images_of_another_shape_than_in_fit_are_told(images):
    masker = Masker(gaussian=2, categorical=0, **SMALL).fit(images)
    for other in (images[:, :16, :16], images.reshape(96, -1)):
        with pytest.raises(ValueError, match="in fit"):
            masker.transform(other)
    with pytest.raises(ValueError, match="must be"):
        masker.inverse_transform(np.zeros((3, 7)))


@pytest.mark.parametrize("features", [4, 100, 1100, 3600])
def test_flat_vectors_of_any_length_fit(features):
    x = np.random.default_rng(0).normal(size=(6, features))
    masked = Masker(gaussian=3, categorical=0, epochs=1, random_state=0).fit_transform(x)
    assert masked.shape == (6, 3)
