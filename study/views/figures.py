"""The figures of a report: charts as SVG, pictures as PNG, each with a CSV of its numbers. Readable without colour."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from cycler import cycler
from numpy.typing import NDArray

from study.aggregate import POINT
from study.records import Record, write_whole
from study.views.tables import NAMES, Summary, in_order, is_papers

mpl.use("Agg")
from matplotlib import colormaps
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

mpl.rcParams |= {
    "figure.dpi": 200,
    "svg.hashsalt": "study",
    "svg.fonttype": "none",  # words that can be found and marked, in fewer bytes
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "axes.prop_cycle": 2 * cycler(color=["#0b5d8a", "#d1662a", "#3c8d5a", "#7a5195", "#8a7a1f", "#555555"])
    + cycler(marker=["o", "s", "^", "D", "v", "x", "P", "*", "<", ">", "h", "+"])
    + 3 * cycler(linestyle=["-", "--", "-.", ":"]),
    "lines.markersize": 3.5,
    "lines.linewidth": 1.3,
}


@dataclass(frozen=True)
class Shown:
    """A figure as the page needs it."""

    name: str
    """Of its files, without ending."""
    caption: str
    alt: str
    vector: bool = False
    """A chart, kept as SVG; otherwise a picture, kept as PNG."""

    @property
    def file(self) -> str:
        """Its name in the folder of figures."""
        return f"{self.name}.{'svg' if self.vector else 'png'}"


def save(folder: Path, name: str, figure: Figure, numbers: pd.DataFrame, *, vector: bool = False) -> None:
    """Write a figure in one step, as SVG or PNG, and the numbers in it as CSV beside it."""
    kind, content = "svg" if vector else "png", io.BytesIO()
    figure.savefig(content, format=kind, bbox_inches="tight", metadata={"Date": None} if vector else None)
    plt.close(figure)
    write_whole(folder / f"{name}.{kind}", content.getvalue())
    write_whole(folder / f"{name}.csv", numbers.to_csv(index=False))


def name_errors(axis: Axes) -> None:
    """On a logarithmic axis that may hold less than a power of ten: 0.01, 0.02, 0.05, and so on; more where few fit."""
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_locator(NullLocator())


#: Metrics of an epoch that are drawn: title, unit, scale.
LEARNING = {
    "reconstruction_loss": ("Reconstruction loss (Fig 5)", "MSE, pixels from 0 to 1", "log"),
    "held_out_mse": ("Held-out images", "MSE, pixels from 0 to 1", "log"),
    "generating_loss": ("Generating loss (Fig 6)", "cross-entropy, nats", "linear"),
    "discriminator_loss": ("Discriminators' loss (Fig 7)", "cross-entropy, nats", "linear"),
}

#: More lines than this have no legend.
NAMED_LINES = 12


def learning_curves(folder: Path, histories: dict[str, list[dict[str, float]]], names: dict[str, str]) -> list[Shown]:
    """Figs 5, 6 and 7: reconstruction, generating and discriminator losses by epoch, one line an autoencoder."""
    if not histories:
        return []
    figure, axes = plt.subplots(2, 2, figsize=(6.6, 5.2), layout="constrained")
    for axis, (key, (title, unit, scale)) in zip(axes.flat, LEARNING.items(), strict=True):
        for trial, history in histories.items():
            axis.plot([m["epoch"] for m in history], [m[key] for m in history], label=names[trial])
        axis.set(title=title, xlabel="epoch", ylabel=unit, yscale=scale)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if scale == "log":
            name_errors(axis)
    if len(histories) <= NAMED_LINES:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    numbers = pd.concat([pd.DataFrame(history).assign(trial=trial) for trial, history in histories.items()])
    save(folder, "learning", figure, numbers, vector=True)
    caption = "Training of the autoencoders (the paper's Figs 5 to 7): error and adversarial losses by epoch."
    return [Shown("learning", caption, "Four panels of losses by epoch, one line for each autoencoder", vector=True)]


#: How a value of the paper is drawn.
PAPERS: dict[str, Any] = {"marker": "D", "markersize": 5, "markerfacecolor": "white", "color": "black"}


def accuracy(folder: Path, summary: Summary, protocol: str) -> list[Shown]:
    """Accuracy of each classifier against the number of classes, a panel for data set and latent configuration."""
    rows = [r for r in summary["classification"] if r["protocol"] == protocol and r["representation"] == "masked"]
    panels = sorted({_panel(r) for r in rows})
    panels = [p for p in panels if len({r["classes"] for r in rows if r["dataset"] == p[0]}) > 1]
    if not panels:
        return []
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.4 * columns, 2.6 * lines + 0.6), sharey=True, squeeze=False, layout="constrained"
    )
    figure.set_layout_engine("constrained", h_pad=0.1)
    for axis, panel in zip(axes.flat, panels, strict=False):
        counts = sorted({r["classes"] for r in rows if _panel(r) == panel})
        for offset, (classifier, label) in enumerate(NAMES.items()):
            points = sorted(
                (r for r in rows if _panel(r) == panel and r["classifier"] == classifier), key=lambda r: r["classes"]
            )
            if points:
                position = [counts.index(p["classes"]) + (offset - 1.5) * 0.09 for p in points]
                (drawn, *_) = axis.errorbar(
                    position, [p["accuracy"]["mean"] for p in points], yerr=_bars(points), label=label, capsize=2
                )
                if is_papers(points[0]):
                    theirs = [p["accuracy"].get("paper", {}).get("mean", math.nan) for p in points]
                    axis.plot(position, theirs, linestyle="none", **PAPERS | {"color": drawn.get_color()})
        axis.set_xticks(range(len(counts)), map(str, counts))  # after the points, whose limits it widens
        axis.set(title=literal(f"{panel[0]}, latent {panel[-1]}"), xlabel="number of classes")
    for axis in axes[:, 0]:
        axis.set_ylabel("accuracy")
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    beside = any("paper" in r["accuracy"] and is_papers(r) for r in rows)
    if beside:
        handles, labels = [*handles, Line2D([], [], linestyle="none", **PAPERS)], [*labels, "the paper's value"]
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    save(folder, f"accuracy-{protocol}", figure, pd.json_normalize(rows, sep="_"), vector=True)
    caption = f"Accuracy on masked test images, protocol `{protocol}`; bars are 95% intervals of the mean."
    if beside:
        caption += " Hollow, without a line: the paper's value, at the place and in the colour of its classifier."
    return [
        Shown(
            f"accuracy-{protocol}", caption, "Accuracy against the number of classes for each classifier", vector=True
        )
    ]


def latent_length(folder: Path, summary: Summary, pixels: int) -> list[Shown]:
    """Use, restoration and secrecy against the length of the masked form over that of the image, where three are known.

    Args:
        pixels: numbers in one image.
    """
    rows = _by_length(summary, pixels)
    if rows.empty or rows["share"].nunique() < 3:
        return []
    titles = {"accuracy": "Accuracy", "restored": "The matching decoder", "pairs": "Leaked pairs to unmask"}
    units = {"accuracy": "share of test images", "restored": "MSE, pixels from 0 to 1", "pairs": "pairs to the target"}
    lengths = _apart(sorted(rows["share"].unique()))
    panels = [panel for panel in titles if rows.loc[rows["panel"] == panel, "share"].nunique() > 1]
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 2.8), squeeze=False, layout="constrained")
    for axis, panel in zip(axes[0], panels, strict=True):
        for line, points in rows[rows["panel"] == panel].groupby("line", sort=False):
            (drawn,) = axis.plot(points["share"], points["value"], label=literal(str(line)))
            beyond = points[points["beyond"]]
            axis.plot(beyond["share"], beyond["value"], "o", color=drawn.get_color(), markerfacecolor="white")
        axis.set(title=titles[panel], xlabel="length over that of the image", ylabel=units[panel], xscale="log")
        axis.set_xticks(lengths, [f"{share:.1%}" for share in lengths])
        axis.minorticks_off()
        if panel == "pairs":
            axis.set_yscale("log")
        axis.legend(fontsize=7)
    save(folder, "length", figure, rows, vector=True)
    caption = (
        "How much the masked form holds: accuracy of the neural network on the most classes (and, where that was "
        "measured, of principal components of the same length), error of the matching decoder, leaked pairs that reach "
        "the target, against the length of the masked form over that of the image. A white marker: more pairs than "
        "were tried."
    )
    return [
        Shown("length", caption, "Panels of accuracy, error and pairs against the length of the latent", vector=True)
    ]


def _apart(shares: list[float]) -> list[float]:
    """Of rising values, those that have room for their names on a logarithmic axis."""
    kept = shares[:1]
    for share in shares[1:]:
        if math.log(share / kept[-1]) > math.log(shares[-1] / shares[0]) / 6:
            kept.append(share)
    return kept


def _by_length(summary: Summary, pixels: int) -> pd.DataFrame:
    """One row for a panel, a line in it and a latent configuration."""
    rows = []

    def add(panel: str, line: str, row: dict[str, Any], value: float, *, beyond: bool = False) -> None:
        share = (row["gaussian"] + row["categorical"]) / pixels
        place = {"panel": panel, "line": line, "latent": row["latent"], "share": share}
        rows.append(place | {"value": value, "beyond": beyond})

    learned = [
        r
        for r in summary["classification"]
        if (r["protocol"], r["classifier"]) == ("shared", "mlp") and r["representation"] in ("masked", "pca")
    ]
    most = {r["dataset"]: max(o["classes"] for o in learned if o["dataset"] == r["dataset"]) for r in learned}
    for row in sorted(in_order(learned), key=lambda row: str(row["representation"])):
        if row["classes"] == most[row["dataset"]]:
            control = ", principal components" if row["representation"] == "pca" else ""
            add("accuracy", f"{row['dataset']}, {row['classes']} classes{control}", row, row["accuracy"]["mean"])
    for row in in_order(summary["reconstruction"]):
        if row["pair"] == "matched" and (row["images"] == "V" or row["images"].endswith(" V")):
            add("restored", row["images"], row, row["mean"])
    for row in in_order(summary["unmasking"]):
        if row["representation"] == "masked" and row["largest"]:
            reached = row["reach_target"]
            add("pairs", row["dataset"], row, reached or row["largest"], beyond=not reached)
    return pd.DataFrame(rows)


def _panel(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["dataset"], *(row[key] for key in POINT), row["latent"]


def _bars(points: list[dict[str, Any]]) -> NDArray[np.float64]:
    ends = [(p["accuracy"]["interval"] or [p["accuracy"]["mean"]] * 2, p["accuracy"]["mean"]) for p in points]
    return np.array([[max(mean - low, 0), max(high - mean, 0)] for (low, high), mean in ends]).T


def classifier_curves(folder: Path, name: str, records: list[Record], latent: str) -> list[Shown]:
    """Figs 10 and 11: accuracy and loss of the neural network by epoch, training and validation, smallest draws.

    Args:
        records: classifications of one latent configuration, which `latent` names.
    """
    curves = [r for r in records if "history" in r.detail and r.what["protocol"] == "paper"]
    if not curves:
        return []
    fewest = min((r.what["classes"], r.what["dataset"]) for r in curves)
    curves = [r for r in curves if (r.what["classes"], r.what["dataset"]) == fewest]
    numbers = pd.concat(
        [
            pd.DataFrame(r.detail["history"]).assign(trial=r.trial, draw=r.what["draw"], epoch=lambda h: h.index + 1)
            for r in curves
        ]
    )
    mean = numbers.groupby("epoch").mean(numeric_only=True)
    figure, axes = plt.subplots(1, 2, figsize=(7, 2.6), layout="constrained")
    for axis, measure in zip(axes, ("accuracy", "loss"), strict=True):
        for part, label in (("validation", "validation"), ("train", "training")):  # in the paper's colours
            axis.plot(mean.index, mean[f"{part}_{measure}"], label=label)
        axis.set(xlabel="epoch", ylabel="accuracy" if measure == "accuracy" else "cross-entropy, nats")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[0].legend()
    save(folder, name, figure, numbers, vector=True)
    caption = (
        f"The neural network on {fewest[1]}, {fewest[0]} classes, latent {latent} (the paper's Figs 10 and 11): mean "
        f"over {len(curves)} trainings. Training values are taken as the weights move; validation chooses the epoch."
    )
    return [Shown(name, caption, "Accuracy and loss by epoch on the training and the validation part", vector=True)]


def masked_forms(folder: Path, pictures: dict[str, NDArray[Any]], trial: str, gaussian: int) -> list[Shown]:
    """Fig 1: original, Gaussian part as a square (padded with zeros), what the matching decoder makes of it."""
    originals, masked = pictures["originals"], pictures["masked"]
    count = min(8, len(originals))
    side = math.ceil(math.sqrt(gaussian))
    squares = np.zeros((count, side * side), dtype=np.float32)
    squares[:, :gaussian] = masked[:count, :gaussian]
    own = pictures["restored"][list(pictures["decoders"]).index(trial)]
    rows = {
        "original": originals[:count],
        f"masked ({side}×{side})": squares.reshape(count, side, side),
        "unmasked": own[:count],
    }
    figure, axes = plt.subplots(3, 1, figsize=(1.0 * count, 3.2), layout="constrained")
    for axis, (label, images) in zip(axes, rows.items(), strict=True):
        strip(axis, images)
        axis.set_ylabel(label)
    save(folder, "masked", figure, pd.DataFrame(masked[:count]))
    empty = side * side - gaussian
    caption = (
        f"Masked forms (the paper's Fig 1), autoencoder `{trial}`: images it was not trained on. Of the masked form "
        f"the Gaussian part is shown, {gaussian} numbers in {side}×{side} cells"
        + (f", of which the last {empty} are filled with zeros." if empty else ".")
    )
    return [Shown("masked", caption, "Three rows: originals, masked forms as grey squares, reconstructions")]


def pair_matrix(folder: Path, name: str, title: str, pictures: dict[str, dict[str, NDArray[Any]]]) -> list[Shown]:
    """Figs 8 and 9: one image through every encoder (row) and every decoder (column)."""
    if len(pictures) < 2:
        return []
    figure, numbers = draw_pair_matrix(pictures)
    save(folder, name, figure, numbers)
    caption = (
        f"{title}: one image, top left, through every encoder and every decoder; below each its mean squared error. "
        f"The diagonal holds matched pairs."
    )
    return [Shown(name, caption, "Matrix of reconstructions by encoder and decoder")]


def draw_pair_matrix(pictures: dict[str, dict[str, NDArray[Any]]]) -> tuple[Figure, pd.DataFrame]:
    """The matrix, and the error of each of its pictures; the decoders are those of the encoders, in their order.

    Encoders of another configuration than the first one's, which met other decoders, are left out, and those that some
    encoder has not met, in a study that was stopped as it grew.
    """
    own = next(iter(pictures.values()))["decoders"]
    alike = [found["decoders"] for trial, found in pictures.items() if trial in own]
    trials, rows = [trial for trial in pictures if all(trial in decoders for decoders in alike)], []
    original = pictures[trials[0]]["originals"]
    chosen = 2 if len(original) > 2 else 0
    size = len(trials) + 1
    figure, axes = plt.subplots(size, size, figsize=(1.2 * size, 1.3 * size), layout="constrained")
    for axis in axes.flat:
        axis.set_axis_off()
    picture(axes[0, 0], original[chosen])
    for row, encoder in enumerate(trials, start=1):
        axes[0, row].text(0.5, 0.05, f"decoder {row}", ha="center", va="bottom", transform=axes[0, row].transAxes)
        axes[row, 0].text(0.95, 0.5, f"encoder {row}", ha="right", va="center", transform=axes[row, 0].transAxes)
        order = list(pictures[encoder]["decoders"])
        for column, decoder in enumerate(trials, start=1):
            restored = pictures[encoder]["restored"][order.index(decoder), chosen]
            error = np.square((restored.astype(np.float64) - original[chosen]) / 255).mean()
            picture(axes[row, column], restored)
            axes[row, column].set_xlabel(f"{error:.4f}", fontsize=7, labelpad=1)
            rows.append({"encoder": encoder, "decoder": decoder, "image": chosen, "mse": error})
    return figure, pd.DataFrame(rows)


def confusion_matrix(counts: NDArray[np.int64], names: list[str], title: str) -> Figure:
    """True class down, predicted across, as shares of the true class; a last column where no class was named."""
    names, title = [literal(name) for name in names], literal(title)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    columns = [*names, "none"] if counts[:, -1].any() else names
    side = max(2.4, 0.45 * len(names) + 1)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    axis.imshow(shares[:, : len(columns)], cmap="Greys", vmin=0, vmax=1)
    for row, column in np.ndindex(len(names), len(columns)):
        share = shares[row, column]
        if share:
            shade = "white" if share > 0.5 else "black"
            axis.text(column, row, f"{share:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7, color=shade)
    axis.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 3 else 0)
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    axis.grid(visible=False)
    return figure


def literal(text: str) -> str:
    """A name from data as matplotlib shows it: dollars do not begin a formula."""
    return text.replace("$", r"\$")


def strip(axis: Axes, images: NDArray[Any]) -> None:
    """Show images, (N, H, W), (N, H, W, 1) or uint8 (N, H, W, 3), side by side.

    Numbers that are no pixels are grey, from the least to the largest of all.
    """
    if images.ndim == 4 and images.shape[-1] == 3:
        colours = np.concatenate((images / 255, np.ones((*images.shape[:3], 1))), axis=-1)
    else:
        grey = images.reshape(images.shape[:3]).astype(np.float64)
        least, span = (0, 255) if images.dtype == np.uint8 else (grey.min(), max(np.ptp(grey), 1e-12))
        colours = colormaps["gray"]((grey - least) / span)
    gap = max(1, images.shape[2] // 10)
    spaced = np.pad(colours, ((0, 0), (0, 0), (0, gap), (0, 0)))  # transparent
    picture(axis, np.concatenate(spaced, axis=1)[:, :-gap])


def picture(axis: Axes, image: NDArray[Any]) -> None:
    """Show one image, (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), without axes."""
    axis.set_axis_on()
    grey = image.ndim == 2 or image.shape[-1] == 1
    norm = Normalize(0, 255) if grey and image.dtype == np.uint8 else None
    axis.imshow(image.squeeze(), cmap="gray" if grey else None, norm=norm, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
