"""One captured step, replayed, does what the step does when it is called every time."""

import logging

import pytest
import torch

from aae.config import RECIPES, AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig
from aae.training import TrainingState, train_epochs
from engine import FEWEST, WARM, claim, repeat, repeatable
from engine.adam import Adam
from engine.convolution import Convolution, Double, Halve

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, WARM, FEWEST - 1, FEWEST, 100])
def test_every_row_is_taken_once_in_order(device, count):
    seen, place = torch.zeros(count + 1, device=device), torch.zeros(1, dtype=torch.long, device=device)

    def step(row, other):
        seen.index_copy_(0, place, row + other.sum()[None])
        place.add_(1)

    rows = torch.arange(1.0, count + 1, device=device)
    repeat(step, rows[:, None], torch.stack((rows, rows), dim=1))
    assert seen.tolist() == [*(3 * rows).tolist(), 0.0]


@pytest.mark.parametrize("device", DEVICES)
def test_random_numbers_are_those_of_single_calls(device):
    rows = torch.zeros(60, 1, device=device)

    def draws(all_at_once):
        generator, drawn = torch.Generator(device).manual_seed(3), torch.zeros(60, 5, device=device)
        place = torch.zeros(1, dtype=torch.long, device=device)

        def step(row):
            drawn.index_copy_(0, place, torch.randn(1, 5, device=device, generator=generator))
            place.add_(1)

        if all_at_once:
            repeat(step, rows, generator=generator)
        else:
            for row in rows:
                step(row)
        return drawn, torch.randn(5, device=device, generator=generator)

    assert all(torch.equal(a, b) for a, b in zip(draws(True), draws(False), strict=True))


@gpu
def test_a_step_that_waits_for_the_gpu_runs_every_time(caplog):
    total, drawn, stream = torch.zeros(1, device="cuda"), torch.zeros(1, device="cuda"), torch.cuda.current_stream()
    generator, same = (torch.Generator("cuda").manual_seed(3) for _ in range(2))

    def step(row):
        drawn.add_(torch.randn(1, device="cuda", generator=generator))
        total.add_(row.item())

    with caplog.at_level(logging.WARNING):
        repeat(step, torch.ones(80, device="cuda"), generator=generator)
    assert total.item() == 80
    assert drawn.item() == sum(torch.randn(1, device="cuda", generator=same) for _ in range(80)).item()
    assert torch.cuda.current_stream() == stream
    assert "could not be captured" in caplog.text


@gpu
def test_convolutions_repeat_and_keep_their_precision(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", False)
    before = cudnn.deterministic
    with repeatable(torch.device("cuda")):
        assert cudnn.deterministic
        assert not cudnn.allow_tf32
    assert cudnn.deterministic == before


@gpu
@pytest.mark.parametrize("recipe", RECIPES)
class TestTraining:
    """On a GPU."""

    def train(self, recipe, images, epochs=2):
        config = AutoencoderConfig(
            latent=LatentConfig(gaussian=6, categorical=3),
            network=NetworkConfig(widths=(4, 6, 8), discriminator_widths=(8,)),
            training=TrainingConfig(recipe=recipe, epochs=epochs, batch_size=4),
        )
        state = TrainingState(config, seed=1, device="cuda")
        return state, train_epochs(state, images.repeat(20, axis=0), images)

    def test_captured_steps_are_plain_steps(self, recipe, images, monkeypatch):
        captured, epochs = self.train(recipe, images)
        history = list(epochs)
        monkeypatch.setattr("engine.FEWEST", 10**9)
        plain, epochs = self.train(recipe, images)
        assert [{**m, "seconds": 0} for m in history] == [{**m, "seconds": 0} for m in epochs]
        ended, other = captured.tensors(), plain.tensors()
        assert all(torch.equal(ended[name], other[name]) for name in ended)

    def test_going_on_from_a_checkpoint_is_never_having_stopped(self, recipe, images):
        whole, epochs = self.train(recipe, images)
        list(epochs)
        half, epochs = self.train(recipe, images)
        next(epochs)
        again, epochs = self.train(recipe, images)
        again.load(half.tensors())
        list(epochs)
        ended, gone_on = whole.tensors(), again.tensors()
        assert all(torch.equal(ended[name], gone_on[name]) for name in ended)

    def test_the_gpu_trains_as_the_cpu_does(self, recipe, images):
        """Other random numbers, the same errors on the whole."""
        _, epochs = self.train(recipe, images, epochs=6)
        on_gpu = list(epochs)[-1]
        config = self.train(recipe, images, epochs=6)[0].config
        on_cpu = list(train_epochs(TrainingState(config, seed=1), images.repeat(20, axis=0), images))[-1]
        assert on_gpu["held_out_mse"] == pytest.approx(on_cpu["held_out_mse"], rel=0.15)


def test_memory_is_capped_in_proportion(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert claim(0.25) == "cpu"
    assert "sees none" in caplog.text
    capped = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", capped.append)
    assert [claim(share) for share in (0.25, 1.0, 0.0)] == ["cuda", "cuda", "cpu"]
    assert capped == [0.25]


@pytest.mark.parametrize("device", DEVICES)
def test_adam_is_torchs_to_the_last_bit_where_parts_move_by_turns(device):
    def parameters():
        generator = torch.Generator().manual_seed(1)
        shapes = [(5, 3, 4, 4), (5,), (7, 9), (7,)]
        drawn = [torch.randn(shape, generator=generator).to(device) for shape in shapes]
        drawn[0] = drawn[0].to(memory_format=torch.channels_last)
        return [tensor.requires_grad_() for tensor in drawn]

    def loss(moving, turn):
        return sum((p * (turn + 1)).sin().square().mean() for p in moving)

    ours, theirs = parameters(), parameters()
    adam = Adam(ours[:2], ours[2:], rate=0.01, betas=(0.8, 0.99))
    plain = torch.optim.Adam(theirs, lr=0.01, betas=(0.8, 0.99), fused=True)
    for turn in range(6):
        if turn == 3:  # through a copy, as from a checkpoint
            kept, adam = adam.tensors(), Adam(ours[:2], ours[2:], rate=0.01, betas=(0.8, 0.99))
            adam.load(kept)
        which = slice(0, 2) if turn % 2 else slice(0, 4)
        adam.descend(loss(ours[which], turn))
        plain.zero_grad()
        loss(theirs[which], turn).backward()
        plain.step()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert [adam.tensors()[f"{number}.step"].item() for number in range(4)] == [6, 6, 3, 3]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("layer", "transposed"), [(Halve, False), (Double, True)])
def test_gradients_of_convolutions_are_torchs(device, layer, transposed):
    torch.manual_seed(0)
    ours = layer(3, 5).to(device, torch.float64)
    x = torch.randn(2, 3, 8, 8, device=device, dtype=torch.float64, requires_grad=True)
    theirs = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    wanted, made = theirs.forward(ours, x), Convolution.apply(x, ours.weight, ours.bias, transposed)
    assert made.shape == ((2, 5, 16, 16) if transposed else (2, 5, 4, 4))
    assert torch.equal(made, wanted)
    weights = torch.randn_like(made)
    for one, other in zip(
        *(torch.autograd.grad((out * weights).sum(), (x, ours.weight, ours.bias)) for out in (made, wanted)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
