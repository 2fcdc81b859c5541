"""What is done before a study starts: its data loaded, its folder looked at, everything given checked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from aae.config import LatentConfig
from aae.keys import KeyFileError, load_key
from attacks import WITH_PAIRS
from study import datasets
from study.config import InputError, StudyConfig
from study.config_text import from_plain, refused_changes, to_plain
from study.datasets import ImageSet
from study.pictures import Images
from study.records import file_name, write_whole
from study.shapes import parsed, read_json
from study.trial import TrialSpec, read_result

#: What a study that ended before it began leaves, empty.
BEFORE = (".carried", ".lock", "records.jsonl")

#: What is said of a folder whose files others may read.
NOT_PRIVATE = "files here cannot have mode 0600: decoders can be read by others: lock them, or write elsewhere"


@dataclass(frozen=True)
class Data:
    """All images of a study, loaded and checked."""

    autoencoder: ImageSet
    train: Images
    held_out: Images
    tasks: dict[str, ImageSet]


def load_data(config: StudyConfig, data_dir: Path) -> Data:
    """Load every image of a study, and check what depends on them."""
    network = config.network
    loaded: dict[str, ImageSet] = {}
    for name in [config.data.autoencoder, *(task.data for task in config.tasks)]:
        if name not in loaded:
            loaded[name] = datasets.load(name, data_dir, size=network.image_size, channels=network.channels)
    files: dict[str, str] = {}
    for task in config.tasks:
        if (other := files.setdefault(file_name(task.data), task.data)) != task.data:
            raise InputError(f"tasks: {other!r} and {task.data!r} would share files of artifacts/: rename one of them")
    tasks = {task.data: loaded[task.data] for task in config.tasks}
    autoencoder = loaded[config.data.autoencoder]
    train, held_out = datasets.autoencoder_parts(autoencoder, config.data)
    for point in config.latents:
        batch = config.autoencoder(point).training.batch_size
        if batch > len(train):
            raise InputError(f"batch_size = {batch}: {autoencoder.name} gives {len(train)} training images: take fewer")
    for task in config.tasks:
        for count in task.classes:
            datasets.draws(tasks[task.data], count, 1, config.seed)
        for protocol in config.protocols:
            for classifier in config.classifiers.names:
                datasets.split(tasks[task.data], protocol, classifier, config.seed).check(tasks[task.data], protocol)
        if config.attacks.names:
            parts = datasets.attack_parts(tasks[task.data], config.attacks.victims, config.seed)
            paired = config.attacks.defences or not set(WITH_PAIRS).isdisjoint(config.attacks.names)
            if paired and config.attacks.pairs[0] > len(parts.pairs):
                raise InputError(
                    f"attacks.pairs = {config.attacks.pairs}: {task.data} has {len(parts.pairs)} images that may leak: "
                    f"ask for fewer"
                )
    return Data(autoencoder, train, held_out, tasks)


def check_folder(out: Path, config: StudyConfig, data: Iterable[ImageSet]) -> None:
    """Raise `InputError` unless a study of this configuration, on this data, can begin or go on in the folder."""
    there = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"{out}: cannot be written ({there} is not a folder): choose another --out")
    kept = out / "config.json"
    if kept.exists():
        refuse_another(str(out), kept.read_bytes(), config=config, instead="--out")
        known = read_manifest(out)["data"] if (out / "manifest.json").exists() else {}
        for found in data:
            if found.name in known and known[found.name]["sha256"] != found.digest():
                raise InputError(
                    f"{out}: was measured on another {found.name} (SHA-256 {known[found.name]['sha256'][:12]}, now "
                    f"{found.digest()[:12]}): bring that back, or choose another --out"
                )
    elif out.exists() and any(path.name not in BEFORE or path.stat().st_size for path in out.iterdir()):
        raise InputError(f"{out}: is not empty and holds no study: choose another --out")


def refuse_another(place: str, kept: bytes, *, config: StudyConfig, instead: str) -> None:
    """Raise `InputError` unless `kept`, the `config.json` of a place, is of a study that this one may continue."""
    known = _config(f"{place}/config.json", parsed(f"{place}/config.json", kept, CONFIG))
    if differences := refused_changes(known, config):
        raise InputError(
            f"{place}: holds a study that differs in {'; '.join(differences)}: choose another {instead}, or ask for "
            f"the same with at most more draws, instances or latent configurations"
        )


def read_folder_config(folder: Path) -> StudyConfig:
    """The configuration of the study in a folder; `InputError` where there is none."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: holds no study (no config.json): run `study run` first")
    return _config(str(folder / "config.json"), read_json(folder / "config.json", CONFIG))


