"""What makes the Gaussian part follow its prior, and is undone exactly by the decoder: whitening, and a flow.

A latent that a linear layer makes is not Gaussian, however white it is: the contrast of an image shows in the length of
its vector, its sharpness in how that is spread. Affine coupling layers (Dinh, Sohl-Dickstein and Bengio, "Density
estimation using Real NVP", ICLR 2017) take this away, and since the decoder undoes them, no reconstruction changes.

Shapes: N vectors, B of them in a batch, G Gaussian dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

#: Hidden units in each of two layers of the network inside a coupling: twice the dimensions, within these bounds.
WIDTHS = (64, 256)

#: No coupling stretches or shrinks by more than e to this power: rounding cannot grow without bound.
LARGEST = 2.0

#: Variances below this share of the largest are not made white.
FLOOR = 1e-8

#: With fewer vectors, or fewer for each dimension, nothing is fitted: a flow would learn what they have by chance.
FEWEST, FEWEST_EACH = 1000, 10

#: Passes over the vectors, vectors a step, highest rate and weight decay of AdamW.
EPOCHS, BATCH, RATE, DECAY = 10, 500, 2e-3, 1e-2


@torch.no_grad()
def round_to_half(module: nn.Module) -> None:
    """Round the weights of linear layers and convolutions to half precision, in which a key's file holds them.

    What does not fit (beyond 65,504) is left.
    """
    for parameter in module.parameters():
        rounded = parameter.half().to(parameter.dtype)
        if parameter.dim() > 1 and rounded.isfinite().all():
            parameter.copy_(rounded)


def identity(size: int) -> Tensor:
    """`torch.eye`, which on the device "meta" of a key that is opened would load torch's compiler: seconds."""
    return torch.zeros(size, size).fill_diagonal_(1)


class Whitening(nn.Module):
    """A linear change of coordinates of the Gaussian part, and its exact inverse.

    It starts as the identity. Nothing here is trained: `set_statistics` places it, and because the decoder
    undoes it, placing it changes no reconstruction and no gradient of the reconstruction error.
    """

    mean: Tensor
    matrix: Tensor
    inverse: Tensor | None
    """None in an encoder's file, which never undoes it."""

    def __init__(self, gaussian: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(gaussian))
        self.register_buffer("matrix", identity(gaussian))
        self.register_buffer("inverse", identity(gaussian))

    def set_statistics(self, mean_G: Tensor, covariance_GG: Tensor, *, floor: float) -> None:
        """Make vectors of this mean and covariance white by the symmetric root (ZCA).

        Directions with less than `floor` of the largest variance are divided by the floor's root instead, which
        bounds how much the gradient of a step is magnified, and how much rounding is.
        """
        variance_G, basis_GG = torch.linalg.eigh(covariance_GG.double())
        root_G = variance_G.clamp(min=max(floor * variance_G[-1].item(), 1e-12)).sqrt()
        self.mean.copy_(mean_G)
        self.matrix.copy_((basis_GG / root_G) @ basis_GG.T)
        assert self.inverse is not None
        self.inverse.copy_((basis_GG * root_G) @ basis_GG.T)

    def forward(self, u_BG: Tensor) -> Tensor:
        return (u_BG - self.mean) @ self.matrix

    def undo(self, z_BG: Tensor) -> Tensor:
        if self.inverse is None:
            return torch.linalg.solve(self.matrix.double().T, z_BG.double().T).T.to(z_BG.dtype) + self.mean
        return z_BG @ self.inverse + self.mean


