"""The neural network: three linear layers, ReLU, softmax (paper, Fig 3), trained with Adam on cross-entropy.

At batch 4 nearly all time of an ordinary training loop is overhead. Here parameters, gradients and moments each lie
in one flat vector, the gradient of the three layers is written out, and one fused call takes the Adam step; the
numbers are those of `torch.optim.Adam` on an `nn.Sequential` (see the tests).

Shapes: N vectors, B vectors of a batch, D inputs, H and J hidden units, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.nn import functional

from engine import adam


def layer_shapes(sizes: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
    """The arrays of a network of D inputs, H and J hidden units and C classes, by name, in their order."""
    return {
        name: shape
        for i, (a, b) in enumerate(pairwise(sizes), start=1)
        for name, shape in ((f"W{i}", (b, a)), (f"b{i}", (b,)))
    }


class MLP(ClassifierMixin, BaseEstimator):
    """A scikit-learn classifier; `fit` takes an optional validation part, which chooses the best epoch.

    Args:
        hidden: sizes of the two hidden layers.
        epochs: passes over the training part.
        batch_size: vectors a step; the last step of an epoch takes what is left.
        learning_rate: of Adam; its betas are 0.9 and 0.999.
        average: what is judged and kept of an epoch is the mean of the weights at its end and at the ends of those
            before (Polyak and Juditsky 1992; with epochs as its points Izmailov et al. 2018); steps go on without it.
        random_state: int, `RandomState` or None; decides the first weights and the order of the vectors.

    Attributes:
        classes_: the labels seen in `fit`.
        history_: one dict an epoch with `train_accuracy`, `train_loss` (running, as the weights move) and, with a
            validation part, `validation_accuracy`, `validation_loss` (paper, Figs 10 and 11).
        best_epoch_: the epoch whose weights were kept, from 1: the highest validation accuracy, then the lowest
            validation loss; without a validation part the last.
    """

    def __init__(
        self,
        hidden: tuple[int, int] = (256, 128),
        epochs: int = 15,
        batch_size: int = 4,
        learning_rate: float = 1e-3,
        average: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.average = average
        self.random_state = random_state

    def fit(
        self, X: ArrayLike, y: ArrayLike, X_validation: ArrayLike | None = None, y_validation: ArrayLike | None = None
    ) -> Self:
        """Train on (N, D) vectors and (N,) labels; labels of the validation part must occur in `y`."""
        x_ND, y_N, validation, generator = self._begin(X, y, X_validation, y_validation)
        net = self._net
        kept, moving, best = (net.parameters.clone() for _ in range(3))
        for epoch in range(self.epochs):
            order_N = torch.randperm(len(x_ND), generator=generator)
            entry = net.train_epoch(x_ND[order_N], y_N[order_N], self.batch_size)
            moving.copy_(net.parameters)
            net.parameters.copy_(kept.lerp_(moving, self._share(epoch)))
            if validation is not None:
                accuracy, loss = net.evaluate(*validation)
                entry |= {"validation_accuracy": accuracy, "validation_loss": loss}
            if self._improves(entry):
                best.copy_(kept)
            net.parameters.copy_(moving)
        net.parameters.copy_(best)
        return self

    def _begin(
        self, X: ArrayLike, y: ArrayLike, X_validation: ArrayLike | None, y_validation: ArrayLike | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor] | None, torch.Generator]:
        """Check the parts, and make the network as it is before the first step; the generator orders the vectors."""
        vectors, labels = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(labels)
        self.classes_, index_N = np.unique(labels, return_inverse=True)
        x_ND, y_N = torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(index_N)
        validation = self._validation(X_validation, y_validation)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        self._net = _Net((x_ND.shape[1], *self.hidden, len(self.classes_)), self.learning_rate, generator)
        self.history_: list[dict[str, float]] = []
        self.best_epoch_ = 0
        return x_ND, y_N, validation, generator

    def _share(self, epoch: int) -> float:
        """Of an epoch, counted from 0, in the weights that are kept of it."""
        return 1 / (epoch + 1) if self.average else 1

    def _improves(self, entry: dict[str, float]) -> bool:
        """Keep an epoch's numbers; whether it is the best so far."""
        self.history_.append(entry)
        now, best = (self._rank(epoch) for epoch in (len(self.history_), self.best_epoch_))
        if now > best:
            self.best_epoch_ = len(self.history_)
        return now > best

    def _rank(self, epoch: int) -> tuple[float, float]:
        if not epoch:
            return -1.0, -math.inf
        entry = self.history_[epoch - 1]
        return entry.get("validation_accuracy", epoch), -entry.get("validation_loss", 0.0)

    def _validation(self, X: ArrayLike | None, y: ArrayLike | None) -> tuple[Tensor, Tensor] | None:
        if X is None and y is None:
            return None
        if X is None or y is None:
            raise ValueError("X_validation and y_validation go together: give both, or none")
        vectors = validate_data(self, X, dtype=np.float32, reset=False)
        check_consistent_length(vectors, y)
        index_N = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[index_N], y):
            raise ValueError("y_validation holds labels that y does not: give both parts the same classes")
        return torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(index_N)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Probability of each class, (N, classes)."""
        check_is_fitted(self)
        vectors = validate_data(self, X, dtype=np.float32, reset=False)
        return self._net.logits(torch.from_numpy(np.ascontiguousarray(vectors))).softmax(dim=1).numpy()

    def predict(self, X: ArrayLike) -> NDArray:
        best_N = self.predict_proba(X).argmax(axis=1)
        return self.classes_[best_N]

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of what was learned, named and shaped as `layer_shapes` says; `classes_` is kept apart."""
        check_is_fitted(self)
        shapes = layer_shapes(self._net.sizes)
        return {name: layer.numpy().copy() for name, layer in zip(shapes, self._net.layers, strict=True)}

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[np.float32]], classes: ArrayLike) -> Self:
        """A network that predicts as the one did whose `state` and `classes_` these are; it has no history.

        Raises `ValueError` where the arrays are not those of three layers that end in so many classes.
        """
        labels = np.asarray(classes)
        found = {name: array.shape for name, array in state.items()}
        sizes = (*((found.get(name) or (0,))[-1] for name in ("W1", "W2", "W3")), len(labels))
        if found != (wanted := layer_shapes(sizes)) or not all(sizes):
            raise ValueError(f"state = {found}: must be three layers for {len(labels)} classes, as {wanted}")
        mlp = cls(hidden=(sizes[1], sizes[2]))
        mlp.classes_, mlp.n_features_in_ = labels, sizes[0]
        mlp._net = _Net(sizes, mlp.learning_rate, torch.Generator())
        for name, layer in zip(wanted, mlp._net.layers, strict=True):
            layer.copy_(torch.from_numpy(state[name]))
        return mlp


