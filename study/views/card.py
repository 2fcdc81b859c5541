"""The masking card: one page that says what one encoder's masked images give away. Plain words, no comfort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from attacks import WITH_PAIRS, WITHOUT_PAIRS
from study.aggregate import summarise
from study.config import DataConfig, InputError
from study.opening import read_folder_config, read_manifest
from study.records import Record, read_records
from study.trial import TrialSpec, read_result
from study.unmasking import summarise_attacks
from study.views import attacks, mask, tables
from study.views.page import Section, write_page
from study.views.tables import Summary

#: What each attacker holds beside the masked images.
HOLDS = {
    "other_decoder": "the decoder of another autoencoder, trained in the same way",
    "pairs": "some images together with their masked vectors",
    "oracle": "the means to have images of their own masked",
    "weights": "the file `encoder.safetensors`, and images of the same kind",
    "transport": "other images of the same kind, and no pair",
    "known_plaintexts": "the masked images in clear, in another order",
}

#: Who has the images already and restores none; who is no attacker.
NOT_RESTORED, OWN = ("known_plaintexts",), ("key", "mean_image", "clear")

NOT_GUARANTEED = [
    "Masking is not encryption. There is no proof of secrecy, and no number here is a bound: each is what one attack "
    "reached, and a better attack reaches more. An attack that failed here proves nothing.",
    "Masked vectors are stable: the same image always gives the same vector, so repeated images are seen as such.",
    "Masked vectors are made to keep what tells classes apart. Whatever a classifier can learn from them, anyone who "
    "holds them and some labels can learn as well.",
    "Nothing was tested on images of another kind than those named here, on text or faces within images, or on who "
    "is in a picture.",
    "Names, labels, file order, sizes and times that travel with masked vectors are not masked.",
]


def write_card(folder: Path, trial: str | None = None) -> Path:
    """Write `card.md` and `card.html`; return the page.

    Raises:
        InputError: there is no study, no complete encoder, or none of that name.
    """
    config, manifest = read_folder_config(folder), read_manifest(folder)
    records = read_records(folder)
    chosen = _chosen(folder, records, trial)
    mine = [r for r in records if r.trial == chosen.trial]
    summary = summarise(mine) | summarise_attacks(mine)
    tried = _attackers(summary)
    title = f"Masking card: {chosen.trial}"
    sections = [
        Section("The encoder", _encoder(folder, chosen, summary, manifest, config.data)),
        Section("Use: accuracy on masked images", [_use(summary)], [("Best classifier", _accuracy(summary))]),
        Section("What attackers restore", _attacked(summary, mine), [("Each attacker", tried)] if len(tried) else []),
        Section("Threat model", _threats(summary)),
        Section("What is not guaranteed", NOT_GUARANTEED),
    ]
    return write_page(folder, "card", title, sections)


def _chosen(folder: Path, records: list[Record], trial: str | None) -> Record:
    trials = [r for r in records if r.kind == "trial" and r.what.get("role") != "search"]
    complete = [r for r in trials if r.what["status"] == "complete"]
    if not complete:
        raise InputError(f"{folder}: holds no trained encoder yet: run `study run` on it again")
    attacked = {r.trial for r in records if r.kind == "attack"}
    wanted = [r for r in complete if r.trial == trial] if trial else [r for r in complete if r.trial in attacked]
    if trial and not wanted:
        names = ", ".join(r.trial for r in complete)
        raise InputError(f"--trial {trial}: is no complete encoder of {folder}: choose one of {names}")
    return (wanted or complete)[0]


def _encoder(folder: Path, chosen: Record, summary: Summary, manifest: dict[str, Any], data: DataConfig) -> list[str]:
    if data.autoencoder not in manifest["data"]:
        raise InputError(f"{folder / 'manifest.json'}: does not name {data.autoencoder}, which config.json trains on")
    images = manifest["data"][data.autoencoder]["train"] - data.held_out
    images = min(images, data.train_images or images)
    where = f"on {images:,} images of {data.autoencoder}"
    if manifest["encoders_from"]:
        where = f"by another study, {manifest['encoders_from']}"
    result = read_result(folder / "trials" / chosen.trial)
    trained = TrialSpec.from_plain(result["trial"]).config
    pixels = trained.network.channels * trained.network.image_size**2
    (row,) = summary["trials"]
    run = manifest["runs"][-1]
    several = list(dict.fromkeys(r["commit"] for r in manifest["runs"]))
    commits = f"commit{'s' if len(several) > 1 else ''} {', '.join(several)}"
    return [
        f"Trained {where}, without labels: recipe {trained.training.recipe}, {trained.training.epochs} epochs, batch "
        f"{chosen.batch_size}. Its own decoder, the key, restores images kept from training with a mean squared error "
        f"of {row['held_out_mse']:.4f} (pixels from 0 to 1).",
        f"An image of {pixels:,} numbers becomes {chosen.gaussian + chosen.categorical}: {chosen.gaussian} Gaussian "
        f"and {chosen.categorical} categorical. Files of masked forms that it made carry the pair's identity, "
        f"`{result['pair']}`.",
        f"Measured with {commits}, {run['time']} the last; study seed {manifest['seed']}.",
    ]


def _use(summary: Summary) -> str:
    if not summary["classification"]:
        return "No classifier was trained on its masked images here."
    return (
        "Mean over draws of classes, on test images, with its deviation and interval; guessing evenly beside it. Of "
        "several classifiers the best is shown, which looks better than it is."
    )


def _accuracy(summary: Summary) -> pd.DataFrame:
    rows = [r for r in summary["classification"] if r["representation"] == "masked" and r["classifier"] in tables.NAMES]
    rows = [r for r in rows if r["protocol"] == "shared"] or rows  # only `shared` compares classifiers
    places = sorted({(r["dataset"], r["classes"]) for r in rows})
    lines = []
    for dataset, classes in places:
        here = [r for r in rows if (r["dataset"], r["classes"]) == (dataset, classes)]
        best = max(here, key=lambda r: r["accuracy"]["mean"])
        lines.append(
            {
                "data": dataset,
                "classes": classes,
                "classifier": tables.NAMES[best["classifier"]],
                "accuracy": tables.mean_and_interval(best["accuracy"]),
                "guessing evenly": f"{1 / classes:.3f}",
            }
        )
    return pd.DataFrame(lines, columns=["data", "classes", "classifier", "accuracy", "guessing evenly"])


def _attacked(summary: Summary, records: list[Record]) -> list[str]:
    if not summary["attacks"]:
        return ["Nobody attacked this encoder here. Treat its masked images as you would treat the images themselves."]
    again = [_found_again(dataset, here) for dataset, here in _masked(summary)]
    return [*attacks.plain_words(summary), *again, *mask.defences(summary, mask.use(records))]


def _masked(summary: Summary) -> list[tuple[str, list[dict[str, Any]]]]:
    """Every data set, and its attacks on masked images as they were."""
    masked = [r for r in summary["attacks"] if r["representation"] == "masked"]
    return [(name, [r for r in masked if r["dataset"] == name]) for name in sorted({r["dataset"] for r in masked})]


def _found_again(dataset: str, here: list[dict[str, Any]]) -> str:
    """By how few pairs too many images are found again, and what is found without any."""
    tried = [r for r in here if r["attack"] in WITH_PAIRS]
    best = {k: max((r for r in tried if r["k"] == k), key=lambda r: r["top1"]["mean"]) for k in {r["k"] for r in tried}}
    told = []
    if few := min((k for k, row in best.items() if row["grade"] == "bad"), default=0):
        told.append(f"with {few:,} pairs, the fewest tried that find over 20%, {_found(best[few])}")
    elif best:
        told.append(f"no number of pairs tried finds over 20%; with {max(best):,}, {_found(best[max(best)])}")
    for words, names in (("without pairs", WITHOUT_PAIRS), ("with the images in another order", NOT_RESTORED)):
        if rows := [r for r in here if r["attack"] in names]:
            told.append(f"{words}, {_found(max(rows, key=lambda r: r['top1']['mean']))}")
    among = max(r["n"] for r in here)
    return (
        f"Which masked image is that of a known one? Shares found among {among:,} of {dataset}, with the NeuraCrypt "
        f"challenge's grade of the mask: {'; '.join(told) or 'nobody tried'}."
    )


def _found(row: dict[str, Any]) -> str:
    return f"{_percent(row['top1'])} ({row['grade']})"


def _percent(cell: dict[str, Any]) -> str:
    ends = [cell["mean"], *(cell["interval"] or [])]
    mean, *interval = (f"{end:.0%}" if end >= 0.1 or not end else f"{end:.1%}" for end in ends)
    return mean + (f" [{', '.join(interval)}]" if interval else "")


def _attackers(summary: Summary) -> pd.DataFrame:
    """The smallest error of each kind of attacker and the most found again, beside the key and the mean image."""
    kinds = {"the owner, with the key": ("key",), **{text: _names(name) for name, text in HOLDS.items()}}
    kinds["nothing: the mean image"] = ("mean_image",)
    kinds["the clear images themselves"] = ("clear",)
    rows = []
    for dataset, here in _masked(summary):
        for holds, names in kinds.items():
            if found := [r for r in here if r["attack"] in names]:
                best = min(found, key=lambda r: r["mse"]["mean"])
                count = 0 if best["attack"] in OWN else best["k"] or best["images_n"]
                restored = best["attack"] not in NOT_RESTORED
                rows.append(
                    {
                        "data": dataset,
                        "who holds": holds + (f" ({count:,})" if count else ""),
                        "MSE": attacks.with_interval(best["mse"], 4) if restored else "",
                        "class recognised": _percent(best["recognised"]) if restored else "",
                        "finds the image": _percent(max((r["top1"] for r in found), key=lambda cell: cell["mean"])),
                        "on images": f"{best['n']:,}",
                        "verdict": attacks.verdict(best) if restored else "",
                    }
                )
    return pd.DataFrame(rows)


def _names(holds: str) -> tuple[str, ...]:
    """The attacks of who holds this."""
    return {"pairs": WITH_PAIRS, "transport": WITHOUT_PAIRS}.get(holds, (holds,))


def _threats(summary: Summary) -> list[str]:
    return [
        "The decoder is the key: whoever has it unmasks everything the encoder ever masked. It must not be handed out.",
        "The encoder is not public either: whoever has it makes as many pairs as they like.",
        _leaks(summary),
        "Assumed to hold: the decoder and the encoder stay with the owner, and no masked image is known in clear.",
    ]


def _leaks(summary: Summary) -> str:
    """What pairs do, by the data set that is unmasked with the fewest; else how far the attempts went."""
    tried = [r for r in summary["unmasking"] if r["representation"] == "masked" and r["largest"]]
    if reached := [r for r in tried if r["reach_target"]]:
        easiest = min(reached, key=lambda r: r["reach_target"])
        return (
            f"Whoever holds {easiest['reach_target']:,} pairs (perhaps fewer) of an image and its masked vector "
            f"unmasks others of {easiest['dataset']} to a mean squared error of {easiest['target']:g}. Pairs leak when "
            f"one user's images are known, when masked images are published elsewhere in clear, or when anyone may "
            f"have images masked."
        )
    ends = [
        f"on {r['dataset']} the key itself misses the target of {r['target']:g}, so that missing it shows no protection"
        if r["key"] > r["target"]
        else f"on {r['dataset']} up to {r['largest']:,} pairs did not reach the target of {r['target']:g}, and nothing "
        f"says that more would not"
        for r in tried
    ]
    return (
        f"Whoever holds pairs of an image and its masked vector learns to unmask: "
        f"{'; '.join(ends) or 'how many pairs that takes was not tried here'}."
    )
