"""Vectors x one classifier -> one record; one encoder x its decoders on one set of images -> records.

Plain Python on arrays: what runs inside a Ray task, and runs as well without Ray.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import classifiers
from aae.masking import mask, unmask
from classifiers import ClassifiersConfig
from classifiers.together import fit_together
from engine import device_name
from study.datasets import Labels, Split
from study.pictures import Images
from study.records import Record

#: The representation that holds the masked form of every image and that of its mirror image.
MIRRORED = "mirrored"

#: Images over which the paper seems to have averaged before taking deviations.
BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Source:
    """The autoencoder a measurement belongs to, as its records name it."""

    trial: str
    gaussian: int
    categorical: int
    batch_size: int
    instance: int
    variant: str = ""
    """What else sets its configuration apart from the study's, in words."""

    @property
    def point(self) -> tuple[int, int, int, str]:
        """Its configuration, whatever the instance."""
        return self.gaussian, self.categorical, self.batch_size, self.variant


# --- classification ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ClassificationJob:
    """One classifier on one draw of classes of one masked data set."""

    source: Source
    dataset: str
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    draw: int
    protocol: str
    classifier: str
    """A name of the room `classifiers`."""
    representation: str
    """`masked`, `mirrored`, a defence, or the name of a control."""
    seed: int
    estimators: tuple[int, ...] = ()
    """Further numbers of trees or stumps, measured on the first members of one ensemble; recorded as `name@N`."""

    @property
    def keys(self) -> dict[str, str]:
        """Of its records, by the classifier's name in them."""
        parts = (self.source.trial, self.representation, self.dataset, len(self.classes), self.draw, self.protocol)
        names = [self.classifier, *(f"{self.classifier}@{count}" for count in self.estimators)]
        return {name: "/".join(map(str, ("classification", *parts, name))) for name in names}

    def settings(self, config: ClassifiersConfig) -> ClassifiersConfig:
        """The classifiers' settings, with as many estimators as the largest of the job's numbers."""
        if not self.estimators:
            return config
        own = getattr(config, self.classifier)
        return replace(config, **{self.classifier: replace(own, estimators=max(own.estimators, *self.estimators))})


def classify(
    job: ClassificationJob, vectors: NDArray[np.float32], labels: Labels, split: Split, config: ClassifiersConfig
) -> list[Record]:
    """Fit on the training part of the drawn classes, choose on the validation part, score on the test part.

    Args:
        vectors, labels: of the whole data set, (N, D) and (N,), in the order the split counts; where the job's
            representation is `mirrored`, (2, N, D): each view is an example of its own to learn from, and a test
            image's probabilities are the means over its views.

    Returns:
        one record, and one more for each further number of estimators; the first one's time has the fit in it.
    """
    begin = time.perf_counter()
    train, validation, test = _parts(job, vectors, labels, split)
    fitted = classifiers.fit(classifiers.build(job.classifier, job.settings(config), job.seed), train, validation)
    return _scored(job, fitted, len(train[1]), test, config, begin)


def classify_together(
    jobs: Sequence[ClassificationJob],
    vectors: Sequence[NDArray[np.float32]],
    labels: Labels,
    split: Split,
    config: ClassifiersConfig,
    device: str,
) -> list[list[Record]]:
    """As `classify`, for neural networks of one data set and protocol, all in one program on a device.

    Args:
        vectors: those of each job.

    Returns:
        the records of each job; the time is its share of the whole.
    """
    begin = time.perf_counter()
    parts = [_parts(job, own, labels, split) for job, own in zip(jobs, vectors, strict=True)]
    networks = [classifiers.build(job.classifier, config, job.seed) for job in jobs]
    fit_together(networks, [(train, validation) for train, validation, _ in parts], device)
    share = (time.perf_counter() - begin) / len(jobs)
    found = [
        _scored(job, network, len(train[1]), test, config, time.perf_counter() - share)
        for job, network, (train, _, test) in zip(jobs, networks, parts, strict=True)
    ]
    for record in itertools.chain(*found):
        record.detail["device"] = device_name(device)
    return found


