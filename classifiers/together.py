"""Many neural networks in one program: what a GPU is for, which one network at batch 4 leaves idle.

Every network keeps its own vectors, order, steps and best epoch, and ends as its own `fit` leaves it, up to rounding.

Shapes: K networks, N vectors of each, S steps of an epoch, B vectors of a batch, D inputs, H and J hidden units, C
classes, P parameters; k networks that have vectors left. What is shorter than the longest is padded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from classifiers.mlp import MLP, _Net, layer_shapes
from engine import adam, repeat

Part = tuple[NDArray[np.float32], NDArray[np.int64]]

#: Vectors, of all networks, that are evaluated at once.
EVALUATED = 50_000

#: Logit of a class that a network does not have: its probability and its gradients are exactly 0.
ABSENT = -1e30


def memory(count: int, length: int, hidden: tuple[int, int], classes: int) -> int:
    """Bytes that one network takes on the device: `count` vectors, parameters, gradients, moments, three copies."""
    sizes = (length, *hidden, classes)
    return 4 * (count * (length + classes) + 7 * sum(a * b + b for a, b in pairwise(sizes)))


def fit_together(
    networks: Sequence[MLP],
    parts: Sequence[tuple[Part, Part | None]],
    device: str | torch.device = "cpu",
) -> None:
    """Fit each network to its own training part, with its own validation part if it has one.

    Args:
        networks: unfitted, of the same `hidden`, `epochs`, `batch_size`, `learning_rate` and `average`.
        parts: (vectors, labels) to learn from and to choose the epoch by, as `MLP.fit` takes them; the vectors of all
            networks have one length, their numbers of vectors and of classes may differ.
        device: where they are fitted; they end on the CPU.

    Raises:
        ValueError: as `MLP.fit`, or networks that differ.
    """
    first, alike = networks[0], ("hidden", "epochs", "batch_size", "learning_rate", "average")
    if any(getattr(network, key) != getattr(first, key) for network in networks for key in alike):
        raise ValueError(f"networks that are fitted together must agree in {', '.join(alike)}")
    begun = [
        mlp._begin(*train, *(validation if validation and len(validation[1]) else (None, None)))
        for mlp, (train, validation) in zip(networks, parts, strict=True)
    ]
    longest_first = sorted(range(len(networks)), key=lambda k: -len(begun[k][0]))
    networks, begun = [networks[k] for k in longest_first], [begun[k] for k in longest_first]
    generators = [generator for *_, generator in begun]
    device = torch.device(device)
    nets = _Nets([mlp._net for mlp in networks], device)
    train = _Padded([(x_ND, y_N) for x_ND, y_N, *_ in begun], nets.classes, device)
    held = _Padded([v or (x_ND[:0], y_N[:0]) for x_ND, y_N, v, _ in begun], nets.classes, device)
    kept_KP, moving_KP, best_KP = (nets.parameters.clone() for _ in range(3))
    for epoch in range(first.epochs):
        numbers = nets.train_epoch(train, generators, first.batch_size)
        moving_KP.copy_(nets.parameters)
        nets.parameters.copy_(kept_KP.lerp_(moving_KP, first._share(epoch)))
        chosen = nets.evaluate(held)
        improved = [
            mlp._improves(entry | (found if len(v[1]) else {}))
            for mlp, entry, found, v in zip(networks, numbers, chosen, held.parts, strict=True)
        ]
        torch.where(torch.tensor(improved, device=device)[:, None], kept_KP, best_KP, out=best_KP)
        nets.parameters.copy_(moving_KP)
    nets.parameters.copy_(best_KP)
    nets.give_back([mlp._net for mlp in networks])


class _Padded:
    """Vectors and one-hot labels of all networks as two tensors, (K, N, D) and (K, N, C)."""

    def __init__(self, parts: list[tuple[Tensor, Tensor]], classes: int, device: torch.device) -> None:
        self.parts = parts
        self.lengths = [len(y_N) for _, y_N in parts]
        shape = len(parts), max(self.lengths)
        self.x = torch.zeros(*shape, parts[0][0].shape[1], device=device)
        self.target = torch.zeros(*shape, classes, device=device)
        for k, (x_ND, y_N) in enumerate(parts):
            self.x[k, : len(y_N)] = x_ND.to(device)
            self.target[k, : len(y_N)] = functional.one_hot(y_N, classes).float().to(device)


class _Nets:
    """Networks of three linear layers side by side, the one with most vectors first."""

    def __init__(self, nets: list[_Net], device: torch.device) -> None:
        self.learning_rate = nets[0].learning_rate
        self.own = [net.sizes[-1] for net in nets]
        self.classes = max(self.own)
        self.sizes = (*nets[0].sizes[:3], self.classes)
        self.shapes = list(layer_shapes(self.sizes).values())
        count = sum(math.prod(shape) for shape in self.shapes)
        self.parameters = torch.zeros(len(nets), -(-count // 4) * 4)  # every network begins where vector loads may
        for k, net in enumerate(nets):
            for own, layer in zip(self._layers(self.parameters), net.layers, strict=True):
                own[k, : len(layer)] = layer
        self.parameters = self.parameters.to(device)
        self.gradient, *self.moments = (torch.zeros_like(self.parameters) for _ in range(3))
        self.layers, self.layer_gradients = self._layers(self.parameters), self._layers(self.gradient)
        self.steps = torch.zeros(len(nets), device=device)
        absent_KC = torch.arange(self.classes) >= torch.tensor(self.own)[:, None]
        self.absent = (absent_KC.float() * ABSENT)[:, None].to(device)
        self.hits, self.losses = (torch.zeros(len(nets), dtype=torch.float64, device=device) for _ in range(2))

    def _layers(self, flat_KP: Tensor) -> list[Tensor]:
        counts = [math.prod(shape) for shape in self.shapes]
        parts = flat_KP[:, : sum(counts)].split(counts, dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def give_back(self, nets: list[_Net]) -> None:
        layers = self._layers(self.parameters.cpu())
        for k, net in enumerate(nets):
            for own, layer in zip(layers, net.layers, strict=True):
                layer.copy_(own[k, : len(layer)])

    def train_epoch(self, part: _Padded, generators: list[torch.Generator], batch: int) -> list[dict[str, float]]:
        """Every network takes one step for each of its batches; running accuracy and loss of each."""
        longest, count = max(part.lengths), len(part.lengths)
        steps = -(-longest // batch)
        index_KN = torch.zeros(count, steps * batch, dtype=torch.long)
        weight_KN = torch.zeros(count, steps * batch)
        for k, (length, generator) in enumerate(zip(part.lengths, generators, strict=True)):
            index_KN[k, :length] = torch.randperm(length, generator=generator)
            weight_KN[k, :length] = 1 / batch
            if over := length % batch:
                weight_KN[k, length - over : length] = 1 / over
        index_KN += longest * torch.arange(count)[:, None]
        index_SKB, weight_SKB = (
            t.to(part.x.device).view(count, steps, batch).transpose(0, 1).contiguous() for t in (index_KN, weight_KN)
        )
        self.hits.zero_(), self.losses.zero_()
        x, target = part.x.flatten(0, 1), part.target.flatten(0, 1)

        def left(step: int) -> int:
            return sum(length > step * batch for length in part.lengths)

        for k, run in groupby(range(steps), left):
            numbers = list(run)
            now = slice(numbers[0], numbers[-1] + 1)
            repeat(
                lambda index_kB, weight_kB: self._step(x[index_kB], target[index_kB], weight_kB),
                index_SKB[now, :k],
                weight_SKB[now, :k],
            )
        return self._means(part.lengths, "train")

    def _step(self, x_kBD: Tensor, target_kBC: Tensor, weight_kB: Tensor) -> None:
        """One Adam step of the first k networks on the weighted cross-entropy of their batches."""
        k = len(x_kBD)
        W2, W3 = self.layers[2][:k], self.layers[4][:k]
        dW1, db1, dW2, db2, dW3, db3 = (gradient[:k] for gradient in self.layer_gradients)
        h_kBH, j_kBJ, o_kBC = self._forward(x_kBD)
        self._count(o_kBC, target_kBC, (weight_kB > 0).double())
        d_kBC = o_kBC.softmax(dim=2).sub_(target_kBC).mul_(weight_kB[:, :, None])
        torch.bmm(d_kBC.mT, j_kBJ, out=dW3)
        torch.sum(d_kBC, dim=1, out=db3)
        d_kBJ = torch.bmm(d_kBC, W3).mul_(j_kBJ > 0)
        torch.bmm(d_kBJ.mT, h_kBH, out=dW2)
        torch.sum(d_kBJ, dim=1, out=db2)
        d_kBH = torch.bmm(d_kBJ, W2).mul_(h_kBH > 0)
        torch.bmm(d_kBH.mT, x_kBD, out=dW1)
        torch.sum(d_kBH, dim=1, out=db1)
        self.steps[:k] += 1
        parameters, gradients, means, squares, steps = (
            list(tensor[:k].unbind()) for tensor in (self.parameters, self.gradient, *self.moments, self.steps)
        )
        adam.step(parameters, gradients, means, squares, steps, self.learning_rate)

    def _forward(self, x_kBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        W1, b1, W2, b2, W3, b3 = (layer[: len(x_kBD)] for layer in self.layers)
        h_kBH = torch.baddbmm(b1[:, None], x_kBD, W1.mT).relu_()
        j_kBJ = torch.baddbmm(b2[:, None], h_kBH, W2.mT).relu_()
        return h_kBH, j_kBJ, torch.baddbmm(b3[:, None], j_kBJ, W3.mT) + self.absent[: len(x_kBD)]

    def _count(self, o_kBC: Tensor, target_kBC: Tensor, valid_kB: Tensor) -> None:
        k = len(o_kBC)
        right_kB = o_kBC.argmax(dim=2) == target_kBC.argmax(dim=2)
        loss_kB = -(target_kBC * o_kBC.log_softmax(dim=2)).sum(dim=2)
        self.hits[:k] += (right_kB * valid_kB).sum(dim=1)
        self.losses[:k] += (loss_kB * valid_kB).sum(dim=1)

    def evaluate(self, part: _Padded) -> list[dict[str, float]]:
        """Accuracy and mean cross-entropy of each network on its part."""
        self.hits.zero_(), self.losses.zero_()
        longest = max(part.lengths)
        valid_KN = (torch.arange(longest) < torch.tensor(part.lengths)[:, None]).double().to(part.x.device)
        for now in torch.arange(longest).split(max(1, EVALUATED // len(part.lengths))):
            self._count(self._forward(part.x[:, now])[-1], part.target[:, now], valid_KN[:, now])
        return self._means(part.lengths, "validation")

    def _means(self, lengths: list[int], name: str) -> list[dict[str, float]]:
        return [
            {f"{name}_accuracy": hits / max(1, length), f"{name}_loss": loss / max(1, length)}
            for hits, loss, length in zip(self.hits.tolist(), self.losses.tolist(), lengths, strict=True)
        ]
