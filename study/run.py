"""The order of a study: data, trials, pairs, classification, report. What is there is never made again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aae.keys import keeps_private, write_private
from study import datasets, objectives
from study.artifacts import artifact, keep_samples
from study.attack import AttackJob
from study.config import Control, InputError, StudyConfig
from study.config_text import identified
from study.evaluate import ClassificationJob, Pictures, ReconstructionJob
from study.front import finalists, own_points
from study.jobs import (
    SHOWN,
    attack_jobs,
    classification_jobs,
    control_sources,
    first_instances,
    programs,
    reconstruction_jobs,
    reconstruction_sets,
    source_of,
)
from study.manifest import end_manifest, write_manifest
from study.opening import (
    NOT_PRIVATE,
    Data,
    check_folder,
    given_specs,
    load_data,
    open_folder,
    pair_folder,
    read_part,
    refuse_another,
)
from study.records import HOST, Record, RecordFile, file_name, locked, write_arrays, write_whole
from study.search_config import configured
from study.seeds import derive, identity
from study.storage import Storage, opened, room_in
from study.trial import TrialSpec, read_progress, read_result, trial_specs
from study.views.report import write_report
from study.views.tensorboard import Live, write_tensorboard
from study.views.terminal import Progress

if TYPE_CHECKING:
    from study.fanout import FanOut  # brings Ray
    from study.search import Ended


def run(config: StudyConfig, out: Path, data_dir: Path, address: str | None, progress: Progress) -> None:
    """Run a study, or go on with it; in the end its folder holds the report.

    Raises:
        InputError: something given cannot be used. All but what the bucket holds is checked before the folder is made.
    """
    data = load_data(config, data_dir)
    specs = given_specs(config) if config.encoders.from_ else trial_specs(config)
    sets = [data.autoencoder, *data.tasks.values()]
    check_folder(out, config, sets)
    if config.search.trials:
        objectives.check(config, len(data.train))
    from study.cluster import check_nodes, connected  # Ray takes seconds to import: bad input is told before

    allowed = partial(refuse_another, str(config.storage.url), config=config, instead="storage.url")
    with (
        room_in(out),
        connected(address, config.resources) as waiting,
        locked(out),  # before anything is written: another driver's folder is not ours to change
        opened(config.storage, out, allowed) as storage,
    ):
        check_folder(out, config, sets)  # again: an earlier driver's may have come
        with RecordFile(out, storage.check) as records:
            open_folder(out, config)
            if waiting:
                one = "; as search.concurrent is unset, trials run one at a time"
                progress.note(waiting + (one if config.search.trials and not config.search.concurrent else ""))
            if not keeps_private(out):
                progress.note(f"{out}: {NOT_PRIVATE}")
            if address:
                check_nodes(out, storage.bucket)
            write_manifest(out, config, specs, sets)
            if config.search.trials:
                specs = _search(config, data, out, storage, records, progress)
            done = _trials(config, specs, data, out, storage, records, progress)
            if not done:
                raise InputError(f"{out}: every autoencoder failed; records.jsonl says why: change the configuration")
            _pairs(config, done, data, out, records, progress)
            _samples(done, data, out)
            _classification(config, done, data, out, records, progress)
            _attacks(config, done, data, out, records, progress)
        end_manifest(out)
        progress.phase("report", 2)
        write_report(out)
        progress.advance()
        write_tensorboard(out)
        progress.advance()


# --- the phases --------------------------------------------------------------------------------------------------


def _search(
    config: StudyConfig, data: Data, out: Path, storage: Storage, records: RecordFile, progress: Progress
) -> list[TrialSpec]:
    """Search; return what is to be confirmed on fresh seeds: the study's latent configurations and the finalists."""
    from study.search import run_search, search_records

    left = max(0, config.search.trials - len(search_records(records.records)))
    shown = _Shown(config, out, progress, "search", left * config.training.epochs)
    for latent, point in zip(config.latents, own_points(config), strict=True):
        if point is None:
            progress.note(
                f"latents, {latent.gaussian}+{latent.categorical}: lies outside search.space and is not tried there, "
                f"but confirmed on fresh seeds: widen the space to have it tried"
            )

    def make(ended: Ended, role: str, detail: dict[str, Any]) -> Record:
        record = _trial_record(config, ended, out, storage, role, detail)
        shown.end(ended)
        return record

    run_search(config, _bench(config, data), out, storage.bucket, records, shown.epoch, make)
    tried = search_records(records.records)
    if not any(record.what["status"] == "complete" for record in tried):
        raise InputError(f"{out}: no trial of the search was completed; records.jsonl says why: change the space")
    base = config.autoencoder(config.latents[0])
    best = finalists(config, tried)
    return trial_specs(config, [configured(base, record.detail["params"]) for record in best])


