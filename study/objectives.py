"""What a trial of a search is judged by: numbers from training and validation data alone.

An objective is one entry of `OBJECTIVES`: its natural direction, whether it can be measured after every epoch, one
line for the report, and a function of a trained autoencoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from aae.config import AutoencoderConfig, LatentConfig
from aae.masking import mask
from aae.networks import Autoencoder, Encoder
from attacks import AttacksConfig
from classifiers import ClassifiersConfig
from study import secrecy
from study.config import InputError, StudyConfig
from study.datasets import ImageSet, Labels, Split, draws, split
from study.evaluate import ClassificationJob, Source, classify
from study.pictures import Images
from study.search_config import OF_SECRECY, SearchConfig
from study.seeds import derive


@dataclass(frozen=True)
class ValidationDraw:
    """One choice of classes, and their images of the training part alone."""

    dataset: str
    classes: tuple[int, ...]
    images: Images
    labels: Labels
    split: Split
    """Trains, chooses the epoch, and scores; the last part is the `validation` part of the protocol `shared`."""


@dataclass(frozen=True)
class Bench:
    """All that trials share: images, and what objectives need."""

    train: Images
    held_out: Images
    draws: tuple[ValidationDraw, ...] = ()
    classifiers: ClassifiersConfig = field(default_factory=ClassifiersConfig)
    classifier: str = "mlp"
    attacks: AttacksConfig = field(default_factory=AttacksConfig)


@dataclass(frozen=True)
class Trained:
    """One autoencoder after an epoch, as objectives see it."""

    nets: Autoencoder
    config: AutoencoderConfig
    seed: int
    metrics: dict[str, float]
    """Of its last epoch; see `aae.training.train_epochs` and `study.trial.run_trial`."""
    bench: Bench

    @cached_property
    def secrecy(self) -> secrecy.Secrecy:
        """What an attacker restores who holds pairs of training images; the victims are held-out images."""
        bench = self.bench
        return secrecy.measure(self.nets.encoder, bench.train, bench.held_out, bench.attacks, self.seed)


@dataclass(frozen=True)
class Objective:
    """An entry of the registry."""

    direction: str
    every_epoch: bool
    meaning: str
    measure: Callable[[Trained], float]


def accuracies(encoder: Encoder, latent: LatentConfig, bench: Bench) -> list[float]:
    """Accuracy on each validation draw; the classifier's seed depends on the draw alone, so encoders are paired."""
    source = Source(trial="", gaussian=latent.gaussian, categorical=latent.categorical, batch_size=0, instance=0)
    values = []
    for number, draw in enumerate(bench.draws):
        job = ClassificationJob(
            source=source,
            dataset=draw.dataset,
            classes=draw.classes,
            class_names=(),
            draw=number,
            protocol="shared",
            classifier=bench.classifier,
            representation="masked",
            seed=derive(0, "objective", draw.dataset, *draw.classes),
        )
        vectors = mask(encoder, draw.images)
        (record,) = classify(job, vectors, draw.labels, draw.split, bench.classifiers)
        values.append(record.metrics["accuracy"])
    return values


def _accuracy(trained: Trained) -> float:
    return float(np.mean(accuracies(trained.nets.encoder, trained.config.latent, trained.bench)))


def _prior_distance(trained: Trained) -> float:
    fresh = [trained.metrics[key] for key in ("fresh_gaussian", "fresh_categorical") if key in trained.metrics]
    return max(2 * (accuracy - 0.5) for accuracy in fresh)