def _parts(
    job: ClassificationJob, vectors: NDArray[np.float32], labels: Labels, split: Split
) -> tuple[Part, Part, Part]:
    """What a job learns from, what it chooses by, and, every view apart, what it is tested on."""
    views = vectors if job.representation == MIRRORED else vectors[None]
    parts = [_drawn(views, labels, part, job.classes) for part in (split.train, split.validation, split.test)]
    if job.protocol == "shared":
        parts = _standardised(parts)
    return _examples(parts[0]), _examples(parts[1]), parts[2]


def _scored(
    job: ClassificationJob, fitted: Any, train_size: int, test: Part, config: ClassifiersConfig, begin: float
) -> list[Record]:
    """The records of a classifier that has been fitted since `begin`."""
    test_VND, truth_N = test
    usual, records = getattr(getattr(config, job.classifier, None), "estimators", 0), []
    for (name, key), count in zip(job.keys.items(), (usual, *job.estimators), strict=True):
        classifier = classifiers.first(fitted, count) if job.estimators else fitted
        certainty_NC = np.zeros((len(truth_N), len(job.classes)))
        certainty_NC[:, classifier.classes_] = np.mean([classifier.predict_proba(view) for view in test_VND], axis=0)
        # One view: what the classifier says itself, for one-hot targets may name no class at all.
        predicted_N = classifier.predict(test_VND[0]) if len(test_VND) == 1 else certainty_NC.argmax(axis=1)
        scores = classifiers.score(truth_N, predicted_N, len(job.classes))
        detail: dict[str, Any] = {"confusion": scores.confusion}
        if not job.draw:  # curves show the first draw alone
            detail["scores"] = classifiers.count_scores(truth_N, certainty_NC)
        if hasattr(classifier, "history_"):
            history = [{key: round(value, 6) for key, value in entry.items()} for entry in classifier.history_]
            detail |= {"history": history, "best_epoch": classifier.best_epoch_}
        records.append(
            Record(
                kind="classification",
                key=key,
                **asdict(job.source),
                what={
                    "representation": job.representation,
                    "dataset": job.dataset,
                    "classes": len(job.classes),
                    "draw": job.draw,
                    "class_names": list(job.class_names),
                    "protocol": job.protocol,
                    "classifier": name,
                },
                metrics={
                    "accuracy": scores.accuracy,
                    "precision": scores.precision,
                    "recall": scores.recall,
                    "train_size": train_size,
                    "test_size": len(truth_N),
                },
                detail=detail,
                seed=job.seed,
                seconds=time.perf_counter() - begin,
            )
        )
        begin = time.perf_counter()
    return records


Part = tuple[NDArray[np.float32], Labels]


def _drawn(views: NDArray[Any], labels: Labels, part: Labels, classes: tuple[int, ...]) -> Part:
    """The vectors of the drawn classes in one part of the split, (V, N, D), and their classes counted from 0."""
    chosen = part[np.isin(labels[part], classes)]
    flat = views.reshape(*views.shape[:2], -1)
    return flat[:, chosen].astype(np.float32), np.searchsorted(classes, labels[chosen])


def _examples(part: Part) -> Part:
    """Every view as an example of its own."""
    vectors_VND, labels_N = part
    return vectors_VND.reshape(-1, vectors_VND.shape[-1]), np.tile(labels_N, len(vectors_VND))


def _standardised(parts: list[Part]) -> list[Part]:
    """Bring each component to mean 0 and deviation 1 on the training part: the same for every representation."""
    train = _examples(parts[0])[0]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    varies = train.std(axis=0, dtype=np.float64) > 1e-8  # in float32 a constant component seems to vary
    scale = np.where(varies, deviation, 1).astype(np.float32)
    return [((x - mean) / scale, y) for x, y in parts]


# --- matched and unmatched ---------------------------------------------------------------------------------------


#: What one scores who knows nothing of the masked form.
PAIR_CONTROLS = ("mean image", "random latent", "random image")


@dataclass(frozen=True, kw_only=True)
class ReconstructionJob:
    """One encoder, every decoder of the same latent configuration, one set of images (Eqs 1 to 12)."""

    source: Source
    decoders: tuple[str, ...]
    """Trials whose decoders are tried, the encoder's own among them."""
    images: str
    """Name of the set of images."""
    seed: int = 0
    """Of the controls."""
    shown: int = 0
    """So many originals and reconstructions are returned as pictures."""

    def key(self, restorer: str) -> str:
        return f"reconstruction/{self.source.trial}/{restorer}/{self.images}"

    @property
    def keys(self) -> list[str]:
        """Of its records: every decoder's, then every control's."""
        return [self.key(restorer) for restorer in (*self.decoders, *PAIR_CONTROLS)]


