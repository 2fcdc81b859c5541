"""What the paper concludes, held against a study's own numbers: confirmed, refuted or undecided.

Each claim says that some quantity lies in a range. It is confirmed where the 95% interval of the quantity lies inside
the range, refuted where it lies outside, and undecided where it straddles an end or rests on fewer than `FEW`
repetitions of what varies most: draws, encoders or trials, or images where a single attack is judged. A claim about
every attacker is never confirmed, since an attack that fails proves nothing. Where the paper gives no number
("comparable", "can be successfully performed", "no significant improvement"), the range is ours; `paper` is the
value of the same quantity by the paper's own tables, which need not lie in the range of its words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq

from study import paper
from study.aggregate import LEVEL, POINT, describe, named, welch
from study.attack import CONTROLS
from study.records import Record, frame
from study.seeds import derive
from study.unmasking import attack_table

#: Repetitions below which nothing is decided.
FEW = 4

#: Accuracies this close are comparable: at 2 classes the paper's own lie 0.030 and 0.048 apart.
COMPARABLE = 0.05

#: An improvement below this is none worth having.
NEGLIGIBLE = 0.01

#: "In fact, it is lower by two orders of magnitude."
ORDERS = 100.0

#: "By order of magnitude larger."
ORDER = 10.0

#: "Close to 80%."
CLOSE_TO = 0.8

#: The claims, by number; the words are the paper's, shortened.
CLAIMS = {
    1: "the neural network outperforms classical algorithms",
    2: "results for 2 classes are comparable",
    3: "from 2 to 4 classes accuracy drops by 0.083 (network), 0.387 (Random Forest), 0.212 (AdaBoost)",
    4: "on MNIST a classical algorithm is enough",
    5: "more estimators bring no significant improvement",
    6: "the error of matched pairs is two orders of magnitude below that of unmatched ones",
    7: "only the matching decoder restores the image",
    8: "a smaller latent layer protects more",
    9: "in training the generating loss decreases and the discriminators' loss increases",
    10: "with more classes classical algorithms lose an order of magnitude more accuracy than the network",
    11: "even with four classes the network's accuracy is close to 80%",
    12: "with more classes the accuracy of classical algorithms drops faster than the network's",
}

#: The claim that compares lengths of the latent, and so is about no single one.
LENGTHS = 8

#: Where its trials are what a claim is judged on.
SEARCHED = "the search"

#: What may be repeated.
UNITS = ("draws", "encoders", "images", "trials")

Row = dict[str, Any]
Histories = Mapping[str, list[dict[str, float]]]


def judge(interval: list[float] | None, low: float, high: float, repetitions: int) -> str:
    """The verdict on "the quantity lies between `low` and `high`"."""
    if interval is None or repetitions < FEW:
        return "undecided"
    if low <= interval[0] and interval[1] <= high:
        return "confirmed"
    return "refuted" if interval[1] < low or interval[0] > high else "undecided"


def claims(
    summary: Mapping[str, Any], records: list[Record], histories: Histories, estimators: Mapping[str, int]
) -> list[Row]:
    """One row for every comparison that bears on a claim; a claim that the study says nothing of has none.

    Args:
        summary: of `summarise` and `summarise_attacks`.
        histories: the epochs of each complete trial, by its name.
        estimators: how many trees or stumps a classifier usually has, by its name.

    Returns:
        rows with `claim`, `on` (data), `quantity`, `control`, the latent configuration, `estimate`, `interval`,
        `low` and `high` (the range claimed, None where it is open), `paper` (its own value, None where it gives none),
        `n` (of what, in words) and `verdict`.
    """
    attacks = attack_table(records)
    parts = (
        _networks_lead(summary["differences"]),
        _drops(summary, frame(records, "classification")),
        _close(summary["classification"]),
        _more_estimators(frame(records, "classification"), estimators),
        _orders(frame(records, "reconstruction")),
        _restorers(summary, attacks),
        _smaller(summary, attacks),
        _searched(records),
        _losses(summary["trials"], histories),
    )
    rows = sorted((row for part in parts for row in part), key=lambda row: row["claim"])
    return named({"claims": rows}, {record.batch_size for record in records})["claims"]


def _row(
    claim: int,
    of: Mapping[str, Any],
    cell: Mapping[str, Any],
    *,
    on: str,
    quantity: str,
    control: str,
    low: float = -math.inf,
    high: float = math.inf,
    theirs: float | None = None,
    universal: bool = False,
) -> Row:
    verdict = judge(cell["interval"], low, high, max(cell.get(unit, 0) for unit in UNITS))
    counts = {unit: cell[unit] for unit in UNITS if unit in cell}
    return {
        "claim": claim,
        "on": on,
        "quantity": quantity,
        "control": control,
        **{key: of[key] for key in POINT},
        "estimate": cell["mean"],
        "interval": cell["interval"],
        "low": None if low == -math.inf else low,
        "high": None if high == math.inf else high,
        "paper": theirs,
        "n": ", ".join(f"{n:,} {unit if n > 1 else unit[:-1]}" for unit, n in counts.items()),
        "verdict": "undecided" if universal and verdict == "confirmed" else verdict,
    }


def _networks_lead(differences: list[Row]) -> Iterator[Row]:
    """Claims 1, 2 and 4, from accuracies of the network less another classifier's, paired by draw in `shared`."""
    closest: dict[tuple[Any, ...], Row] = {}
    for row in differences:
        if row["classifier"] != "mlp" or row["against"] not in ("random_forest", "random_forest_onehot", "adaboost"):
            continue
        said = {
            "on": f"{row['dataset']}, {row['classes']} classes",
            "quantity": "accuracy of the network less",
            "control": row["against"],
            "theirs": _papers_lead(row),
        }
        yield _row(1, row, row["accuracy"], **said, low=0.0)
        if row["classes"] == 2:
            yield _row(2, row, row["accuracy"], **said, low=-COMPARABLE, high=COMPARABLE)
        if (row["dataset"], row["classes"]) == ("mnist", 10) and row["against"] != "random_forest_onehot":
            point = tuple(row[key] for key in POINT)
            closest[point] = min(closest.get(point, row), row, key=lambda r: r["accuracy"]["mean"])
    for row in closest.values():
        yield _row(
            4, row, row["accuracy"], on="mnist", quantity="accuracy of the network less the best of the others,",
            control=row["against"], high=COMPARABLE, theirs=_papers_lead(row | {"against": "adaboost"}),
        )  # fmt: skip


