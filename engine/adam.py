"""Adam (Kingma and Ba, 2015) by torch's fused kernel, without what `torch.optim` does in Python around it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    steps: list[Tensor],
    rate: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
) -> None:
    """One step of each parameter, in place, in one call; `steps`, a number each, count it already."""
    torch._fused_adam_(
        parameters,
        gradients,
        means,
        squares,
        [],
        steps,
        lr=rate,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=0.0,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )


class Adam:
    """Moves what `torch.optim.Adam(fused=True)` moves, by the same amount.

    Args:
        parts: parameters that always move together; a part counts its steps once, where torch counts them for each
            parameter.
        rate: the learning rate, which may be changed; a tensor where steps are captured on a GPU.
    """

    def __init__(self, *parts: Sequence[Tensor], rate: float | Tensor, betas: tuple[float, float]) -> None:
        self.rate, self._betas = rate, betas
        self._parameters = [p for part in parts for p in part]
        self._means, self._squares = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        counts = [torch.zeros((), device=part[0].device) for part in parts]
        self._steps = [count for count, part in zip(counts, parts, strict=True) for _ in part]

    @torch.no_grad()
    def descend(self, loss: Tensor) -> None:
        """Move the parameters against the gradient of a loss; a part that has no share in it stays as it is."""
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        moved = [number for number, gradient in enumerate(gradients) if gradient is not None]
        for count in {self._steps[number] for number in moved}:  # tensors are equal to themselves alone
            count.add_(1)

        def of(column: Sequence[Tensor]) -> list[Tensor]:
            return [column[number] for number in moved]

        laid_out = list(map(_laid_out, of(gradients), of(self._parameters)))
        step(
            of(self._parameters), laid_out, of(self._means), of(self._squares), of(self._steps), self.rate, self._betas
        )

    def tensors(self) -> dict[str, Tensor]:
        """Copies of all that it remembers, by the number of a parameter and torch's own names."""
        return {name: tensor.clone() for name, tensor in self._named().items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `tensors` returned, for the same parameters."""
        for name, tensor in self._named().items():  # which stays where it lies, in the order of its parameter
            tensor.copy_(tensors[name])

    def _named(self) -> dict[str, Tensor]:
        columns = {"step": self._steps, "exp_avg": self._means, "exp_avg_sq": self._squares}
        return {f"{number}.{name}": tensor for name, column in columns.items() for number, tensor in enumerate(column)}


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """The gradient in its parameter's order in memory, in which the kernel walks through both."""
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