#: What every `config.json` has: others would be taken for a study with the defaults.
CONFIG = {
    "seed": int,
    **dict.fromkeys(("data", "network", "training"), dict),
    **dict.fromkeys(("latents", "tasks"), list),
}

#: What views take from `manifest.json`.
MANIFEST = {
    "title": str,
    "seed": int,
    "encoders_from": str | None,
    "data": {str: {"sha256": str, "train": int, "test": int}},
    "runs": [{**dict.fromkeys(("time", "system", "python", "commit"), str), "cores": int | None, "packages": dict}],
}


def read_manifest(folder: Path) -> dict[str, Any]:
    """Where the numbers of the study in a folder come from; `InputError` where that is lost."""
    manifest: dict[str, Any] = read_json(folder / "manifest.json", MANIFEST)
    return manifest


#: What studies did that were published before there was a key for it.
SINCE: dict[str, dict[str, Any]] = {"attacks": {"controls": []}}


def _config(path: str, values: Any) -> StudyConfig:
    for section, earlier in SINCE.items():
        if isinstance(values, dict) and isinstance(values.get(section, {}), dict):
            values = values | {section: earlier | values.get(section, {})}
    try:
        config: StudyConfig = from_plain(StudyConfig, values)
    except InputError as error:
        raise InputError(f"{path}: is not the configuration of a study ({error}): bring it back") from None
    return config


def open_folder(out: Path, config: StudyConfig) -> None:
    """Keep the configuration in the folder."""
    try:
        write_whole(out / "config.json", json.dumps(to_plain(config), indent=2) + "\n")
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}): choose another --out") from None


def given_specs(config: StudyConfig) -> list[TrialSpec]:
    """The trained autoencoders of another study, or of `study train`, that have one of this study's configurations.

    Those trained as this study would train them come first, in its order; of others with the same latent sizes it takes
    as many as of the configuration with the most instances.
    """
    source = Path(str(config.encoders.from_))
    points = {config.autoencoder(p): p.instances or config.instances for p in config.latents}
    alike: dict[LatentConfig, int] = {}
    for autoencoder, instances in points.items():
        alike[autoencoder.latent] = max(instances, alike.get(autoencoder.latent, 0))
    places = {autoencoder: place for place, autoencoder in enumerate(points)}
    results = sorted([*source.glob("trials/*/result.json"), *source.glob("result.json")])
    found = [TrialSpec.from_plain(read_result(path.parent)["trial"]) for path in results]
    seen = (config.network.image_size, config.network.channels)
    found = [spec for spec in found if (spec.config.network.image_size, spec.config.network.channels) == seen]
    chosen = [spec for spec in found if spec.instance < points.get(spec.config, alike.get(spec.config.latent, 0))]
    chosen.sort(key=lambda spec: (places.get(spec.config, len(places)), spec.instance))
    if not chosen:
        raise InputError(
            f"encoders.from = {str(source)!r}: holds no trained pair of this study's latent configurations and "
            f"images ({seen[0]} pixels a side, {seen[1]} channels)"
        )
    for spec in chosen:
        for part in ("encoder", "decoder"):
            read_part(source, spec, part)
    return chosen


def pair_folder(folder: Path, trial: str) -> Path:
    """Where a study keeps a trained pair; `study train` has one alone, at the top."""
    place = folder / "trials" / trial
    return place if place.exists() else folder


def read_part(folder: Path, spec: TrialSpec, part: str) -> nn.Module:
    """The encoder or decoder of a finished trial; `InputError` where its file cannot be used."""
    try:
        return load_key(pair_folder(folder, spec.id) / f"{part}.safetensors", part).module
    except KeyFileError as error:
        raise InputError(str(error)) from None
