"""The tables of a report, from a study's summary."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from study import paper
from study.aggregate import POINT
from study.claims import CLAIMS, FEW, LENGTHS

NAMES = {
    "mlp": "Neural network",
    "random_forest": "Random Forest",
    "random_forest_onehot": "Random Forest, one-hot",
    "adaboost": "AdaBoost",
}

Summary = dict[str, Any]


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By latent configuration, smallest first."""
    return sorted(rows, key=_point)


def is_papers(row: dict[str, Any]) -> bool:
    """Whether it is of the paper's latent and batch sizes, however it was trained."""
    return ((row["gaussian"], row["categorical"]), row["batch_size"]) == (paper.LATENT, paper.BATCH_SIZE)


def mean_and_interval(cell: dict[str, Any] | None) -> str:
    """`0.852 ± 0.068 [0.81, 0.89]`: mean, sigma over draws, interval of the mean; what is not known is left away."""
    if cell is None:
        return ""
    text = f"{cell['mean']:.3f}"
    if cell["sigma"] is not None and not math.isnan(cell["sigma"]):
        text += f" ± {cell['sigma']:.3f}"
    if cell["interval"] is not None:
        text += " [{:.3f}, {:.3f}]".format(*cell["interval"])
    return text


def signed(cell: dict[str, Any], mean: str = "mean", *, starred: bool = True) -> str:
    """`+0.021 [-0.010, +0.052]`, a star where the interval leaves out zero and rests on `FEW` draws or encoders.

    An end that would be rounded to zero has a digit more, so that one sees on which side it lies.
    """
    text = _plus(cell[mean])
    if cell["interval"] is None:
        return text
    low, high = cell["interval"]
    enough = starred and max(cell["draws"], cell.get("encoders", 0)) >= FEW
    ends = (_plus(end, 3 if abs(end) >= 0.0005 else 4) for end in (low, high))
    return f"{text} [{', '.join(ends)}]" + (" *" if enough and (low > 0 or high < 0) else "")


def _plus(value: float, digits: int = 3) -> str:
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def classification(summary: Summary, protocol: str, metric: str) -> pd.DataFrame:
    """One row for data set, number of classes and classifier; one column for each latent configuration."""
    rows = [r for r in summary["classification"] if r["protocol"] == protocol and r["representation"] == "masked"]
    table = _table(in_order(rows), lambda row: (row["latent"], mean_and_interval(row[metric])))
    beside = [r for r in in_order(rows) if "paper" in r[metric] and is_papers(r)]
    for row in beside:
        cell = row[metric]["paper"]
        spread = "" if cell["sigma"] is None else f" ± {cell['sigma']:.3f}"
        table[_key(row)]["the paper"] = f"{cell['mean']:.3f}{spread}"
    for row in beside:
        table[_key(row)][f"{row['latent']} less the paper"] = signed(row[metric]["paper"], "difference")
    return _ordered(table)


def controls(summary: Summary) -> pd.DataFrame:
    """Mean accuracy of each control through the same classifiers, in `shared`."""
    rows = [r for r in summary["classification"] if r["protocol"] == "shared" and r["representation"] != "masked"]
    return _ordered(_table(rows, lambda row: (control_name(row), mean_and_interval(row["accuracy"]))))


def differences(summary: Summary, *, classifiers: bool) -> pd.DataFrame:
    """Accuracy of masked forms less each control's, or of the neural network less each other classifier's."""
    table: Rows = {}
    for row in in_order(summary["differences"]):
        if (row["against"] in NAMES) == classifiers and row["classifier"] in NAMES:
            first = {"data": row["dataset"], "classes": row["classes"]}
            first |= {} if classifiers else {"classifier": NAMES[row["classifier"]]}
            first["latent"] = row["latent"]
            line = table.setdefault((*_key(row), row["latent"]), first)
            line["less " + NAMES.get(row["against"], row["against"].replace("_", " "))] = signed(row["accuracy"])
    return _ordered(table)


def estimators(summary: Summary) -> pd.DataFrame:
    """Accuracy by number of trees and stumps, of the autoencoder it was tried on."""
    table: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in summary["classification"]:
        name, _, count = row["classifier"].partition("@")
        if count:
            first = {"data": row["dataset"], "classes": row["classes"], "classifier": NAMES[name]}
            key = row["dataset"], row["classes"], name, row["latent"]
            table.setdefault(key, first | {"latent": row["latent"]})[count] = mean_and_interval(row["accuracy"])
    frame = pd.DataFrame([table[key] for key in sorted(table)]).fillna("")
    counts = sorted((c for c in frame.columns if c.isdigit()), key=int)
    return frame[[c for c in frame.columns if not c.isdigit()] + counts]