def _papers_lead(row: Row) -> float | None:
    """The same difference by the paper's Tables 1 and 2."""
    cells = [paper.reported(row["dataset"], name, row["classes"], "accuracy") for name in ("mlp", row["against"])]
    return cells[0][0] - cells[1][0] if cells[0] and cells[1] else None


def _drops(summary: Mapping[str, Any], table: pd.DataFrame) -> Iterator[Row]:
    """Claims 3, 10 and 12: our loss of accuracy less the paper's, and a classical algorithm's over the network's.

    The paper's draws are others than ours, so the first interval is Welch's over all four cells. Its ten draws alone
    leave half a width of 0.08 and more: the claim can be refuted, but hardly confirmed. Classifiers are compared in
    `shared`, where it was studied: in `paper` their test images differ.
    """
    rows = [row for row in summary["drops"] if "@" not in row["classifier"]]
    compared = max((row["protocol"] for row in rows), default="")  # `shared` comes after `paper`
    networks = {
        (row["latent"], row["dataset"]): row
        for row in rows
        if (row["protocol"], row["classifier"]) == (compared, "mlp")
    }
    for row in rows:
        counts = {"draws": row["draws"], "encoders": row["encoders"]}
        on = f"{row['dataset']}, {row['few']} to {row['many']} classes"
        ours = _ends(table, row)
        if row["protocol"] == "paper" and row["paper"] is not None:
            given = [paper.reported(row["dataset"], row["classifier"], row[end], "accuracy") for end in ("few", "many")]
            sides = [(cell[1], paper.TABLE_1_DRAWS) for cell in given if cell and cell[1]]
            sides += [(float(end.std(axis=1, ddof=1).mean()), end.shape[1]) for end in ours]
            difference = row["drop"] - row["paper"]
            yield _row(
                3, row, {"mean": difference, "interval": welch(difference, *sides)} | counts, on=on,
                quantity=f"accuracy lost ({row['drop']:.3f}) less the paper's ({row['paper']:.3f})",
                control=row["classifier"], low=-COMPARABLE, high=COMPARABLE,
            )  # fmt: skip
        network = networks.get((row["latent"], row["dataset"]))
        if row["protocol"] != compared or not network or row is network or min(row["drop"], network["drop"]) <= 0:
            continue
        known = row["paper"] is not None and network["paper"] is not None
        interval = _fieller(ours, _ends(table, network))
        for claim, low in ((10, ORDER), (12, 1.0)):
            yield _row(
                claim, row, {"mean": row["drop"] / network["drop"], "interval": interval} | counts, on=on,
                quantity="accuracy lost over the network's,", control=row["classifier"], low=low,
                theirs=row["paper"] / network["paper"] if known else None,
            )  # fmt: skip


