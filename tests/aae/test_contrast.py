"""Views of images, and the loss that makes their latents alike."""

import math

import pytest
import torch

from aae import contrast
from aae.contrast import contrastive_loss, views


def ramp(count=400, side=16):
    """Images whose channels say where a pixel lies: across, down, and nothing."""
    place = (torch.arange(side) + 0.5) / side
    one = torch.stack((place.expand(side, side), place[:, None].expand(side, side), torch.full((side, side), 0.5)))
    return one.expand(count, 3, side, side)


@pytest.fixture
def seen(monkeypatch):
    """Views without other colours."""
    monkeypatch.setattr(contrast, "JITTER", 0.0)
    monkeypatch.setattr(contrast, "GREY", 0.0)
    return views(ramp(), torch.Generator().manual_seed(1))


def test_a_view_is_a_frame_of_its_image_at_full_size(seen):
    across, down = seen[:, 0].mean(dim=1), seen[:, 1].mean(dim=2)  # what the middle of each column, row shows
    width, height = ((line[:, -1] - line[:, 0]).abs() * 16 / 15 for line in (across, down))
    assert seen.shape == (800, 3, 16, 16)
    assert (seen.amin(), seen.amax()) == (pytest.approx(1 / 32, abs=0.01), pytest.approx(31 / 32, abs=0.01))
    area = width * height
    assert area.min() > 0.25
    assert area.quantile(0.1) < 0.4
    assert area.max() > 0.95
    assert ((width / height).log().abs() < math.log(4 / 3) + 0.1).all()


def test_half_of_the_views_are_mirrored_and_none_stands_on_its_head(seen):
    mirrored = seen[:, 0, :, 0] > seen[:, 0, :, -1]
    assert mirrored.float().mean() == pytest.approx(0.5, abs=0.06)
    assert (seen[:, 1, 0] < seen[:, 1, -1]).all()


def test_views_differ_in_colour_and_one_in_ten_has_none():
    seen = views(ramp(), torch.Generator().manual_seed(1))
    assert 0 <= seen.min() < seen.max() <= 1
    grey = (seen - seen.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert grey.float().mean() == pytest.approx(0.1, abs=0.03)
    brightness = seen.mean(dim=(1, 2, 3))
    assert brightness.std() > 0.05


def test_a_generator_repeats_and_both_views_are_of_the_same_image(monkeypatch):
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    one, again, other = (views(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    monkeypatch.setattr(contrast, "JITTER", 0.0)
    flat = torch.arange(6.0).div(6)[:, None, None, None].expand(6, 3, 8, 8)
    assert torch.allclose(views(flat, torch.Generator().manual_seed(1)), torch.cat((flat, flat)))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_loss_is_the_cross_entropy_of_the_other_view(temperature):
    z = torch.randn(10, 7, generator=torch.Generator().manual_seed(3))
    expected = []
    for i in range(10):
        likeness = torch.nn.functional.cosine_similarity(z[i : i + 1], z) / temperature
        others = torch.cat((likeness[:i], likeness[i + 1 :]))
        expected.append(torch.logsumexp(others, 0) - likeness[(i + 5) % 10])
    assert contrastive_loss(z, temperature).item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_latents_alike_within_and_apart_between_images_lose_least():
    apart = torch.eye(4).repeat(2, 1)
    assert contrastive_loss(5.0 * apart, 0.1).item() == pytest.approx(math.log1p(6 * math.exp(-10)), rel=1e-3)
    assert contrastive_loss(apart[torch.arange(8) // 2], 0.1) > 1
