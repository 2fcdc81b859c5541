"""Convolutions that halve or double an image, whose weights' gradients are matrix products on a GPU.

Among the algorithms that give the same numbers every time, cuDNN chose one for these gradients that took 18% of a
training step (`results/benchmarks`, the page `gpu`). On a CPU, and in evaluation, the layers are torch's own.

Shapes: B images, S channels of the smaller image and L of the larger, H rows and W columns of the smaller one; R rows
and C columns of a kernel, F = R C L numbers of a patch, N = B H W patches.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Kernel size, stride and padding: each pixel of the smaller image is made from, or adds to, 4 x 4 of the larger.
SIZE, STRIDE, PADDING = 4, 2, 1


class Halve(nn.Conv2d):
    """Images of half the height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, SIZE, STRIDE, PADDING)

    def forward(self, input: Tensor) -> Tensor:
        if input.is_cuda and self.training:
            return Convolution.apply(input, self.weight, self.bias, False)
        return super().forward(input)


class Double(nn.ConvTranspose2d):
    """Images of twice the height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, SIZE, STRIDE, PADDING)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if input.is_cuda and self.training and output_size is None:
            return Convolution.apply(input, self.weight, self.bias, True)
        return super().forward(input, output_size)


class Convolution(torch.autograd.Function):
    """What both layers compute, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        return torch.convolution(x, weight, bias, [STRIDE] * 2, [PADDING] * 2, [1, 1], transposed, [0, 0], 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_input = None
        if ctx.needs_input_grad[0]:
            by_input = torch.ops.aten.convolution_backward(
                gradient, x, weight, None, [STRIDE] * 2, [PADDING] * 2, [1, 1], ctx.transposed, [0, 0], 1,
                [True, False, False],
            )[0]  # fmt: skip
        smaller, larger = (x, gradient) if ctx.transposed else (gradient, x)
        return by_input, _by_weight(smaller, larger), gradient.sum((0, 2, 3)), None


def _by_weight(smaller_BSHW: Tensor, larger: Tensor) -> Tensor:
    """Sum, over images and pixels, of each smaller pixel times its patch of the larger image: (S, L, R, C)."""
    padded = functional.pad(larger, [PADDING] * 4)
    patches_BLHWRC = padded.unfold(2, SIZE, STRIDE).unfold(3, SIZE, STRIDE)
    patches_NF = patches_BLHWRC.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(0, 2)
    pixels_NS = smaller_BSHW.permute(0, 2, 3, 1).flatten(0, 2)
    product_SF = pixels_NS.T @ patches_NF
    return product_SF.unflatten(1, (SIZE, SIZE, -1)).permute(0, 3, 1, 2)  # channels last, as the weights lie
