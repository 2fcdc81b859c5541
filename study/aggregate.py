"""Records -> means, deviations and confidence intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from study import paper
from study.records import Record, frame
from study.seeds import derive

#: Bootstrap resamples behind every interval.
RESAMPLES = 2000

#: Level of every interval.
LEVEL = 0.95

METRICS = ("accuracy", "precision", "recall")

#: What tells configurations apart. `variant` is empty unless a search varied more than these.
POINT = ["gaussian", "categorical", "batch_size", "variant"]

CLASSIFICATION = [*POINT, "representation", "dataset", "classes", "protocol", "classifier"]


def summarise(records: list[Record]) -> dict[str, Any]:
    """The content of `summary.json`: a list of plain rows for each of the names below; `results/README.md` has them.

    `trials`: the last epoch of each. `classification`: means over encoders and draws. `differences`: what the trained
    encoders' masked forms gain over a control, and the neural network over another classifier, paired by draw.
    `drops`: what each classifier loses from the fewest to the most classes. `reconstruction`: means over the pairs of
    a latent configuration.
    """
    table = frame(records, "classification")
    classification = _classification(table)
    rows = {
        "trials": _trials(records),
        "classification": classification,
        "differences": _differences(table),
        "drops": _drops(classification),
        "reconstruction": _reconstruction(frame(records, "reconstruction")),
    }
    return {"schema": 1, "level": LEVEL, **named(rows, {record.batch_size for record in records})}


def named(summary: dict[str, list[dict[str, Any]]], batch_sizes: set[int]) -> dict[str, list[dict[str, Any]]]:
    """Give every row its configuration in words, as `latent`: the batch size only where several were tried.

    Args:
        batch_sizes: of all records, 0 among them where there is none.
    """
    for row in (row for rows in summary.values() for row in rows):
        batch = f", batch {row['batch_size']}" if len(batch_sizes - {0}) > 1 else ""
        variant = f", {row['variant']}" if row["variant"] else ""
        row["latent"] = f"{row['gaussian']}+{row['categorical']}{batch}{variant}"
    return summary


def _trials(records: list[Record]) -> list[dict[str, Any]]:
    return [
        {
            "trial": r.trial,
            "gaussian": r.gaussian,
            "categorical": r.categorical,
            "batch_size": r.batch_size,
            "variant": r.variant,
            "instance": r.instance,
            **r.what,
            **r.metrics,
            **r.detail,
        }
        for r in sorted(records, key=lambda r: (r.gaussian, r.categorical, r.batch_size, r.variant, r.instance))
        if r.kind == "trial" and r.what.get("role") != "search"
    ]


def _classification(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for values, cell in _cells(table, CLASSIFICATION):
        row: dict[str, Any] = dict(zip(CLASSIFICATION, values, strict=True))
        for metric in METRICS:
            row[metric] = describe(_grid(cell, metric), derive(0, *values, metric), 0.0, 1.0)
            given = paper.reported(row["dataset"], row["classifier"], row["classes"], metric)
            if row["protocol"] == "paper" and row["representation"] == "masked" and given is not None:
                row[metric]["paper"] = _beside(row[metric], *given)
        rows.append(row)
    return rows


def _differences(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Paired by draw, in `shared`: masked less control for each classifier, neural network less others."""
    rows: list[dict[str, Any]] = []
    if table.empty:
        return rows
    shared = table[table["protocol"] == "shared"]
    masked = shared[shared["representation"] == "masked"]
    for values, cell in _cells(masked, [*POINT, "dataset", "classes", "classifier"]):
        gaussian, categorical, _, _, dataset, classes, classifier = values
        alike = shared[(shared["dataset"] == dataset) & (shared["classes"] == classes)]
        others = alike[(alike["representation"] != "masked") & (alike["classifier"] == classifier)]
        sizes = (others["gaussian"] == gaussian) & (others["categorical"] == categorical)
        control = (others["batch_size"] == 0) & (sizes | (others["representation"] == "raw"))
        own = (others[POINT] == values[: len(POINT)]).all(axis=1)  # mirrored, or with a defence
        for against, other in others[own | control].groupby("representation"):
            rows += _difference(values, against, _grid(cell), _grid(other), shared=(other["batch_size"] == 0).all())
        if classifier == "mlp":
            here = masked.loc[(masked[POINT] == values[: len(POINT)]).all(axis=1)]
            here = here[(here["dataset"] == dataset) & (here["classes"] == classes) & (here["classifier"] != "mlp")]
            for against, other in here.groupby("classifier"):
                rows += _difference(values, against, _grid(cell), _grid(other))
    return rows


