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


def test_frames_lie_anywhere_and_the_two_of_an_image_elsewhere(seen):
    for middle in (seen[:, 0].mean(dim=(1, 2)), seen[:, 1].mean(dim=(1, 2))):
        assert middle.mean() == pytest.approx(0.5, abs=0.01)
        assert middle.std() > 0.05
        assert (middle[:400] - middle[400:]).abs().median() > 0.03


def colours(red, green, count=800):
    """Views of images that have only these, half and half, seen whole."""
    x = torch.zeros(count // 2, 3, 16, 16)
    x[..., :8, :], x[..., 8:, :] = torch.tensor(red)[:, None, None], torch.tensor(green)[:, None, None]
    return views(x, torch.Generator().manual_seed(1))


def test_views_differ_in_brightness_contrast_and_saturation(monkeypatch):
    monkeypatch.setattr(contrast, "AREA", 1.0)
    monkeypatch.setattr(contrast, "ASPECT", 1.0)
    monkeypatch.setattr(contrast, "GREY", 0.0)
    grey = colours([0.3] * 3, [0.5] * 3)
    brightness = grey.mean(dim=(1, 2, 3)) / 0.4
    difference = (grey[:, 0, -1, 0] - grey[:, 0, 0, 0]) / 0.2 / brightness
    flat = colours([0.5, 0.3, 0.4], [0.5, 0.3, 0.4])
    both = (flat[:, 0] - flat[:, 1]).mean(dim=(1, 2)) / 0.2 / (flat.mean(dim=(1, 2, 3)) / 0.4)
    for factor in (brightness, difference):
        assert 0.59 < factor.min() < 0.63
        assert 1.37 < factor.max() < 1.41
    assert 0.35 < both.min() < 0.5  # contrast changes colours, and saturation changes them again
    assert 1.6 < both.max() < 1.97
    assert torch.corrcoef(torch.stack((brightness, difference)))[0, 1].abs() < 0.15


def test_one_view_in_ten_has_no_colour_and_none_leaves_the_range():
    seen = views(ramp(), torch.Generator().manual_seed(1))
    assert 0 <= seen.min() < seen.max() <= 1
    grey = (seen - seen.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    assert grey.float().mean() == pytest.approx(0.1, abs=0.03)


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
