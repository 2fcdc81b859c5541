"""What a report says of attacks: tables, the curve of error against leaked pairs, restored pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from attacks import LINEAR, WITH_PAIRS, WITHOUT_PAIRS, AttacksConfig
from study.artifacts import read_arrays
from study.attack import BARE, CONTROLS
from study.records import Record, file_name
from study.unmasking import PLACE
from study.views.figures import Shown, literal, name_errors, save, strip
from study.views.tables import Summary, control_name

#: Who each row is, in plain words, in the order of the ladder.
ATTACKERS = {
    "key": "the owner, with the matching decoder",
    "mean_image": "control: the mean image",
    "random_latent": "control: the decoder on a random latent",
    "random_image": "control: another image, at random",
    "other_decoder": "1: another instance's decoder",
    "stitch_orthogonal": "2: pairs, orthogonal map to an own decoder",
    "stitch_affine": "2: pairs, affine map to an own decoder",
    "stitch_mlp": "2: pairs, small network to an own decoder",
    "ridge": "2: pairs, ridge regression to pixels",
    "inversion": "2: pairs, trained inversion decoder",
    "oracle": "3: may mask images of their own",
    "weights": "4: has the encoder's weights",
    "moments": "5: no pairs, moments",
    "transport": "5: no pairs, optimal transport",
    "known_plaintexts": "6: has the images, in another order",
    "clear": "the clear images",
}

#: What is printed of an attack.
_COLUMNS = {
    "MSE": lambda r: with_interval(r["mse"], 4),
    "PSNR": lambda r: with_interval(r["psnr"], 1),
    "SSIM": lambda r: with_interval(r["ssim"], 2),
    "class recognised": lambda r: with_interval(r["recognised"], 2),
    "images": lambda r: r["n"],
    "seconds": lambda r: f"{r['seconds']:.1f}",
}


def with_interval(cell: dict[str, Any], digits: int) -> str:
    """`0.0152 [0.0142, 0.0166]`; the mean alone where nothing was repeated."""
    interval = "" if cell["interval"] is None else " [{:.{d}f}, {:.{d}f}]".format(*cell["interval"], d=digits)
    return f"{cell['mean']:.{digits}f}{interval}"


def verdict(row: dict[str, Any]) -> str:
    """Of an attack that was not shown to be better than the best control; else nothing."""
    if row["helps"] or row["attack"] in CONTROLS:
        return ""
    return "no better than a control" if row["gain"]["mean"] <= 0 else "not shown to be better than a control"


def place_name(row: dict[str, Any]) -> str:
    """Latent configuration or control, data set and defence in words."""
    defence = "" if row["representation"] in BARE else f", {row['representation']}"
    return f"{maker(row)}, {row['dataset']}{defence}"


def maker(row: dict[str, Any]) -> str:
    """Latent configuration or control in words."""
    return control_name(row) if row["representation"] in LINEAR else str(row["latent"])


def ladder(summary: Summary) -> pd.DataFrame:
    """One row for each attack and number of pairs; an attack no better than the best control says so.

    The clear images are a row too: what the classifier of clear images recognises of them is its ceiling.
    """
    order = list(ATTACKERS)
    rows = []
    for row in sorted(summary["attacks"], key=lambda r: (place_name(r), order.index(r["attack"]), r["k"])):
        if row["attack"] != "known_plaintexts":  # it restores what it holds
            linear = row["attack"] == "key" and row["representation"] in LINEAR
            attacker = "its maker, with a linear map back" if linear else ATTACKERS[row["attack"]]
            first = {"latent, data": place_name(row), "attacker": attacker, "pairs": row["k"] or ""}
            first["images held"] = f"{row['images_n']:,}" if row["images_n"] else ""
            rows.append(first | {name: read(row) for name, read in _COLUMNS.items()} | {"verdict": verdict(row)})
    return pd.DataFrame(rows)


def pairs_to_unmask(summary: Summary) -> pd.DataFrame:
    """The three numbers of each latent configuration, for the best attack with pairs."""
    return pd.DataFrame(
        [
            {
                "latent, data": place_name(row),
                f"pairs to MSE {row['target']:g}": count(row, "reach_target"),
                "pairs to within 10% of the key": count(row, "reach_key"),
                "MSE at 1,000 pairs": "not tried" if row["mse_at_k"] is None else f"{row['mse_at_k']:.4f}",
                "the key": f"{row['key']:.4f}",
                "mean image": f"{row['mean_image']:.4f}",
                "pairs the data gives": f"{row['pool']:,}",
            }
            for row in summary["unmasking"]
        ]
    )


def place_is(row: dict[str, Any], place: dict[str, Any]) -> bool:
    """A row is of this latent configuration, data set and defence."""
    return all(row[key] == place[key] for key in PLACE)


def count(row: dict[str, Any], name: str) -> str:
    """A number of pairs, and its range over draws and instances where they differ."""
    if not row["largest"]:
        return "not tried"
    beyond = f"more than {row['largest']:,}"
    low, high = row[f"{name}_range"]
    text = f"{row[name]:,}" if row[name] else beyond
    if row[name] and fewest(row, row[name]):
        text = f"at most {text}"
    return text if low == high else f"{text} ({low:,} to {f'{high:,}' if high else beyond})"


#: What an attacker of rung 6 knows, by attack.
RULES = {
    "known_plaintexts": "matching images known, no pairs",
    **dict.fromkeys(WITHOUT_PAIRS, "only the distribution known, no pairs"),
    **dict.fromkeys(WITH_PAIRS, "pairs"),
}

#: How an attacker finds an image whose rung says only what it holds.
HOW = {"known_plaintexts": "distances, then ridge regression"}


def reidentification(summary: Summary) -> pd.DataFrame:
    """Rung 6 under both rules, and with pairs, by the attack that finds most; with the challenge's grades."""
    best: dict[tuple[str, str, int], dict[str, Any]] = {}
    for row in sorted(summary["attacks"], key=lambda r: (place_name(r), list(ATTACKERS).index(r["attack"]), r["k"])):
        if row["attack"] in RULES:
            key = place_name(row), RULES[row["attack"]], row["k"]
            best[key] = max(best.get(key, row), row, key=lambda r: r["top1"]["mean"])
    return pd.DataFrame(
        [
            {
                "latent, data": place,
                "rule": rule,
                "pairs": k or "",
                "attack": HOW.get(row["attack"], ATTACKERS[row["attack"]].partition(", ")[2]),
                **{
                    name: with_interval(row[key], 3)
                    for name, key in (("top-1", "top1"), ("top-5", "top5"), ("MRR", "mrr"))
                },
                "chance": f"{1 / row['n']:.4f}",
                "grade": row["grade"],
            }
            for (place, rule, k), row in sorted(best.items(), key=lambda item: (item[0][0], item[1]["k"], item[0][1]))
        ]
    )