OBJECTIVES: dict[str, Objective] = {
    "accuracy": Objective("maximize", True, "mean accuracy on masked validation draws", _accuracy),
    "held_out_mse": Objective("minimize", True, "error on held-out images", lambda t: t.metrics["held_out_mse"]),
    "prior_distance": Objective(
        "minimize", False, "advantage of a fresh discriminator over guessing, 0 to 1", _prior_distance
    ),
    "length": Objective("minimize", True, "numbers in a masked form", lambda t: float(t.config.latent.length)),
    "pairs_to_unmask": Objective(
        "maximize", False, "logarithm (base 10) of the leaked pairs by which ridge regression reaches the target",
        lambda t: t.secrecy.pairs_to_unmask,
    ),
    "mse_at_k": Objective(
        "maximize", False, "error of ridge regression with 1,000 leaked pairs, or the nearest number tried",
        lambda t: t.secrecy.mse_at_k
    ),
    "reidentification": Objective(
        "minimize", False, "share found again by ridge regression with 30 leaked pairs, or the nearest number tried",
        lambda t: t.secrecy.reidentification,
    ),
}  # fmt: skip


def measure(names: Iterable[str], trained: Trained) -> dict[str, float]:
    """The objectives of these names, as `objective.<name>`; `ArithmeticError` for a value that is not finite."""
    values = {f"objective.{name}": float(OBJECTIVES[name].measure(trained)) for name in names}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ArithmeticError(f"{name} is {value}")
    return values


def directions(search: SearchConfig) -> dict[str, str]:
    """`minimize` or `maximize` for every objective of a search, in its order."""
    return {one.name: one.direction or OBJECTIVES[one.name].direction for one in search.objectives}


def check(config: StudyConfig, images: int) -> None:
    """Raise `InputError` for an objective or classifier that is not known, or that cannot judge epochs or be measured.

    Args:
        images: that autoencoders train on; pairs of them leak where secrecy is judged.
    """
    search = config.search
    if config.data.held_out == 0 and config.data.autoencoder in [task.data for task in config.tasks]:
        raise InputError(
            "data.held_out = 0: the images kept from training would be the test images of a task, and a search may not "
            "see those: keep some training images"
        )
    for name in [*(one.name for one in search.objectives), search.judged_by]:
        if name not in OBJECTIVES:
            raise InputError(f"search.objectives: {name!r} is not known: must be one of {', '.join(OBJECTIVES)}")
    if OF_SECRECY & directions(search).keys() and config.attacks.pairs[0] > images:
        raise InputError(f"attacks.pairs = {config.attacks.pairs}: there are {images} training images: ask for fewer")
    if not OBJECTIVES[search.judged_by].every_epoch:
        known = [name for name, objective in OBJECTIVES.items() if objective.every_epoch]
        raise InputError(f"search.judged_by = {search.judged_by!r}: must be one of {', '.join(known)}")
    if search.classifier not in config.classifiers.names:
        names = ", ".join(config.classifiers.names)
        raise InputError(f"search.classifier = {search.classifier!r}: must be one of classifiers.names, {names}")
    if "accuracy" in directions(search) and not config.tasks:
        raise InputError("search.objectives: accuracy needs [[tasks]], data whose masked images are classified")


def validation_draws(config: StudyConfig, tasks: dict[str, ImageSet]) -> tuple[ValidationDraw, ...]:
    """Draws for the objectives, from the training parts alone, and other ones than the study's own."""
    chosen = []
    for task in config.tasks:
        data = tasks[task.data]
        parts = split(data, "shared", config.search.classifier, config.seed)
        rng = np.random.default_rng(derive(config.seed, "objective split", data.name))
        shuffled = rng.permutation(parts.train)
        kept = len(shuffled) // 5
        train, choosing = np.sort(shuffled[kept:]), np.sort(shuffled[:kept])
        for count in task.classes:
            for classes in draws(data, count, config.search.draws, derive(config.seed, "search")):
                chosen.append(_only(data, classes, (train, choosing, parts.validation)))
    return tuple(chosen)


def _only(data: ImageSet, classes: tuple[int, ...], parts: tuple[Labels, ...]) -> ValidationDraw:
    """The images of some classes, and the parts of a split counted among them."""
    taken = np.flatnonzero(np.isin(data.train_labels, classes))
    place = {part: np.flatnonzero(np.isin(taken, indices)) for part, indices in enumerate(parts)}
    return ValidationDraw(
        data.name, classes, data.train_images[taken], data.train_labels[taken], Split(place[0], place[1], place[2])
    )
