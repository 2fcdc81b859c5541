"""Controls: other ways to make a vector of the same length from an image, fitted on the autoencoder's own images.

Each is a module from images in [0, 1] to vectors, as an encoder is, so that masking, scaling and classifiers are the
same. What a trained encoder is worth is its difference from these.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aae.config import AutoencoderConfig
from aae.masking import mask
from aae.networks import Autoencoder
from attacks import AttacksConfig
from attacks.ridge import judged
from study.config import Control
from study.pictures import Images

#: Images a control is fitted on at most.
FITTED_ON = 20_000

#: Images whose pixels are held as floating point at once.
CHUNK = 500


class Projection(nn.Module):
    """A linear map of the flattened image."""

    mean: Tensor
    matrix: Tensor

    def __init__(self, mean_P: Tensor, matrix_PD: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_P)
        self.register_buffer("matrix", matrix_PD)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return (x_BCHW.permute(0, 2, 3, 1).flatten(1) - self.mean) @ self.matrix


def fit_control(name: Control, config: AutoencoderConfig, train: Images, seed: int) -> nn.Module:
    """Fit one control.

    Args:
        name: `pca` (the leading components), `random_projection` (Gaussian), or `untrained` (the encoder as it
            starts; its batch-norm statistics are set on `train`, and its whitening is left out).
        config: of the autoencoder it stands beside; decides the length.
        train: the images autoencoders are trained on, uint8, (N, H, W, C).
        seed: of the projection's matrix, or of the weights.
    """
    assert name != "raw", "raw pixels need no module"
    some = _some(train)
    if name == "untrained":
        return _untrained(config, some, seed)
    flat = some.reshape(len(some), -1).astype(np.float32) / 255
    length = config.latent.length
    if name == "random_projection":
        rng = np.random.default_rng(seed)
        matrix = rng.standard_normal((flat.shape[1], length)) / np.sqrt(length)
        return Projection(torch.from_numpy(flat.mean(axis=0)), torch.from_numpy(matrix).float())
    from sklearn.decomposition import PCA

    components = min(length, *flat.shape)
    solver = "full" if 2 * len(flat) < flat.shape[1] else "covariance_eigh"  # exact both; the first for few images
    pca = PCA(n_components=components, svd_solver=solver).fit(flat.astype(np.float64))
    matrix = np.zeros((flat.shape[1], length), dtype=np.float32)  # a latent may be longer than there are components
    matrix[:, :components] = pca.components_.T
    return Projection(torch.from_numpy(pca.mean_).float(), torch.from_numpy(matrix))


class Restoration(nn.Module):
    """A linear map from vectors to images."""

    mean: Tensor
    matrix: Tensor
    picture: Tensor

    def __init__(self, mean_D: Tensor, matrix_DP: Tensor, picture_HWC: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_D)
        self.register_buffer("matrix", matrix_DP)
        self.register_buffer("picture", picture_HWC)

    def forward(self, z_BD: Tensor) -> Tensor:
        flat_BP = (z_BD - self.mean) @ self.matrix
        return (flat_BP.unflatten(1, self.picture.shape) + self.picture).permute(0, 3, 1, 2)


def fit_restoration(control: nn.Module, train: Images) -> Restoration:
    """How who made a control undoes it: by ridge regression, whose penalty one image in ten chooses.

    `attacks.ridge.fit_ridge` would do it, and hold all pixels of all images at once as doubles.

    Args:
        control: of `fit_control`.
        train: the images it was fitted on.
    """
    some = _some(train)
    z_ND = mask(control, some).astype(np.float64)
    fitted = np.flatnonzero(np.arange(len(some)) % 10)
    z_D = z_ND[fitted].mean(axis=0)
    z_ND -= z_D
    picture_P, cross_DP = np.zeros(some[0].size), np.zeros((len(z_D), some[0].size))
    for chunk in np.array_split(fitted, -(-len(fitted) // CHUNK)):  # all pixels at once would take gigabytes
        pixels_NP = _flat(some[chunk])
        picture_P += pixels_NP.sum(axis=0) / len(fitted)
        cross_DP += z_ND[chunk].T @ pixels_NP  # the vectors are centred, so the pixels need not be
    variance_R, turn_DR = np.linalg.eigh(z_ND[fitted].T @ z_ND[fitted])
    cross_RP = turn_DR.T @ cross_DP
    judging_NR, seen_NP = z_ND[::10] @ turn_DR, judged(_flat(some[::10]) - picture_P)

    def shrunk(penalty: float) -> NDArray[np.float64]:
        largest = variance_R[-1]
        held = variance_R > 1e-12 * largest
        return np.divide(1, variance_R + penalty * largest, out=np.zeros_like(variance_R), where=held)

    def left(penalty: float) -> float:
        return float(np.square(judging_NR * shrunk(penalty) @ judged(cross_RP) - seen_NP).mean())

    penalty = min(sorted(AttacksConfig().penalties), key=left)
    matrix_DP = turn_DR * shrunk(penalty) @ cross_RP
    arrays = z_D, matrix_DP, picture_P.reshape(train.shape[1:])
    return Restoration(*(torch.from_numpy(array).float() for array in arrays))


def _flat(images: Images) -> NDArray[np.float64]:
    return images.reshape(len(images), -1) / 255


def _some(train: Images) -> Images:
    return train[:: max(1, -(-len(train) // FITTED_ON))]


def _untrained(config: AutoencoderConfig, train: Images, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Autoencoder(config.latent, config.network).encoder
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
        norm.reset_running_stats()
    encoder.train()
    with torch.no_grad():
        for begin in range(0, len(train) - 1, 500):
            chunk = torch.from_numpy(train[begin : begin + 500]).permute(0, 3, 1, 2).float().div_(255)
            if len(chunk) > 1:
                encoder(chunk)
    assert np.isfinite(mask(encoder, train[:1])).all()
    return encoder.eval()
