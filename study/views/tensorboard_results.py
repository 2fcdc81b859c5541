"""TensorBoard's runs of results: classification, attacks, matched and unmatched pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from tensorboardX import summary

from study.aggregate import METRICS, POINT
from study.artifacts import artifact, read_arrays
from study.records import Record
from study.views import figures
from study.views.events import Run, tag_name
from study.views.tables import Summary

#: What is shown of attacks.
ATTACK_METRICS = ("mse", "psnr", "ssim", "top1", "recognised")


def write_classification(target: Path, content: Summary, records: list[Record]) -> None:
    """One run for what was learned from; the step is the number of classes.

    Classifiers are told by tags: of more than 40 runs TensorBoard shows none until they are ticked.
    """
    grouped: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        grouped[_learned_from(vars(record) | record.what)].append(record)
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in content["classification"]:
        rows[_learned_from(row)].append(row)
    drawn = max((r.gaussian, r.categorical) for r in records) if records else None
    for source, mine in grouped.items():
        run = Run(target / "classification" / source)
        for row in rows[source]:
            place = f"{row['protocol']}/{tag_name(row['dataset'])}/{tag_name(row['classifier'])}"
            for metric in METRICS:
                run.scalar(f"{metric}/{place}", row[metric]["mean"], row["classes"])
            low, high = row["accuracy"]["interval"] or [row["accuracy"]["mean"]] * 2
            run.scalar(f"interval_low/{place}", low, row["classes"])
            run.scalar(f"interval_high/{place}", high, row["classes"])
        masked = [r for r in mine if r.what["representation"] == "masked"]
        _add_learning(run, masked)
        protocol = max((r.what["protocol"] for r in masked), default="")  # `shared` where there is one
        for classifier in sorted({r.what["classifier"] for r in masked}):
            first = [
                r
                for r in masked
                if [r.what[k] for k in ("draw", "protocol", "classifier")] == [0, protocol, classifier]
            ]
            _add_pr_curves(run, first, tag_name(classifier))
            if "@" not in classifier and (mine[0].gaussian, mine[0].categorical) == drawn:
                _add_confusion(run, first, tag_name(classifier))
        run.close()


def _learned_from(row: dict[str, Any]) -> str:
    """A latent configuration, with what was done to its masked forms, or a control and its length."""
    if row["representation"] == "raw":
        return "raw"
    trained = (f"b{row['batch_size']}",) if row["batch_size"] else ()  # a control has no batches
    varied = (tag_name(row["variant"]),) if row["variant"] else ()
    point = "-".join((f"g{row['gaussian']}", f"c{row['categorical']}", *trained, *varied))
    return point if row["representation"] == "masked" else f"{row['representation']}-{point}"


def _cells(records: list[Record]) -> Iterator[tuple[str, list[Record]]]:
    """Records by data set and number of classes."""
    cells: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        cells[tag_name(record.what["dataset"]), record.what["classes"]].append(record)
    for dataset, classes in sorted(cells):
        yield f"{dataset}-{classes}", cells[dataset, classes]


def _add_learning(run: Run, records: list[Record]) -> None:
    """Figs 10 and 11: the neural network by epoch, mean over its trainings in one cell."""
    for cell, mine in _cells([r for r in records if "history" in r.detail and r.what["protocol"] == "paper"]):
        numbers = pd.concat([pd.DataFrame(r.detail["history"]) for r in mine])
        for epoch, row in numbers.groupby(level=0).mean().iterrows():
            for name, value in row.items():
                run.scalar(f"learning/{cell}/{name}", value, int(str(epoch)) + 1)


def _add_pr_curves(run: Run, records: list[Record], classifier: str) -> None:
    """One curve a class of the first draw, all encoders' scores together."""
    for cell, mine in _cells([r for r in records if "scores" in r.detail]):
        own_CS, others_CS = (np.sum([r.detail["scores"][part] for r in mine], axis=0) for part in ("own", "others"))
        for name, own_S, others_S in zip(mine[0].what["class_names"], own_CS, others_CS, strict=True):
            tp, fp = own_S[::-1].cumsum()[::-1], others_S[::-1].cumsum()[::-1]
            precision, recall = tp / np.maximum(tp + fp, 1), tp / max(tp[0], 1)
            counts = tp, fp, fp[0] - fp, tp[0] - tp
            run.add(summary.pr_curve_raw(f"{classifier}/{cell}/{tag_name(name)}", *counts, precision, recall, len(tp)))


def _add_confusion(run: Run, records: list[Record], classifier: str) -> None:
    """True against predicted class of the first draw of most classes, all encoders together."""
    most: dict[str, int] = {}
    for record in records:
        dataset, classes = record.what["dataset"], record.what["classes"]
        most[dataset] = max(classes, most.get(dataset, 0))
    for cell, mine in _cells([r for r in records if r.what["classes"] == most[r.what["dataset"]]]):
        counts = np.sum([r.detail["confusion"] for r in mine], axis=0)
        figure = figures.confusion_matrix(counts, mine[0].what["class_names"], cell.replace("-", ", ") + " classes")
        run.figure(f"confusion/{cell}/{classifier}", figure)
        plt.close(figure)


def write_attacks(target: Path, table: pd.DataFrame) -> None:
    """One run for what was attacked and how; the step is the number of leaked pairs, means over draws and encoders."""
    if table.empty:
        return
    keys = [*POINT, "representation", "attack"]
    for values, mine in table.groupby(keys):
        row = dict(zip(keys, values, strict=True))
        run = Run(target / "attacks" / _learned_from(row) / tag_name(str(row["attack"])))
        for cell in mine.groupby(["dataset", "k"])[list(ATTACK_METRICS)].mean().reset_index().to_dict("records"):
            for name in ATTACK_METRICS:
                run.scalar(f"{name}/{tag_name(cell['dataset'])}", cell[name], int(cell["k"]))
        run.close()


def write_pairs(folder: Path, target: Path, content: Summary) -> None:
    """One run a latent configuration: errors of its pairs, and the matrices of Figs 8 and 9."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in content["reconstruction"]:
        rows[_learned_from(row | {"representation": "masked"})].append(row)
    trials: dict[str, list[str]] = defaultdict(list)
    for trial in content["trials"]:
        trials[_learned_from(trial | {"representation": "masked"})].append(trial["trial"])
    for point, mine in rows.items():
        run = Run(target / "pairs" / point)
        for row in mine:
            run.scalar(f"mse/{tag_name(row['images'])}/{tag_name(row['pair'])}", row["mean"])
        for images in ("V", "P"):
            paths = {trial: artifact(folder, "pictures", trial, images) for trial in trials[point]}
            kept = {trial: read_arrays(path) for trial, path in paths.items() if path.exists()}
            if len(kept) > 1:
                figure, _ = figures.draw_pair_matrix(kept)
                run.figure(f"matrix/{images}", figure)
                plt.close(figure)
        run.close()