def _bench(config: StudyConfig, data: Data) -> objectives.Bench:
    """What trials share; draws for the objectives only where there is a search."""
    draws = objectives.validation_draws(config, data.tasks) if config.search.trials else ()
    return objectives.Bench(
        data.train, data.held_out, draws, config.classifiers, config.search.classifier, config.attacks
    )


def _trials(
    config: StudyConfig,
    specs: list[TrialSpec],
    data: Data,
    out: Path,
    storage: Storage,
    records: RecordFile,
    progress: Progress,
) -> list[TrialSpec]:
    """Train what is not trained; return the autoencoders there are."""
    from study.search import run_trials

    if config.encoders.from_:
        for spec in specs:
            _adopt(pair_folder(Path(config.encoders.from_), spec.id), out / "trials" / spec.id)
    missing = [spec for spec in specs if f"trial/{spec.id}" not in records.keys]
    searched = list(objectives.directions(config.search)) if config.search.trials else []
    epochs = sum(_left(out / "trials" / spec.id, spec) for spec in missing)
    shown = _Shown(config, out, progress, "trials", epochs)

    def on_end(ended: Ended) -> None:
        records.append(_trial_record(config, ended, out, storage, "fresh" if searched else "", {}))
        shown.end(ended)
        if ended.status != "complete":
            shutil.rmtree(out / "trials" / ended.spec.id, ignore_errors=True)

    storage.carry()  # trials look for what is finished where they run
    bench, concurrent = _bench(config, data), config.search.concurrent
    run_trials(missing, bench, out, storage.bucket, config.resources, concurrent, searched, shown.epoch, on_end)
    failed = {r.trial for r in records.records if r.kind == "trial" and r.what["status"] != "complete"}
    return [spec for spec in specs if spec.id not in failed]


def _left(folder: Path, spec: TrialSpec) -> int:
    """Epochs that a trial will tell: those it has not trained, or its last again where it is finished."""
    known = read_progress(folder)
    if (folder / "result.json").exists():
        return 1
    return max(1, spec.config.training.epochs - (len(known[1]) if known and known[0] == spec else 0))


class _Shown:
    """Trials on the terminal and in TensorBoard, as they run."""

    def __init__(self, config: StudyConfig, out: Path, progress: Progress, phase: str, epochs: int) -> None:
        self._epochs, self._progress = config.training.epochs, progress
        self._out, self._gpu = out, config.resources.gpu
        progress.phase(phase, epochs, pieces="epochs")
        self._live = Live(out) if epochs else None

    def epoch(self, spec: TrialSpec, metrics: dict[str, float]) -> None:
        if self._live:
            self._live.epoch(spec, metrics)
        self._progress.trial(spec.id, metrics)
        self._progress.advance(
            f"{spec.id} epoch {metrics['epoch']:.0f}/{self._epochs}: reconstruction "
            f"{metrics['reconstruction_loss']:.5f}, held-out MSE {metrics['held_out_mse']:.5f}"
        )

    def end(self, ended: Ended) -> None:
        """Once its files are here."""
        if self._live:
            self._live.end(ended.spec, failed=ended.status == "failed")
        if ended.status != "complete":
            self._progress.note(f"{ended.spec.id} {ended.status}{': ' if ended.reason else ''}{ended.reason}")
        elif self._gpu and read_result(self._out / "trials" / ended.spec.id)["device"] == "cpu":
            self._gpu = 0.0  # said once
            self._progress.note(
                f"{ended.host}: Ray gave a share of a GPU, but torch sees none and trained on the CPU: see whether its "
                f"driver is new enough for torch's CUDA, or set resources.gpu=0"
            )


