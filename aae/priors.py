"""The two priors: samples of them, and how far a set of latents is from them.

A latent whose losses went down need not follow its prior, and matching means and deviations is not matching a
Gaussian: `diagnose` therefore looks at the whole covariance spectrum and at every marginal, each beside a true
sample of the same size, and `judge` trains a fresh discriminator and counts how often it is right.

Shapes: N vectors, G Gaussian dimensions, K categories.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aae.networks import Discriminator

Array = NDArray[np.float32]


def sample_gaussian(count: int, gaussian: int, generator: torch.Generator) -> Tensor:
    """Independent standard normal vectors, (count, gaussian)."""
    return torch.randn(count, gaussian, generator=generator, device=generator.device)


def sample_categorical(count: int, categorical: int, generator: torch.Generator, noise: float = 0.0) -> Tensor:
    """One-hot vectors of equally likely categories, (count, categorical), blurred by the given deviation.

    A softmax never is exactly one-hot, so without noise a discriminator can win by exactness alone. The blur is
    half-normal and keeps the sum at one, as a softmax does.
    """
    device = generator.device
    labels = torch.randint(categorical, (count,), generator=generator, device=device)
    sample = functional.one_hot(labels, categorical).float()
    if noise:
        sample += torch.randn(count, categorical, generator=generator, device=device).abs_() * noise / categorical
        sample /= sample.sum(dim=1, keepdim=True)
    return sample


def diagnose(z_NG: Array, p_NK: Array, *, seed: int = 0) -> dict[str, float]:
    """Describe latents, and a true Gaussian sample of the same size, by numbers.

    Returns, for the Gaussian part: largest absolute mean, smallest and largest deviation of a dimension,
    effective rank (exponential of the entropy of the covariance spectrum, at most G), largest eigenvalue, largest
    absolute correlation of two dimensions, mean Wasserstein-1 distance of a marginal to N(0, 1), and deviation of the
    vectors' length over its mean; those with the suffix `_sample` belong to the true sample. For the categorical
    part, absent when K = 0: categories named by at least 1% of the vectors, entropy of their use over its maximum,
    and the mean largest probability.
    """
    rng = np.random.default_rng(seed)
    measured = _gaussian_numbers(z_NG)
    sample = _gaussian_numbers(rng.standard_normal(z_NG.shape, dtype=np.float32))
    numbers = measured | {
        f"{key}_sample": sample[key]
        for key in ("effective_rank", "largest_correlation", "largest_eigenvalue", "marginal_distance", "length_spread")
    }
    if p_NK.shape[1]:
        categories = p_NK.shape[1]
        use_K = np.bincount(p_NK.argmax(axis=1), minlength=categories) / len(p_NK)
        used_K = use_K[use_K > 0]
        numbers |= {
            "categories_used": float((use_K >= 0.01).sum()),
            "category_entropy": float(-(used_K * np.log(used_K)).sum() / np.log(categories)),
            "largest_probability": float(p_NK.max(axis=1).mean()),
        }
    return numbers


def _gaussian_numbers(z_NG: Array) -> dict[str, float]:
    n = len(z_NG)
    deviation_G = z_NG.std(axis=0, dtype=np.float64)
    centred_NG = z_NG - z_NG.mean(axis=0, dtype=np.float64).astype(np.float32)
    covariance_GG = (centred_NG.T @ centred_NG).astype(np.float64) / max(n - 1, 1)
    spectrum_G = np.linalg.eigvalsh(covariance_GG).clip(min=0)
    share_G = spectrum_G[spectrum_G > 0] / max(spectrum_G.sum(), 1e-300)
    scale_G = np.maximum(deviation_G, 1e-12)
    correlation_GG = covariance_GG / np.outer(scale_G, scale_G)
    np.fill_diagonal(correlation_GG, 0)
    levels_N = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).numpy()
    length_N = np.linalg.norm(z_NG, axis=1)
    return {
        "mean_largest": float(np.abs(z_NG.mean(axis=0, dtype=np.float64)).max()),
        "deviation_smallest": float(deviation_G.min()),
        "deviation_largest": float(deviation_G.max()),
        "effective_rank": float(np.exp(-(share_G * np.log(share_G)).sum())),
        "largest_eigenvalue": float(spectrum_G[-1]),
        "largest_correlation": float(np.abs(correlation_GG).max()),
        "marginal_distance": float(np.abs(np.sort(z_NG, axis=0) - levels_N[:, None]).mean()),
        "length_spread": float(length_N.std() / max(length_N.mean(), 1e-12)),
    }


def judge(train: Array, test: Array, part: str, *, seed: int = 0, epochs: int = 10) -> float:
    """Held-out accuracy of a freshly trained discriminator; 0.5 is a latent it cannot tell from the prior.

    Args:
        train, test: encoded vectors of one part of the latent, (N, G) or (N, K), from different images.
        part: "gaussian" or "categorical": the prior to tell them from, exact one-hot in the second case.
        epochs: passes over `train`, each with new samples of the prior.
    """
    assert part in ("gaussian", "categorical")
    sample = sample_gaussian if part == "gaussian" else sample_categorical
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        discriminator = Discriminator(train.shape[1], (256, 256))
    adam = torch.optim.Adam(discriminator.parameters(), fused=True)
    encoded = torch.from_numpy(train)
    size = min(128, len(encoded))
    for _ in range(epochs):
        for index in torch.randperm(len(encoded), generator=generator).split(size):
            real = discriminator(sample(len(index), train.shape[1], generator))
            fake = discriminator(encoded[index])
            adam.zero_grad()
            (functional.softplus(-real).mean() + functional.softplus(fake).mean()).backward()
            adam.step()
    with torch.no_grad():
        held_out = torch.from_numpy(test)
        real = discriminator(sample(len(test), test.shape[1], generator)) > 0
        fake = discriminator(held_out) <= 0
    return float((real.float().mean() + fake.float().mean()) / 2)
