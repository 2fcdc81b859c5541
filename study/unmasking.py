"""Records of attacks -> error by number of leaked pairs, and pairs to unmask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from attacks import WITH_PAIRS, grade
from study.aggregate import POINT, describe, named
from study.attack import BARE, CONTROLS, NEEDED
from study.records import Record, frame
from study.secrecy import COMPARED_AT, NEAR_KEY, pairs_to_reach
from study.seeds import derive

#: The error, by encoder, of the best of some attacks.
Yardstick = Callable[..., "pd.Series[float]"]

#: One latent configuration's masked forms of one data set, as they were or under a defence; or a control's.
PLACE = [*POINT, "dataset", "representation"]

#: What is measured of an attack, and what it can be at least and at most.
MEASURES = {
    "mse": (0.0, np.inf),
    "psnr": (-np.inf, np.inf),
    "ssim": (-1.0, 1.0),
    **dict.fromkeys(("top1", "top5", "mrr", "recognised"), (0.0, 1.0)),
}


def summarise_attacks(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """Rows for `summary.json`.

    `attacks`: each attack and yardstick at each number of pairs: mean and interval, over draws of the pairs and over
    instances, of every measure, and of `gain`, the error of the best control less the attack's on the same encoder;
    `helps` is true where that interval, or the mean where nothing was repeated, lies above zero. `unmasking`: pairs
    to unmask, for the best attack at each number of pairs.
    """
    table = attack_table(records)
    if table.empty:
        return {"attacks": [], "unmasking": []}
    details = [r.detail for r in records if r.kind == "attack"]
    target = details[0]["target"]
    pool = {(r.trial, r.what["dataset"]): r.detail["pool"] for r in records if r.kind == "attack"}
    rows, places = [], []
    groups = sorted(table.groupby(PLACE[:-1], sort=True), key=lambda group: group[0][2] == 0)  # controls last
    for _, here in groups:
        yardstick = cache(partial(_best_of, here[here["representation"].isin(BARE)]))
        rows += [_attack(keys, cell, yardstick) for keys, cell in here.groupby([*PLACE, "attack", "k"], sort=True)]
        places += [_unmasking(keys, cell, yardstick, target, pool) for keys, cell in here.groupby(PLACE, sort=True)]
    return named({"attacks": rows, "unmasking": places}, {record.batch_size for record in records})


def attack_table(records: list[Record]) -> pd.DataFrame:
    """One row an attack; of an interrupted study, only of encoders that have their yardsticks.

    Where a study went on with more encoders, the attacker's own became another: the later measurement counts.
    """
    table = frame(records, "attack")
    if table.empty:
        return table
    table["images_n"] = [r.detail.get("images", np.nan) for r in records if r.kind == "attack"]
    table = table.drop_duplicates([*PLACE, "trial", "attack", "k", "draw"], keep="last")
    bare = table["attack"].where(table["representation"].isin(BARE))
    places = [table[key] for key in [*PLACE[:-1], "trial"]]
    return table[bare.groupby(places).transform(lambda names: set(NEEDED) <= set(names)).astype(bool)]


def _plain(keys: Any) -> list[Any]:
    return [key.item() if isinstance(key, np.generic) else key for key in keys]


def _attack(keys: Any, cell: pd.DataFrame, yardstick: Yardstick) -> dict[str, Any]:
    values = _plain(keys)
    row: dict[str, Any] = dict(zip([*PLACE, "attack", "k"], values, strict=True))
    repeated = cell[["trial", "draw", *MEASURES]].set_index(["trial", "draw"])
    grids = {name: repeated[name].unstack() for name in MEASURES}
    row |= {name: describe(grids[name], derive(0, *values), *MEASURES[name]) for name in MEASURES}
    held = cell["images_n"].max()  # unknown in studies of earlier versions
    row |= {"n": int(cell["n"].iloc[0]), "images_n": None if np.isnan(held) else int(held)}
    row["seconds"] = float(cell["seconds"].mean())
    row["grade"] = grade(row["top1"]["mean"])
    # `weights` restores the first of the victims alone.
    measure = "mse_optimised" if row["attack"] == "weights" and "mse_optimised" in cell else "mse"
    gains = grids["mse"].rsub(yardstick(CONTROLS, measure).reindex(grids["mse"].index), axis=0)
    row["gain"] = describe(gains, derive(0, *values))
    row["helps"] = (row["gain"]["interval"] or [row["gain"]["mean"]])[0] > 0
    return row


def _best_of(masked: pd.DataFrame, names: tuple[str, ...], measure: str = "mse") -> pd.Series[float]:
    """The error, by encoder, of that of these yardsticks whose mean is the smallest, of masked forms as they were."""
    errors = masked[masked["attack"].isin(names)].pivot_table(index="trial", columns="attack", values=measure)
    return errors[errors.mean().idxmin()]


def _unmasking(
    keys: Any, cell: pd.DataFrame, yardstick: Yardstick, target: float, pool: dict[tuple[str, str], int]
) -> dict[str, Any]:
    values = _plain(keys)
    row: dict[str, Any] = dict(zip(PLACE, values, strict=True))
    owners = cell.loc[cell["attack"] == "key", "mse"]  # under a defence the owner restores worse too
    key = float(owners.mean() if len(owners) else yardstick(("key",)).mean())
    paired = cell[cell["attack"].isin(WITH_PAIRS)]
    means = paired.groupby(["k", "attack"])["mse"].mean().reset_index()
    best = means.loc[means.groupby("k")["mse"].idxmin()] if len(means) else means
    curve = dict(zip(best["k"].tolist(), best["mse"].tolist(), strict=True))
    # Each draw and instance by itself, its own best attack: the spread of the two numbers. What was tried on one draw
    # alone counts for the others too: else its absence would pass for a spread.
    errors = paired.pivot_table(index=["trial", "draw", "k"], columns="attack", values="mse")
    single = errors.fillna(errors.groupby(["trial", "k"]).transform("mean")).min(axis=1)
    curves = [dict(one.droplevel([0, 1])) for _, one in single.groupby(level=[0, 1])]
    for name, error in (("reach_target", target), ("reach_key", NEAR_KEY * key)):
        row[name] = pairs_to_reach(curve, error)
        found = [pairs_to_reach(one, error) for one in curves]
        row[f"{name}_range"] = [_least(found), None if None in found or not found else max(k for k in found if k)]
    return row | {
        "target": target,
        "key": key,
        "mean_image": float(yardstick(("mean_image",)).mean()),
        "mse_at_k": curve.get(COMPARED_AT),
        "largest": max(curve, default=0),
        "best": dict(zip(map(str, best["k"]), best["attack"], strict=True)),
        "pool": pool[str(cell["trial"].iloc[0]), str(row["dataset"])],
    }


def _least(found: list[int | None]) -> int | None:
    return min((k for k in found if k), default=None)
