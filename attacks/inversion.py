"""From masked vectors to pixels: a linear solver, a trained decoder on top of it, and optimisation with known weights.

Everything trained is a correction of a closed form, and is dropped where it does not help on held-back pairs of the
attacker's own.

Shapes: K pairs, N victims, B of a batch; D inputs, P outputs; C channels, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from attacks.config import AttacksConfig
from attacks.knowledge import Knowledge, Restored, flat
from attacks.ridge import Ridge, fit_ridge, judged

#: Training steps between two looks at the held-back pairs.
CHECK = 25

#: Pairs held back at most.
HELD = 1000

#: Held-back pairs without which nothing is learned: fewer do not tell better from luck.
FEWEST = 20

#: Standard errors by which a network must be better.
SURE = 2

#: Residual blocks that straighten a vector.
BLOCKS = 4

#: Images that pass through a network at once.
CHUNK = 500

Floats = NDArray[np.float64]


def _float32(values: NDArray[np.floating]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def ridge(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 2: ridge regression from masked vectors to pixels."""
    fitted = fit_ridge(*knowledge.pairs("ridge"), config.penalties)
    return knowledge.shaped(fitted.predict(knowledge.victims))


def inversion(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rungs 2 and 3: what bends the vectors is learned away before the ridge regression, and convolutions refine it."""
    predict = fit_corrected(*knowledge.pairs("inversion"), config, seed, knowledge.images.shape[1:])
    return knowledge.shaped(predict(knowledge.victims))


# --- a closed form and its correction ----------------------------------------------------------------------------


def fit_corrected(
    vectors_KD: Floats,
    targets_KP: Floats,
    config: AttacksConfig,
    seed: int,
    shape: tuple[int, ...] | None = None,
) -> Callable[[NDArray[np.floating]], Floats]:
    """Ridge regression and a network trained to better it; a fifth of the pairs, or a thousand, is held back.

    With a `shape`, height, width and channels, the targets are flat images of it, and convolutions refine them.

    Ridge regression on all pairs is returned where the network is not better, on the held-back pairs and by more than
    chance, than that regression fitted without the pair in question; and where too few are held back (`FEWEST`) or
    left to learn from: up to one pair more than dimensions, a linear map can pass through all.
    """
    whole = fit_ridge(vectors_KD, targets_KP, config.penalties)
    order_K = np.random.default_rng(seed).permutation(len(vectors_KD))
    held, kept = np.split(order_K, [min(HELD, len(order_K) // 5)])
    if len(held) >= FEWEST and len(kept) > vectors_KD.shape[1] + 1:
        base = fit_ridge(vectors_KD[kept], targets_KP[kept], config.penalties)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            correction = _Correction(base, vectors_KD[kept], _deviations(vectors_KD, 1e-12), config.width, shape)
        learned, tested = ((vectors_KD[part], targets_KP[part]) for part in (kept, held))
        error_N = _train(correction, learned, tested, config, seed)
        gain_N = whole.left_out[held] - error_N
        if gain_N.mean() > SURE * gain_N.std(ddof=1) / np.sqrt(len(gain_N)):
            return correction.predict
    return whole.predict


def _deviations(vectors_KD: Floats, least: float) -> Floats:
    """Deviation of each component; 1 where it is below `least`, because there is nothing to scale."""
    deviation_D = vectors_KD.std(axis=0)
    return np.where(deviation_D > least, deviation_D, 1.0)


class _Correction(nn.Module):
    """A fitted ridge regression, and what to add to it: its answer to an unbent vector, refined as an image.

    A mask bends what a linear map could undo. Here residual blocks learn to straighten the vectors, and the regression
    stays as it was fitted. All of it adds nothing before the first step.

    The blocks see no component outside what it was among the pairs they learn from: of a category that hardly occurs
    there, a probability of 1e-7 may lie thousands of deviations away.
    """

    def __init__(
        self, base: Ridge, learned_KD: Floats, scale_D: Floats, width: int, shape: tuple[int, ...] | None
    ) -> None:
        super().__init__()
        self.base, self.scale_D = base, scale_D
        self.least_D, self.most_D = learned_KD.min(axis=0), learned_KD.max(axis=0)
        self.weight_PD = _float32(base.weight * scale_D[:, None]).T.contiguous()
        dimensions = len(scale_D)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(dimensions, dimensions), nn.SiLU(), _zero(nn.Linear(dimensions, dimensions)))
            for _ in range(BLOCKS)
        )
        self.refine = _Refine(width, shape) if shape else None

    def inputs(self, vectors_ND: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
        """Scaled vectors, kept within those learned from, and what the ridge regression makes of them as they are."""
        within_ND = vectors_ND.clip(self.least_D, self.most_D)
        return _float32((within_ND - self.base.mean) / self.scale_D), _float32(self.base.predict(vectors_ND))

    def forward(self, x_BD: Tensor, made_BP: Tensor) -> Tensor:
        """What to add to `made_BP`."""
        straight_BD = x_BD
        for block in self.blocks:
            straight_BD = straight_BD + block(straight_BD)
        added_BP = functional.linear(straight_BD - x_BD, self.weight_PD)
        return added_BP if self.refine is None else added_BP + self.refine(made_BP + added_BP)

    @torch.no_grad()
    def predict(self, vectors_ND: NDArray[np.floating]) -> Floats:
        parts = [tensor.split(CHUNK) for tensor in self.inputs(vectors_ND)]
        added = torch.cat([self(x_BD, made_BP) for x_BD, made_BP in zip(*parts, strict=True)])
        return self.base.predict(vectors_ND) + added.numpy()


class _Refine(nn.Module):
    """Flat images in the order H, W, C -> what to add to them."""

    def __init__(self, width: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        height, breadth, channels = self.shape = shape
        half = -(-height // 2), -(-breadth // 2)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Upsample(size=half),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Upsample(size=(height, breadth)),
            _zero(nn.Conv2d(width, channels, 3, padding=1)),
        )

    def forward(self, flat_BP: Tensor) -> Tensor:
        image_BCHW = flat_BP.unflatten(1, self.shape).permute(0, 3, 1, 2)
        return self.layers(image_BCHW).permute(0, 2, 3, 1).flatten(1)


def _zero(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _train(
    correction: _Correction,
    kept: tuple[Floats, Floats],
    held: tuple[Floats, Floats],
    config: AttacksConfig,
    seed: int,
) -> Floats:
    """Train the network in place, keep its best weights; return its error on each held-back pair.

    It learns from the residuals of the ridge regression, which few pairs make small: that is why the
    held-back pairs decide.
    """
    generator = torch.Generator().manual_seed(seed)
    x_KD, made_KP = correction.inputs(kept[0])
    left_KP = _float32(kept[1] - correction.base.predict(kept[0]))
    adam = torch.optim.Adam(correction.parameters(), lr=config.learning_rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.steps)

    def judge() -> Floats:
        error_N: Floats = np.square(judged(correction.predict(held[0]) - held[1])).mean(axis=1)
        return error_N

    best, waited = judge().mean(), 0
    weights = deepcopy(correction.state_dict())
    for step in range(1, config.steps + 1):
        batch = torch.randint(len(x_KD), (min(config.batch_size, len(x_KD)),), generator=generator)
        adam.zero_grad()
        functional.mse_loss(correction(x_KD[batch], made_KP[batch]), left_KP[batch]).backward()
        adam.step()
        falling.step()
        if step % CHECK == 0 or step == config.steps:
            error = judge().mean()
            waited = 0 if error < best else waited + 1
            if error < best:
                best, weights = error, deepcopy(correction.state_dict())
            if waited == config.patience:
                break
    correction.load_state_dict(weights)
    return judge()


# --- known weights -----------------------------------------------------------------------------------------------


def weights(knowledge: Knowledge, config: AttacksConfig, seed: int) -> Restored:
    """Rung 4: find the image whose masked vector is the victim's, by gradient, with a total-variation prior.

    It starts from what the inversion makes of vectors that are as straight as the weights can make them. How smooth and
    how long is chosen on a tenth of the attacker's own images, a hundred at most, that the decoder did not see; no step
    at all is among the choices. Without enough images to choose on (one more than dimensions, besides those) what the
    decoder gives of all is returned.
    """
    encoder = knowledge.encoder
    if encoder is None:
        raise ValueError("attack weights: needs the encoder: give it with its weights")
    vectors_KD, pixels_KP = knowledge.pairs("weights")
    rng = np.random.default_rng(seed)
    tried, learned = np.split(rng.permutation(len(vectors_KD)), [max(1, min(100, len(vectors_KD) // 10))])
    straight_KD = knowledge.straightened(vectors_KD).astype(np.float64)
    if len(learned) <= vectors_KD.shape[1] + 1:  # nothing to choose on
        predict = fit_corrected(straight_KD, pixels_KP, config, seed, knowledge.images.shape[1:])
        return knowledge.shaped(predict(knowledge.straightened(knowledge.victims)))
    predict = fit_corrected(straight_KD[learned], pixels_KP[learned], config, seed, knowledge.images.shape[1:])
    encoder = deepcopy(encoder).requires_grad_(False).eval()
    scale_D = _float32(_deviations(vectors_KD, 1e-4))

    def start(vectors: NDArray[np.floating]) -> Tensor:
        made = knowledge.shaped(predict(knowledge.straightened(vectors)))
        return torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()

    truth = torch.from_numpy(knowledge.shaped(flat(knowledge.images[tried]))).permute(0, 3, 1, 2)
    begin, wanted = start(vectors_KD[tried]), _float32(vectors_KD[tried])
    best, smooth, steps = functional.mse_loss(begin, truth).item(), 0.0, 0
    for weight in config.smoothness:
        x_BCHW = begin
        for checked in range(0, config.descents, CHECK):
            more = min(CHECK, config.descents - checked)
            x_BCHW = _descend(encoder, x_BCHW, wanted, scale_D, weight, more)
            error = functional.mse_loss(x_BCHW, truth).item()
            if error < best:
                best, smooth, steps = error, weight, checked + more
    parts = [slice(begin, begin + CHUNK) for begin in range(0, len(knowledge.victims), CHUNK)]
    restored = []
    for part in parts:
        x_BCHW = start(knowledge.victims[part])
        wanted = _float32(knowledge.victims[part])
        for checked in range(0, steps, CHECK):
            x_BCHW = _descend(encoder, x_BCHW, wanted, scale_D, smooth, min(CHECK, steps - checked))
        restored.append(x_BCHW.permute(0, 2, 3, 1).numpy())
    return np.concatenate(restored)


def _descend(
    encoder: nn.Module, start_BCHW: Tensor, wanted_BD: Tensor, scale_D: Tensor, smooth: float, steps: int
) -> Tensor:
    """So many Adam steps on the images, each image its own problem; pixels stay in [0, 1]."""
    x_BCHW = start_BCHW.clone().requires_grad_()
    adam = torch.optim.Adam([x_BCHW], lr=0.01)
    for _ in range(steps):
        adam.zero_grad()
        off_BD = (encoder(x_BCHW) - wanted_BD) / scale_D
        rough = x_BCHW.diff(dim=2).abs().mean(dim=(1, 2, 3)) + x_BCHW.diff(dim=3).abs().mean(dim=(1, 2, 3))
        (off_BD.square().mean(dim=1) + smooth * rough).sum().backward()
        adam.step()
        with torch.no_grad():
            x_BCHW.clamp_(0, 1)
    return x_BCHW.detach()
