"""A true sample passes, and what looks like one by mean and deviation alone does not."""

import numpy as np
import torch

from aae.priors import diagnose, judge, sample_categorical


def gaussian(n=4000, d=24, seed=1):
    return np.random.default_rng(seed).standard_normal((n, d), dtype=np.float32)


def one_hot(n=4000, k=6, seed=1):
    return np.eye(k, dtype=np.float32)[np.random.default_rng(seed).integers(k, size=n)]


class TestDiagnose:
    def test_a_true_sample_looks_like_one(self):
        numbers = diagnose(gaussian(), one_hot())
        assert numbers["mean_largest"] < 0.06
        assert abs(numbers["effective_rank"] - numbers["effective_rank_sample"]) < 0.2
        assert numbers["largest_correlation"] < 1.6 * numbers["largest_correlation_sample"]
        assert numbers["marginal_distance"] < 0.03
        assert numbers["categories_used"] == 6
        assert numbers["category_entropy"] > 0.99
        assert numbers["largest_probability"] == 1

    def test_correlated_dimensions_of_unit_deviation_are_found(self):
        shared = gaussian()
        shared[:, 1:] = 0.6 * shared[:, :1] + 0.8 * shared[:, 1:]
        numbers = diagnose(shared, one_hot())
        assert abs(numbers["deviation_largest"] - 1) < 0.05
        assert numbers["largest_correlation"] > 0.5
        assert numbers["effective_rank"] < 20

    def test_a_collapsed_category_and_a_constant_dimension_stay_finite(self):
        z, p = gaussian(), np.zeros((4000, 6), dtype=np.float32)
        z[:, 0], p[:, 2] = 0, 1
        numbers = diagnose(z, p)
        assert numbers["categories_used"] == 1
        assert numbers["category_entropy"] == 0
        assert numbers["deviation_smallest"] == 0
        assert all(np.isfinite(value) for value in numbers.values())

    def test_without_categories_their_numbers_are_absent(self):
        assert "categories_used" not in diagnose(gaussian(), np.zeros((4000, 0), dtype=np.float32))


class TestJudge:
    def test_a_true_sample_cannot_be_told(self):
        assert abs(judge(gaussian(seed=1), gaussian(seed=2), "gaussian", epochs=3) - 0.5) < 0.04
        assert abs(judge(one_hot(seed=1), one_hot(seed=2), "categorical", epochs=3) - 0.5) < 0.04

    def test_heavier_tails_are_told_though_means_and_deviations_fit(self):
        def spread(seed):
            scale = np.random.default_rng(seed).choice([0.5, 1.32], size=(4000, 1))
            return (gaussian(seed=seed) * scale).astype(np.float32)

        assert judge(spread(1), spread(2), "gaussian", epochs=5) > 0.7

    def test_it_repeats(self):
        assert judge(gaussian(), gaussian(seed=2), "gaussian", epochs=1) == judge(
            gaussian(), gaussian(seed=2), "gaussian", epochs=1
        )


def test_blurred_one_hot_samples_stay_on_the_simplex():
    sample = sample_categorical(500, 5, torch.Generator().manual_seed(0), noise=0.3)
    assert torch.allclose(sample.sum(dim=1), torch.ones(500))
    assert (sample >= 0).all()
    assert sample.max() < 1
    exact = sample_categorical(500, 5, torch.Generator().manual_seed(0))
    assert set(exact.unique().tolist()) == {0.0, 1.0}
