"""Masking and unmasking (paper, section "Data masking"): arrays in, arrays out.

Shapes: N images, H rows, W columns, C channels; D latent dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aae.flow import Flow
from aae.networks import Decoder, Encoder
from engine import repeatable

#: Images that pass through a network at once. Fixed, because rounding may differ between batch sizes.
CHUNK = 500

Part = TypeVar("Part", Encoder, Decoder)


def mask(encoder: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mask images: float32, (N, D), the Gaussian part, then the softmax of the categorical part.

    The encoder works in evaluation mode, so the masked form of an image does not depend on its neighbours, and it
    is left in the mode in which it came.

    Args:
        encoder: an `aae.networks.Encoder`, on any device.
        images: uint8, (N, H, W, C), of the size the encoder was made for.
    """
    chunks = [_evaluate(encoder, chunk, _images).cpu().numpy() for chunk in _chunks(images)]
    return np.concatenate(chunks)


def unmask(decoder: nn.Module, masked: NDArray[np.float32]) -> NDArray[np.float32]:
    """Restore images from masked forms (N, D): float32 in [0, 1], (N, H, W, C)."""
    return np.concatenate([unmask_tensor(decoder, chunk).cpu().numpy() for chunk in _chunks(masked)])


def unmask_tensor(decoder: nn.Module, masked: NDArray[np.float32]) -> Tensor:
    """As `unmask`, in one piece, and left on the decoder's device."""
    return _evaluate(decoder, masked, torch.from_numpy).clamp(0, 1).permute(0, 2, 3, 1)


@torch.no_grad()
def straighten(encoder: Encoder, masked: NDArray[np.floating]) -> NDArray[np.float32]:
    """Masked forms as they were before the flow at the encoder's end: whoever has the encoder undoes it exactly."""
    gaussian = len(encoder.whitening.mean)
    z_NG = torch.from_numpy(masked[:, :gaussian].astype(np.float32)).to(encoder.whitening.mean.device)
    return np.concatenate((encoder.flow.undo(z_NG).cpu().numpy(), masked[:, gaussian:]), axis=1, dtype=np.float32)


def without_flow(part: Part) -> Part:
    """A copy of an encoder or a decoder between images and masked forms as `straighten` gives them."""
    straight = deepcopy(part)
    straight.flow = Flow(0, 0)
    return straight


def _chunks(array: NDArray[Any]) -> list[NDArray[Any]]:
    return [array[begin : begin + CHUNK] for begin in range(0, len(array), CHUNK)]


def _images(chunk: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(chunk).permute(0, 3, 1, 2)


@torch.no_grad()
def _evaluate(network: nn.Module, chunk: NDArray, convert: Callable[[NDArray], Tensor]) -> Tensor:
    device = next(chain(network.parameters(), network.buffers())).device
    was_training = network.training
    network.eval()
    try:
        inputs = convert(np.ascontiguousarray(chunk)).to(device)
        with repeatable(device):
            return network(inputs.float().div_(255) if inputs.dtype == torch.uint8 else inputs)
    finally:
        network.train(was_training)
