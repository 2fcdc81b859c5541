"""Is it a mask? What a study's attacks and defences come to: use against secrecy, and the report's section."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import pyplot as plt

from attacks import LINEAR, WITH_PAIRS
from study.aggregate import summarise
from study.attack import BARE
from study.records import Record
from study.views.attacks import (
    count,
    curve,
    fewest,
    ladder,
    maker,
    pairs_to_unmask,
    pictures,
    place_is,
    place_name,
    plain_words,
    reidentification,
    repeated,
    with_interval,
)
from study.views.figures import Shown, name_errors, save
from study.views.page import Section
from study.views.tables import Summary


def use(records: list[Record]) -> list[dict[str, Any]]:
    """Accuracy in `shared`, in rows as of `summary.json`, of the very encoders that were attacked, where they were."""
    attacked = {_place_of(r) for r in records if r.kind == "attack"}
    learned = [r for r in records if r.kind == "classification" and r.what["protocol"] == "shared"]
    rows: list[dict[str, Any]] = summarise([r for r in learned if _place_of(r) in attacked])["classification"]
    return rows


def _place_of(record: Record) -> tuple[str, str, str]:
    return record.trial, record.what["dataset"], record.what["representation"]


def _best_use(learned: list[dict[str, Any]], *places: dict[str, Any]) -> list[dict[str, Any]]:
    """The best classifier of each place, on the most classes that all have; none where one has none."""
    alike = [[r for r in learned if place_is(r, place)] for place in places]
    classes = max(set.intersection(*({r["classes"] for r in rows} for rows in alike)), default=0)
    found = [[r for r in rows if r["classes"] == classes] for rows in alike if classes]
    return [max(rows, key=lambda r: r["accuracy"]["mean"]) for rows in found]


@dataclass(frozen=True)
class Traded:
    """What one place keeps for classifiers, and what it gives away."""

    place: dict[str, Any]
    use: dict[str, Any]
    """The best classifier on the most classes, in `shared`, of the encoders that were attacked: a row of `use`."""
    k: int
    secrecy: dict[str, Any]
    """Error of the best attack that every place of the data set met, at the largest number of pairs that all have."""
    attacks: list[str]
    """Those that all met."""


def traded(summary: Summary, learned: list[dict[str, Any]]) -> list[Traded]:
    """Latent configurations and defences on one front, where a data set has several.

    Args:
        learned: what `use` gives.
    """
    found = []
    for place in sorted(summary["unmasking"], key=lambda r: (r["dataset"], r["gaussian"] + r["categorical"])):
        same = [r for r in summary["unmasking"] if r["dataset"] == place["dataset"] and r["largest"]]
        same = [r for r in same if _best_use(learned, r)]
        best = _best_use(learned, place)
        if len(same) < 2 or not best or not place["largest"]:
            continue
        k = max(set.intersection(*(set(r["best"]) for r in same)), key=int, default="")
        if not k:  # of a study that has not ended
            continue
        met = [{r["attack"]: r["mse"] for r in summary["attacks"] if place_is(r, p) and r["k"] == int(k)} for p in same]
        common = set.intersection(*map(set, met))
        if not common:
            continue
        secrecy = min((met[same.index(place)][name] for name in common), key=lambda cell: cell["mean"])
        found.append(Traded(place, best[0], int(k), secrecy, [name for name in WITH_PAIRS if name in common]))
    return found


def use_and_secrecy(front: list[Traded]) -> pd.DataFrame:
    """A row for each place of the front."""
    return pd.DataFrame(
        [
            {
                "latent, data": place_name(one.place),
                "classes": one.use["classes"],
                "use: accuracy": with_interval(one.use["accuracy"], 3),
                "pairs": f"{one.k:,}",
                "secrecy: MSE": with_interval(one.secrecy, 4),
                "of the best of": ", ".join(one.attacks),
                "pairs to the target": count(one.place, "reach_target"),
            }
            for one in front
        ]
    )


def front_chart(folder: Path, front: list[Traded]) -> list[Shown]:
    """The front as a picture, a panel for each data set with three places or more."""
    sets = [name for name, n in Counter(one.place["dataset"] for one in front).items() if n > 2]
    if not sets:
        return []
    figure, axes = plt.subplots(1, len(sets), figsize=(6.6 * len(sets), 4.2), squeeze=False, layout="constrained")
    rows = []
    for axis, dataset in zip(axes[0], sets, strict=True):
        here = [one for one in front if one.place["dataset"] == dataset]
        defended = not {one.place["representation"] for one in here} <= set(BARE)
        for latent in dict.fromkeys(maker(one.place) for one in here):
            mine = [one for one in here if maker(one.place) == latent]
            at = [(one.use["accuracy"]["mean"], one.secrecy["mean"]) for one in mine]
            axis.plot(*zip(*at, strict=True), linestyle="none", markersize=5, label=latent)
            for one, (accuracy, error) in zip(mine, at, strict=True):
                name = one.place["representation"]
                name = "none" if name in BARE else name
                if defended:
                    axis.annotate(name, (accuracy, error), (5, 3), textcoords="offset points", fontsize=7)
                rows.append({"dataset": dataset, "latent": latent, "defence": name, "accuracy": accuracy, "mse": error})
        axis.axhline(here[0].place["mean_image"], color="#222222", linestyle=":", linewidth=1, label="mean image")
        axis.set(
            title=f"{dataset}, {here[0].use['classes']} classes, {here[0].k:,} leaked pairs",
            xlabel="use: accuracy", ylabel="secrecy: mean squared error", yscale="log",
        )  # fmt: skip
        name_errors(axis)
        axis.margins(x=0.12)
        axis.legend()
    save(folder, "traded", figure, pd.DataFrame(rows), vector=True)
    caption = (
        "Use against secrecy: accuracy of the best classifier, error of the best attack that all met. Up and to the "
        "right is better. A name at a point is that of a defence, or says that mirror images were handed over too."
    )
    return [Shown("traded", caption, "Error of restored images against accuracy, a point a defence", vector=True)]


def defences(summary: Summary, learned: list[dict[str, Any]]) -> list[str]:
    """What each defence leaves the owner, classifiers and attackers; then, who is protected from whom.

    A defence protects where it keeps an attacker with as many pairs as were tried from the target, and not the owner.

    Args:
        learned: what `use` gives.
    """
    tried = [row for row in summary["unmasking"] if "@" in row["representation"] and row["largest"]]
    if not tried:
        return []
    words = [_defence(row, summary, learned) for row in tried]
    trained = any("@" in r["representation"] and r["attack"] == "inversion" for r in summary["attacks"])
    words.append(
        "Defences met ridge regression and, with the most pairs of the first draw, a trained inversion decoder: better "
        "attackers do better."
        if trained
        else "Ridge regression alone was tried on defences: better attackers do better."
    )
    usable = [row for row in tried if row["key"] <= row["target"]]
    held = [place_name(row) for row in usable if not row["reach_target"]]
    spoilt = [place_name(row) for row in tried if row not in usable]
    if held:
        words.append(
            f"With as many pairs as were tried, attackers missed the target, and the key did not, under "
            f"{'; '.join(held)}. Nothing says that more pairs would miss it."
        )
    elif usable:
        which = "defences under which the key still reaches the target" if spoilt else "defences tried"
        words.append(f"None of the {which} protects against an attacker with pairs.")
    if spoilt:
        words.append(
            f"The key misses the target under {'; '.join(spoilt)}: what is hidden from attackers there is hidden from "
            f"the owner as well, and only classifiers, which need no key, may be served."
        )
    return words


def _defence(row: dict[str, Any], summary: Summary, learned: list[dict[str, Any]]) -> str:
    without = {**row, "representation": "masked"}
    (plain,) = (r for r in summary["unmasking"] if place_is(r, without))
    told = f"the owner's key restores to a mean squared error of {row['key']:.4f} ({plain['key']:.4f} without it)"
    if row["key"] > row["target"]:
        told += ": it spoils the key too" if plain["key"] <= row["target"] else ": no use as a key, with it or without"
    if best := _best_use(learned, row, plain):
        accuracies = [with_interval(one["accuracy"], 3) for one in best]
        told += f"; the best accuracy on {best[0]['classes']} classes is {accuracies[0]} ({accuracies[1]} without it)"
    reached = row["reach_target"]
    pairs = f"{reached:,} pairs{fewest(row, reached)} reach" if reached else f"{row['largest']:,} pairs do not reach"
    return f"Defence {place_name(row)}: {told}; {pairs} the target of {row['target']:g}."


def section(folder: Path, summary: Summary, records: list[Record]) -> Section:
    """The part of a report that tells of attacks."""
    reading = (
        "What an attacker without the key restores of masked test images. Leaked pairs and public images are of the "
        "training part, victims of the test part; everything the attacker trains is chosen on the attacker's own "
        f"images. MSE of pixels from 0 to 1 with its 95% interval over {repeated(summary)}; PSNR in decibels; "
        "`class recognised`: the share of restored images whose class a Random Forest trained on clear images names "
        "(the row of the clear images says how far it goes with those). "
        "Re-identification matches restored images and the victims' images one to one: top-1 is the share matched "
        "rightly. An attack that fails here proves nothing: better attackers exist."
    )
    if any(row["representation"] in LINEAR for row in summary["attacks"]):
        reading += (
            " A random projection or principal components stand beside encoders of their length: their maker restores "
            "by a linear map fitted on the images that autoencoders are trained on, which is their key."
        )
    learned = use(records)
    front, again = traded(summary, learned), reidentification(summary)
    return Section(
        "Is it a mask?",
        [reading, *plain_words(summary), *defences(summary, learned)],
        [
            ("Pairs to unmask, the best attack at each number of pairs", pairs_to_unmask(summary)),
            *([("Use against secrecy", use_and_secrecy(front))] if front else []),
            *([("Re-identification: which image belongs to which masked vector", again)] if len(again) else []),
        ],
        [*curve(folder / "figures", summary), *front_chart(folder / "figures", front), *pictures(folder, records)],
        [("Every attack", ladder(summary))],
    )