@dataclass(frozen=True)
class Pictures:
    """What one encoder's masked forms become under every decoder; uint8, the last axes H, W, C."""

    originals: Images
    masked: NDArray[np.float32]
    restored: Images
    """(decoders, N, H, W, C), in the order of the job."""


def reconstruct(
    job: ReconstructionJob, encoder: nn.Module, decoders: list[nn.Module], images: Images, mean_image: Images
) -> tuple[list[Record], Pictures]:
    """Mean squared error over all components, pixels in [0, 1], of every pair (encoder, decoder), and of controls.

    The controls are what one scores who knows nothing of the masked form: the mean of the training images, the own
    decoder's output for a random latent, and another image of the set. Deviations (ddof 1) are over images and over
    means of 16 images, in the order of the set.
    """
    masked = mask(encoder, images)
    decoder_of = dict(zip(job.decoders, decoders, strict=True))
    rng = np.random.default_rng(job.seed)
    own = decoder_of[job.source.trial]

    def pair(decoder: nn.Module) -> Callable[[], NDArray[np.float64]]:
        return lambda: squared_errors(images, lambda part: unmask(decoder, masked[part]))

    measured: dict[str, tuple[str, Callable[[], NDArray[np.float64]]]] = {
        name: ("matched" if name == job.source.trial else "unmatched", pair(decoder))
        for name, decoder in decoder_of.items()
    }
    measured["mean image"] = "mean image", lambda: squared_errors(images, lambda part: _pixels(mean_image))
    latents = random_latents(len(images), job.source, rng)
    measured["random latent"] = "random latent", lambda: squared_errors(images, lambda part: unmask(own, latents[part]))
    other = images[derangement(len(images), rng)]
    measured["random image"] = "random image", lambda: squared_errors(images, lambda part: _pixels(other[part]))

    records = []
    for name, (kind, errors) in measured.items():
        begin = time.perf_counter()
        error_N = errors()
        batch_means = error_N[: len(error_N) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
        records.append(
            Record(
                kind="reconstruction",
                key=job.key(name),
                **asdict(job.source),
                what={"decoder": name, "images": job.images, "pair": kind},
                metrics={
                    "mse": float(error_N.mean()),
                    "sigma_images": _sigma(error_N),
                    "sigma_batches": _sigma(batch_means),
                    "n": len(error_N),
                },
                seed=job.seed,
                seconds=time.perf_counter() - begin,
            )
        )
    shown = slice(0, job.shown)
    restored = [np.rint(unmask(decoder, masked[: max(job.shown, 1)]) * 255).astype(np.uint8) for decoder in decoders]
    return records, Pictures(images[shown], masked[shown], np.stack(restored)[:, shown])


def squared_errors(images: Images, restore: Callable[[slice], NDArray[np.float32]]) -> NDArray[np.float64]:
    """Mean squared error of each image against what `restore` gives for the same slice, (N,)."""
    parts = [slice(begin, begin + 1000) for begin in range(0, len(images), 1000)]
    errors = [np.square(restore(part) - _pixels(images[part])).mean(axis=(1, 2, 3), dtype=np.float64) for part in parts]
    return np.concatenate(errors)


def _pixels(images: Images) -> NDArray[np.float32]:
    return np.asarray(images, dtype=np.float32) / np.float32(255)


def random_latents(count: int, source: Source, rng: np.random.Generator) -> NDArray[np.float32]:
    """Exact samples of both priors."""
    gaussian = rng.standard_normal((count, source.gaussian), dtype=np.float32)
    if not source.categorical:
        return gaussian
    one_hot = np.eye(source.categorical, dtype=np.float32)[rng.integers(source.categorical, size=count)]
    return np.concatenate((gaussian, one_hot), axis=1, dtype=np.float32)


def derangement(count: int, rng: np.random.Generator) -> Labels:
    """A random order in which nothing keeps its place: a random cycle."""
    cycle = rng.permutation(count)
    order = np.empty(count, dtype=np.int64)
    order[cycle] = np.roll(cycle, 1)
    return order


def _sigma(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
