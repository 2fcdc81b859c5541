"""Encoder, decoder and discriminators (paper, Fig 2; S1 to S4 Tables are not in its text).

Shapes: B images, C channels, H rows, W columns; G Gaussian and K categorical dimensions, D = G + K; F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from aae.config import LatentConfig, NetworkConfig
from aae.flow import Flow, Whitening
from engine.convolution import Double, Halve


class BatchNorm(nn.BatchNorm2d):
    """In training by torch's own kernels: cuDNN's clear a counter first, and a captured step waits for it as long."""

    def forward(self, input: Tensor) -> Tensor:
        if not (input.is_cuda and self.training) or self.momentum is None or self.num_batches_tracked is None:
            return super().forward(input)
        self.num_batches_tracked.add_(1)
        return torch.batch_norm(
            input,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            True,  # by the statistics of this batch
            self.momentum,
            self.eps,
            False,  # not by cuDNN
        )


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms in training take what passes for a batch, and do not remember it."""
    norms = [part for part in module.modules() if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = 0.0
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _convolutions(network: NetworkConfig) -> nn.Sequential:
    """Images -> features."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise((network.channels, *network.widths)):
        layers.append(Halve(inputs, outputs))
        layers += [BatchNorm(outputs)] if network.batch_norm else []
        layers.append(nn.LeakyReLU(0.2))
    return nn.Sequential(*layers, nn.Flatten())


class Encoder(nn.Module):
    """Images in [0, 1] -> the masked form: the Gaussian part, then the categorical part after its softmax.

    Where the network has a branch, the first of the Gaussian dimensions are its own. The flow is fitted when training
    is over; in training mode both halves of the pair leave it out.
    """

    def __init__(self, latent: LatentConfig, network: NetworkConfig) -> None:
        super().__init__()
        self.features = _convolutions(network)
        features = torch.Size(network.feature_shape).numel()
        of_branch = 0
        if network.branch and latent.gaussian > 2:  # likeness of single numbers is of their signs alone: two at least
            of_branch = min(max(2, round(network.branch * latent.gaussian)), latent.gaussian - 1)
        self.gaussian_head = nn.Linear(features, latent.gaussian - of_branch)
        self.categorical_head = nn.Linear(features, latent.categorical) if latent.categorical else None
        normalise = bool(network.normalise_latent)
        self.categorical_norm = (
            nn.BatchNorm1d(latent.categorical, affine=False) if normalise and latent.categorical else nn.Identity()
        )
        self.logit_scale = network.logit_scale if normalise else 1.0
        self.branch = nn.Sequential(*_convolutions(network), nn.Linear(features, of_branch)) if of_branch else None
        self.whitening = Whitening(latent.gaussian)
        self.flow = Flow(latent.gaussian, network.couplings or 0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BF = self.features(x_BCHW)
        u_BG = self.gaussian_head(h_BF)
        if self.branch is not None:
            u_BG = torch.cat((self.branch(x_BCHW), u_BG), dim=1)
        z_BG = self.whitening(u_BG)
        z_BG = z_BG if self.training else self.flow(z_BG)
        if self.categorical_head is None:
            return z_BG
        logits_BK = self.categorical_norm(self.categorical_head(h_BF)) * self.logit_scale
        return torch.cat((z_BG, logits_BK.softmax(dim=1)), dim=1)

    def contrasted(self, x_BCHW: Tensor) -> Tensor:
        """What the contrastive loss is of, before whitening: the branch, or the Gaussian part where there is none."""
        return self.gaussian_head(self.features(x_BCHW)) if self.branch is None else self.branch(x_BCHW)


class Decoder(nn.Module):
    """The masked form -> images; outputs are not limited to [0, 1]. It undoes flow and whitening first."""

    def __init__(self, latent: LatentConfig, network: NetworkConfig) -> None:
        super().__init__()
        self.gaussian = latent.gaussian
        self.whitening = Whitening(latent.gaussian)
        self.flow = Flow(latent.gaussian, network.couplings or 0)
        shape = network.feature_shape
        features = torch.Size(shape).numel()
        # Normalised by channel: a batch of 16 is too few for statistics of each of the features.
        layers: list[nn.Module] = [nn.Linear(latent.length, features), nn.Unflatten(1, shape)]
        layers += [BatchNorm(shape[0])] if network.batch_norm else []
        layers.append(nn.LeakyReLU(0.2))
        widths = (*reversed(network.widths), network.channels)
        for depth, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers.append(Double(inputs, outputs))
            if depth < len(network.widths):
                layers += [BatchNorm(outputs)] if network.batch_norm else []
                layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers)

    def forward(self, z_BD: Tensor) -> Tensor:
        z_BG, p_BK = z_BD.split((self.gaussian, z_BD.shape[1] - self.gaussian), dim=1)
        u_BG = self.whitening.undo(z_BG if self.training else self.flow.undo(z_BG))
        return self.layers(torch.cat((u_BG, p_BK), dim=1))


class Discriminator(nn.Module):
    """Vectors -> one logit each: positive for a sample of the prior, negative for an encoded image."""

    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise((inputs, *widths)):
            layers += [nn.Linear(a, b), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, z_BD: Tensor) -> Tensor:
        return self.layers(z_BD).squeeze(1)


class Autoencoder(nn.Module):
    """The four networks of one instance, initialised from the global random state of torch."""

    def __init__(self, latent: LatentConfig, network: NetworkConfig) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = Encoder(latent, network)
        self.decoder = Decoder(latent, network)
        self.gaussian_discriminator = Discriminator(latent.gaussian, network.discriminator_widths)
        self.categorical_discriminator = (
            Discriminator(latent.categorical, network.discriminator_widths) if latent.categorical else None
        )

    def set_whitening(self, mean_G: Tensor, covariance_GG: Tensor, *, floor: float) -> None:
        """Place the whitening of encoder and decoder together."""
        self.encoder.whitening.set_statistics(mean_G, covariance_GG, floor=floor)
        self.decoder.whitening.load_state_dict(self.encoder.whitening.state_dict())

    def autoencoder_parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Of encoder and decoder, what adversarial training moves: all but the flow."""
        encoder, decoder = (
            [p for name, p in part.named_parameters() if not name.startswith("flow.")]
            for part in (self.encoder, self.decoder)
        )
        return encoder, decoder

    def discriminator_parameters(self) -> list[nn.Parameter]:
        parts = [self.gaussian_discriminator, self.categorical_discriminator]
        return [p for part in parts if part is not None for p in part.parameters()]
