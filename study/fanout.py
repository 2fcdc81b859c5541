"""Ray tasks around `evaluate`: everything that does not depend on each other, at once, longest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayError, RayTaskError
from threadpoolctl import threadpool_limits
from torch import nn

from aae.config import AutoencoderConfig
from aae.masking import mask
from attacks import AttacksConfig
from classifiers import ClassifiersConfig
from engine import claim
from study.attack import YARDSTICKS, AttackJob, Scene, attack, fit_recogniser
from study.config import Control, InputError
from study.controls import fit_control, fit_restoration
from study.datasets import AttackParts, ImageSet, Labels, Split, split
from study.defences import defend
from study.evaluate import (
    MIRRORED,
    ClassificationJob,
    Pictures,
    ReconstructionJob,
    classify,
    classify_together,
    reconstruct,
)
from study.pictures import Images
from study.records import Record
from study.seeds import derive

#: Tasks in flight for each core: enough to keep all busy, few enough to keep the driver small.
AHEAD = 3

#: Encoders, and controls, that are worked on together. Their networks and masked forms lie in the object store until
#: their last task is done, so that what lies there does not grow with the study. Programs of a GPU all begin at once.
TOGETHER = 16

#: Attacks that take long, longest first; it decides the order alone.
SLOW = ("weights", "oracle", "inversion", "known_plaintexts", "transport", "stitch_mlp")

#: How long a classifier takes on the same vectors, roughly, as the seconds of the paper's study say; it decides the
#: order, and the time left that is shown.
COST = {"mlp": 1.4, "random_forest": 1.0, "random_forest_onehot": 1.5, "adaboost": 1.5}


def cost(job: ClassificationJob, sizes: Mapping[str, int]) -> float:
    """How long a classification takes, roughly, in a unit of its own.

    Args:
        sizes: images of a class in each data set.
    """
    longer = {"raw": 6 if job.classifier == "mlp" else 2, MIRRORED: 2}.get(job.representation, 1)
    return COST[job.classifier] * longer * max((100, *job.estimators)) / 100 * sizes[job.dataset] * len(job.classes)


@ray.remote(num_cpus=1)
def _mask(encoder: nn.Module, images: Images) -> NDArray[np.float32]:
    _limit_threads()
    return mask(encoder, images)


@ray.remote(num_cpus=1)
def _mask_mirrored(encoder: nn.Module, images: Images, masked: NDArray[np.float32]) -> NDArray[np.float32]:
    _limit_threads()
    return np.stack((masked, mask(encoder, np.ascontiguousarray(images[:, :, ::-1]))))


@ray.remote(num_cpus=1)
def _classify(
    job: ClassificationJob, vectors: NDArray[np.float32], labels: Labels, parts: Split, config: ClassifiersConfig
) -> tuple[ClassificationJob, list[Record]]:
    _limit_threads()
    return job, classify(job, vectors, labels, parts, config)


@ray.remote(num_cpus=1, max_calls=1)  # a process that has used a GPU keeps a part of it
def _classify_together(
    jobs: list[ClassificationJob],
    labels: Labels,
    parts: Split,
    config: ClassifiersConfig,
    gpu: float,
    *vectors: NDArray[np.float32],
) -> list[tuple[ClassificationJob, list[Record]]]:
    _limit_threads()
    if (device := claim(gpu)) == "cpu":  # a GPU that Ray counts and torch does not see
        return [(job, classify(job, own, labels, parts, config)) for job, own in zip(jobs, vectors, strict=True)]
    return list(zip(jobs, classify_together(jobs, vectors, labels, parts, config, device), strict=True))


@ray.remote(num_cpus=1)
def _reconstruct(
    job: ReconstructionJob, encoder: nn.Module, images: Images, mean_image: Images, *decoders: nn.Module
) -> tuple[list[Record], Pictures]:
    _limit_threads()
    return reconstruct(job, encoder, list(decoders), images, mean_image)


@ray.remote(num_cpus=1)
def _fit_control(name: Control, config: AutoencoderConfig, train: Images, seed: int) -> nn.Module:
    _limit_threads()
    return fit_control(name, config, train, seed)


@ray.remote(num_cpus=1)
def _fit_restoration(control: nn.Module, train: Images) -> nn.Module:
    _limit_threads()
    return fit_restoration(control, train)


@ray.remote(num_cpus=1)
def _defend(masked: NDArray[np.float32], name: str, seed: int) -> NDArray[np.float32]:
    return defend(masked, name, seed)


@ray.remote(num_cpus=1)
def _fit_recogniser(images: Images, labels: Labels, parts: AttackParts, config: ClassifiersConfig, seed: int) -> Any:
    _limit_threads()
    return fit_recogniser(images, labels, parts, config, seed)


@ray.remote(num_cpus=1)
def _attack(
    job: AttackJob, config: AttacksConfig, shown: int, own_encoder: Any, own_decoder: Any, *scene: Any
) -> tuple[AttackJob, Record, Images]:
    _limit_threads()
    names = ("images", "labels", "masked", "parts", "encoder", "decoder", "recogniser")
    own = (own_encoder, own_decoder) if job.own else None
    return job, *attack(job, Scene(own=own, **dict(zip(names, scene, strict=True))), config, shown)


def _limit_threads() -> None:
    """One core, one thread: a worker that has loaded torch before keeps its old count unless told."""
    torch.set_num_threads(1)
    threadpool_limits(1)


#: What is fanned out.
Job = TypeVar("Job", ClassificationJob, AttackJob, ReconstructionJob)


class FanOut:
    """What tasks share lies in the object store once, put there by the driver, which outlives every worker."""

    def __init__(self, classifiers: ClassifiersConfig, seed: int) -> None:
        self._seed = seed
        self._config = ray.put(classifiers)
        self._found: dict[str, Callable[[], Any]] = {}
        self._modules: dict[str, Any] = {}
        self._uses: Counter[str] = Counter()
        self._arrays: dict[str, tuple[Any, Any]] = {}
        self._attacked: dict[str, tuple[Any, Any]] = {}
        self._splits: dict[tuple[str, str, bool], Any] = {}
        self._masked: dict[tuple[str, ...], Any] = {}
        self._stored: dict[str, Any] = {}

    def add_module(self, name: str, load: Callable[[], nn.Module]) -> None:
        """A part of a trial, as `<trial>/encoder`; it is loaded when it is needed."""
        self._found[name] = lambda: ray.put(load())

    def add_control(self, source: str, name: Control, config: AutoencoderConfig, train: Images, seed: int) -> None:
        """Fit a control where there is room; it then masks like an encoder, and restores where it is linear."""
        stored = self._once("train", train)
        self._found[f"{source}/encoder"] = partial(_fit_control.remote, name, config, stored, seed)
        self._found[f"{source}/decoder"] = lambda: _fit_restoration.remote(self._module(source, "encoder"), stored)

    def _module(self, trial: str, part: str) -> Any:
        name = f"{trial}/{part}"
        if name not in self._modules:
            self._modules[name] = self._found[name]()
        return self._modules[name]

    def _by_turns(self, jobs: Sequence[Job], cost: Callable[[Job], Any]) -> list[Job]:
        """A few encoders after the other, the costliest of their jobs first."""
        turns: dict[str, int] = {}
        for job in jobs:
            turns.setdefault(job.source.trial, len(turns) // TOGETHER)
        self._uses = Counter(trial for job in jobs for trial in _trials(job))
        return sorted(sorted(jobs, key=cost, reverse=True), key=lambda job: turns[job.source.trial])

    def _let_go(self, job: Job) -> None:
        """What no other job needs may leave the object store."""
        for trial in _trials(job):
            self._uses[trial] -= 1
            if not self._uses[trial]:
                for part in ("encoder", "decoder"):
                    self._modules.pop(f"{trial}/{part}", None)
                self._masked = {key: stored for key, stored in self._masked.items() if key[0] != trial}

    def _once(self, name: str, array: Images) -> Any:
        if name not in self._stored:
            self._stored[name] = ray.put(array)
        return self._stored[name]

    def add_images(self, data: ImageSet) -> None:
        self._arrays[data.name] = ray.put(data.images), ray.put(data.labels)
        for protocol in ("paper", "shared"):
            for classifier in ("mlp", "other"):
                self._splits[data.name, protocol, classifier == "mlp"] = ray.put(
                    split(data, protocol, classifier, self._seed)
                )

    def add_attacked(self, data: ImageSet, parts: AttackParts) -> None:
        """Images to attack; `add_images` comes first."""
        seed = derive(self._seed, "recogniser", data.name)
        stored = ray.put(parts)
        recogniser = _fit_recogniser.remote(*self._arrays[data.name], stored, self._config, seed)
        self._attacked[data.name] = stored, recogniser

    def classifications(
        self,
        jobs: list[ClassificationJob],
        sizes: Mapping[str, int],
        programs: Sequence[list[ClassificationJob]] = (),
        gpu: float = 0.0,
    ) -> Iterator[tuple[ClassificationJob, list[Record]]]:
        """Run the jobs, longest first by `cost`; yield each with its records as soon as they are there.

        Args:
            programs: jobs that run together where there is a GPU, whole even if some of them are not wanted.
            gpu: share of a GPU that one program gets, which some machine has, or one that may come; 0: all run alone.
        """
        wanted = set(jobs)
        together = [program for program in programs if gpu and not wanted.isdisjoint(program)]
        grouped = set().union(*together)
        in_turn = self._by_turns([job for job in jobs if job not in grouped], lambda job: cost(job, sizes))
        self._uses += Counter(job.source.trial for job in grouped)

        def call(*jobs: ClassificationJob) -> tuple[Any, ...]:
            (images, labels), job = self._arrays[jobs[0].dataset], jobs[0]
            parts = self._splits[job.dataset, job.protocol, job.classifier == "mlp"]
            return labels, parts, self._config, [self._vectors(job, images) for job in jobs]

        def started() -> Iterator[Any]:
            for program in together:
                labels, parts, config, vectors = call(*program)
                yield _classify_together.options(num_gpus=gpu).remote(program, labels, parts, config, gpu, *vectors)

        def calls() -> Iterator[Any]:
            for job in in_turn:
                labels, parts, config, (vectors,) = call(job)
                yield lambda j=job, v=vectors, y=labels, p=parts, c=config: _classify.remote(j, v, y, p, c)

        for done in _as_done(calls(), list(started())):
            for job, records in done if isinstance(done, list) else [done]:
                self._let_go(job)
                if job in wanted:
                    yield job, records

    def _vectors(self, job: ClassificationJob | AttackJob, images: Any) -> Any:
        if job.representation == "raw":
            return images
        key, encoder = (job.source.trial, job.dataset), self._module(job.source.trial, "encoder")
        if key not in self._masked:
            self._masked[key] = _mask.remote(encoder, images)
        derived = *key, job.representation
        if job.representation == MIRRORED and derived not in self._masked:
            self._masked[derived] = _mask_mirrored.remote(encoder, images, self._masked[key])
        elif "@" in job.representation and derived not in self._masked:
            seed = derive(self._seed, "defence", *derived)
            self._masked[derived] = _defend.remote(self._masked[key], job.representation, seed)
        return self._masked.get(derived, self._masked[key])

    def attacks(
        self, jobs: list[AttackJob], config: AttacksConfig, shown: int
    ) -> Iterator[tuple[AttackJob, Record, Images]]:
        """Run the jobs; yield each with its record and the first `shown` pictures it restored.

        Yardsticks come first, for without them no attack of a study that is interrupted is shown; then the longest.
        """
        settings = ray.put(config)

        def cost(job: AttackJob) -> tuple[bool, int, int]:
            return job.attack in YARDSTICKS, len(SLOW) - SLOW.index(job.attack) if job.attack in SLOW else 0, job.k

        def calls() -> Iterator[Any]:
            for job in self._by_turns(jobs, cost):
                images, labels = self._arrays[job.dataset]
                parts, recogniser = self._attacked[job.dataset]
                own, pair = (
                    tuple(self._module(trial, part) if trial else None for part in ("encoder", "decoder"))
                    for trial in (job.own, job.source.trial)
                )
                scene = images, labels, self._vectors(job, images), parts, *pair, recogniser
                yield lambda j=job, o=own, s=scene: _attack.remote(j, settings, shown, *o, *s)

        for job, record, restored in _as_done(calls()):
            self._let_go(job)
            yield job, record, restored

    def reconstructions(
        self, jobs: list[ReconstructionJob], images: Mapping[str, Images], mean_image: Images
    ) -> Iterator[tuple[ReconstructionJob, list[Record], Pictures]]:
        """Run the jobs, largest set first; yield records and pictures of each as soon as they are there."""
        stored = {name: self._once(name, array) for name, array in images.items()}
        mean = self._once("mean image", mean_image)
        waiting: dict[str, ReconstructionJob] = {job.key(""): job for job in jobs}

        def calls() -> Iterator[Any]:
            for job in self._by_turns(jobs, lambda job: len(images[job.images])):
                encoder = self._module(job.source.trial, "encoder")
                decoders = [self._module(trial, "decoder") for trial in job.decoders]
                yield lambda j=job, e=encoder, d=decoders: _reconstruct.remote(j, e, stored[j.images], mean, *d)

        for records, pictures in _as_done(calls()):
            first = records[0]
            job = waiting[f"reconstruction/{first.trial}//{first.what['images']}"]
            self._let_go(job)
            yield job, records, pictures


def _trials(job: ClassificationJob | AttackJob | ReconstructionJob) -> set[str]:
    """Whose networks a job needs."""
    others = job.decoders if isinstance(job, ReconstructionJob) else (job.own,) if isinstance(job, AttackJob) else ()
    return {job.source.trial, *others}


def _as_done(calls: Iterable[Callable[[], Any]], started: Sequence[Any] = ()) -> Iterator[Any]:
    """Start calls in their order, a bounded number ahead, beside what is `started`; yield results as they come."""
    beside, pending = set(started), list(started)
    for call in calls:
        pending.append(call())
        while sum(one not in beside for one in pending) >= AHEAD * _cores():
            done, pending = ray.wait(pending)
            yield from _results(done)
    while pending:
        done, pending = ray.wait(pending)
        yield from _results(done)


def _cores() -> int:
    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # a cluster may grow


def _results(done: list[Any]) -> list[Any]:
    """What tasks returned; `InputError` where one was lost for good: out of memory, or with its machine."""
    try:
        return list(ray.get(done))
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if not isinstance(cause, RayError):
            raise  # what the task itself raised
        reason = " ".join(str(cause).split())[:200]
        raise InputError(
            f"a task was lost ({type(cause).__name__}: {reason}): give it more memory or resources.retries; the same "
            f"command goes on"
        ) from None