class _Net:
    """Three linear layers over one flat parameter vector, with the gradient written out."""

    def __init__(self, sizes: tuple[int, int, int, int], learning_rate: float, generator: torch.Generator) -> None:
        self.sizes, shapes = sizes, list(layer_shapes(sizes).values())
        bounds = [1 / math.sqrt(a) for a in sizes[:3] for _ in range(2)]  # as torch.nn.Linear starts
        self.parameters = torch.empty(sum(math.prod(shape) for shape in shapes))
        self.gradient = torch.zeros_like(self.parameters)
        self.layers, self.layer_gradients = _views(self.parameters, shapes), _views(self.gradient, shapes)
        for layer, bound in zip(self.layers, bounds, strict=True):
            layer.uniform_(-bound, bound, generator=generator)
        self.learning_rate = learning_rate
        self.moments = torch.zeros_like(self.parameters), torch.zeros_like(self.parameters)
        self.steps = torch.zeros(())

    def logits(self, x_ND: Tensor) -> Tensor:
        W1, b1, W2, b2, W3, b3 = self.layers
        h_NH = torch.addmm(b1, x_ND, W1.T).relu_()
        return torch.addmm(b3, torch.addmm(b2, h_NH, W2.T).relu_(), W3.T)

    def evaluate(self, x_ND: Tensor, y_N: Tensor) -> tuple[float, float]:
        """Accuracy and mean cross-entropy."""
        o_NC = self.logits(x_ND)
        return (o_NC.argmax(dim=1) == y_N).float().mean().item(), functional.cross_entropy(o_NC, y_N).item()

    def train_epoch(self, x_ND: Tensor, y_N: Tensor, batch_size: int) -> dict[str, float]:
        classes = len(self.layers[-1])
        target_NC = functional.one_hot(y_N, classes).float()
        o_NC = torch.empty(len(x_ND), classes)
        for begin in range(0, len(x_ND), batch_size):
            part = slice(begin, begin + batch_size)
            self.step(x_ND[part], target_NC[part], out=o_NC[part])
        return {
            "train_accuracy": (o_NC.argmax(dim=1) == y_N).float().mean().item(),
            "train_loss": functional.cross_entropy(o_NC, y_N).item(),
        }

    def step(self, x_BD: Tensor, target_BC: Tensor, out: Tensor) -> None:
        """One Adam step on the mean cross-entropy of a batch; the logits before it go to `out`, (B, C)."""
        W1, b1, W2, b2, W3, b3 = self.layers
        dW1, db1, dW2, db2, dW3, db3 = self.layer_gradients
        h_BH = torch.addmm(b1, x_BD, W1.T).relu_()
        j_BJ = torch.addmm(b2, h_BH, W2.T).relu_()
        torch.addmm(b3, j_BJ, W3.T, out=out)
        d_BC = out.softmax(dim=1).sub_(target_BC).div_(len(x_BD))
        torch.mm(d_BC.T, j_BJ, out=dW3)
        torch.sum(d_BC, dim=0, out=db3)
        d_BJ = torch.mm(d_BC, W3).mul_(j_BJ > 0)
        torch.mm(d_BJ.T, h_BH, out=dW2)
        torch.sum(d_BJ, dim=0, out=db2)
        d_BH = torch.mm(d_BJ, W2).mul_(h_BH > 0)
        torch.mm(d_BH.T, x_BD, out=dW1)
        torch.sum(d_BH, dim=0, out=db1)
        self.steps += 1
        means, squares = self.moments
        adam.step([self.parameters], [self.gradient], [means], [squares], [self.steps], self.learning_rate)


def _views(flat: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    parts = flat.split([math.prod(shape) for shape in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
