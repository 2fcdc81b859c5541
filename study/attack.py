"""One encoder x one attack -> one record. Plain Python on arrays: runs inside a Ray task, and as well without Ray.

Beside the attacks of the room stand yardsticks, measured on the same victims: `key` (the matching decoder),
`other_decoder` (another instance's: the paper's test), and three controls that know nothing of the masked form.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

import attacks
import classifiers
from aae.masking import mask, straighten, unmask, without_flow
from aae.networks import Decoder, Encoder
from attacks import AttacksConfig, Knowledge, Own, Restored, metrics
from attacks.stitching import principal_components
from classifiers import ClassifiersConfig
from study.datasets import AttackParts, Labels
from study.evaluate import MIRRORED, Source, derangement, random_latents
from study.pictures import Images
from study.records import Record

#: What no attacker does: the key, what knows nothing, and the clear images themselves.
CONTROLS = ("mean_image", "random_latent", "random_image")
YARDSTICKS = ("key", *CONTROLS, "clear")

#: Without these nothing is told of an encoder or a control; a control has no prior to take a random latent from.
NEEDED = tuple(name for name in YARDSTICKS if name != "random_latent")

#: What is attacked as it came from a map of images to vectors: an encoder's, or a control's.
BARE = ("masked", *attacks.LINEAR)

#: The classifier of clear images learns from so many at most.
RECOGNISED_FROM = 5000


@dataclass(frozen=True, kw_only=True)
class AttackJob:
    """One attack on the masked victims of one data set."""

    source: Source
    dataset: str
    attack: str
    """A name of the room `attacks`, a yardstick, `other_decoder`, or `known_plaintexts` (re-identification alone)."""
    k: int = 0
    """Leaked pairs; 0 where the attack uses none."""
    draw: int = 0
    """Which random choice of the pairs."""
    representation: str = "masked"
    """`masked`, `mirrored` (an image is handed over beside its mirror image), or the name of a defence or a control."""
    own: str = ""
    """The autoencoder that serves as the attacker's own; "": principal components of the public images."""
    pairs_seed: int = 0
    """Of the choice of pairs, the same for every attack and every number of pairs."""
    seed: int = 0

    @property
    def key(self) -> str:
        parts = (self.source.trial, self.representation, self.dataset, self.attack, self.k, self.draw)
        return "/".join(map(str, ("attack", *parts, *([self.own] if self.own else []))))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all attacks on one encoder and one data set share."""

    images: Images
    """Of the whole data set, in the order its parts count."""
    labels: Labels
    masked: NDArray[np.float32]
    """Of the whole data set, and of its mirror images above them for `mirrored`; an attack sees the rows it may."""
    parts: AttackParts
    encoder: Encoder
    """Or a control, and how it is undone."""
    decoder: nn.Module
    own: tuple[Encoder, Decoder] | None
    """Encoder and decoder of the job's `own`."""
    recogniser: Any
    """A classifier of clear images, flat, in [0, 1]."""


def attack(job: AttackJob, scene: Scene, config: AttacksConfig, shown: int) -> tuple[Record, Images]:
    """Restore the victims, measure, and return the record and the first `shown` restored images, uint8.

    Metrics are means over the victims: `mse` (its deviation over images is `sigma_images`), `psnr` in decibels, `ssim`,
    re-identification (`top1`, `top5`, `mrr`), and `recognised`, the share whose class a classifier of clear images
    names.
    """
    begin = time.perf_counter()
    victims = scene.parts.victims[: config.optimised] if job.attack == "weights" else scene.parts.victims
    restored = _restored(job, scene, victims, config)
    seconds = time.perf_counter() - begin
    candidates = scene.images[scene.parts.victims].astype(np.float32) / np.float32(255)
    found = attacks.identify(candidates, restored)
    truth = candidates[: len(victims)]
    error_N = metrics.mse(truth, restored)
    named = scene.recogniser.predict(restored.reshape(len(restored), -1))
    record = Record(
        kind="attack",
        key=job.key,
        **asdict(job.source),
        what={
            "attack": job.attack,
            "dataset": job.dataset,
            "representation": job.representation,
            "k": job.k,
            "draw": job.draw,
        },
        metrics={
            "mse": float(error_N.mean()),
            "sigma_images": float(error_N.std(ddof=1)),
            "psnr": float(metrics.psnr(truth, restored).mean()),
            "ssim": float(metrics.ssim(truth, restored).mean()),
            **asdict(found),
            "recognised": float(np.mean(named == scene.labels[victims])),
            "n": len(victims),
        }
        | ({"mse_optimised": float(error_N[: config.optimised].mean())} if job.attack in CONTROLS else {}),
        detail={
            "target": config.target,
            "own": job.own or "principal components",
            "pool": len(scene.parts.pairs),
            "images": len(_held(job, scene.parts, config)),
        },
        seed=job.seed,
        seconds=seconds,
    )
    return record, np.rint(restored[:shown] * 255).astype(np.uint8)


