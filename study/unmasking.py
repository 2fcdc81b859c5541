"""Records of attacks -> error by number of leaked pairs, and pairs to unmask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from attacks import WITH_PAIRS, grade
from study.aggregate import POINT, describe, named
from study.attack import CONTROLS, YARDSTICKS
from study.records import Record, frame
from study.secrecy import COMPARED_AT, NEAR_KEY, pairs_to_reach
from study.seeds import derive

#: One latent configuration's masked forms of one data set, as they were or under a defence.
PLACE = [*POINT, "dataset", "representation"]

MEASURES = ("psnr", "ssim", "top1", "top5", "mrr", "recognised")


def summarise_attacks(records: list[Record]) -> dict[str, list[dict[str, Any]]]:
    """Rows for `summary.json`.

    `attacks`: error of each attack and yardstick at each number of pairs, its mean and interval over draws of the
    pairs and over instances, and means of the other measures; `helps` is false where it is no better than the best of
    the controls. `unmasking`: pairs to unmask, for the best attack at each number of pairs.
    """
    table = attack_table(records)
    if table.empty:
        return {"attacks": [], "unmasking": []}
    details = [r.detail for r in records if r.kind == "attack"]
    target = details[0]["target"]
    pool = {(r.trial, r.what["dataset"]): r.detail["pool"] for r in records if r.kind == "attack"}
    rows = [_attack(keys, cell, table) for keys, cell in table.groupby([*PLACE, "attack", "k"], sort=True)]
    places = [_unmasking(keys, cell, table, target, pool) for keys, cell in table.groupby(PLACE, sort=True)]
    return named({"attacks": rows, "unmasking": places}, {record.batch_size for record in records})


def attack_table(records: list[Record]) -> pd.DataFrame:
    """One row an attack; of an interrupted study, only of what has its yardsticks.

    Where a study went on with more encoders, the attacker's own became another: the later measurement counts.
    """
    table = frame(records, "attack")
    if table.empty:
        return table
    table = table.drop_duplicates([*PLACE, "trial", "attack", "k", "draw"], keep="last")
    return table[table.groupby(PLACE[:-1])["attack"].transform(lambda names: set(YARDSTICKS) <= set(names))]


def _plain(keys: Any) -> list[Any]:
    return [key.item() if isinstance(key, np.generic) else key for key in keys]


def _attack(keys: Any, cell: pd.DataFrame, table: pd.DataFrame) -> dict[str, Any]:
    values = _plain(keys)
    row: dict[str, Any] = dict(zip([*PLACE, "attack", "k"], values, strict=True))
    grid = cell.pivot_table(index="trial", columns="draw", values="mse")
    row["mse"] = describe(grid, derive(0, *values), 0.0)
    row |= {name: float(cell[name].mean()) for name in MEASURES}
    row |= {"n": int(cell["n"].iloc[0]), "seconds": float(cell["seconds"].mean())}
    row["grade"] = grade(row["top1"])
    row["helps"] = row["mse"]["mean"] < _yardstick(values, table, CONTROLS)
    return row


def _yardstick(values: list[Any], table: pd.DataFrame, names: tuple[str, ...]) -> float:
    """The smallest mean error of these yardsticks, of the masked forms as they were."""
    here = (table[PLACE[:-1]] == values[: len(PLACE) - 1]).all(axis=1) & (table["representation"] == "masked")
    return float(table[here & table["attack"].isin(names)].groupby("attack")["mse"].mean().min())


def _unmasking(
    keys: Any, cell: pd.DataFrame, table: pd.DataFrame, target: float, pool: dict[tuple[str, str], int]
) -> dict[str, Any]:
    values = _plain(keys)
    row: dict[str, Any] = dict(zip(PLACE, values, strict=True))
    owners = cell.loc[cell["attack"] == "key", "mse"]  # under a defence the owner restores worse too
    key = float(owners.mean()) if len(owners) else _yardstick(values, table, ("key",))
    paired = cell[cell["attack"].isin(WITH_PAIRS)]
    means = paired.groupby(["k", "attack"])["mse"].mean().reset_index()
    best = means.loc[means.groupby("k")["mse"].idxmin()] if len(means) else means
    curve = dict(zip(best["k"].tolist(), best["mse"].tolist(), strict=True))
    # Each draw and instance by itself, its own best attack: the spread of the two numbers.
    single = paired.groupby(["trial", "draw", "k"])["mse"].min()
    curves = [dict(one.droplevel([0, 1])) for _, one in single.groupby(level=[0, 1])]
    for name, error in (("reach_target", target), ("reach_key", NEAR_KEY * key)):
        row[name] = pairs_to_reach(curve, error)
        found = [pairs_to_reach(one, error) for one in curves]
        row[f"{name}_range"] = [_least(found), None if None in found or not found else max(k for k in found if k)]
    return row | {
        "target": target,
        "key": key,
        "mean_image": _yardstick(values, table, ("mean_image",)),
        "mse_at_k": curve.get(COMPARED_AT),
        "largest": max(curve, default=0),
        "best": dict(zip(map(str, best["k"]), best["attack"], strict=True)),
        "pool": pool[str(cell["trial"].iloc[0]), str(row["dataset"])],
    }


def _least(found: list[int | None]) -> int | None:
    return min((k for k in found if k), default=None)
