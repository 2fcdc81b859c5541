"""Errors, similarity and ranks against what they are by definition."""

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from attacks.metrics import mse, psnr, ssim
from attacks.reidentification import grade, identify


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    truth = rng.random((6, 12, 12, 3)).astype(np.float32)
    return truth, (truth + 0.1 * rng.standard_normal(truth.shape)).clip(0, 1).astype(np.float32)


def test_mse_and_psnr(pair):
    truth, restored = pair
    np.testing.assert_allclose(mse(truth, restored)[2], np.square(truth[2] - restored[2]).mean(), rtol=1e-5)
    assert psnr(np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), 0.1)) == pytest.approx(20.0)
    assert psnr(truth, truth)[0] == 100


def test_ssim_is_its_definition_over_whole_windows(pair):
    x, y = (sliding_window_view(a.astype(float), (7, 7), axis=(1, 2)) for a in pair)
    mean_x, mean_y = x.mean(axis=(4, 5)), y.mean(axis=(4, 5))
    var_x, var_y = x.var(axis=(4, 5), ddof=1), y.var(axis=(4, 5), ddof=1)
    both = ((x - mean_x[..., None, None]) * (y - mean_y[..., None, None])).sum(axis=(4, 5)) / 48
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * both + 0.03**2)
    expected = (top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(ssim(*pair), expected, rtol=1e-6)


def test_ssim_of_equal_constant_and_small_images_is_one():
    for shape in ((2, 9, 9, 1), (2, 4, 4, 3), (2, 1, 1, 1)):
        np.testing.assert_allclose(ssim(np.full(shape, 0.4), np.full(shape, 0.4)), 1)


class TestIdentify:
    def test_the_true_images_are_found(self, pair):
        found = identify(pair[0], pair[0])
        assert (found.top1, found.top5, found.mrr) == (1, 1, 1)

    def test_another_order_is_not(self, pair):
        found = identify(pair[0], np.roll(pair[0], 1, axis=0))
        assert found.top1 == 0
        assert found.mrr <= 0.5

    @pytest.mark.parametrize("ordered", [False, True])
    def test_what_says_nothing_has_the_middle_rank(self, ordered):
        truth = np.random.default_rng(0).random((101, 4, 4, 1))
        truth = np.sort(truth, axis=0) if ordered else truth
        found = identify(truth, np.broadcast_to(truth.mean(axis=0), truth.shape))
        assert found.top1 == found.top5 <= 2 / 101  # as many as a random order leaves in their place
        assert found.mrr == pytest.approx(1 / 51.5, abs=2 / 101)

    def test_the_weakest_components_are_enough_where_they_alone_are_restored(self):
        rng = np.random.default_rng(0)
        truth = rng.normal(size=(200, 8, 8, 1)) * np.linspace(5, 1, 64).reshape(8, 8, 1)
        restored = np.broadcast_to(truth.mean(axis=0), truth.shape) + rng.normal(0, 0.3, truth.shape)
        restored[:, 6:] += 0.5 * (truth - truth.mean(axis=0))[:, 6:]
        cosine = (truth - truth.mean(axis=0)).reshape(200, -1), (restored - restored.mean(axis=0)).reshape(200, -1)
        near = cosine[1] @ (cosine[0] / np.linalg.norm(cosine[0], axis=1, keepdims=True)).T
        assert np.mean(near.argmax(axis=1) == np.arange(200)) < 0.5
        assert identify(truth, restored).top1 > 0.8

    def test_chance_is_one_in_n(self):
        rng = np.random.default_rng(0)
        assert identify(rng.random((400, 4, 4, 1)), rng.random((400, 4, 4, 1))).top1 < 0.02


def test_grades_are_the_challenges():
    assert [grade(share) for share in (0.0, 0.049, 0.05, 0.2, 0.21)] == ["good", "good", "moderate", "moderate", "bad"]


def test_few_restored_images_are_looked_up_among_all_candidates():
    rng = np.random.default_rng(0)
    truth = rng.random((300, 4, 4, 1))
    noisy = truth[:20] + rng.normal(0, 0.3, (20, 4, 4, 1))
    among_all, among_few = identify(truth, noisy), identify(truth[:20], noisy)
    assert among_all.top1 < among_few.top1
    assert identify(truth, truth[:20]).mrr == 1