#: Kept of a trial that did not end, whose history is gone with its checkpoint.
KEPT = ("epoch", "held_out_mse")


def _trial_record(
    config: StudyConfig, ended: Ended, out: Path, storage: Storage, role: str, detail: dict[str, Any]
) -> Record:
    """The record of a trial; `role` says what it was for where a study searches: `search` or `fresh`."""
    spec, complete = ended.spec, ended.status == "complete"
    if complete:
        storage.bring(spec.id)
    history = read_result(out / "trials" / spec.id)["history"] if complete else []
    metrics = (
        history[-1]
        if complete
        else {key: value for key, value in ended.metrics.items() if key in KEPT or key.startswith("objective.")}
    )
    taken = sum(m["seconds"] + m.get("measuring_seconds", 0) for m in history)
    return Record(
        kind="trial",
        key=f"trial/{spec.id}",
        **vars(source_of(spec, config)),
        what={"status": ended.status, "recipe": spec.config.training.recipe}
        | ({"role": role, "point": identity(identified(spec.config))} if role else {}),
        metrics={k: v for k, v in metrics.items() if k not in ("seconds", "measuring_seconds")},
        detail=detail | ({"reason": ended.reason} if ended.reason else {}),
        seed=spec.seed,
        seconds=taken if complete else ended.metrics.get("time_total_s", 0.0),
        host=ended.host or HOST,
    )


def _adopt(source: Path, target: Path) -> None:
    """Copy a trained pair from another study; its result comes last, so what is there is whole."""
    if not (target / "result.json").exists():
        target.mkdir(parents=True, exist_ok=True)
        for name in ("decoder.safetensors", "encoder.safetensors", "result.json"):
            write = write_private if name.endswith(".safetensors") else write_whole
            write(target / name, (source / name).read_bytes())


def _pairs(
    config: StudyConfig, specs: list[TrialSpec], data: Data, out: Path, records: RecordFile, progress: Progress
) -> None:
    """Matched and unmatched errors of every pair of one latent configuration (Eqs 1 to 12)."""
    from study.fanout import FanOut

    images = reconstruction_sets(config, data)
    jobs = reconstruction_jobs(config, specs, images)
    missing = [job for job in jobs if not records.keys.issuperset(job.keys)]
    progress.phase("pairs", len(missing))
    if not missing:
        return
    mean_image = np.rint(data.train.mean(axis=0, keepdims=True)).astype(np.uint8)
    fan_out = FanOut(config.classifiers, config.seed)
    for spec in specs:
        for part in ("encoder", "decoder"):
            fan_out.add_module(f"{spec.id}/{part}", partial(read_part, out, spec, part))
    for job, measured, pictures in fan_out.reconstructions(missing, images, mean_image):
        _keep_pictures(out, job, pictures)
        for record in measured:
            if record.key not in records.keys:
                records.append(record)
        progress.advance(f"{job.source.trial} on {job.images}")


def _keep_pictures(out: Path, job: ReconstructionJob, pictures: Pictures) -> None:
    write_arrays(
        artifact(out, "pictures", job.source.trial, job.images), decoders=np.array(job.decoders), **vars(pictures)
    )


def _samples(specs: list[TrialSpec], data: Data, out: Path) -> None:
    """Masked vectors for the projector, of the first instance of each latent configuration."""
    encoders = {spec.id: partial(read_part, out, spec, "encoder") for spec in first_instances(specs)}
    for image_set in data.tasks.values():
        keep_samples(out, image_set, encoders)