def curve(folder: Path, summary: Summary) -> list[Shown]:
    """Error against leaked pairs, a panel for each place; the key and the mean image are its two lines."""
    places = [row for row in summary["unmasking"] if row["representation"] == "masked" and row["largest"]]
    if not places:
        return []
    columns = min(2, len(places))
    lines = math.ceil(len(places) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 2.6 * lines + 0.4), squeeze=False, layout="constrained"
    )
    used = []
    for axis, place in zip(axes.flat, places, strict=False):
        used += _lines(axis, place, summary)
        axis.set(title=literal(place_name(place)), xlabel="leaked pairs", xscale="log", yscale="log")
        name_errors(axis)
    for axis in axes[:, 0]:
        axis.set_ylabel("mean squared error")
    for axis in list(axes.flat)[len(places) :]:
        axis.set_visible(False)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save(folder, "unmasking", figure, pd.json_normalize(used, sep="_"), vector=True)
    control = any(row["representation"] in LINEAR for row in used)
    caption = (
        "Pairs to unmask: error of images restored by an attacker who holds so many pairs of an image and its masked "
        f"vector; bars are 95% intervals over {repeated(summary)}. Dashed: the matching decoder; dotted: the mean "
        f"image, which anyone has{'; grey: ridge regression on a control of the same length' if control else ''}."
    )
    return [Shown("unmasking", caption, "Mean squared error against leaked pairs, one line an attack", vector=True)]


