"""TensorBoard: the only writer of event files, from records and artifacts alone; live while trials run.

The whole view is made again when a study starts and when it ends, so a resumed study shows nothing twice. In between
`Live` adds the epochs of running trials. `results/README.md` has a line for every run and tag.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tensorboardX import summary

from study.aggregate import summarise
from study.artifacts import artifact, read_arrays
from study.config import StudyConfig
from study.config_text import flat, to_plain
from study.opening import read_folder_config
from study.records import Record, frame, read_records
from study.trial import TrialSpec, read_progress, trial_specs
from study.unmasking import attack_table
from study.views import tables, tensorboard_results
from study.views.events import Run, Value, experiment, session_end, session_start, tag_name
from study.views.tables import Summary

#: Numbers that Tune adds to what a trial reports.
TUNES_OWN = {
    "checkpoint_dir_name", "done", "iterations_since_restore", "pid", "should_checkpoint", "time_since_restore",
    "time_this_iter_s", "time_total_s", "timestamp", "training_iteration",
}  # fmt: skip

#: Groups of a trial's scalars by the names of its metrics, `priors` being all else that training reports.
GROUPS = {"held_out_mse": "held_out", "learning_rate": "running", "seconds": "running"}

FIGURES = {
    "Fig 5: reconstruction loss": "losses/reconstruction_loss",
    "Fig 6: generating loss": "losses/generating_loss",
    "Fig 7: discriminators' loss": "losses/discriminator_loss",
    "Held-out mean squared error": "held_out/held_out_mse",
    "Effective rank of the Gaussian part": "priors/effective_rank",
    "Categories in use": "priors/categories_used",
}

#: Columns of HParams beside a study's scores and objectives: of a trial's scalars, those that judge it.
JUDGING = (
    *FIGURES.values(), "priors/mean_largest", "priors/deviation_smallest", "priors/deviation_largest",
    "priors/largest_correlation", "priors/largest_probability", "priors/fresh_gaussian", "priors/fresh_categorical",
)  # fmt: skip

#: Pictures across a strip, and pixels for each pixel.
ACROSS, SCALE = 8, 3


def scalar_tag(metric: str) -> str:
    """Where a metric of a trial is shown."""
    if metric.startswith("objective."):
        return f"objectives/{tag_name(metric.removeprefix('objective.'))}"
    group = "losses" if metric.endswith("_loss") else GROUPS.get(metric, "priors")
    return f"{group}/{metric}"


def write_tensorboard(folder: Path) -> Path:
    """Make the view of a study again, beside its place and then put there; needs neither Ray nor data sets.

    Raises:
        InputError: there is no study in the folder.
    """
    config = read_folder_config(folder)
    place, beside = folder / "tensorboard", folder / ".tensorboard"
    shutil.rmtree(beside, ignore_errors=True)
    records = read_records(folder)
    content = summarise(records)
    _write_study(beside, config, content, _write_trials(folder, beside, config, records))
    tensorboard_results.write_classification(beside, content, [r for r in records if r.kind == "classification"])
    tensorboard_results.write_pairs(folder, beside, content)
    tensorboard_results.write_attacks(beside, attack_table(records))
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)
    return place


class Live:
    """Adds epochs of running trials to the view, which is made from what there is when this is."""

    def __init__(self, folder: Path) -> None:
        self._place = write_tensorboard(folder)
        self._config = read_folder_config(folder)
        self._runs: dict[str, Run] = {}
        known = (read_progress(path) for path in sorted((folder / "trials").glob("*")))
        self._shown = {spec.id: history[-1]["epoch"] for spec, history in filter(None, known) if history}

    def epoch(self, spec: TrialSpec, metrics: dict[str, float]) -> None:
        """Show an epoch, unless it is shown: a trial that lost its machine reports some twice."""
        if spec.id not in self._runs:
            self._runs[spec.id] = run = Run(self._place / "trials" / spec.id, int(self._shown.get(spec.id, 0)) + 1)
            run.add(session_start(hyperparameters(spec, self._config)))
        if metrics["epoch"] > self._shown.get(spec.id, 0):
            self._shown[spec.id] = metrics["epoch"]
            _add_epoch(self._runs[spec.id], metrics)
        self._runs[spec.id].flush()

    def end(self, spec: TrialSpec, *, failed: bool) -> None:
        """Give a trial its status."""
        run = self._runs.pop(spec.id, None) or Run(self._place / "trials" / spec.id, 2**31)
        run.add(session_end(failed=failed))
        run.close()


def hyperparameters(spec: TrialSpec, config: StudyConfig) -> dict[str, Value]:
    """Everything that was set for a trial, fixed or varied, by its key in the configuration."""
    plain = spec.plain()
    settings = {"data": to_plain(config.data), **plain["config"], "instance": plain["instance"], "seed": plain["seed"]}
    return {key: _value(value) for key, value in flat(settings)}


def _value(value: Any) -> Value:
    if value is None:
        return "unset"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value


# --- trials ------------------------------------------------------------------------------------------------------


def _write_trials(folder: Path, target: Path, config: StudyConfig, records: list[Record]) -> list[dict[str, Value]]:
    """One run a trial, finished, failed or under way; return what was set for each."""
    ended = {r.trial: r for r in records if r.kind == "trial"}
    scores = _scores(frame(records, "classification"))
    known = {path.name: read_progress(path) for path in sorted((folder / "trials").glob("*"))}
    rows = []
    for trial in sorted(ended.keys() | known.keys()):
        progress = known.get(trial)
        if progress is None and trial not in ended:
            continue
        spec, history = progress or (None, [])
        record = ended.get(trial)
        values = hyperparameters(spec, config) if spec else _remembered(ended[trial])
        rows.append(values)
        run = Run(target / "trials" / trial)
        times = _times(folder / "trials" / trial, history)
        run.add(session_start(values, times[0] if times else None))
        for metrics, when in zip(history, times, strict=True):
            _add_epoch(run, metrics, when)
        for tag, accuracy in scores.get(trial, {}).items():
            run.scalar(tag, accuracy, len(history))
        if spec is not None:
            _add_pictures(run, folder, spec)
            _add_projector(run, folder, spec)
        if record is not None:
            run.add(session_end(failed=record.what["status"] == "failed", when=times[-1] if times else None))
        run.close()
    return rows


def _remembered(record: Record) -> dict[str, Value]:
    """What the record of a trial that failed before its first checkpoint knows of it."""
    point = {"latent.gaussian": record.gaussian, "latent.categorical": record.categorical}
    return {**point, "training.batch_size": record.batch_size, "instance": record.instance, "seed": record.seed}


def _times(folder: Path, history: list[dict[str, float]]) -> list[float]:
    """When each epoch ended: what was written last, less what the later epochs took."""
    last = max((path.stat().st_mtime for path in folder.glob("*")), default=0.0)
    taken = np.array([metrics["seconds"] for metrics in history])
    return list(last - (taken.sum() - np.cumsum(taken)))


def _add_epoch(run: Run, metrics: dict[str, float], when: float | None = None) -> None:
    for name, value in metrics.items():
        if name != "epoch" and name not in TUNES_OWN:
            run.scalar(scalar_tag(name), value, int(metrics["epoch"]), when)


def _scores(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean accuracy over draws of each trial, by data set, number of classes and classifier; `shared` if there."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    if not table.empty:
        table = table[(table["representation"] == "masked") & (table["protocol"] == table["protocol"].max())]
        keys = ["trial", "dataset", "classes", "classifier"]
        for row in table.groupby(keys)[["accuracy"]].mean().reset_index().to_dict("records"):
            tag = f"score/{tag_name(row['dataset'])}-{row['classes']}/{tag_name(row['classifier'])}"
            found[row["trial"]][tag] = row["accuracy"]
    return found


def _add_pictures(run: Run, folder: Path, spec: TrialSpec) -> None:
    """Originals, masked forms and reconstructions, three rows a set of images."""
    for path in sorted((folder / "artifacts").glob(f"pictures-{spec.id}-*.npz")):
        kept = read_arrays(path)
        own = kept["restored"][list(kept["decoders"]).index(spec.id)]
        rows = [kept["originals"], _squares(kept["masked"], spec.config.latent.gaussian, own.shape[1:]), own]
        strip = np.concatenate([np.concatenate(list(row[:ACROSS]), axis=1) for row in rows])
        name = path.stem.removeprefix(f"pictures-{spec.id}-")
        run.picture(f"original_masked_restored/{name}", strip.repeat(SCALE, axis=0).repeat(SCALE, axis=1))


def _squares(masked_ND: NDArray[np.float32], gaussian: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The Gaussian part as grey squares of an image's size, from -3 (black) to 3, padded with zeros (grey)."""
    side = math.ceil(math.sqrt(gaussian))
    padded = np.zeros((len(masked_ND), side * side), dtype=np.float32)
    padded[:, :gaussian] = masked_ND[:, :gaussian]
    grey = ((padded.clip(-3, 3) + 3) * (255 / 6)).astype(np.uint8).reshape(-1, side, side)
    nearest = np.arange(shape[0]) * side // shape[0]
    return np.repeat(grey[:, nearest][:, :, nearest, None], shape[2], axis=3)


