"""Adversarial training (paper, section "Adversarial training"): one step, and epochs of steps.

Shapes: N images, B images of a batch, C channels, H rows, W columns; D latent dimensions, G of them Gaussian;
J discriminators.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aae.config import AutoencoderConfig
from aae.contrast import contrastive_loss, views
from aae.flow import FLOOR, fit, round_to_half
from aae.masking import mask, unmask_tensor
from aae.networks import Autoencoder, running_statistics_kept
from aae.priors import diagnose, sample_categorical, sample_gaussian
from engine import repeat, repeatable
from engine.adam import Adam

Images = NDArray[np.uint8]

#: The losses of a step, in the order in which it returns them.
LOSSES = (
    "reconstruction_loss",
    "contrastive_loss",
    "generating_loss",
    "gaussian_discriminator_loss",
    "categorical_discriminator_loss",
)

#: The whitening is estimated on this many training images at most: between epochs, and after the last one.
WHITENING_IMAGES = (20_000, 100_000)

#: Variances below this share of the largest are not made white: between epochs, and after the last one. Variances of
#: the latent span six orders of magnitude, so the first leaves half of 384 directions as they are; but gradients pass
#: through the map, and it keeps them from being magnified more than a hundredfold over the largest direction's.
WHITENING_FLOOR = (1e-4, FLOOR)


class DivergedError(ArithmeticError):
    """A loss is no longer a finite number."""


# --- the step ----------------------------------------------------------------------------------------------------


def two_phase_step(state: TrainingState, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Take the paper's step on a batch; return its `LOSSES`.

    The order is the algorithm. Reconstruction: encoder and decoder rebuild the images. Regularisation: the
    discriminators learn to tell samples of the priors from encoded images, detached, so that no gradient returns
    to the encoder; then the encoder alone moves so that they take its output for samples.
    """
    nets, weight = state.nets, state.config.training.adversarial_weight
    loss, *parts = _autoencoding(state, x_BCHW, nets.encoder(x_BCHW), generator)
    state.autoencoder_adam.descend(loss)
    if not weight:
        return torch.stack((*parts, *x_BCHW.new_zeros(3)))

    z_BD = nets.encoder(x_BCHW)
    judged = _discriminator_losses(nets, z_BD.detach(), _samples(state.config, generator, len(x_BCHW)))
    state.discriminator_adam.descend(judged.sum())

    generating = _generating_loss(nets, z_BD)
    state.generator_adam.descend(weight * generating)
    return torch.cat((torch.stack((*parts, generating.detach())), judged.detach()))