def _difference(
    values: list[Any], against: Any, ours: pd.DataFrame, other: pd.DataFrame, *, shared: bool = False
) -> Iterator[dict[str, Any]]:
    """The difference of two grids over the encoders and draws both have; a control's one row is shared by all encoders.

    There is none where nothing is in both, as in a study that was stopped.
    """
    draws, encoders = ours.columns.intersection(other.columns), ours.index.intersection(other.index)
    if not shared:
        ours, other = ours.loc[encoders], other.loc[encoders]
    grid = pd.DataFrame(ours[draws].to_numpy() - other[draws].to_numpy())
    row = dict(zip([*POINT, "dataset", "classes", "classifier"], values, strict=True))
    if grid.notna().any(axis=None):
        yield row | {"against": against, "accuracy": describe(grid, derive(0, *values, against), -1.0, 1.0)}


def _drops(classification: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy at the fewest less accuracy at the most classes; the draws differ, so the interval is Welch's."""
    keys = [key for key in CLASSIFICATION if key != "classes"]
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in classification:
        if row["representation"] == "masked" and row["accuracy"]["sigma"] is not None:
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    rows = []
    for values, group in groups.items():
        few, many = group[0], group[-1]  # cells are sorted by classes within what is equal
        if few is not many:
            sides = [(row["accuracy"]["sigma"], row["accuracy"]["draws"]) for row in (few, many)]
            drop = few["accuracy"]["mean"] - many["accuracy"]["mean"]
            row = dict(zip(keys, values, strict=True)) | {"few": few["classes"], "many": many["classes"]}
            row |= {"drop": drop, "interval": np.clip(welch(drop, *sides), -1.0, 1.0).tolist()}
            row |= {"draws": min(n for _, n in sides), "encoders": few["accuracy"]["encoders"]}
            given = [paper.reported(row["dataset"], row["classifier"], row[n], "accuracy") for n in ("few", "many")]
            row["paper"] = given[0][0] - given[1][0] if given[0] and given[1] else None
            rows.append(row)
    return rows


def _reconstruction(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for values, cell in _cells(table, [*POINT, "images", "pair"]):
        row: dict[str, Any] = dict(zip([*POINT, "images", "pair"], values, strict=True))
        row |= {
            "mean": float(cell["mse"].mean()),
            "sigma_images": float(cell["sigma_images"].mean()),
            "sigma_batches": float(cell["sigma_batches"].mean()),
            "sigma_pairs": float(cell["mse"].std(ddof=1)) if len(cell) > 1 else None,
            "pairs": len(cell),
            "images_n": int(cell["n"].iloc[0]),
        }
        rows.append(row)
    return rows


def _cells(table: pd.DataFrame, keys: list[str]) -> Iterator[tuple[list[Any], pd.DataFrame]]:
    if not table.empty:
        for values, cell in table.groupby(keys, sort=True):
            yield [value.item() if isinstance(value, np.generic) else value for value in values], cell


def _grid(cell: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Encoders down, draws across."""
    return cell[["trial", "draw", metric]].set_index(["trial", "draw"])[metric].unstack()


def describe(grid_ED: pd.DataFrame, seed: int, low: float = -np.inf, high: float = np.inf) -> dict[str, Any]:
    """Mean over encoders (rows) and draws (columns), deviation, and interval, cut to what the quantity can be.

    `sigma` is over the draws of one encoder (ddof 1), averaged over encoders. The interval resamples encoders and
    draws as crossed factors: both are random, and the same draws serve every encoder. It is None where there is one
    of each, because nothing was repeated. Empty rows and columns, as of a study that was stopped, do not count.
    """
    grid_ED = grid_ED.dropna(how="all").dropna(axis=1, how="all")
    values_ED = grid_ED.to_numpy(dtype=np.float64)
    encoders, count = values_ED.shape
    sigma = grid_ED.std(axis=1, ddof=1).mean() if count > 1 else np.nan
    return {
        "mean": float(np.nanmean(values_ED)),
        "sigma": float(sigma) if np.isfinite(sigma) else None,
        "draws": count,
        "encoders": encoders,
        "interval": np.clip(_crossed_interval(values_ED, seed), low, high).tolist() if encoders * count > 1 else None,
    }


def _beside(ours: dict[str, Any], mean: float, sigma: float | None) -> dict[str, Any]:
    """The paper's cell, and the Welch interval of ours less the paper's, whose ten draws are other draws than ours.

    Encoders are not counted as repetitions: the deviation over draws is what both sides state.
    """
    cell: dict[str, Any] = {"mean": mean, "sigma": sigma, "difference": ours["mean"] - mean, "draws": ours["draws"]}
    cell["interval"] = None
    if sigma is not None and ours["sigma"] is not None:
        sides = (ours["sigma"], ours["draws"]), (sigma, paper.TABLE_1_DRAWS)
        cell["interval"] = welch(cell["difference"], *sides)
    return cell


def welch(difference: float, *sides: tuple[float, int], level: float = LEVEL) -> list[float]:
    """Interval of a difference of means, each side given by its deviation and its number of values.

    With one side it is Student's interval of a mean.
    """
    parts = [(sigma**2 / n, n) for sigma, n in sides]
    variance = sum(part for part, _ in parts)
    half = _quantile(parts, level) * variance**0.5 if variance else 0.0
    return [difference - half, difference + half]


def _quantile(parts: list[tuple[float, int]], level: float = LEVEL) -> float:
    """Student's, with Satterthwaite's degrees of freedom; each part of the variance with its number of values."""
    freedom = sum(part for part, _ in parts) ** 2 / sum(part**2 / (n - 1) for part, n in parts)
    return float(stats.t.ppf(0.5 + level / 2, freedom))


def _crossed_interval(grid_ED: NDArray[np.float64], seed: int) -> list[float]:
    """Interval of the mean; a resample is a count of how often each encoder and each draw was taken.

    Percentiles of resamples of n values are too narrow by the factor sqrt((n - 1) / n), and by that of the normal to
    Student's quantile: both are made good, for encoders and draws by their shares of the variance.
    """
    rng = np.random.default_rng(seed)
    encoder_RE, draw_RD = (rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) for n in grid_ED.shape)
    known_ED = np.isfinite(grid_ED)
    total_R = ((encoder_RE @ np.where(known_ED, grid_ED, 0.0)) * draw_RD).sum(axis=1)
    taken_R = ((encoder_RE @ known_ED) * draw_RD).sum(axis=1)
    means_R = total_R[taken_R > 0] / taken_R[taken_R > 0]
    ends = np.quantile(means_R, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    parts = [(np.nanvar(np.nanmean(grid_ED, axis=1 - a), ddof=1) / n, n) for a, n in enumerate(grid_ED.shape) if n > 1]
    variance = sum(part for part, _ in parts)
    if not variance:
        return ends.tolist()
    wider = _quantile(parts) / stats.norm.ppf(0.5 + LEVEL / 2)
    wider *= np.sqrt(variance / sum(part * (n - 1) / n for part, n in parts))
    mean = np.nanmean(grid_ED)
    return [float(mean + (end - mean) * wider) for end in ends]