def _ends(table: pd.DataFrame, row: Row) -> list[pd.DataFrame]:
    """Accuracies, encoders by draws, with the fewest and with the most classes of a loss of accuracy."""
    keys = [*POINT, "dataset", "classifier", "protocol", "representation"]
    here = table[(table[keys] == [row[key] for key in keys]).all(axis=1)]
    return [
        here[here["classes"] == row[end]].pivot_table(index="trial", columns="draw", values="accuracy")
        for end in ("few", "many")
    ]


def _fieller(ours: list[pd.DataFrame], others: list[pd.DataFrame]) -> list[float] | None:
    """Interval of what one classifier loses over what another loses, None where it has no end.

    Fieller's: the ratios r at which the first loss less r times the second may be zero, by Welch's interval over the
    draws of either end. Both classifiers see the same draws, and so are paired.
    """

    pairs = [_common(one, other) for one, other in zip(ours, others, strict=True)]
    first, second = ([np.asarray(pair[side].mean(axis=0), dtype=np.float64) for pair in pairs] for side in (0, 1))

    def away(ratio: float) -> float:
        few, many = (one - ratio * other for one, other in zip(first, second, strict=True))
        sides = ((float(end.std(ddof=1)), len(end)) for end in (few, many))
        interval = welch(float(few.mean() - many.mean()), *sides)
        return max(interval[0], -interval[1])

    if min(map(len, first)) < 2:
        return None
    lost, by_other = (float(few.mean() - many.mean()) for few, many in (first, second))
    far = 1000 * lost / by_other
    if min(away(0.0), away(far)) <= 0:
        return None
    return [float(brentq(away, end, lost / by_other)) for end in (0.0, far)]