def repeated(summary: Summary) -> str:
    """What intervals rest on."""
    instances = {row["mse"]["encoders"] for row in summary["attacks"]}
    if max(instances) == 1:
        return "draws of the attacker's images alone (of each configuration one instance was attacked)"
    return "draws of the attacker's images and attacked instances"


def _lines(axis: Axes, place: dict[str, Any], summary: Summary) -> list[dict[str, Any]]:
    used = []
    for name in WITH_PAIRS:
        mine = [r for r in summary["attacks"] if place_name(r) == place_name(place) and r["attack"] == name]
        if mine:
            mean = np.array([r["mse"]["mean"] for r in mine])
            ends = np.array([r["mse"]["interval"] or [r["mse"]["mean"]] * 2 for r in mine]).T
            bars = np.clip([mean - ends[0], ends[1] - mean], 0, None)
            axis.errorbar([r["k"] for r in mine], mean, yerr=bars, label=ATTACKERS[name].partition(", ")[2], capsize=2)
            used += mine
    for name, style in zip(LINEAR, (":", "-"), strict=True):
        wanted = place | {"variant": "", "batch_size": 0, "representation": name}
        mine = [r for r in summary["attacks"] if place_is(r, wanted) and r["attack"] == "ridge"]
        if mine:
            label = f"{ATTACKERS['ridge'].partition(', ')[2]}, {name.replace('_', ' ')}"
            at = [(r["k"], r["mse"]["mean"]) for r in mine]
            axis.plot(*zip(*at, strict=True), color="#888888", linestyle=style, marker=".", label=label)
            used += mine
    axis.axhline(place["key"], color="#222222", linestyle="--", linewidth=1, label="matching decoder")
    axis.axhline(place["mean_image"], color="#222222", linestyle=":", linewidth=1, label="mean image")
    return used


def pictures(folder: Path, records: list[Record]) -> list[Shown]:
    """What each attacker makes of the same images: the first encoder and data set attacked."""
    first = next((r for r in records if r.kind == "attack" and r.what["representation"] == "masked"), None)
    if first is None:
        return []
    kept = folder / "artifacts" / f"attack-{first.trial}-{file_name(first.what['dataset'])}"
    rows = [("clear", "clear image", 0), ("key", "the key", 0), ("other_decoder", "other decoder", 0)]
    counts = sorted({r.what["k"] for r in records if r.kind == "attack" and r.what["attack"] == "ridge"})
    rows += [("ridge", f"{k:,} pairs, ridge", k) for k in counts]
    most = max((r.what["k"] for r in records if r.kind == "attack" and r.what["attack"] == "inversion"), default=0)
    rows += [("inversion", f"{most:,} pairs, decoder", most)]
    rows += [("oracle", "oracle", 0), ("weights", "weights", 0), ("transport", "no pairs", 0)]
    rows = [row for row in rows if (kept / f"{row[0]}-{row[2]}.npz").exists()]
    if not rows:
        return []
    shown = {row: read_arrays(kept / f"{row[0]}-{row[2]}.npz")["restored"][:8] for row in rows}
    columns = min(map(len, shown.values()))
    figure, axes = plt.subplots(
        len(rows), 1, figsize=(0.9 * columns, 0.9 * len(rows)), squeeze=False, layout="constrained"
    )
    for axis, row in zip(axes[:, 0], rows, strict=True):
        strip(axis, shown[row][:columns])
        axis.set_ylabel(row[1], rotation=0, ha="right", va="center")
    errors = [
        {"row": label, "image": index, "mse": np.square((image.astype(np.float64) - clear) / 255).mean()}
        for (_, label, _), images in shown.items()
        for index, (image, clear) in enumerate(zip(images, shown[rows[0]], strict=False))
    ]
    save(folder / "figures", "unmasked", figure, pd.DataFrame(errors))
    caption = (
        f"Masked test images of {first.what['dataset']} as attackers restore them, autoencoder `{first.trial}`. With "
        f"leaked pairs: ridge regression, and a trained inversion decoder. Oracle: may mask images of their own; "
        f"weights: holds the encoder; no pairs: optimal transport."
    )
    return [Shown("unmasked", caption, "Rows of restored images: clear, key, and each attacker")]


