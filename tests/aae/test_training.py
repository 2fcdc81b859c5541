"""The algorithm: what each phase may touch, what repeats, what goes on."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from aae.config import RECIPES, AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig
from aae.masking import mask
from aae.training import (
    LOSSES,
    DivergedError,
    TrainingState,
    _discriminator_losses,
    _generating_loss,
    _samples,
    train_epochs,
)


def small(recipe="two_phase", *, latent=(6, 3), epochs=3, couplings=None, branch=None, **training):
    return AutoencoderConfig(
        latent=LatentConfig(gaussian=latent[0], categorical=latent[1]),
        network=NetworkConfig(widths=(4, 6, 8), discriminator_widths=(8,), couplings=couplings, branch=branch),
        training=TrainingConfig(recipe=recipe, epochs=epochs, **training),
    )


def weights(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def moved(before, module):
    return any(not torch.equal(before[name], value) for name, value in module.named_parameters())


def batch(images):
    return torch.from_numpy(images[:16]).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("recipe", ["paper", "two_phase"])
class TestPhases:
    """After one phase, what it must not touch is untouched."""

    def phase(self, recipe, images, descend):
        state = TrainingState(small(recipe), seed=1)
        parts = ("encoder", "decoder", "gaussian_discriminator", "categorical_discriminator")
        before = {part: weights(getattr(state.nets, part)) for part in parts}
        descend(state, state.nets.encoder(batch(images)))
        return {part for part in parts if moved(before[part], getattr(state.nets, part))}

    def test_reconstruction_moves_encoder_and_decoder(self, recipe, images):
        def descend(state, z):
            state.autoencoder_adam.descend((state.nets.decoder(z) - batch(images)).square().mean())

        assert self.phase(recipe, images, descend) == {"encoder", "decoder"}

    def test_judging_moves_the_discriminators(self, recipe, images):
        def descend(state, z):
            samples = _samples(state.config, torch.Generator().manual_seed(0), len(z))
            state.discriminator_adam.descend(_discriminator_losses(state.nets, z.detach(), samples).sum())

        assert self.phase(recipe, images, descend) == {"gaussian_discriminator", "categorical_discriminator"}

    def test_generating_moves_the_encoder(self, recipe, images):
        def descend(state, z):
            state.generator_adam.descend(_generating_loss(state.nets, z))

        assert self.phase(recipe, images, descend) == {"encoder"}


@pytest.mark.parametrize("recipe", RECIPES)
class TestRecipes:
    """What holds for every recipe."""

    def test_reconstruction_improves(self, recipe, images):
        history = list(train_epochs(TrainingState(small(recipe, epochs=6), seed=3), images[:80], images[80:]))
        assert history[-1]["reconstruction_loss"] < 0.8 * history[0]["reconstruction_loss"]
        assert [m["epoch"] for m in history] == [1, 2, 3, 4, 5, 6]

    def test_a_seed_repeats_and_another_differs(self, recipe, images):
        def last(seed):
            *_, metrics = train_epochs(TrainingState(small(recipe), seed), images[:80], images[80:])
            return [metrics[name] for name in LOSSES]

        assert last(5) == last(5) != last(6)

    def test_going_on_from_a_checkpoint_is_never_having_stopped(self, recipe, images):
        whole = TrainingState(small(recipe), seed=2)
        straight = list(train_epochs(whole, images[:80], images[80:]))
        first = TrainingState(small(recipe), seed=2)
        head = [next(train_epochs(first, images[:80], images[80:]))]
        second = TrainingState(small(recipe), seed=2)
        second.load(load(save(first.tensors())))
        tail = list(train_epochs(second, images[:80], images[80:]))
        assert all({**a, "seconds": 0} == {**b, "seconds": 0} for a, b in zip(straight, head + tail, strict=True))
        ended, gone_on = whole.tensors(), second.tensors()
        assert ended.keys() == gone_on.keys()
        assert all(torch.equal(ended[name], gone_on[name]) for name in ended)

    def test_no_categorical_part(self, recipe, images):
        *_, metrics = train_epochs(TrainingState(small(recipe, latent=(5, 0)), 1), images[:80], images[80:])
        assert metrics["categorical_discriminator_loss"] == 0
        assert "categories_used" not in metrics


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_contrastive_loss_falls_and_a_weight_of_zero_leaves_it_out(recipe, images):
    def losses(weight):
        alone = {"adversarial_weight": 0.0, "whiten": False, "contrastive_temperature": 0.5}
        config = small(recipe, contrastive_weight=weight, epochs=12, **alone)
        return [metrics["contrastive_loss"] for metrics in train_epochs(TrainingState(config, 1), images, images)]

    with_it = losses(0.1)
    assert with_it[-1] < 0.95 * with_it[0]
    assert not any(losses(0.0))


@pytest.mark.parametrize("recipe", RECIPES)
def test_views_leave_no_trace_in_running_statistics(recipe, images, monkeypatch):
    """What masks and restores later sees images as they are, not frames of them in other colours."""

    def statistics(view):
        monkeypatch.setattr("aae.training.views", view)
        # At this rate weights stand still, and what passes through the network alone decides.
        config = small(recipe, contrastive_weight=0.01, learning_rate=1e-9, whiten=False, epochs=1)
        state = TrainingState(config, seed=1)
        list(train_epochs(state, images[:80], images[80:]))
        return {name: value for name, value in state.nets.encoder.named_buffers() if "running" in name}

    noise, same = (
        statistics(lambda x, _: torch.rand(2 * len(x), *x.shape[1:])),
        statistics(lambda x, _: x.repeat(2, 1, 1, 1)),
    )
    assert same.keys()
    for name, value in same.items():
        assert torch.allclose(value, noise[name], rtol=1e-3, atol=1e-5), name


def test_weight_zero_leaves_the_discriminators_alone(images):
    state = TrainingState(small(adversarial_weight=0.0), seed=1)
    before = weights(state.nets.gaussian_discriminator)
    next(train_epochs(state, images[:80], images[80:]))
    assert not moved(before, state.nets.gaussian_discriminator)


def test_the_trained_latent_is_white_and_restores_as_before(images):
    state = TrainingState(small(epochs=4), seed=1)
    epochs = train_epochs(state, images.repeat(3, axis=0), images)
    for _ in range(3):
        next(epochs)
    *_, last = epochs
    z = torch.from_numpy(mask(state.nets.encoder, images))[:, :6].double()
    assert (torch.cov(z.T, correction=0) - torch.eye(6)).abs().max() < 0.02
    assert last["effective_rank"] > 5.99


def test_the_contrastive_loss_moves_the_branch_and_what_restores_goes_its_own_way(images):
    """Where there is a branch; else the loss moves what restores."""

    def moved_by_weight(branch):
        alone = {"adversarial_weight": 0.0, "batch_size": 80, "epochs": 1}  # one step: a second restores otherwise
        states = [
            TrainingState(small("contrastive", branch=branch, contrastive_weight=weight, **alone), seed=1)
            for weight in (0.0, 1.0)
        ]
        for state in states:
            list(train_epochs(state, images[:80], images[80:]))
        without, with_it = (dict(state.nets.encoder.named_parameters()) for state in states)
        return {name.partition(".")[0] for name in without if not torch.equal(without[name], with_it[name])}

    assert moved_by_weight(0.5) == {"branch"}
    assert moved_by_weight(0.0) >= {"features", "gaussian_head"}


@pytest.mark.parametrize("branch", [0.0, 0.5])
def test_whitening_and_the_contrastive_loss_leave_each_other_alone(images, branch):
    """That loss is of what comes before the whitening, which so may be placed after each epoch."""
    many = images.repeat(3, axis=0)
    white, plain = (
        TrainingState(small("contrastive", branch=branch, adversarial_weight=0.0, couplings=0, whiten=whiten), seed=1)
        for whiten in (True, False)
    )
    for ours, other in zip(train_epochs(white, many, images), train_epochs(plain, many, images), strict=True):
        assert not torch.equal(white.nets.encoder.whitening.matrix, torch.eye(6))
        for loss in ("reconstruction_loss", "contrastive_loss", "held_out_mse"):
            assert ours[loss] == pytest.approx(other[loss], rel=1e-3)


def test_a_flow_changes_the_masked_form_and_no_reconstruction(images):
    many = images.repeat(12, axis=0)
    states = [TrainingState(small(epochs=1, couplings=couplings), seed=1) for couplings in (0, 4)]
    (without,), (with_flow,) = (list(train_epochs(state, many, images)) for state in states)
    assert with_flow["held_out_mse"] == pytest.approx(without["held_out_mse"], rel=1e-5)
    assert with_flow["reconstruction_loss"] == without["reconstruction_loss"]
    assert np.abs(np.subtract(*(mask(state.nets.encoder, images) for state in states))).max() > 0.1


def test_the_recipe_fills_in_what_is_left_open():
    paper, ours = AutoencoderConfig(training=TrainingConfig(recipe="paper")), AutoencoderConfig()
    assert (paper.training.adversarial_weight, paper.network.normalise_latent) == (1.0, False)
    assert ours.network.normalise_latent
    assert (paper.network.couplings, ours.network.couplings) == (0, 4)
    assert AutoencoderConfig(training=TrainingConfig(whiten=False)).network.couplings == 0
    assert TrainingConfig(recipe="paper", adversarial_weight=0.5).adversarial_weight == 0.5


def test_the_cosine_ends_near_a_hundredth(images):
    *_, metrics = train_epochs(TrainingState(small(schedule="cosine", epochs=20), 1), images[:32], images[80:])
    assert metrics["learning_rate"] < 0.05 * 1e-3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda x: x.astype(np.float32), "float32"),
        (lambda x: x[:, :16], r"\(96, 16, 32, 3\)"),
        (lambda x: x[:0], r"\(0, 32, 32, 3\)"),
    ],
)
def test_wrong_images_are_refused(images, wrong, told):
    with pytest.raises(ValueError, match=told):
        next(train_epochs(TrainingState(small(), 1), wrong(images), images))


def test_a_batch_larger_than_the_data_is_refused(images):
    with pytest.raises(ValueError, match=r"batch_size = 16: must be at most the 10"):
        next(train_epochs(TrainingState(small(), 1), images[:10], images))


def test_divergence_is_told(images):
    state = TrainingState(small(), 1)
    with torch.no_grad():
        next(state.nets.decoder.layers.parameters()).fill_(float("inf"))
    with pytest.raises(DivergedError, match="epoch 1"):
        next(train_epochs(state, images, images))


def test_training_needs_torch_and_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'sklearn', 'pandas', 'safetensors', 'scipy', 'torchvision', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "import numpy as np\n"
        "from aae.config import *; from aae.training import *\n"
        "x = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)\n"
        "config = AutoencoderConfig(training=TrainingConfig(epochs=1))\n"
        "print(next(train_epochs(TrainingState(config, 0), x, x))['epoch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