def _common(one: pd.DataFrame, other: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The draws that every encoder of both has: a study that was stopped may have some of one classifier alone."""
    trials = one.index.intersection(other.index)
    draws = one.loc[trials].dropna(axis=1).columns.intersection(other.loc[trials].dropna(axis=1).columns)
    return one.loc[trials, draws], other.loc[trials, draws]


def _close(classification: list[Row]) -> Iterator[Row]:
    """Claim 11: accuracy of the network on four classes of the paper's own data."""
    for row in classification:
        cell = row["accuracy"]
        if row["classifier"] == "mlp" and row["classes"] == 4 and "paper" in cell:
            yield _row(
                11, row, cell, on=f"{row['dataset']}, 4 classes", quantity="accuracy of the network", control="",
                low=CLOSE_TO - COMPARABLE, theirs=cell["paper"]["mean"],
            )  # fmt: skip


def _more_estimators(table: pd.DataFrame, usual: Mapping[str, int]) -> Iterator[Row]:
    """Claim 5: accuracy with the most trees or stumps less that with as many as usual, paired by draw."""
    if table.empty:
        return
    keys = [*POINT, "dataset", "classes"]
    masked = table[(table["representation"] == "masked") & (table["protocol"] == "paper")]
    for name, few in usual.items():
        counts = [int(c.partition("@")[2]) for c in masked["classifier"].unique() if c.startswith(f"{name}@")]
        many = max(counts, default=0)
        for values, more in masked[masked["classifier"] == f"{name}@{many}"].groupby(keys, sort=True):
            same = masked[(masked[keys] == list(values)).all(axis=1) & masked["trial"].isin(more["trial"])]
            grids = [
                one.set_index(["trial", "draw"])["accuracy"].unstack()
                for one in (more, same[same["classifier"] == name])
            ]
            gain = grids[0] - grids[1]
            if many > few and gain.notna().any(axis=None):
                gained = describe(gain, derive(0, name, *values), -1.0, 1.0)
                yield _row(
                    5, dict(zip(keys, values, strict=True)), gained,
                    on=f"{values[-2]}, {values[-1]} classes",
                    quantity=f"accuracy with {many} estimators less with {few}", control=name, high=NEGLIGIBLE,
                )  # fmt: skip


def _orders(table: pd.DataFrame) -> Iterator[Row]:
    """Claim 6: unmatched over matched error, encoder by encoder; the interval is Student's on its logarithm.

    Test patterns are left out: ours are others than the paper's, which are not in its text.
    """
    if table.empty:
        return
    for values, cell in table[table["images"] != "P"].groupby([*POINT, "images"], sort=True):
        means = cell.groupby(["trial", "pair"])["mse"].mean().unstack()
        if {"matched", "unmatched"} <= set(means.columns):
            logs = np.log((means["unmatched"] / means["matched"]).dropna())
            if not len(logs):
                continue
            mean, interval = students(logs)
            yield _row(
                6, dict(zip(POINT, values, strict=False)),
                {"mean": math.exp(mean), "interval": interval and [math.exp(end) for end in interval],
                 "encoders": len(logs)},
                on=f"images {values[-1]}", quantity="unmatched over matched error", control="unmatched decoders",
                low=ORDERS, theirs=_papers_ratio(str(values[-1])),
            )  # fmt: skip


def _papers_ratio(images: str) -> float | None:
    """Unmatched over matched error by the paper's Eqs 1 to 12."""
    unmatched, matched = (paper.EQUATIONS.get((images, pair)) for pair in ("unmatched", "matched"))
    return unmatched[0] / matched[0] if unmatched and matched else None


def _restorers(summary: Mapping[str, Any], table: pd.DataFrame) -> Iterator[Row]:
    """Claim 7: who restores without the key, by the best attack at each number of pairs; the target is the study's.

    Nothing is said where the key itself does not reach the target. The interval spans those of every draw of pairs and
    every encoder, each Student's over the images attacked.
    """
    for place in summary["unmasking"]:
        keys = [*POINT, "dataset", "representation"]
        if table.empty or place["representation"] != "masked" or place["key"] >= place["target"]:
            continue
        here = table[(table[keys] == [place[key] for key in keys]).all(axis=1)]
        tried = here[~here["attack"].isin([*CONTROLS, "key", "clear", "known_plaintexts"])]
        for k in sorted(set(tried["k"].tolist())):
            cells = tried[tried["k"] == k]
            by_attack = cells.groupby("attack")["mse"].mean()
            for attack in map(str, by_attack.index if k == 0 else [by_attack.idxmin()]):
                cell = cells[cells["attack"] == attack]
                measured = zip(cell["mse"], cell["sigma_images"], cell["n"], strict=True)
                ends = np.array([welch(mse, (sigma, n)) for mse, sigma, n in measured])
                yield _row(
                    7, place,
                    {"mean": float(cell["mse"].mean()), "interval": [float(ends.min()), float(ends.max())],
                     "draws": cell["draw"].nunique(), "encoders": cell["trial"].nunique(),
                     "images": int(cell["n"].iloc[0])},
                    on=place["dataset"],
                    quantity=f"error of {attack}" + (f", {k:,} leaked pairs" if k else ""),
                    control=f"key {place['key']:.4f}, mean image {place['mean_image']:.4f}", low=place["target"],
                    universal=True,
                )  # fmt: skip


def _smaller(summary: Mapping[str, Any], table: pd.DataFrame) -> Iterator[Row]:
    """Claim 8: the best attack's error at the shortest latent less that at the longest, at the most pairs both have.

    The interval is Welch's over encoders: two encoders tell nothing of two lengths.
    """
    places = [r for r in summary["unmasking"] if r["representation"] == "masked" and r["best"]]
    for dataset in dict.fromkeys(r["dataset"] for r in places):
        here = [r for r in places if r["dataset"] == dataset]
        short, long = (pick(here, key=lambda r: r["gaussian"] + r["categorical"]) for pick in (min, max))
        shared = set(short["best"]) & set(long["best"])
        if short["gaussian"] + short["categorical"] == long["gaussian"] + long["categorical"] or not shared:
            continue
        k = max(shared, key=int)
        sides = [_errors(table, place, k) for place in (short, long)]
        difference = float(sides[0].mean() - sides[1].mean())
        spread = [(float(side.std(ddof=1)), len(side)) for side in sides if len(side) > 1]
        yield _row(
            LENGTHS, short,
            {"mean": difference, "interval": welch(difference, *spread) if len(spread) == 2 else None,
             "encoders": min(map(len, sides))},
            on=dataset, quantity=f"error with {int(k):,} leaked pairs less that of {long['latent']}",
            control=f"keys {short['key']:.4f}, {long['key']:.4f}", low=0.0,
        )  # fmt: skip


def _errors(table: pd.DataFrame, place: Row, k: str) -> pd.Series:
    """Error of a place's best attack at so many pairs, encoder by encoder."""
    keys = [*POINT, "dataset", "representation", "attack", "k"]
    wanted = [*(place[key] for key in keys[:-2]), place["best"][k], int(k)]
    return table[(table[keys] == wanted).all(axis=1)].groupby("trial")["mse"].mean()


def _searched(records: list[Record]) -> Iterator[Row]:
    """Claim 8 over a search: rank correlation of the latent's length with what leaked pairs restore.

    A short latent restores badly under its own key too, hence the second row. The interval is Bonett and Wright's
    (Psychometrika 65, 2000, Eq 3).
    """
    trials = [r for r in records if r.kind == "trial" and "objective.mse_at_k" in r.metrics]
    trials = [r for r in trials if r.what.get("role") == "search" and r.what["status"] == "complete"]
    lengths = [r.gaussian + r.categorical for r in trials]
    if len(trials) <= FEW or len(set(lengths)) < 2:
        return
    errors = {
        "`mse_at_k`": [r.metrics["objective.mse_at_k"] for r in trials],
        "`mse_at_k` less the key's error": [
            r.metrics["objective.mse_at_k"] - r.metrics["held_out_mse"] for r in trials
        ],
    }
    for name, values in errors.items():
        rho = float(stats.spearmanr(lengths, values).statistic)
        half = stats.norm.ppf(0.5 + LEVEL / 2) * math.sqrt((1 + rho**2 / 2) / (len(trials) - 3))
        interval = [math.tanh(math.atanh(min(max(rho, -0.999999), 0.999999)) + end) for end in (-half, half)]
        yield _row(
            LENGTHS, vars(trials[0]), {"mean": rho, "interval": interval, "trials": len(trials)},
            on=SEARCHED, quantity=f"rank correlation of the length with {name}", control="", high=0.0,
        )  # fmt: skip


def _losses(trials: list[Row], histories: Histories) -> Iterator[Row]:
    """Claim 9: how each loss goes with the epoch, over instances (the paper's Figs 6 and 7).

    By its last value less its first, and by its rank correlation with the epoch, which no steep beginning decides.
    """
    groups: dict[str, list[Row]] = {}
    for trial in trials:
        if len(histories.get(trial["trial"], [])) > 1:
            groups.setdefault(trial["latent"], []).append(trial)
    for group in groups.values():
        for name, ends in (("generating_loss", (-math.inf, 0.0)), ("discriminator_loss", (0.0, math.inf))):
            runs = [histories[trial["trial"]] for trial in group]
            if not all(name in epoch for run in runs for epoch in (run[0], run[-1])):
                continue
            paths = [[epoch[name] for epoch in run] for run in runs]
            if any(min(path) == max(path) for path in paths):  # its weight is 0
                continue
            for what, values in {
                "last epoch less first": [path[-1] - path[0] for path in paths],
                "rank correlation with the epoch": [stats.spearmanr(range(len(p)), p).statistic for p in paths],
            }.items():
                mean, interval = students(values)
                if what.startswith("rank") and interval:
                    interval = np.clip(interval, -1.0, 1.0).tolist()
                yield _row(
                    9, group[0], {"mean": mean, "interval": interval, "encoders": len(runs)}, on="training",
                    quantity=f"{name.replace('_', ' ')}, {what}", control="", low=ends[0], high=ends[1],
                )  # fmt: skip


def students(values: ArrayLike) -> tuple[float, list[float] | None]:
    """Mean of independent values and Student's interval of it, None for a single value."""
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) < 2:
        return mean, None
    return mean, welch(mean, (float(array.std(ddof=1)), len(array)))