def _add_projector(run: Run, folder: Path, spec: TrialSpec) -> None:
    for path in sorted((folder / "artifacts").glob(f"vectors-{spec.id}-*.npz")):
        name = path.stem.removeprefix(f"vectors-{spec.id}-")
        samples = read_arrays(artifact(folder, "samples", name))
        run.projector(name, read_arrays(path)["vectors"], list(samples["labels"]), samples["images"])


# --- the study ---------------------------------------------------------------------------------------------------


def _write_study(target: Path, study: StudyConfig, content: Summary, rows: list[dict[str, Value]]) -> None:
    """The run `study`: columns of HParams, the layout of custom scalars, configuration and tables as text."""
    run = Run(target / "study")
    planned = [] if study.encoders.from_ else [hyperparameters(spec, study) for spec in trial_specs(study)]
    searched = {"seed", *(one.key for one in study.search.space)} if study.search.trials else set()
    run.add(experiment([*planned, *rows], _judging(study), searched))
    run.add(summary.custom_scalars(_layout(content)))
    settings = pd.DataFrame(
        [(key, json.dumps(value)) for key, value in flat(to_plain(study))], columns=["key", "value"]
    )
    run.text("configuration", tables.to_markdown(settings))
    for name, table in _tables(content):
        run.text(f"tables/{name}", tables.to_markdown(table))
    run.close()


