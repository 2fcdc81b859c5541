"""The one configuration of a study: typed, checked, and documented by the lines under its fields.

`StudyConfig` composes the configurations of the rooms; nothing else in the project reads a setting from anywhere.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, Recipe, TrainingConfig, require, with_recipe
from attacks.config import AttacksConfig
from classifiers.config import ClassifiersConfig
from study.search_config import SearchConfig

#: Characters of a line of a message at most; a stranger may have written a part of it.
LONGEST_LINE = 2000


class InputError(ValueError):
    """What a user gave cannot be used: the message says what, where, the value and the way out.

    What a terminal would obey is left out of it.
    """

    def __init__(self, message: str) -> None:
        lines = ("".join(c if c.isprintable() else "?" for c in line[:LONGEST_LINE]) for line in message.split("\n"))
        super().__init__("\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class LatentPoint:
    """One latent configuration: a point of the study."""

    gaussian: int | None = None
    """Dimensions of the Gaussian part; unset, what `ratio` says, or 384."""
    categorical: int = 20
    """Dimensions of the categorical part, or 0."""
    ratio: float | None = None
    """Numbers of a masked form for each number of an image, instead of `gaussian`: 0.125 of 32 x 32 x 3 are 384."""
    batch_size: int | None = None
    """Images a step; unset, `training.batch_size`."""
    recipe: Recipe | None = None
    """Another recipe than `training.recipe`, with all that it decides; unset, that one."""
    whiten: bool | None = None
    """Another choice than `training.whiten`; unset, that one. The recipe decides on couplings again."""
    instances: int | None = None
    """Autoencoders trained for this configuration; unset, the study's `instances`."""

    def __post_init__(self) -> None:
        gaussian = LatentConfig.gaussian if self.gaussian is None else self.gaussian
        LatentConfig(gaussian=gaussian, categorical=self.categorical)
        if self.ratio is None:
            object.__setattr__(self, "gaussian", gaussian)
        else:
            require(self.gaussian is None, "gaussian", self.gaussian, "unset, because `ratio` sets it")
            require(0 < self.ratio <= 8, "ratio", self.ratio, "above 0, up to 8")
        if self.batch_size is not None:
            TrainingConfig(batch_size=self.batch_size)
        require(self.instances is None or 1 <= self.instances <= 1000, "instances", self.instances, "from 1 to 1000")

    def sized(self, pixels: int) -> LatentPoint:
        """The same point with a number in the place of its ratio, for images of so many numbers."""
        if self.ratio is None:
            return self
        gaussian = round(self.ratio * pixels) - self.categorical
        try:
            LatentConfig(gaussian=gaussian, categorical=self.categorical)
        except ValueError as error:
            raise ValueError(f"ratio = {self.ratio}: of an image of {pixels} numbers it makes {error}") from None
        return dataclasses.replace(self, gaussian=gaussian, ratio=None)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the autoencoders are trained on (the paper's set A). Its labels are not used."""

    autoencoder: str = "cifar10"
    """A known data set, `npz:FILE` or `folder:DIR`."""
    held_out: int = 10_000
    """The first so many training images are kept from training, as the paper's V; 0: the set's own test part is."""
    train_images: int | None = None
    """Train on the first so many of the rest; unset, on all."""

    def __post_init__(self) -> None:
        require(self.held_out >= 0 and self.held_out != 1, "held_out", self.held_out, "0, or 2 or more")
        require(self.train_images is None or self.train_images >= 1, "train_images", self.train_images, "1 or more")


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """One labelled data set to mask and classify (the paper's set B)."""

    data: str
    """A known data set, `npz:FILE` or `folder:DIR`."""
    classes: tuple[int, ...] = (2, 3, 4)
    """Numbers of randomly drawn classes; a number equal to all classes of the set is one task, not many draws."""
    mirrored: bool = False
    """Also learn from the masked forms of every image and of its mirror image, and judge by both, in `shared`. For
    photographs: a mirrored digit is another sign."""

    def __post_init__(self) -> None:
        require(
            len(self.classes) >= 1
            and all(c >= 2 for c in self.classes)
            and len(set(self.classes)) == len(self.classes),
            "classes",
            self.classes,
            "different whole numbers from 2",
        )


Protocol = Literal["paper", "shared"]
Control = Literal["raw", "pca", "random_projection", "untrained"]


@dataclass(frozen=True, kw_only=True)
class EncodersConfig:
    """Where trained pairs come from."""

    from_: str | None = None
    """Folder of a study or of `study train`: its pairs are used, nothing is trained. Unset, they are trained."""

    def __post_init__(self) -> None:
        require(self.from_ != "", "from", self.from_, "a folder")


@dataclass(frozen=True, kw_only=True)
class ResourcesConfig:
    """The share of the machine one piece of work gets. Results depend on it by rounding alone (`cpu` threads), and on
    whether there is a GPU, which draws other random numbers."""

    cpu: int = 1
    """CPU cores, and threads, of a trial."""
    gpu: float = 0.0
    """Share of a GPU for a trial: 0.25 puts four trials on one, and caps the memory each may take. Above 0, neural
    networks are fitted there too, hundreds in one program, each of which gets the share."""
    retries: int = 2
    """How often a trial or task is begun again after its process or machine was lost."""

    def __post_init__(self) -> None:
        require(1 <= self.cpu <= 1024, "cpu", self.cpu, "from 1 to 1024")
        require(0 <= self.gpu <= 1, "gpu", self.gpu, "a share from 0 to 1: no trial trains on several")
        require(0 <= self.retries <= 100, "retries", self.retries, "from 0 to 100")

    def fit(self, machine: Mapping[str, float]) -> bool:
        """Whether a machine of so many `CPU` and `GPU`, as Ray calls them, can give the share."""
        return machine.get("CPU", 0) >= self.cpu and machine.get("GPU", 0) >= self.gpu


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Where machines that share no folder exchange what they make."""

    url: str | None = None
    """`s3://BUCKET/PATH`: the study's folder is kept there too, and another machine can go on. Unset, `--out` alone."""
    endpoint: str | None = None
    """Address of another S3 service than AWS's, `https://HOST`; unset, what AWS's own settings say."""

    def __post_init__(self) -> None:
        if self.url is not None:
            holds = re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^@?#]*)?", self.url) is not None
            require(holds, "url", self.url, "s3://BUCKET or s3://BUCKET/PATH, without credentials")
        if self.endpoint is not None:
            holds = re.fullmatch(r"https?://[^@/?#]+/?", self.endpoint) is not None
            require(holds, "endpoint", self.endpoint, "http:// or https:// and a host, without credentials")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A whole study."""

    title: str = ""
    """One line for the head of the report."""
    seed: int = 0
    """Every other seed is derived from this one, by name."""
    instances: int = 1
    """Autoencoders trained for each latent configuration (paper: 4)."""
    draws: int = 10
    """Random choices of classes for each number of classes (paper: 10)."""
    protocols: tuple[Protocol, ...] = ("paper", "shared")
    """`paper`: its own splits, different for the neural network and the others; `shared`: one for all classifiers."""
    controls: tuple[Control, ...] = ("raw", "pca", "random_projection", "untrained")
    """Other vectors of the same length through the same classifiers, in `shared`: raw pixels, principal components,
    a Gaussian random projection, an untrained encoder."""
    estimators: tuple[int, ...] = ()
    """Further numbers of trees and stumps to try on the first autoencoder, in `paper`."""
    latents: tuple[LatentPoint, ...] = (LatentPoint(),)
    """The latent configurations."""
    data: DataConfig = field(default_factory=DataConfig)
    """Images for the autoencoders."""
    tasks: tuple[TaskConfig, ...] = (TaskConfig(data="cifar100"),)
    """Labelled images to mask and classify."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """Layers of the autoencoder."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Training of the autoencoder."""
    classifiers: ClassifiersConfig = field(default_factory=ClassifiersConfig)
    """What is learned from masked images."""
    attacks: AttacksConfig = field(default_factory=AttacksConfig)
    """What is tried to unmask images without the key."""
    encoders: EncodersConfig = field(default_factory=EncodersConfig)
    """Trained pairs instead of training."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    """Share of the machine."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """A copy of the study's folder that every machine reaches."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """A search over configurations, before anything is classified."""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**63, "seed", self.seed, "from 0 to 2**63 - 1")
        require(1 <= self.instances <= 1000, "instances", self.instances, "from 1 to 1000")
        require(1 <= self.draws <= 100_000, "draws", self.draws, "from 1 to 100000")
        require(len(self.protocols) == len(set(self.protocols)) >= 1, "protocols", self.protocols, "one or both, once")
        require(len(self.controls) == len(set(self.controls)), "controls", self.controls, "different names")
        require(
            all(1 <= n <= 100_000 for n in self.estimators) and len(set(self.estimators)) == len(self.estimators),
            "estimators",
            self.estimators,
            "different whole numbers from 1 to 100000",
        )
        require(len(self.latents) >= 1, "latents", self.latents, "at least one latent configuration")
        object.__setattr__(self, "latents", tuple(self._sized()))
        names = [task.data for task in self.tasks]
        require(len(set(names)) == len(names), "tasks", names, "different data sets")
        points = [self.autoencoder(point) for point in self.latents]
        given = [{key: value for key, value in vars(p).items() if value is not None} for p in self.latents]
        require(len(set(points)) == len(points), "latents", given, "different latent configurations")
        if self.search.trials:
            require(self.encoders.from_ is None, "encoders.from", self.encoders.from_, "unset where a search trains")
            self.search.check(self.autoencoder(self.latents[0]))

    def _sized(self) -> Iterator[LatentPoint]:
        for number, point in enumerate(self.latents):
            try:
                yield point.sized(self.network.pixels)
            except ValueError as error:
                raise ValueError(f"latents[{number}].{error}") from None

    def autoencoder(self, point: LatentPoint) -> AutoencoderConfig:
        """The complete configuration of the autoencoders of one point."""
        training, network = self.training, self.network
        if point.recipe is not None and point.recipe != training.recipe:
            network, training = with_recipe(point.recipe, network, training)
        if point.whiten is not None and point.whiten != training.whiten:
            network = dataclasses.replace(network, couplings=None)
            training = dataclasses.replace(training, whiten=point.whiten)
        if point.batch_size is not None:
            training = dataclasses.replace(training, batch_size=point.batch_size)
        assert point.gaussian is not None  # since it is sized
        latent = LatentConfig(gaussian=point.gaussian, categorical=point.categorical)
        return AutoencoderConfig(latent=latent, network=network, training=training)
