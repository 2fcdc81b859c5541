"""Training the autoencoder at 384 + 20 and batch 16: our steps beside three ordinary ways to write them."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from aae.config import AutoencoderConfig, LatentConfig, TrainingConfig
from aae.networks import Autoencoder, BatchNorm
from aae.training import TrainingState, one_pass_step, two_phase_step
from benchmarks.timing import Contender, section, write_page
from engine.convolution import Double, Halve
from study import datasets

BATCH, STEPS = 16, 40


class PictureFiles(Dataset):
    """As torchvision's CIFAR10 with a transform: an image becomes a PIL picture, then a tensor, one by one."""

    def __init__(self, images):
        self.images, self.transform = images, transforms.ToTensor()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.transform(Image.fromarray(self.images[index]))


def plain(nets: Autoencoder) -> Autoencoder:
    """The same networks, all their layers torch's own."""
    for layer in nets.modules():
        if isinstance(layer, Halve | Double | BatchNorm):
            layer.__class__ = type(layer).__base__
    return nets


class PlainTrainer:
    """The two phases as the paper tells them: three plain Adams, three encoder passes, `.item()` each step."""

    def __init__(self, batches, device="cpu"):
        self.nets = nets = plain(Autoencoder(LatentConfig(), AutoencoderConfig().network)).train().to(device)
        self.batches, self.device = batches, device
        self.reconstruction = torch.optim.Adam([*nets.encoder.parameters(), *nets.decoder.parameters()])
        self.discriminating = torch.optim.Adam(nets.discriminator_parameters())
        self.generating = torch.optim.Adam(nets.encoder.parameters())
        self.judge = nn.BCEWithLogitsLoss()

    def run(self):
        for _ in range(STEPS):
            self.step(next(self.batches).to(self.device))
        return STEPS * BATCH

    def step(self, x):
        nets, device = self.nets, self.device
        real, fake = torch.ones(len(x), device=device), torch.zeros(len(x), device=device)
        self.reconstruction.zero_grad()
        loss = functional.mse_loss(nets.decoder(nets.encoder(x)), x)
        loss.backward()
        self.reconstruction.step()

        self.discriminating.zero_grad()
        z = nets.encoder(x).detach()
        one_hot = functional.one_hot(torch.randint(20, (len(x),), device=device), 20).float()
        parts = (
            (nets.gaussian_discriminator, torch.randn(len(x), 384, device=device), z[:, :384]),
            (nets.categorical_discriminator, one_hot, z[:, 384:]),
        )
        judged = sum(self.judge(d(sample), real) + self.judge(d(encoded), fake) for d, sample, encoded in parts)
        judged.backward()
        self.discriminating.step()

        self.generating.zero_grad()
        z = nets.encoder(x)
        fooled = self.judge(nets.gaussian_discriminator(z[:, :384]), real) + self.judge(
            nets.categorical_discriminator(z[:, 384:]), real
        )
        fooled.backward()
        self.generating.step()
        return loss.item(), judged.item(), fooled.item()


def loaded(images) -> Iterator[torch.Tensor]:
    """Batches of a `DataLoader`, for ever."""
    while True:
        yield from DataLoader(PictureFiles(images), batch_size=BATCH, shuffle=True, drop_last=True)


def in_memory(images, device="cpu") -> Iterator[torch.Tensor]:
    """Batches of one float tensor, for ever."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float().to(device) / 255
    while True:
        for index in torch.randperm(len(x), device=device).split(BATCH)[:-1]:
            yield x[index]


def ours(recipe: str, images) -> Contender:
    config = AutoencoderConfig(training=TrainingConfig(recipe=recipe, batch_size=BATCH))
    state = TrainingState(config, seed=0)
    step = one_pass_step if recipe == "one_pass" else two_phase_step
    pixels, generator = torch.from_numpy(images), torch.Generator().manual_seed(0)

    def run(steps: int = STEPS) -> int:
        state.nets.train()
        for index in torch.randperm(len(pixels), generator=generator)[: steps * BATCH].split(BATCH):
            step(state, pixels[index].permute(0, 3, 1, 2).float().div_(255), generator)
        return steps * BATCH

    with FlopCounterMode(display=False) as counter:
        run(1)
    return Contender(f"ours, {recipe}", run, counter.get_total_flops() / BATCH)


def pythae(images) -> list[Contender]:
    """pythae's own trainer with the same convolutions; it has the Gaussian part alone."""
    if importlib.util.find_spec("pythae") is None:
        return []
    from pythae.data.datasets import BaseDataset
    from pythae.models import Adversarial_AE, Adversarial_AE_Config
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseDiscriminator, BaseEncoder
    from pythae.trainers import AdversarialTrainer, AdversarialTrainerConfig

    logging.getLogger("pythae").setLevel(logging.ERROR)
    logging.disable(logging.INFO)
    nets = plain(Autoencoder(LatentConfig(categorical=0), AutoencoderConfig().network))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = nets.encoder

        def forward(self, x):
            z = self.net(x)
            return ModelOutput(embedding=z, log_covariance=torch.zeros_like(z))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = nets.decoder

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    class Discriminator(BaseDiscriminator):
        def __init__(self):
            super().__init__()
            self.net = nets.gaussian_discriminator

        def forward(self, z):
            return ModelOutput(embedding=self.net(z).sigmoid())

    config = Adversarial_AE_Config(
        input_dim=(3, 32, 32), latent_dim=384, reconstruction_loss="mse", deterministic_posterior=True
    )
    model = Adversarial_AE(config, encoder=Encoder(), decoder=Decoder(), discriminator=Discriminator())
    x = torch.from_numpy(images[: STEPS * BATCH]).permute(0, 3, 1, 2).float() / 255
    trainer = AdversarialTrainer(
        model=model,
        train_dataset=BaseDataset(x, torch.zeros(len(x))),
        training_config=AdversarialTrainerConfig(
            output_dir=tempfile.mkdtemp(), num_epochs=1, per_device_train_batch_size=BATCH, no_cuda=True
        ),
        callbacks=[],
    )
    trainer.prepare_training()
    return [Contender("pythae Adversarial_AE", lambda: trainer.train_step(1) and len(x))]


def measure() -> str:
    images = datasets.load("photos", Path()).train_images[:4000]
    note = (
        "Two-phase training, 384 + 20 latent, batch 16, the same layers (`contrastive` has a branch beside), images a "
        "second. `DataLoader`: PIL picture and ToTensor one by one, no worker processes, because training is the "
        "bottleneck of two cores. `pythae` has "
        "no categorical part and takes one phase; it is timed without its evaluation and checkpoints."
    )
    contenders = [
        Contender("DataLoader, eager, three Adams", PlainTrainer(loaded(images)).run),
        Contender("in memory, eager, three Adams", PlainTrainer(in_memory(images)).run),
        *pythae(images),
        ours("two_phase", images),
        ours("one_pass", images),
        ours("contrastive", images),
    ]
    two, one = "ours, two_phase", "ours, one_pass"
    targets = {
        (two, "DataLoader, eager, three Adams"): 4.0,
        (two, "in memory, eager, three Adams"): 2.0,
        (two, "pythae Adversarial_AE"): 3.0,
        (one, two): 1.5,
    }
    return section("Autoencoder, one training step", "images", contenders, targets, note)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(write_page("autoencoder", [measure()]))
