"""The part of a report that tells of a search: its front, how it got there, and what fresh seeds say."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from study.config import StudyConfig
from study.records import Record
from study.shapes import read_json
from study.trial import read_result
from study.verdict import summarise_search
from study.views.figures import Shown, save
from study.views.page import Section

Found = dict[str, Any]

#: Statuses by marker: readable without colour.
MARKS = {"complete": "o", "stopped": "v", "failed": "x"}


def found(folder: Path, config: StudyConfig, records: list[Record]) -> Found:
    """What the search of a study found, or {} where there was none."""
    if not any(record.what.get("role") == "search" for record in records):
        return {}
    summary = summarise_search(config, records, lambda trial: read_result(folder / "trials" / trial)["history"])
    path = folder / "artifacts" / "importances.json"
    return summary | {"importances": read_json(path, {str: {str: float}}) if path.exists() else {}} if summary else {}


def section(folder: Path, search: Found) -> Section:
    """The part of a report that tells of a search."""
    trials = _table(search)
    figures = folder / "figures"
    counts = trials["status"].value_counts()
    told = ", ".join(f"{counts[status]} {status}" for status in MARKS if status in counts)
    wanted = {"maximize": "more", "minimize": "less"}
    directions = ", ".join(
        f"{_label(o['name'])} (the {wanted[o['direction']]} the better: {o['meaning']})" for o in search["objectives"]
    )
    return Section(
        "The search",
        [
            search["recommendation"],
            f"{len(trials)} configurations were tried: {told}. They were judged by {directions}, on training and "
            f"validation data alone. A star marks the Pareto front: no other trial is as good in everything and "
            f"better in something. Finalists were trained again with fresh seeds, and only those numbers, paired by "
            f"seed, carry a verdict; the intervals of all differences hold together at 95% (Bonferroni), those of "
            f"means and at equal seconds each by itself.",
        ],
        [("Finalists on fresh seeds", _finalists(search))] if search["finalists"] else [],
        [
            *_front(figures, search, trials),
            *_hypervolume(figures, search),
            *_importances(figures, search),
            *_parallel(figures, search, trials),
            *_slices(figures, search, trials),
        ],
        [("Every trial", _listing(search, trials))],
    )


def _table(search: Found) -> pd.DataFrame:
    """One row a trial; parameters and objectives are columns."""
    keys = ("trial", "name", "status", "front", "seconds", "reason")
    rows = [{**{k: t[k] for k in keys}, **t["params"], **t["values"]} for t in search["trials"]]
    table = pd.DataFrame(rows)
    for key in search["parameters"]:  # a part that was never switched on has no column
        if key not in table:
            table[key] = np.nan
    return table


def _names(search: Found) -> list[str]:
    return [objective["name"] for objective in search["objectives"]]


def _label(name: str) -> str:
    return name.rpartition(".")[2].replace("_", " ") if not name.endswith(".on") else name.split(".")[1] + " on"


# --- tables ------------------------------------------------------------------------------------------------------


def _finalists(search: Found) -> pd.DataFrame:
    first = search["finalists"][0]
    rows = []
    for row in search["finalists"]:
        cells = {"configuration": row["name"], "seeds": row["seeds"]}
        cells |= {_label(name): _interval(mean, "") for name, mean in row["means"].items()}
        for name in first["means"]:
            difference = row.get("differences", {}).get(name)
            cells[f"{_label(name)}, difference at equal epochs"] = _interval(difference, "+")
        cells["held out mse, difference at equal seconds"] = _interval(row.get("equal_seconds"), "+")
        cells["verdict"] = row.get("verdict", "what the others are compared with")
        if any("verdict_on_use" in one for one in search["finalists"]):
            cells["verdict on accuracy and held out mse alone"] = row.get("verdict_on_use", "")
        rows.append(cells)
    return pd.DataFrame(rows)


def _interval(cell: dict[str, Any] | None, sign: str) -> str:
    if cell is None:
        return ""
    low, high = cell["interval"]
    return f"{cell['mean']:{sign}.4f} [{low:{sign}.4f}, {high:{sign}.4f}]"


def _listing(search: Found, trials: pd.DataFrame) -> pd.DataFrame:
    shown = trials.assign(front=np.where(trials["front"], "*", ""), seconds=trials["seconds"].map("{:.1f}".format))
    for name in _names(search):
        shown[name] = trials[name].map(lambda value: "" if pd.isna(value) else f"{value:.5g}")
    return shown[["name", *_names(search), "front", "status", "reason", "seconds", "trial"]]


# --- figures -----------------------------------------------------------------------------------------------------


def _front(folder: Path, search: Found, trials: pd.DataFrame) -> list[Shown]:
    """Every pair of objectives, three pairs at most."""
    pairs = list(itertools.combinations(_names(search), 2))[:3]
    if not pairs:
        return []
    figure, axes = plt.subplots(1, len(pairs), figsize=(3.6 * len(pairs), 3.1), squeeze=False, layout="constrained")
    done = trials[trials["status"] == "complete"]
    best = done[done["front"]]
    for axis, (x, y) in zip(axes[0], pairs, strict=True):
        axis.plot(done[x], done[y], "o", color="#9aa5b1", label="trial")
        axis.plot(best[x], best[y], "*", color="#d1662a", markersize=9, label="front")
        for across, up, name in zip(best[x], best[y], best["name"], strict=True):
            text = name.split(",")[0]
            axis.annotate(text, (across, up), fontsize=6, xytext=(4, 3), textcoords="offset points")
        axis.set(xlabel=_label(x), ylabel=_label(y))
    axes[0, 0].legend()
    save(folder, "front", figure, trials, vector=True)
    caption = "Objectives of every complete trial; stars are the Pareto front, named by Gaussian + categorical numbers."
    return [Shown("front", caption, "Scatter of objectives with the Pareto front marked", vector=True)]


def _hypervolume(folder: Path, search: Found) -> list[Shown]:
    figure, axis = plt.subplots(figsize=(4.2, 2.5), layout="constrained")
    volume = search["hypervolume"]
    axis.step(range(1, len(volume) + 1), volume, where="post", marker="")
    axis.set(xlabel="complete trials", ylabel="hypervolume")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    save(
        folder,
        "hypervolume",
        figure,
        pd.DataFrame({"trials": range(1, len(volume) + 1), "hypervolume": volume}),
        vector=True,
    )
    reference = ", ".join(f"{o['name']} {o['reference']:.4g}" for o in search["objectives"])
    caption = f"Hypervolume that is dominated after so many trials; reference point: {reference}."
    return [Shown("hypervolume", caption, "Hypervolume rising with the number of trials", vector=True)]


def _importances(folder: Path, search: Found) -> list[Shown]:
    rated = {name: values for name, values in search["importances"].items() if values}
    if not rated:
        return []
    table = pd.DataFrame(rated).fillna(0.0)
    table = table.loc[table.sum(axis=1).sort_values().index]
    figure, axis = plt.subplots(figsize=(5, 0.8 + 0.35 * len(table)), layout="constrained")
    height = 0.8 / len(table.columns)
    for number, name in enumerate(table.columns):
        place = np.arange(len(table)) + (number - (len(table.columns) - 1) / 2) * height
        axis.barh(place, table[name], height, label=_label(str(name)), hatch=("", "//", "..", "xx")[number % 4])
    axis.set_yticks(range(len(table)), [_label(str(key)) for key in table.index])
    axis.set(xlabel="importance")
    axis.legend()
    save(folder, "importances", figure, table.reset_index(names="parameter"), vector=True)
    caption = (
        "Importance of each parameter for being among the best in each objective, as Optuna rates it from complete "
        "trials (PED-ANOVA). With few trials this is a hint, no more."
    )
    return [Shown("importances", caption, "Bars of parameter importances for each objective", vector=True)]


def _scaled(values: pd.Series) -> tuple[pd.Series, list[str]]:
    """Values from 0 to 1, and what stands at both ends; text and switches are ordered by name."""
    numbers = values if pd.api.types.is_numeric_dtype(values) and values.dtype != bool else None
    if numbers is None:
        kinds = sorted({str(value) for value in values.dropna()})
        numbers = values.map(lambda value: kinds.index(str(value)) if not pd.isna(value) else np.nan).astype(float)
        ends = [kinds[0], kinds[-1]] if kinds else ["", ""]
    else:
        ends = [f"{numbers.min():.3g}", f"{numbers.max():.3g}"]
    low, high = numbers.min(), numbers.max()
    return (numbers - low) / (high - low) if high > low else numbers * 0 + 0.5, ends


def _parallel(folder: Path, search: Found, trials: pd.DataFrame) -> list[Shown]:
    """One line a complete trial through every parameter and objective; the front stands out by width."""
    done = trials[trials["status"] == "complete"]
    keys = [*search["parameters"], *_names(search)]
    columns = {key: _scaled(done[key]) for key in keys}
    scaled = pd.DataFrame({key: column for key, (column, _) in columns.items()})
    figure, axis = plt.subplots(figsize=(1.25 * len(keys) + 1, 3), layout="constrained")
    for row, front in zip(scaled.to_numpy(), done["front"], strict=True):
        axis.plot(range(len(keys)), row, marker="." if front else "", color="#d1662a" if front else "#9aa5b1",
                  linewidth=1.8 if front else 0.7, zorder=2 if front else 1)  # fmt: skip
    axis.set_xticks(range(len(keys)), [_label(key) for key in keys], rotation=20)
    for place, (_, ends) in enumerate(columns.values()):
        axis.text(place, 1.03, ends[1], ha="center", fontsize=7)
        axis.text(place, -0.03, ends[0], ha="center", va="top", fontsize=7)
    axis.set(yticks=[], ylim=(-0.12, 1.12))
    save(folder, "parallel", figure, done[keys], vector=True)
    caption = "Every complete trial as a line through its parameters and objectives, each axis from its least to its "
    return [
        Shown(
            "parallel",
            caption + "greatest value; the front is drawn wide.",
            "Parallel coordinates of trials",
            vector=True,
        )
    ]


def _slices(folder: Path, search: Found, trials: pd.DataFrame) -> list[Shown]:
    """Every objective against every parameter."""
    keys, objectives = search["parameters"], _names(search)
    done = trials[trials["status"] == "complete"]
    figure, axes = plt.subplots(
        len(objectives), len(keys), figsize=(2.1 * len(keys) + 0.6, 1.9 * len(objectives) + 0.4), squeeze=False,
        sharey="row", sharex="col", layout="constrained",
    )  # fmt: skip
    for line, objective in enumerate(objectives):
        for column, key in enumerate(keys):
            _slice(axes[line, column], done, key, objective)
        axes[line, 0].set_ylabel(_label(objective))
    for axis, key in zip(axes[-1], keys, strict=True):
        axis.set_xlabel(_label(key))
    save(folder, "slices", figure, done[[*keys, *objectives]], vector=True)
    caption = "Objectives of complete trials against one parameter at a time; stars are the front."
    return [Shown("slices", caption, "Grid of scatter plots of objectives against parameters", vector=True)]


def _slice(axis: Axes, done: pd.DataFrame, key: str, objective: str) -> None:
    here = done[done[key].notna()]
    values = here[key]
    if not pd.api.types.is_numeric_dtype(values) or values.dtype == bool:
        values = values.astype(str)
    front = here["front"].to_numpy(dtype=bool)
    axis.plot(values[~front], here.loc[~front, objective], "o", color="#9aa5b1")
    axis.plot(values[front], here.loc[front, objective], "*", color="#d1662a", markersize=8)
