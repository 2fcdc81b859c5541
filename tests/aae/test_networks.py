"""Shapes, sizes, the whitening, and the masked form."""

from dataclasses import asdict

import numpy as np
import pytest
import torch

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig, from_plain
from aae.masking import mask, unmask
from aae.networks import Autoencoder


def autoencoder(gaussian=6, categorical=3, **network):
    config = NetworkConfig(normalise_latent=True, **network)
    torch.manual_seed(0)
    return Autoencoder(LatentConfig(gaussian=gaussian, categorical=categorical), config)


def test_the_encoder_has_over_400_thousand_trainable_parameters():
    encoder = autoencoder(384, 20).encoder
    layers = [m for m in encoder.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert sum(p.numel() for layer in layers for p in layer.parameters()) == 455_940
    assert sum(p.numel() for p in encoder.parameters()) == 455_940 + 224  # batch normalisation


@pytest.mark.parametrize(("size", "channels", "widths"), [(32, 3, (4, 8, 8)), (64, 1, (4, 4, 8, 8)), (16, 3, (4,))])
@pytest.mark.parametrize("batch_norm", [True, False])
def test_images_come_back_in_their_own_shape(size, channels, widths, batch_norm):
    nets = autoencoder(image_size=size, channels=channels, widths=widths, batch_norm=batch_norm)
    x = np.random.default_rng(0).integers(0, 256, (5, size, size, channels), dtype=np.uint8)
    masked = mask(nets.encoder, x)
    assert masked.shape == (5, 9)
    restored = unmask(nets.decoder, masked)
    assert restored.shape == x.shape
    assert restored.dtype == np.float32
    assert 0 <= restored.min() <= restored.max() <= 1


@pytest.mark.parametrize(
    ("size", "widths", "side"),
    [(4, (16,), 2), (16, (16, 32), 4), (28, (16, 32), 7), (32, (16, 32, 64), 4), (48, (16, 32, 64), 6),
     (64, (16, 32, 64, 64), 4), (128, (16, 32, 64, 64, 64), 4), (1024, (16, 32, *[64] * 6), 4)],
)  # fmt: skip
def test_depth_follows_the_size_of_the_images(size, widths, side):
    network = NetworkConfig(image_size=size)
    assert network.widths == widths
    assert network.feature_shape == (widths[-1], side, side)
    assert from_plain(NetworkConfig, asdict(network)) == network


def test_a_size_that_cannot_be_halved_so_often_is_told():
    with pytest.raises(ValueError, match="image_size = 36: must be a multiple of 8"):
        NetworkConfig(image_size=36)


@pytest.mark.parametrize(
    ("gaussian", "share", "own"),
    [(8, 0.25, 2), (5, 0.5, 2), (384, 0.25, 96), (6, 1.0, 5), (4, 0.1, 2), (2, 0.9, 0), (1, 1.0, 0), (9, 0.0, 0)],
)
def test_a_branch_brings_the_first_of_the_gaussian_dimensions_and_never_all(gaussian, share, own):
    encoder = autoencoder(gaussian, image_size=8, widths=(4,), branch=share).encoder.eval()
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        z, contrasted = encoder(x), encoder.contrasted(x)
        assert z.shape == (5, gaussian + 3)
        assert torch.equal(contrasted, z[:, : own or gaussian])
        encoder.features[0].weight.zero_()
        changed = (encoder(x) != z).any(dim=0)
    assert changed.tolist()[:gaussian] == [False] * own + [True] * (gaussian - own)


class TestMaskedForm:
    """float32, Gaussian part then softmax part, in evaluation mode."""

    def test_it_is_the_gaussian_part_then_a_softmax(self, images):
        masked = mask(autoencoder().encoder, images)
        assert masked.dtype == np.float32
        np.testing.assert_allclose(masked[:, 6:].sum(axis=1), 1, rtol=1e-5)
        assert (masked[:, 6:] >= 0).all()
        assert (masked[:, :6] < 0).any()

    def test_neighbours_do_not_matter(self, images):
        encoder = autoencoder().encoder
        np.testing.assert_allclose(mask(encoder, images[:1]), mask(encoder, images)[:1], rtol=1e-4, atol=1e-6)

    def test_the_mode_is_left_as_it_was(self, images):
        encoder = autoencoder().encoder.train()
        statistics = encoder.categorical_norm.running_mean.clone()
        mask(encoder, images)
        assert encoder.training
        assert torch.equal(statistics, encoder.categorical_norm.running_mean)


class TestWhitening:
    def test_it_whitens_and_changes_no_reconstruction(self):
        nets = autoencoder(8, 3).eval()
        x = torch.rand(400, 3, 32, 32) * torch.linspace(0, 1, 400)[:, None, None, None]
        with torch.no_grad():
            before, z = nets.decoder(nets.encoder(x)), nets.encoder(x)[:, :8].double()
            nets.set_whitening(z.mean(0).float(), torch.cov(z.T, correction=0), floor=1e-4)
            after, white = nets.decoder(nets.encoder(x)), nets.encoder(x)[:, :8].double()
        assert (before - after).abs().max() < 1e-3
        assert (torch.cov(white.T, correction=0) - torch.eye(8)).abs().max() < 1e-2
        assert white.mean(0).abs().max() < 1e-3

    def test_small_directions_are_made_white_too(self):
        nets = autoencoder(4, 0)
        nets.set_whitening(torch.zeros(4), torch.diag(torch.tensor([100.0, 1.0, 1e-2, 1e-4])), floor=1e-8)
        u = torch.randn(4000, 4) * torch.tensor([100.0, 1.0, 1e-2, 1e-4]).sqrt()
        white = nets.encoder.whitening(u)
        assert (white.std(dim=0) - 1).abs().max() < 0.05
        torch.testing.assert_close(nets.decoder.whitening.undo(white), u, rtol=1e-3, atol=1e-5)

    def test_a_dead_direction_stays_finite(self):
        nets = autoencoder(4, 0)
        covariance = torch.diag(torch.tensor([1.0, 1.0, 1e-3, 0.0]))
        nets.set_whitening(torch.zeros(4), covariance, floor=1e-8)
        assert torch.isfinite(nets.encoder.whitening.matrix).all()
        product = nets.encoder.whitening.matrix @ nets.decoder.whitening.inverse
        assert (product - torch.eye(4)).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("cls", "values", "told"),
    [
        (LatentConfig, {"gaussian": 0}, "gaussian = 0: must be from 1"),
        (LatentConfig, {"categorical": 1}, "categorical = 1: must be 0"),
        (NetworkConfig, {"image_size": 30}, "image_size = 30: must be a multiple of 4"),
        (NetworkConfig, {"channels": 2}, "channels = 2"),
        (NetworkConfig, {"widths": (16, 0)}, "widths"),
        (NetworkConfig, {"branch": 1.5}, "branch = 1.5: must be from 0 to 1"),
        (TrainingConfig, {"recipe": "papre"}, "recipe = 'papre': must be one of paper"),
        (TrainingConfig, {"epochs": 0}, "epochs = 0"),
        (TrainingConfig, {"betas": (0.9, 1.0)}, "betas"),
        (TrainingConfig, {"adversarial_weight": -1.0}, "adversarial_weight = -1"),
        (TrainingConfig, {"contrastive_weight": -1.0}, "contrastive_weight = -1"),
        (TrainingConfig, {"contrastive_temperature": 0.0}, "contrastive_temperature = 0"),
    ],
)
def test_a_wrong_value_is_told_by_key_value_and_way_out(cls, values, told):
    with pytest.raises(ValueError, match=told):
        cls(**values)


def test_plain_values_come_back_as_the_same_configuration():
    config = AutoencoderConfig(latent=LatentConfig(gaussian=5, categorical=0))
    assert from_plain(AutoencoderConfig, asdict(config)) == config
    with pytest.raises(ValueError, match="'gausian': must be one of gaussian"):
        from_plain(LatentConfig, {"gausian": 3})