class Coupling(nn.Module):
    """Stretch and shift one half of the dimensions by what a network says of the other; it starts as the identity.

    Args:
        gaussian: G, at least 2.
        layer: which of several: it decides the halves and the first weights, the same for encoder and decoder.
    """

    shuffled: Tensor
    """Which dimensions belong to which half. It goes into the file of a key: another torch may shuffle otherwise."""

    def __init__(self, gaussian: int, layer: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(layer)
            self.register_buffer("shuffled", torch.randperm(gaussian, device="cpu"))
            self.kept, moved = gaussian // 2, gaussian - gaussian // 2
            width = min(max(2 * gaussian, WIDTHS[0]), WIDTHS[1])
            last = nn.Linear(width, 2 * moved)
            self.layers = nn.Sequential(
                nn.Linear(self.kept, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2), last
            )
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def _halves(self, z_BG: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The half that stays, the one that is moved, the shift of that, and the logarithm of its stretch."""
        kept, moved = z_BG[:, self.shuffled].tensor_split([self.kept], dim=1)
        shift, raw = self.layers(kept).chunk(2, dim=1)
        return kept, moved, shift, LARGEST * torch.tanh(raw / LARGEST)

    def forward(self, z_BG: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors, and the logarithm of the stretched volume, (B,)."""
        kept, moved, shift, stretch = self._halves(z_BG)
        return torch.cat((kept, moved * stretch.exp() + shift), dim=1)[:, self.shuffled.argsort()], stretch.sum(dim=1)

    def undo(self, z_BG: Tensor) -> Tensor:
        kept, moved, shift, stretch = self._halves(z_BG)
        return torch.cat((kept, (moved - shift) * (-stretch).exp()), dim=1)[:, self.shuffled.argsort()]


class Flow(nn.Module):
    """Coupling layers one after another, then whitening again; and the exact inverse. One dimension alone has none."""

    def __init__(self, gaussian: int, couplings: int) -> None:
        super().__init__()
        self.couplings = nn.ModuleList(Coupling(gaussian, layer) for layer in range(couplings if gaussian > 1 else 0))
        self.whitening = Whitening(gaussian) if self.couplings else nn.Identity()

    def forward(self, z_BG: Tensor) -> Tensor:
        for coupling in self.couplings:
            z_BG, _ = coupling(z_BG)
        whitened: Tensor = self.whitening(z_BG)
        return whitened

    def undo(self, z_BG: Tensor) -> Tensor:
        if isinstance(self.whitening, Whitening):
            z_BG = self.whitening.undo(z_BG)
        for coupling in reversed(self.couplings):
            z_BG = coupling.undo(z_BG)  # type: ignore[operator]
        return z_BG

    def surprise(self, z_BG: Tensor) -> Tensor:
        """Mean negative log-likelihood of the vectors, nats a dimension, less a constant: 0.5 for white vectors.

        The last whitening counts as the identity.
        """
        volume_B = z_BG.new_zeros(len(z_BG))
        for coupling in self.couplings:
            z_BG, more_B = coupling(z_BG)
            volume_B = volume_B + more_B
        return (z_BG.square().sum(dim=1) / 2 - volume_B).mean() / z_BG.shape[1]


def fit(flow: Flow, views_NG: Sequence[Tensor], generator: torch.Generator) -> None:
    """Fit a flow to whitened vectors; the weights that suit every tenth one best, which no step sees, are kept.

    Fewer vectors than `FEWEST`, or than `FEWEST_EACH` for each dimension, leave it the identity.

    Args:
        flow: as it was made, on the device of the vectors.
        views_NG: the vectors of the same images, once for each way to look at them, as mirrored; a pass takes one.
        generator: for the order, on the device of the vectors.
    """
    count, gaussian = views_NG[0].shape
    if not len(flow.couplings) or count < max(FEWEST, FEWEST_EACH * gaussian):
        return
    index = torch.arange(count, device=views_NG[0].device)
    held, learned = index[::10], index[index % 10 > 0]
    steps = math.ceil(len(learned) / BATCH)
    adam = torch.optim.AdamW(flow.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, RATE, total_steps=EPOCHS * steps)

    def judge() -> float:
        with torch.no_grad():
            return sum(flow.surprise(z_NG[held]).item() for z_NG in views_NG)

    least, best = judge(), deepcopy(flow.state_dict())
    for epoch in range(EPOCHS):
        z_NG = views_NG[epoch % len(views_NG)]
        order = torch.randperm(len(learned), generator=generator, device=learned.device)
        for index_B in learned[order].split(BATCH):
            adam.zero_grad()
            flow.surprise(z_NG[index_B]).backward()
            nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
            adam.step()
            schedule.step()
        if (now := judge()) < least:
            least, best = now, deepcopy(flow.state_dict())
    flow.load_state_dict(best)
    round_to_half(flow)
    if isinstance(flow.whitening, Whitening):
        with torch.no_grad():
            z_NG = flow(views_NG[0]).double()
        flow.whitening.set_statistics(z_NG.mean(dim=0).float(), torch.cov(z_NG.T, correction=0), floor=FLOOR)
