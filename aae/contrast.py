"""Contrastive learning without labels (Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual
Representations"): latents of two views of an image shall be alike, latents of views of different images not.

It makes what tells kinds of images apart large in the latent, where reconstruction and priors alone have no use for it.

Shapes: B images of a batch, C channels, H rows, W columns; N = 2 B views; G latent dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

#: A view shows at least this share of the image's area, in a frame of this ratio of sides at most.
AREA, ASPECT = 0.3, 4 / 3

#: Brightness, contrast and saturation are multiplied by 1 more or less this at most; this share of views has no colour.
JITTER, GREY = 0.4, 0.1


def views(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Two random views of every image in [0, 1], (N, C, H, W): view b + B is of the image that view b is of.

    Each is a frame of the image at full size, mirrored half the time, with other brightness, contrast and saturation.
    """
    x_NCHW = torch.cat((x_BCHW, x_BCHW))

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(x_NCHW), generator=generator, device=x_NCHW.device)
        return low + (high - low) * drawn

    side, stretch = uniform(AREA, 1.0).sqrt(), uniform(-0.5, 0.5).mul(math.log(ASPECT)).exp()
    width, height = (side * stretch).clamp(max=1.0), (side / stretch).clamp(max=1.0)
    frame_N23 = torch.zeros(len(x_NCHW), 2, 3, device=x_NCHW.device)
    frame_N23[:, 0, 0] = width * uniform(-1.0, 1.0).sign()
    frame_N23[:, 1, 1] = height
    frame_N23[:, 0, 2] = uniform(-1.0, 1.0) * (1 - width)
    frame_N23[:, 1, 2] = uniform(-1.0, 1.0) * (1 - height)
    grid = functional.affine_grid(frame_N23, list(x_NCHW.shape), align_corners=False)
    seen = functional.grid_sample(x_NCHW, grid, padding_mode="reflection", align_corners=False)

    def factor() -> Tensor:
        return uniform(1 - JITTER, 1 + JITTER)[:, None, None, None]

    seen = seen * factor()
    mean = seen.mean(dim=(1, 2, 3), keepdim=True)
    seen = torch.lerp(mean, seen, factor())
    grey = seen.mean(dim=1, keepdim=True)
    coloured = (uniform(0.0, 1.0) >= GREY)[:, None, None, None]
    return torch.lerp(grey, seen, factor() * coloured).clamp(0.0, 1.0)


def contrastive_loss(u_NG: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of finding, by cosine similarity, the other view of the same image among all others.

    Args:
        u_NG: latents of `views`.
        temperature: divides the similarities; the lower it is, the more the nearest of the others count.
    """
    unit_NG = functional.normalize(u_NG, dim=1)
    likeness_NN = unit_NG @ unit_NG.T / temperature
    number_N = torch.arange(len(u_NG), device=u_NG.device)
    itself_NN = number_N[:, None] == number_N
    return functional.cross_entropy(likeness_NN.masked_fill(itself_NN, -math.inf), number_N.roll(len(u_NG) // 2))