def drops(summary: Summary, protocol: str) -> pd.DataFrame:
    """What each classifier loses from the fewest to the most drawn classes; in `paper` beside its 0.083, 0.387, 0.212.

    Without stars: claim 3 holds the losses against the paper's, with the uncertainty of both.
    """
    rows = [r for r in summary["drops"] if r["protocol"] == protocol and r["classifier"] in NAMES]
    lines = []
    for row in sorted(rows, key=lambda r: (r["dataset"], _point(r), list(NAMES).index(r["classifier"]))):
        given = row["paper"] if is_papers(row) and protocol == "paper" else None
        lines.append(
            {
                "data": row["dataset"],
                "classes": f"{row['few']} to {row['many']}",
                "classifier": NAMES[row["classifier"]],
                "latent": row["latent"],
                "accuracy lost": signed(row, "drop", starred=False),
                "the paper": "" if given is None else f"{given:+.3f}",
            }
        )
    known = any(line["the paper"] for line in lines)
    return pd.DataFrame(lines) if known else pd.DataFrame(lines).drop(columns="the paper", errors="ignore")


def verdicts(summary: Summary) -> pd.DataFrame:
    """How many comparisons confirm or refute each claim: on the paper's latent configuration, where it was studied.

    One row for a claim and a way of training, where there are several.
    """
    rows = summary["claims"]
    rows = [row for row in rows if _about_the_papers(row)] if any(map(is_papers, rows)) else rows
    groups: dict[tuple[int, str], list[str]] = {}
    for row in rows:
        groups.setdefault((row["claim"], row["latent"]), []).append(row["verdict"])
    lines = []
    for (number, latent), found in groups.items():
        counts = {verdict: found.count(verdict) or "" for verdict in ("confirmed", "refuted", "undecided")}
        lines.append({"claim": number, "the paper": CLAIMS[number], "latent": latent, **counts})
    several = len({line["latent"] for line in lines}) > 1
    return pd.DataFrame(lines) if several else pd.DataFrame(lines).drop(columns="latent", errors="ignore")


def _about_the_papers(row: dict[str, Any]) -> bool:
    """Whether a comparison is on the paper's latent configuration, or between lengths of the latent."""
    return is_papers(row) or row["claim"] == LENGTHS


def claims(summary: Summary, *, others: bool = False) -> pd.DataFrame:
    """One row a comparison, on the paper's latent configuration or on the others."""
    chosen = [row for row in summary["claims"] if _about_the_papers(row) != others]
    return pd.DataFrame(
        [
            {
                "claim": row["claim"],
                "on": row["on"],
                **({"latent": row["latent"]} if len({r["latent"] for r in chosen}) > 1 else {}),
                "measured": f"{row['quantity']} {NAMES[row['control']]}"
                if row["control"] in NAMES
                else row["quantity"],
                "result": _digits(row["estimate"], row["interval"]),
                "claimed": _range(row["low"], row["high"]),
                "the paper's own": "" if row["paper"] is None else _digits(row["paper"], None),
                "n": row["n"],
                "control": "" if row["control"] in NAMES else row["control"],
                "verdict": row["verdict"],
            }
            for row in chosen
        ]
    )


def _digits(value: float, interval: list[float] | None) -> str:
    """Three digits behind the point, more for small numbers and fewer for large ones."""
    shown = f"{{:.{4 if abs(value) < 0.01 else 3 if abs(value) < 10 else 1}f}}"
    return shown.format(value) + ("" if interval is None else f" [{shown}, {shown}]".format(*interval))


def _range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return f"above {low:g}" if high is None else f"below {high:g}"
    return f"from {low:g} to {high:g}"


def control_name(row: dict[str, Any]) -> str:
    """A control and the length of its vectors, or what an encoder's vectors became, in words."""
    name = row["representation"].replace("_", " ")
    of = row["latent"] if row["batch_size"] else row["gaussian"] + row["categorical"]
    return "raw pixels" if name == "raw" else f"{name}, {of}"


Rows = dict[tuple[Any, ...], dict[str, Any]]


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["dataset"], row["classes"], row["classifier"]


def _table(rows: list[dict[str, Any]], column: Callable[[dict[str, Any]], tuple[str, str]]) -> Rows:
    """One line for data set, number of classes and classifier."""
    table: Rows = {}
    for row in rows:
        if row["classifier"] in NAMES:
            first = {"data": row["dataset"], "classes": row["classes"], "classifier": NAMES[row["classifier"]]}
            name, value = column(row)
            table.setdefault(_key(row), first)[name] = value
    return table


def _ordered(table: Rows) -> pd.DataFrame:
    order = list(NAMES)
    keys = sorted(table, key=lambda key: (key[0], key[1], order.index(key[2])))
    return pd.DataFrame([table[key] for key in keys]).fillna("")


def draws(records: pd.DataFrame, dataset: str, classes: int) -> pd.DataFrame:
    """S5 to S7 Tables: every draw by its class names, protocol `paper`, mean over encoders of each classifier."""
    rows = records[
        (records["dataset"] == dataset)
        & (records["classes"] == classes)
        & (records["protocol"] == "paper")
        & (records["representation"] == "masked")
        & records["classifier"].isin(list(NAMES))
    ]
    lines = []
    for draw, cell in rows.groupby("draw"):
        line = {"draw": draw, "classes": ", ".join(cell["class_names"].iloc[0])}
        for name, label in NAMES.items():
            mine = cell[cell["classifier"] == name]
            if len(mine):
                line[label] = " / ".join(f"{mine[m].mean():.3f}" for m in ("accuracy", "precision", "recall"))
        lines.append(line)
    return pd.DataFrame(lines)