def _classification(
    config: StudyConfig, specs: list[TrialSpec], data: Data, out: Path, records: RecordFile, progress: Progress
) -> None:
    """Every encoder x draw x protocol x classifier that has no record."""
    from study.fanout import FanOut, cost

    jobs = classification_jobs(config, specs, data)
    missing = [job for job in jobs if not records.keys.issuperset(job.keys.values())]
    sizes = class_sizes(data)
    progress.phase("classification", len(missing), sum(cost(job, sizes) for job in missing))
    if not missing:
        return
    fan_out = FanOut(config.classifiers, config.seed)
    for spec in specs:
        fan_out.add_module(f"{spec.id}/encoder", partial(read_part, out, spec, "encoder"))
    _add_controls(fan_out, config.controls, config.seed, specs, data, missing)
    for image_set in data.tasks.values():
        fan_out.add_images(image_set)
    together = programs(jobs, sizes, config.network.pixels, config.classifiers)
    for job, measured in fan_out.classifications(missing, sizes, together, config.resources.gpu):
        for record in measured:
            if record.key not in records.keys:
                records.append(record)
        record, what = measured[0], measured[0].what
        progress.advance(
            f"{what['dataset']} {what['classes']} classes, draw {what['draw']}, {what['classifier']}: "
            f"accuracy {record.metrics['accuracy']:.3f}",
            cost(job, sizes),
        )


def class_sizes(data: Data) -> dict[str, int]:
    """Images of a class in each data set; a class that is named may have none."""
    return {name: len(d.labels) // len(np.unique(d.labels)) for name, d in data.tasks.items()}


def _add_controls(
    fan_out: FanOut,
    controls: Iterable[Control],
    seed: int,
    specs: list[TrialSpec],
    data: Data,
    missing: Sequence[ClassificationJob | AttackJob],
) -> None:
    """Those that some job needs: what they are fitted on takes room."""
    needed = {job.source for job in missing}
    for source, control, autoencoder in control_sources(controls, specs):
        if control != "raw" and source in needed:
            fan_out.add_control(source.trial, control, autoencoder, data.train, derive(seed, "control", control))


def _attacks(
    config: StudyConfig, specs: list[TrialSpec], data: Data, out: Path, records: RecordFile, progress: Progress
) -> None:
    """Every attack that has no record."""
    from study.fanout import FanOut

    if not config.attacks.names:
        return
    parts = {name: datasets.attack_parts(d, config.attacks.victims, config.seed) for name, d in data.tasks.items()}
    jobs = list(attack_jobs(config, [source_of(spec, config) for spec in specs], parts))
    missing = [job for job in jobs if job.key not in records.keys]
    progress.phase("attacks", len(missing))
    if not missing:
        return
    fan_out = FanOut(config.classifiers, config.seed)
    for spec in specs:
        for part in ("encoder", "decoder"):
            fan_out.add_module(f"{spec.id}/{part}", partial(read_part, out, spec, part))
    _add_controls(fan_out, config.attacks.controls, config.seed, specs, data, missing)
    for name, image_set in data.tasks.items():
        fan_out.add_images(image_set)
        fan_out.add_attacked(image_set, parts[name])
        indices = {key: value.astype(np.uint32) for key, value in vars(parts[name]).items()}
        write_arrays(out / "artifacts" / f"attack-parts-{file_name(name)}.npz", **indices)
    for job, record, restored in fan_out.attacks(missing, config.attacks, SHOWN):
        if job.draw == 0 and job.representation == "masked":
            folder = out / "artifacts" / f"attack-{job.source.trial}-{file_name(job.dataset)}"
            write_arrays(folder / f"{job.attack}-{job.k}.npz", restored=restored)
        records.append(record)
        progress.advance(f"{job.dataset}, {job.attack}, {job.k} pairs: MSE {record.metrics['mse']:.4f}")