def _restored(job: AttackJob, scene: Scene, victims: Labels, config: AttacksConfig) -> Restored:
    if job.representation == MIRRORED:
        return _of_both_views(job, scene, victims, config)
    masked, rng = scene.masked[victims], np.random.default_rng(job.seed)
    parts, name = scene.parts, job.attack
    if name == "key":
        return unmask(scene.decoder, masked)
    if name == "other_decoder":
        assert scene.own is not None
        return unmask(scene.own[1], masked)
    if name == "mean_image":
        mean = scene.images[_held(job, parts, config)].mean(axis=0, dtype=np.float64) / 255
        return np.broadcast_to(mean.astype(np.float32), (len(victims), *mean.shape))
    if name == "random_latent":
        return unmask(scene.decoder, random_latents(len(victims), job.source, rng))
    if name in ("random_image", "clear"):
        taken = victims[derangement(len(victims), rng)] if name == "random_image" else victims
        return scene.images[taken].astype(np.float32) / np.float32(255)
    return attacks.restore(name, _knowledge(job, scene, victims, config, rng), config, job.seed)


def _of_both_views(job: AttackJob, scene: Scene, victims: Labels, config: AttacksConfig) -> Restored:
    """By the key or by leaked pairs, where every image was handed over beside its mirror image: the mean of both."""
    both_VND = scene.masked[:, victims]
    if job.attack == "key":
        restored, mirrored = (unmask(scene.decoder, masked_ND) for masked_ND in both_VND)
    else:
        leaked = _held(job, scene.parts, config)
        images = scene.images[leaked]
        knowledge = Knowledge(
            victims=np.concatenate(both_VND),
            images=np.concatenate((images, images[:, :, ::-1])),
            masked=np.concatenate(scene.masked[:, leaked]),
        )
        restored, mirrored = np.split(attacks.restore(job.attack, knowledge, config, job.seed), 2)
    return (restored + mirrored[:, :, ::-1]) / np.float32(2)


def _held(job: AttackJob, parts: AttackParts, config: AttacksConfig) -> Labels:
    """Indices of the images this attacker holds; fewer than the settings say where the data gives no more."""
    if job.attack == "known_plaintexts":
        return parts.victims
    if job.attack == "mean_image":
        return parts.public
    if job.attack in attacks.WITHOUT_PAIRS:
        return parts.public[job.draw * config.public :][: config.public]  # others in each draw
    if job.attack in ("oracle", "weights"):
        return parts.public[: config.public]
    return parts.pairs[attacks.draw_pairs(len(parts.pairs), job.k, job.pairs_seed)]


def _knowledge(
    job: AttackJob, scene: Scene, victims: Labels, config: AttacksConfig, rng: np.random.Generator
) -> Knowledge:
    masked, parts = scene.masked[victims], scene.parts
    held = _held(job, parts, config)
    if job.attack == "known_plaintexts":
        return Knowledge(victims=masked, images=scene.images[rng.permutation(held)])
    if job.attack in attacks.WITHOUT_PAIRS:
        unknown = scene.masked[parts.pairs]  # whatever leaked of these, such an attacker does not have it
        return Knowledge(victims=masked, images=scene.images[held], others=unknown)
    knowledge = Knowledge(victims=masked, images=scene.images[held], masked=scene.masked[held])
    if job.attack == "weights":
        return replace(knowledge, encoder=scene.encoder, straighten=partial(straighten, scene.encoder))
    if job.attack.startswith("stitch"):
        return replace(knowledge, own=_own_autoencoder(job, scene, config))
    return knowledge


def _own_autoencoder(job: AttackJob, scene: Scene, config: AttacksConfig) -> Own:
    if scene.own is None:
        return principal_components(scene.images[scene.parts.public[: config.public]], scene.masked.shape[1])
    encoder, decoder = without_flow(scene.own[0]), without_flow(scene.own[1])  # who owns a flow need not learn it
    return Own(name=job.own, encode=lambda images: mask(encoder, images), decode=lambda z: unmask(decoder, z))


def fit_recogniser(images: Images, labels: Labels, parts: AttackParts, config: ClassifiersConfig, seed: int) -> Any:
    """A Random Forest on clear images of the attacker's part."""
    held = np.sort(np.concatenate((parts.pairs, parts.public)))
    some = np.random.default_rng(seed).permutation(held)[:RECOGNISED_FROM]
    pixels = images[some].reshape(len(some), -1).astype(np.float32) / np.float32(255)
    return classifiers.build("random_forest", config, seed).fit(pixels, labels[some])
