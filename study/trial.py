"""One trial in plain Python: a configuration and a seed -> epochs -> an encoder, a decoder, and scores."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from aae.config import AutoencoderConfig
from aae.keys import save_pair, write_private
from aae.masking import mask
from aae.networks import Autoencoder
from aae.priors import judge
from aae.training import Images, TrainingState, train_epochs
from engine import device_name
from study.config import InputError, StudyConfig
from study.config_text import completed, from_plain, identified, to_plain
from study.records import write_whole
from study.seeds import derive, identity
from study.shapes import UNREADABLE_TEXT, amiss, read_json


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One autoencoder: its configuration, and which instance of it."""

    config: AutoencoderConfig
    instance: int
    seed: int

    @property
    def id(self) -> str:
        """Readable, and unique by a hash of configuration and seed."""
        latent = self.config.latent
        point = f"g{latent.gaussian}-c{latent.categorical}-b{self.config.training.batch_size}-i{self.instance}"
        return f"{point}-{identity([identified(self.config), self.seed], 6)}"

    def plain(self) -> dict[str, Any]:
        return {"config": to_plain(self.config), "instance": self.instance, "seed": self.seed}

    @classmethod
    def from_plain(cls, plain: Any) -> TrialSpec:
        """Take back what `plain` gave, in any version; `InputError` for anything else."""
        if not amiss(plain, {"config": {"network": {}, "training": {}}}):
            plain = plain | {"config": completed(plain["config"])}
        spec: TrialSpec = from_plain(cls, plain)
        return spec


def trial_specs(study: StudyConfig, chosen: Iterable[AutoencoderConfig] = ()) -> list[TrialSpec]:
    """All autoencoders of a study. Instances of different configurations share their seeds, which pairs them.

    After a search they are the study's latent configurations and the chosen ones, each with the search's fresh seeds.
    """
    if study.search.trials:
        configs = dict.fromkeys([*map(study.autoencoder, study.latents), *chosen])
        return [
            TrialSpec(config=config, instance=i, seed=derive(study.seed, "fresh", i))
            for config in configs
            for i in range(study.search.fresh_seeds)
        ]
    return [
        TrialSpec(config=study.autoencoder(point), instance=i, seed=derive(study.seed, "autoencoder", i))
        for point in study.latents
        for i in range(point.instances or study.instances)
    ]


#: Further numbers of an epoch: from the networks, its metrics, and whether it is the last.
Measure = Callable[[Autoencoder, dict[str, float], bool], dict[str, float]]


def run_trial(
    spec: TrialSpec,
    train: Images,
    held_out: Images,
    folder: Path,
    *,
    device: str = "cpu",
    measure: Measure | None = None,
) -> Iterator[dict[str, float]]:
    """Train, or go on training, one autoencoder; yield the metrics of each epoch once they are safe on disk.

    The folder of the trial holds `checkpoint.safetensors` while it runs, and in the end `encoder.safetensors`,
    `decoder.safetensors` and `result.json` (pair identity, SHA-256 of the training images, the metrics of every epoch).
    A finished trial yields its last epoch again. The last epoch also has `fresh_gaussian` and `fresh_categorical`:
    held-out accuracy of a freshly trained discriminator. What `measure` finds joins the metrics, its time as
    `measuring_seconds`.

    Raises:
        InputError: the folder holds a trial on other images.
    """
    result, checkpoint = folder / "result.json", folder / "checkpoint.safetensors"
    images = hashlib.sha256(np.ascontiguousarray(train).data).hexdigest()
    if read_images(folder) not in (None, images):
        raise InputError(f"{folder}: was trained on other images than these: choose another --out")
    for torn in folder.glob(".*.*.*"):
        torn.unlink()  # of a process that was killed while it wrote
    if result.exists():
        checkpoint.unlink(missing_ok=True)
        yield read_result(folder)["history"][-1]
        return
    state = TrainingState(spec.config, spec.seed, device)
    history = _resume(state, checkpoint, spec)
    for metrics in train_epochs(state, train, held_out):
        if state.epoch == spec.config.training.epochs:
            metrics.update(_fresh_discriminators(state, train, held_out))
        if measure is not None:
            begin = time.perf_counter()
            metrics.update(measure(state.nets, metrics, state.epoch == spec.config.training.epochs))
            metrics["measuring_seconds"] = time.perf_counter() - begin
        history.append(metrics)
        header = {"trial": json.dumps(spec.plain()), "history": json.dumps(history), "images": json.dumps(images)}
        write_private(checkpoint, save(state.tensors(), metadata=header))
        if state.epoch < spec.config.training.epochs:
            yield metrics
    pair = save_pair(folder, state.nets, spec.config.network)
    told = {"trial": spec.plain(), "pair": pair, "device": device_name(device), "images": images, "history": history}
    write_whole(result, json.dumps(told))
    checkpoint.unlink()
    yield history[-1]