def plain_words(summary: Summary) -> list[str]:
    """One sentence for each encoder and data set attacked."""
    words = []
    for row in summary["unmasking"]:
        if row["representation"] in BARE and row["largest"]:
            reached = row["reach_target"]
            told = (
                f"{reached:,} leaked pairs{fewest(row, reached)} of an image and its masked vector restore other "
                f"images to a mean squared error of {_restored(summary, row, reached)}, where {row['target']:g} was to "
                f"be reached"
                if reached
                else f"up to {row['largest']:,} leaked pairs did not restore other images to a mean squared error of "
                f"{row['target']:g}{', which the key misses too' if row['key'] > row['target'] else ''}"
            )
            key = row["reach_key"]
            owner = "its maker's linear map" if row["representation"] in LINEAR else "the matching decoder"
            near = f"{key:,}{fewest(row, key)} come" if key else f"{row['largest']:,} do not come"
            words.append(
                f"What do leaked pairs undo? {place_name(row)}: {told}; {near} within 10% of {owner} "
                f"({row['key']:.4f}; the mean image has {row['mean_image']:.4f})."
            )
            if row["key"] > row["mean_image"] and row["representation"] not in LINEAR:
                words.append(
                    f"On {row['dataset']} the matching decoder itself is worse than the mean image: coming near it "
                    f"says nothing, and images like these were not what the autoencoder was trained on."
                )
    return words


def _restored(summary: Summary, place: dict[str, Any], count: int) -> str:
    """The error of the best attack with so many pairs, and its interval."""
    best = place["best"][str(count)]
    (row,) = (r for r in summary["attacks"] if place_is(r, place) and (r["attack"], r["k"]) == (best, count))
    return with_interval(row["mse"], 4)


def lacking(summary: Summary, config: AttacksConfig) -> list[str]:
    """Attacks of a study that has not ended which are not measured everywhere, in words; all, where none is."""
    places = [row for row in summary["unmasking"] if row["representation"] == "masked"]
    made = {(place_name(r), r["attack"], r["k"]) for r in summary["attacks"]}
    told = []
    for name in config.names:
        counts = {
            place_name(p): [k for k in config.pairs if k <= p["pool"]] if name in WITH_PAIRS else [0] for p in places
        }
        wanted = {(place, name, k) for place, ks in counts.items() for k in ks}
        if not wanted or wanted - made:
            told.append(f"attack {name}" + (f" in {len(wanted - made)} of {len(wanted)} cases" if wanted else ""))
    for name in config.controls:
        done = {(r["gaussian"] + r["categorical"], r["dataset"], r["k"]) for r in summary["attacks"]
                if (r["representation"], r["attack"]) == (name, "ridge")}  # fmt: skip
        due = {
            (p["gaussian"] + p["categorical"], p["dataset"], k) for p in places for k in config.pairs if k <= p["pool"]
        }
        if not due or due - done:
            told.append(f"attacks on {name.replace('_', ' ')}")
    return told


def fewest(row: dict[str, Any], count: int) -> str:
    """A remark where no smaller number of pairs was tried."""
    return " (fewer were not tried)" if count == min(map(int, row["best"])) else ""