#: Means of 16 images below which no deviation of them is shown.
FEW_BATCHES = 10

#: Who restores, in the order of the tables.
PAIRS = ("matched", "unmatched", "random latent", "random image", "mean image")


def restoration(summary: Summary) -> pd.DataFrame:
    """Mean squared errors at a glance, beside the paper's: one row for latent configuration and set of images."""
    table: dict[tuple[str, str], dict[str, str]] = {}
    for row in in_order(summary["reconstruction"]):
        line = table.setdefault((row["latent"], row["images"]), {"latent": row["latent"], "images": row["images"]})
        line[row["pair"]] = f"{row['mean']:.4f}"
        if (given := paper.EQUATIONS.get((row["images"], row["pair"]))) and is_papers(row):
            line[f"the paper, {row['pair']}"] = f"{given[0]:.4f}"
    lines = pd.DataFrame(table.values()).fillna("")
    columns = ["latent", "images", *PAIRS, *(f"the paper, {pair}" for pair in PAIRS)]
    return lines[[column for column in columns if column in lines]]


def reconstruction(summary: Summary) -> pd.DataFrame:
    """Equations 1 to 12: one row for latent configuration, set of images, and matched, unmatched or control.

    Fewer than `FEW_BATCHES` means of 16 images say nothing of their deviation.
    """
    rows = []
    for row in sorted(summary["reconstruction"], key=lambda r: (_point(r), r["images"], PAIRS.index(r["pair"]))):
        given = paper.EQUATIONS.get((row["images"], row["pair"]))
        theirs = given and is_papers(row)
        number = 2 * list(paper.EQUATIONS).index((row["images"], row["pair"])) + 1 if given else 0
        rows.append(
            {
                "latent": row["latent"],
                "images": row["images"],
                "restored by": row["pair"],
                "MSE": f"{row['mean']:.6f}",
                "σ images": f"{row['sigma_images']:.6f}",
                "σ batches of 16": f"{row['sigma_batches']:.6f}" if row["images_n"] >= 16 * FEW_BATCHES else "",
                "σ pairs": f"{row['sigma_pairs']:.6f}"
                if row["sigma_pairs"]
                else "",  # a control may have one value alone
                "pairs": row["pairs"],
                "images of each": f"{row['images_n']:,}",
                "the paper": f"{given[0]:.6f} ± {given[1]:.6f} (Eqs {number}, {number + 1})"
                if given and theirs
                else "",
            }
        )
    return pd.DataFrame(rows)


def _point(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in POINT)


#: Columns of the table of autoencoders: heading, how it is read from a trial.
_TRIAL: dict[str, Callable[[dict[str, Any]], str]] = {
    "held-out MSE": lambda t: f"{t['held_out_mse']:.5f}",
    "largest mean": lambda t: f"{t['mean_largest']:.3f}",
    "deviations": lambda t: f"{t['deviation_smallest']:.2f} to {t['deviation_largest']:.2f}",
    "effective rank (a true sample)": lambda t: f"{t['effective_rank']:.0f} ({t['effective_rank_sample']:.0f})",
    "largest correlation (a true sample)": lambda t: (
        f"{t['largest_correlation']:.2f} ({t['largest_correlation_sample']:.2f})"
    ),
    "distance of marginals (a true sample)": lambda t: (
        f"{t['marginal_distance']:.3f} ({t['marginal_distance_sample']:.3f})"
    ),
    "categories in use": lambda t: f"{t['categories_used']:.0f}" if "categories_used" in t else "none",
    "largest probability": lambda t: f"{t['largest_probability']:.2f}" if "largest_probability" in t else "",
    "fresh discriminators": lambda t: (
        f"{t['fresh_gaussian']:.2f}" + (f", {t['fresh_categorical']:.2f}" if "fresh_categorical" in t else "")
    ),
}


def trials(summary: Summary) -> pd.DataFrame:
    """One row an autoencoder: reconstruction, and how far its latents are from their priors, on held-out images."""
    rows = []
    for trial in in_order(summary["trials"]):
        variant = f" ({trial['variant']})" if trial["variant"] else ""
        row = {"autoencoder": trial["trial"] + variant, "status": trial["status"]}
        rows.append(row | {name: read(trial) for name, read in _TRIAL.items() if trial["status"] == "complete"})
    return pd.DataFrame(rows).fillna("")


def long_form(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Summary rows as flat columns in full precision, for the CSV files."""
    return pd.json_normalize(rows, sep="_")


def to_markdown(table: pd.DataFrame) -> str:
    """A pipe table; bars in values are escaped."""
    lines = [list(map(str, table.columns)), ["---"] * len(table.columns)]
    lines += [[str(value).replace("|", "\\|") for value in row] for row in table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