#: What a trial's files say of it: numbers of its epochs, among them those that all trials have.
ALWAYS = ("epoch", "reconstruction_loss", "generating_loss", "discriminator_loss", "held_out_mse", "seconds")
EPOCH = dict.fromkeys((str, *ALWAYS), int | float)
HISTORY = {"trial": {"config": dict.fromkeys(("latent", "network", "training"), dict)}, "history": [EPOCH]}


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished trial wrote: `trial`, `pair`, `device`, `history`; `InputError` where that is lost or foreign."""
    path = folder / "result.json"
    result: dict[str, Any] = read_json(path, {**HISTORY, "pair": str})
    try:
        TrialSpec.from_plain(result["trial"])
    except InputError as error:
        raise InputError(f"{path}: is not the result of a trial ({error}): bring it back") from None
    return result


def read_progress(folder: Path) -> tuple[TrialSpec, list[dict[str, float]]] | None:
    """What a trial is and the metrics of its epochs so far, finished or not; None before its first checkpoint."""
    if (folder / "result.json").exists():
        result = read_result(folder)
        return TrialSpec.from_plain(result["trial"]), result["history"]
    return _told(_header(folder))


def read_images(folder: Path) -> str | None:
    """SHA-256 of the images that the trial of a folder was trained on; None where there is none, or it is older."""
    if (folder / "result.json").exists():
        return read_result(folder).get("images")
    try:
        images: str | None = json.loads(_header(folder).get("images", "null"))
    except UNREADABLE_TEXT:
        return None
    return images


def _header(folder: Path) -> dict[str, str]:
    """What the checkpoint of a trial says of itself; nothing where there is no whole one."""
    try:
        with safe_open(folder / "checkpoint.safetensors", framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _told(header: dict[str, str] | None) -> tuple[TrialSpec, list[dict[str, float]]] | None:
    """What a checkpoint says of its trial; None where it is another program's."""
    try:
        told = {key: json.loads((header or {})[key]) for key in HISTORY}
        return None if amiss(told, HISTORY) else (TrialSpec.from_plain(told["trial"]), told["history"])
    except (KeyError, *UNREADABLE_TEXT):
        return None


def encoder_parameters(result: dict[str, Any]) -> int:
    """Trainable parameters of the encoder of a finished trial, without the flow."""
    config = TrialSpec.from_plain(result["trial"]).config
    with torch.device("meta"):
        autoencoder = Autoencoder(config.latent, config.network)
    return sum(parameter.numel() for parameter in autoencoder.autoencoder_parameters()[0])


def _resume(state: TrainingState, checkpoint: Path, spec: TrialSpec) -> list[dict[str, float]]:
    """Load the checkpoint of this very trial, if there is a whole one; return the metrics of its epochs."""
    if not checkpoint.exists():
        return []
    try:
        with safe_open(checkpoint, framework="pt") as file:
            told = _told(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError):
        return []
    if told is None or told[0] != spec:
        return []
    state.load(tensors)
    return told[1]


def _fresh_discriminators(state: TrainingState, train: Images, held_out: Images) -> dict[str, float]:
    gaussian = state.config.latent.gaussian
    stride = max(1, len(train) // 20_000)
    encoded, test = (mask(state.nets.encoder, images) for images in (train[::stride], held_out))
    accuracy = {"fresh_gaussian": judge(encoded[:, :gaussian].copy(), test[:, :gaussian].copy(), "gaussian")}
    if state.config.latent.categorical:
        accuracy["fresh_categorical"] = judge(encoded[:, gaussian:].copy(), test[:, gaussian:].copy(), "categorical")
    return accuracy
