"""What an autoencoder is made of and how it is trained: three configurations, each checked when built.

Every error is a `ValueError` that names the key, its value and the way out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Recipe = Literal["paper", "two_phase", "one_pass", "contrastive"]

_OURS = {
    "adversarial_weight": 0.00001,
    "contrastive_weight": 0.0,
    "schedule": "cosine",
    "whiten": True,
    "normalise_latent": True,
    "couplings": 4,
    "branch": 0.0,
}

#: What a recipe decides unless the key is given: four of the training, three of the network.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {
        "adversarial_weight": 1.0,
        "contrastive_weight": 0.0,
        "schedule": "constant",
        "whiten": False,
        "normalise_latent": False,
        "couplings": 0,
        "branch": 0.0,
    },
    "two_phase": _OURS,
    "one_pass": _OURS,
    "contrastive": _OURS | {"contrastive_weight": 0.01, "branch": 0.25},
}


def require(holds: bool, key: str, value: object, wanted: str) -> None:
    """Raise the one `ValueError` all configurations use unless `holds`."""
    if not holds:
        raise ValueError(f"{key} = {value!r}: must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """The two parts of the masked form (paper: 384 Gaussian and 20 categorical numbers)."""

    gaussian: int = 384
    """Dimensions with a standard normal prior, 1 to 8,192."""
    categorical: int = 20
    """Categories of the one-hot prior, 2 to 4,096; 0 leaves the part out."""

    def __post_init__(self) -> None:
        require(1 <= self.gaussian <= 8192, "gaussian", self.gaussian, "from 1 to 8192")
        require(
            self.categorical == 0 or 2 <= self.categorical <= 4096,
            "categorical",
            self.categorical,
            "0 (no categorical part) or from 2 to 4096",
        )

    @property
    def length(self) -> int:
        """Numbers in one masked form."""
        return self.gaussian + self.categorical

    def __str__(self) -> str:
        return f"{self.gaussian}+{self.categorical}"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Layer sizes. The paper's S1 to S4 Tables are not in its text: these are our reconstruction.

    With the defaults the convolutions and heads of the encoder have 455,940 trainable parameters, batch normalisation
    224 more ("over 400 thousand" in the paper).
    """

    image_size: int = 32
    """Side of the square images in pixels; every convolution halves it."""
    channels: int = 3
    """Colour channels of the images, 1 or 3."""
    widths: tuple[int, ...] = ()
    """Channels after each convolution of the encoder (kernel 4, stride 2, padding 1); the decoder mirrors them. Unset,
    16, 32, and 64 from then on, as many as leave 4 to 7 pixels a side."""
    batch_norm: bool = True
    """Batch normalisation after the hidden layers of encoder and decoder."""
    normalise_latent: bool | None = None
    """Batch normalisation without scale and shift of the categorical logits; unset, the training recipe decides. The
    Gaussian part has `training.whiten`."""
    logit_scale: float = 20.0
    """Factor on the normalised categorical logits before the softmax; without normalisation it is not used."""
    couplings: int | None = None
    """Coupling layers that make the whitened Gaussian part normal (RealNVP), fitted when training is over and undone
    exactly by the decoder; 0: none. Unset, the training recipe decides; without `training.whiten` there are none."""
    branch: float | None = None
    """Share of the Gaussian part that has convolutions of its own, of the same widths; the contrastive loss is of it
    alone. Two dimensions at least, and not all. 0, or fewer than three in all: none, and the loss is of the whole part.
    Unset, the training recipe decides."""
    discriminator_widths: tuple[int, ...] = (256, 256)
    """Hidden layers of each discriminator."""

    def __post_init__(self) -> None:
        require(isinstance(self.image_size, int), "image_size", self.image_size, "a whole number")
        if not self.widths:
            depth = max(1, self.image_size.bit_length() - 3)
            object.__setattr__(self, "widths", tuple(min(64, 16 * 2**layer) for layer in range(depth)))
        require(all(1 <= w <= 4096 for w in self.widths), "widths", self.widths, "whole numbers from 1 to 4096")
        step = 2 ** len(self.widths)
        require(
            self.image_size >= step and self.image_size % step == 0 and self.image_size <= 1024,
            "image_size",
            self.image_size,
            f"a multiple of {step} up to 1024, because each of `widths` halves it",
        )
        require(self.channels in (1, 3), "channels", self.channels, "1 or 3")
        require(self.couplings is None or 0 <= self.couplings <= 64, "couplings", self.couplings, "from 0 to 64")
        require(self.branch is None or 0 <= self.branch <= 1, "branch", self.branch, "from 0 to 1")
        require(0 < self.logit_scale <= 1000, "logit_scale", self.logit_scale, "above 0, up to 1000")
        require(
            len(self.discriminator_widths) >= 1 and all(1 <= w <= 8192 for w in self.discriminator_widths),
            "discriminator_widths",
            self.discriminator_widths,
            "one or more whole numbers from 1 to 8192",
        )

    @property
    def feature_shape(self) -> tuple[int, int, int]:
        """Channels, height and width between convolutions and linear heads."""
        side = self.image_size // 2 ** len(self.widths)
        return self.widths[-1], side, side

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.channels * self.image_size**2


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the autoencoder is trained. Settings left unset follow from the recipe."""

    recipe: Recipe = "two_phase"
    """`paper`: plain adversarial training, which misses its priors; `two_phase`: the paper's two phases with normalised
    latents and weighted phases; `one_pass`: the same with one encoder pass for both phases; `contrastive`: `two_phase`
    with a contrastive loss on a branch of the encoder."""
    epochs: int = 20
    """Passes over the training images."""
    batch_size: int = 16
    """Images a step (paper: 16)."""
    learning_rate: float = 1e-3
    """Of Adam, for every network (paper: 0.001)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam (paper: 0.9 and 0.999)."""
    schedule: Literal["constant", "cosine"] | None = None
    """Learning rate over all steps; `cosine` falls to a hundredth. Unset, the recipe decides."""
    adversarial_weight: float | None = None
    """Weight of the encoder's adversarial losses beside the reconstruction error; 0 switches the discriminators
    off. Unset, the recipe decides."""
    contrastive_weight: float | None = None
    """Weight of the contrastive loss (`aae.contrast`) of the Gaussian part, or of its `network.branch`, beside the
    reconstruction error; 0 leaves it out. Unset, the recipe decides."""
    contrastive_temperature: float = 0.1
    """Of that loss: the lower, the more the most similar of the other images count."""
    whiten: bool | None = None
    """Keep the Gaussian part uncorrelated by a linear map that the decoder undoes exactly, placed after each epoch.
    Unset, the recipe decides."""
    sample_noise: float = 0.05
    """Deviation of the noise that blurs the one-hot samples, so that no discriminator wins by their exactness."""

    def __post_init__(self) -> None:
        require(self.recipe in RECIPES, "recipe", self.recipe, "one of " + ", ".join(RECIPES))
        for key, value in RECIPES[self.recipe].items():
            if getattr(self, key, value) is None:
                object.__setattr__(self, key, value)
        require(1 <= self.epochs <= 100_000, "epochs", self.epochs, "from 1 to 100000")
        require(2 <= self.batch_size <= 65_536, "batch_size", self.batch_size, "from 2 to 65536")
        require(0 < self.learning_rate <= 1, "learning_rate", self.learning_rate, "above 0, up to 1")
        require(
            len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas),
            "betas",
            self.betas,
            "two numbers from 0 to below 1",
        )
        require(self.schedule in ("constant", "cosine"), "schedule", self.schedule, '"constant" or "cosine"')
        assert self.adversarial_weight is not None
        require(0 <= self.adversarial_weight <= 1000, "adversarial_weight", self.adversarial_weight, "from 0 to 1000")
        assert self.contrastive_weight is not None
        require(0 <= self.contrastive_weight <= 1000, "contrastive_weight", self.contrastive_weight, "from 0 to 1000")
        temperature = self.contrastive_temperature
        require(0.01 <= temperature <= 100, "contrastive_temperature", temperature, "from 0.01 to 100")
        require(0 <= self.sample_noise <= 1, "sample_noise", self.sample_noise, "from 0 to 1")


def with_recipe(
    recipe: Recipe, network: NetworkConfig, training: TrainingConfig
) -> tuple[NetworkConfig, TrainingConfig]:
    """The same trained by another recipe: what that decides is open again, everything else stays."""

    def opened(config: Any, **changes: Any) -> Any:
        return replace(config, **{key: None for key in RECIPES[recipe] if hasattr(config, key)}, **changes)

    return opened(network), opened(training, recipe=recipe)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """One adversarial autoencoder, complete: what the recipe leaves open is filled in when this is built."""

    latent: LatentConfig = field(default_factory=LatentConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        decided, network, whiten = RECIPES[self.training.recipe], self.network, self.training.whiten
        if network.normalise_latent is None:
            network = replace(network, normalise_latent=decided["normalise_latent"])
        if network.branch is None:
            network = replace(network, branch=decided["branch"])
        if network.couplings is None:
            network = replace(network, couplings=decided["couplings"] if whiten else 0)
        require(whiten or not network.couplings, "network.couplings", network.couplings, "0 without training.whiten")
        object.__setattr__(self, "network", network)


def from_plain(cls: type[Any], values: dict[str, Any]) -> Any:
    """Build a configuration of this module from what `dataclasses.asdict` gave, possibly by way of JSON.

    Raises `ValueError` for unknown keys and values out of range, `TypeError` for values of another kind.
    """
    parts = {"latent": LatentConfig, "network": NetworkConfig, "training": TrainingConfig}
    known = cls.__dataclass_fields__
    for key in values:
        require(key in known, "key", key, "one of " + ", ".join(known))
    return cls(
        **{
            key: from_plain(parts[key], value) if key in parts else tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }
    )