def _judging(study: StudyConfig) -> list[str]:
    """The columns of HParams that hold results: known before the first of them is there."""
    cells = [(task.data, classes) for task in study.tasks for classes in task.classes]
    scores = [f"score/{tag_name(d)}-{n}/{name}" for d, n in cells for name in study.classifiers.names]
    objectives = [f"objective.{one.name}" for one in study.search.objectives if study.search.trials]
    return [*scores, *map(scalar_tag, objectives), *JUDGING]


def _masked(content: Summary) -> list[dict[str, Any]]:
    return [row for row in content["classification"] if row["representation"] == "masked"]


def _layout(content: Summary) -> dict[str, Any]:
    cells = sorted({(r["protocol"], tag_name(r["dataset"]), tag_name(r["classifier"])) for r in _masked(content)})
    curves = sorted({(tag_name(r["dataset"]), r["classes"]) for r in _masked(content) if r["classifier"] == "mlp"})
    layout: dict[str, Any] = {
        "Training of the autoencoders": {title: ["Multiline", [f"^{tag}$"]] for title, tag in FIGURES.items()}
    }
    for measure in ("accuracy", "loss"):
        layout[f"Training of the neural network (Figs 10 and 11): {measure}"] = {
            f"{dataset}, {classes} classes": [
                "Multiline",
                [f"^learning/{dataset}-{classes}/{part}_{measure}$" for part in ("train", "validation")],
            ]
            for dataset, classes in curves
        }
    layout["Accuracy by number of classes, with its 95% interval"] = {
        f"{dataset}, {classifier}, protocol {protocol}": [
            "Margin",
            [f"{name}/{protocol}/{dataset}/{classifier}" for name in ("accuracy", "interval_low", "interval_high")],
        ]
        for protocol, dataset, classifier in cells
        if "@" not in classifier
    }
    return {title: charts for title, charts in layout.items() if charts}


def _tables(content: Summary) -> Iterator[tuple[str, pd.DataFrame]]:
    for protocol in sorted({row["protocol"] for row in content["classification"]}):
        yield f"accuracy_{protocol}", tables.classification(content, protocol, "accuracy")
    if content["reconstruction"]:
        yield "restoration_error", tables.reconstruction(content)
    if content["trials"]:
        yield "autoencoders", tables.trials(content)