def one_pass_step(state: TrainingState, x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Take both phases with one pass through the encoder; return the `LOSSES`.

    The autoencoder moves first, on the sum of the reconstruction error and the weighted generating loss; the
    discriminators move second, on the same encoded images, detached.
    """
    nets, weight = state.nets, state.config.training.adversarial_weight
    z_BD = nets.encoder(x_BCHW)
    loss, *parts = _autoencoding(state, x_BCHW, z_BD, generator)
    if not weight:
        state.autoencoder_adam.descend(loss)
        return torch.stack((*parts, *x_BCHW.new_zeros(3)))
    generating = _generating_loss(nets, z_BD)
    state.autoencoder_adam.descend(loss + weight * generating)
    judged = _discriminator_losses(nets, z_BD.detach(), _samples(state.config, generator, len(x_BCHW)))
    state.discriminator_adam.descend(judged.sum())
    return torch.cat((torch.stack((*parts, generating.detach())), judged.detach()))


def _autoencoding(
    state: TrainingState, x_BCHW: Tensor, z_BD: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """What moves encoder and decoder together, and its parts: mean squared error, and contrastive loss if it counts."""
    nets, training = state.nets, state.config.training
    error = functional.mse_loss(nets.decoder(z_BD), x_BCHW)
    if not training.contrastive_weight:
        return error, error.detach(), error.new_zeros(())
    with running_statistics_kept(nets.encoder):  # masking is for images as they are
        u_NG = nets.encoder.contrasted(views(x_BCHW, generator))
    contrast = contrastive_loss(u_NG, training.contrastive_temperature)
    return error + training.contrastive_weight * contrast, error.detach(), contrast.detach()


def _generating_loss(nets: Autoencoder, z_BD: Tensor) -> Tensor:
    """Binary cross-entropy of encoded images labelled as real, summed over the discriminators."""
    return functional.softplus(-_logits(nets, _parts(nets, z_BD))).mean(dim=1).sum()


def _discriminator_losses(nets: Autoencoder, z_BD: Tensor, samples: tuple[Tensor, Tensor]) -> Tensor:
    """Binary cross-entropy of samples labelled real and encoded images labelled fake: Gaussian, categorical."""
    logits_JN = _logits(nets, [torch.cat(both) for both in zip(samples, _parts(nets, z_BD), strict=True)])
    sign_N = torch.ones_like(logits_JN[0])
    sign_N[: len(samples[0])] = -1
    losses_J = functional.softplus(logits_JN * sign_N).mean(dim=1)
    return functional.pad(losses_J, (0, 2 - len(losses_J)))


def _parts(nets: Autoencoder, z_BD: Tensor) -> tuple[Tensor, ...]:
    """The Gaussian part, and the categorical one, which may be empty."""
    return z_BD.split((nets.latent.gaussian, nets.latent.categorical), dim=1)


def _logits(nets: Autoencoder, parts: Sequence[Tensor]) -> Tensor:
    """What each of the J discriminators says of its part, (J, N)."""
    judges = nets.gaussian_discriminator, nets.categorical_discriminator
    return torch.stack([judge(part) for judge, part in zip(judges, parts, strict=True) if judge is not None])


# --- the state ---------------------------------------------------------------------------------------------------


class TrainingState:
    """Networks and optimisers of one autoencoder in training: all that a checkpoint must hold.

    Weights are initialised from `seed`; epoch e draws its order and its samples from `(seed, e)`, so an interrupted
    training goes on at an epoch boundary with the numbers it would have had.
    """

    def __init__(self, config: AutoencoderConfig, seed: int, device: str | torch.device = "cpu") -> None:
        self.config, self.seed, self.device, self.epoch = config, seed, torch.device(device), 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            nets = Autoencoder(config.latent, config.network)
        self.nets = nets.to(self.device).to(memory_format=torch.channels_last)
        encoder, decoder = nets.autoencoder_parameters()
        self.autoencoder_adam = self._adam(encoder, decoder)
        self.discriminator_adam = self._adam(nets.discriminator_parameters())
        # An Adam of its own makes the regularisation phase as strong as the other whatever its weight: that is
        # the paper's recipe, and why it fails. Sharing the moments is what gives the weight a meaning.
        separate = config.training.recipe == "paper"
        self.generator_adam = self._adam(encoder) if separate else self.autoencoder_adam

    def _adam(self, *parts: list[torch.nn.Parameter]) -> Adam:
        training = self.config.training
        # On a GPU the rate is a tensor: a captured step reads it anew.
        on_gpu = self.device.type == "cuda"
        rate = torch.tensor(training.learning_rate, device=self.device) if on_gpu else training.learning_rate
        return Adam(*parts, rate=rate, betas=training.betas)

    @property
    def adams(self) -> dict[str, Adam]:
        named = {"autoencoder": self.autoencoder_adam, "discriminator": self.discriminator_adam}
        return named if self.generator_adam is self.autoencoder_adam else named | {"generator": self.generator_adam}

    def set_learning_rate(self, rate: Tensor) -> None:
        for adam in self.adams.values():
            if isinstance(adam.rate, Tensor):
                adam.rate.copy_(rate)
            else:
                adam.rate = rate.item()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training changes, by name, on the CPU."""
        named = {f"nets.{key}": value for key, value in self.nets.state_dict().items()}
        for name, adam in self.adams.items():
            named |= {f"adam.{name}.{key}": value for key, value in adam.tensors().items()}
        named["epoch"] = torch.tensor(self.epoch)
        return {key: value.detach().cpu().contiguous() for key, value in named.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `tensors` returned, for the same configuration and seed."""

        def below(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        self.nets.load_state_dict(below("nets."))
        for name, adam in self.adams.items():
            adam.load(below(f"adam.{name}."))
        self.epoch = int(tensors["epoch"])


# --- the epochs --------------------------------------------------------------------------------------------------


def train_epochs(state: TrainingState, train: Images, held_out: Images) -> Iterator[dict[str, float]]:
    """Train up to the configured number of epochs; yield the metrics of each when it is done.

    The caller owns `state`, which moves on between yields, and may save it or stop there.

    Args:
        state: a new one, or one that was loaded; training goes on after its epoch.
        train: uint8 images, (N, H, W, C); never normalised as a whole.
        held_out: uint8 images that no step sees, for the held-out error and the distance to the priors.

    Yields:
        `epoch` (from 1), `LOSSES` as means over the steps, `discriminator_loss` (their sum, paper Fig 7),
        `held_out_mse` (mean over pixels in [0, 1] and images), the numbers of `priors.diagnose` on `held_out`,
        `learning_rate`, and the wall time as `seconds`.

    Raises:
        ValueError: images of another size than the configuration's, or a batch larger than the data.
        DivergedError: a loss is not finite.
    """
    training, latent = state.config.training, state.config.latent
    check_images(state.config, train)
    check_images(state.config, held_out)
    if training.batch_size > len(train):
        raise ValueError(
            f"training.batch_size = {training.batch_size}: must be at most the {len(train)} training images"
        )
    images_NHWC = torch.from_numpy(train).to(state.device)
    while state.epoch < training.epochs:
        begin = time.perf_counter()
        losses = _take_steps(state, images_NHWC)
        last = state.epoch + 1 == training.epochs
        if last:  # before anything is fitted to them
            round_to_half(state.nets.encoder)
            round_to_half(state.nets.decoder)
        if training.whiten:
            _place_whitening(state, train, last=last)
        state.epoch += 1
        if last:
            _fit_flow(state, train)
        z_ND = mask(state.nets.encoder, held_out)
        yield {
            "epoch": state.epoch,
            **losses,
            "discriminator_loss": losses["gaussian_discriminator_loss"] + losses["categorical_discriminator_loss"],
            "held_out_mse": held_out_mse(state.nets, held_out, z_ND),
            **diagnose(z_ND[:, : latent.gaussian], z_ND[:, latent.gaussian :]),
            "learning_rate": float(state.autoencoder_adam.rate),
            "seconds": time.perf_counter() - begin,
        }


def _take_steps(state: TrainingState, images_NHWC: Tensor) -> dict[str, float]:
    """Take the steps of an epoch; the means of their losses."""
    training, device, generator = state.config.training, state.device, _generator(state)
    step = one_pass_step if training.recipe == "one_pass" else two_phase_step
    steps = len(images_NHWC) // training.batch_size
    state.nets.train()
    total = torch.zeros(len(LOSSES), device=device)
    order_N = torch.randperm(len(images_NHWC), generator=generator, device=device)
    rates_S = [_learning_rate(state.config, state.epoch + number / steps) for number in range(steps)]
    with repeatable(device):
        repeat(
            partial(_take, step, state, images_NHWC, generator, total),
            order_N[: steps * training.batch_size].view(steps, training.batch_size),
            torch.tensor(rates_S, dtype=torch.float64, device=device),
            generator=generator,
        )
    losses = dict(zip(LOSSES, (total / steps).tolist(), strict=True))
    if not all(map(math.isfinite, losses.values())):
        raise DivergedError(f"epoch {state.epoch + 1}: {losses}")
    return losses


def _take(
    step: Callable[..., Tensor],
    state: TrainingState,
    images_NHWC: Tensor,
    generator: torch.Generator,
    total: Tensor,
    index_B: Tensor,
    rate: Tensor,
) -> None:
    """Take one step on the images of this index, at this rate; its losses are added to `total`."""
    state.set_learning_rate(rate)
    x_BCHW = images_NHWC[index_B].permute(0, 3, 1, 2).float().div_(255)
    total += step(state, x_BCHW, generator)


def check_images(config: AutoencoderConfig, images: Images) -> None:
    """Raise `ValueError` unless the images are uint8, (N, H, W, C), not empty, and of the configured size."""
    network = config.network
    wanted = (network.image_size, network.image_size, network.channels)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted or not len(images):
        raise ValueError(
            f"images of type {images.dtype} and shape {images.shape}: must be uint8 and (N, {wanted[0]}, {wanted[1]}, "
            f"{wanted[2]}) with N at least 1"
        )


def held_out_mse(nets: Autoencoder, images: Images, z_ND: NDArray[np.float32]) -> float:
    """Mean squared error of the images rebuilt from their masked form, pixels in [0, 1]."""
    total = 0.0
    for begin in range(0, len(images), 1000):
        rebuilt = unmask_tensor(nets.decoder, z_ND[begin : begin + 1000])
        target = torch.from_numpy(images[begin : begin + 1000]).to(rebuilt.device).float().div_(255)
        total += (rebuilt - target).square().mean(dim=(1, 2, 3)).double().sum().item()
    return total / len(images)


def _generator(state: TrainingState) -> torch.Generator:
    derived = np.random.SeedSequence([state.seed, state.epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator(device=state.device).manual_seed(int(derived) & (2**63 - 1))


def _samples(config: AutoencoderConfig, generator: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Draw from both priors; the second is empty where there is no categorical part."""
    latent = config.latent
    gaussian = sample_gaussian(count, latent.gaussian, generator)
    if not latent.categorical:
        return gaussian, gaussian.new_zeros(count, 0)
    return gaussian, sample_categorical(count, latent.categorical, generator, config.training.sample_noise)


def _learning_rate(config: AutoencoderConfig, passed: float) -> float:
    """The rate after `passed` epochs; a cosine from the configured rate to a hundredth of it."""
    training = config.training
    if training.schedule == "constant":
        return training.learning_rate
    return training.learning_rate * (0.505 + 0.495 * math.cos(math.pi * passed / training.epochs))


def _place_whitening(state: TrainingState, train: Images, *, last: bool) -> None:
    """Estimate mean and covariance of the Gaussian part, before whitening, on training images in evaluation mode."""
    stride = max(1, -(-len(train) // WHITENING_IMAGES[last]))
    z_ND = torch.from_numpy(mask(state.nets.encoder, train[::stride])).to(state.device)
    u_NG = state.nets.encoder.whitening.undo(z_ND[:, : state.config.latent.gaussian]).detach().double()
    covariance_GG = torch.cov(u_NG.T, correction=0).reshape(u_NG.shape[1], -1)
    state.nets.set_whitening(u_NG.mean(dim=0).float(), covariance_GG, floor=WHITENING_FLOOR[last])


def _fit_flow(state: TrainingState, train: Images) -> None:
    """Fit the flow to training images in evaluation mode, as they are and mirrored; the decoder gets the same one."""
    if not state.config.network.couplings:
        return
    stride = max(1, -(-len(train) // WHITENING_IMAGES[1]))
    views = (train[::stride], train[::stride, :, ::-1])
    flow, gaussian = state.nets.encoder.flow, state.config.latent.gaussian
    views_NG = [torch.from_numpy(mask(state.nets.encoder, v)[:, :gaussian]).to(state.device) for v in views]
    fit(flow, views_NG, _generator(state))
    state.nets.decoder.flow.load_state_dict(flow.state_dict())
