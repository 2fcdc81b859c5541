"""What a study found, in plain words: the report's first section."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from study.aggregate import METRICS
from study.evaluate import MIRRORED
from study.views import attacks, tables
from study.views.tables import Summary

_TWO_PHASE = (
    "the paper's two phases with additions of this project (normalised and whitened latents, a flow, a small weight on "
    "the adversarial losses, a falling learning rate: docs/autoencoder.md)"
)

#: What a training recipe is where no other setting changes it, in words.
TRAINED = {
    "paper": "the paper's words and nothing added",
    "two_phase": _TWO_PHASE,
    "one_pass": f"{_TWO_PHASE}, and one encoder pass for both phases",
    "contrastive": f"{_TWO_PHASE}, and a contrastive loss on a branch of the encoder, by which its latents of two "
    "views of an image are alike and those of different images not",
}


def plain_words(summary: Summary) -> list[str]:
    """What was studied, whether it is useful and a mask, how sure that is, and what stands beside the paper."""
    complete = [t for t in summary["trials"] if t["status"] == "complete"]
    points = dict.fromkeys(t["latent"] for t in tables.in_order(complete))
    batch_sizes = ", ".join(str(size) for size in sorted({t["batch_size"] for t in complete}))
    several = "s" if len(points) > 1 else ""
    words = [
        f"What was studied. {len(complete)} adversarial autoencoders were trained without labels, on {len(points)} "
        f"latent configuration{several} (Gaussian + categorical dimensions {'; '.join(points)}; batch size "
        f"{batch_sizes}). Their encoders mask other images, that is, turn each into a vector; classifiers learn "
        f"from these masked forms alone. docs/protocol.md, of this project, holds what the paper states beside what "
        f"was chosen here.",
        *_recipes(complete),
    ]
    if failed := len(summary["trials"]) - len(complete):
        words.append(f"{failed} autoencoders failed; see the table of autoencoders.")
    if best := list(_best_accuracies(summary)):
        words += [f"Is it useful? {best[0]}", *best[1:]]
    pairs = {(r["latent"], r["images"], r["pair"]): r["mean"] for r in summary["reconstruction"]}
    for (point, images, pair), unmatched in pairs.items():
        matched = pairs.get((point, images, "matched"))  # none yet where a study was stopped
        if pair == "unmatched" and images == "V" and matched:
            words.append(
                f"Does another decoder fail? On held-out images (V) the matching decoder of {point} restores with a "
                f"mean squared error of {matched:.4f}, another instance's with {unmatched:.4f}, "
                f"{unmatched / matched:.0f} times as much. This is the paper's test of secrecy and says nothing about "
                f"an attacker who holds known pairs."
            )
    words += attacks.plain_words(summary)
    words += _how_sure(summary)
    return [*words, _beside_the_paper(summary)] if summary["classification"] else words


def _recipes(complete: list[dict[str, Any]]) -> Iterator[str]:
    names: dict[str, list[str]] = {}
    for trial in tables.in_order(complete):
        names.setdefault(trial["recipe"], []).append(trial["latent"])
    told = [
        (f"{', '.join(dict.fromkeys(points))} by " if len(names) > 1 else "")
        + f"recipe `{name}`, {TRAINED.get(name, 'which this version does not know')}"
        for name, points in names.items()
    ]
    if told:
        yield f"How they were trained, where config.json sets nothing else: {'; '.join(told)}."


def _best_accuracies(summary: Summary) -> Iterator[str]:
    """One line for data set and number of classes, from `shared` where there is one, beside its controls."""
    known = [r for r in summary["classification"] if r["classifier"] in tables.NAMES]
    masked = [r for r in known if r["representation"] == "masked"]
    rows = [r for r in masked if r["protocol"] == "shared"] or masked
    for dataset, count in sorted({(r["dataset"], r["classes"]) for r in rows}):
        mine, others = (
            [r for r in some if (r["dataset"], r["classes"]) == (dataset, count)]
            for some in (rows, [r for r in known if r["representation"] != "masked"])
        )
        mirrored = [r for r in others if r["representation"] == MIRRORED]
        more = f"; {_highest(mirrored)} where mirror images were masked too" if mirrored else ""
        controls = sorted((r for r in others if not r["batch_size"]), key=lambda r: r["accuracy"]["mean"])
        best = {r["representation"]: r for r in controls}  # the last of each, and so the highest
        beside = ", ".join(f"{tables.control_name(best[c])} ({best[c]['accuracy']['mean']:.3f})" for c in sorted(best))
        yield (
            f"{dataset}, {count} classes, protocol `{rows[0]['protocol']}`: the highest mean accuracy is "
            f"{_highest(mine)}{more}. "
            + (f"Without a trained encoder the best classifier reaches: {beside}. " if beside else "")
            + f"Guessing evenly scores {1 / count:.3f}."
        )


def _highest(rows: list[dict[str, Any]]) -> str:
    best = max(rows, key=lambda r: r["accuracy"]["mean"])
    words = tables.mean_and_interval(best["accuracy"])
    return f"{words} ({tables.NAMES[best['classifier']]}, latent {best['latent']})"


def _how_sure(summary: Summary) -> Iterator[str]:
    rows = [r["accuracy"] for r in summary["classification"] if r["representation"] == "masked"]
    if rows:
        draws, encoders = ([r[key] for r in rows] for key in ("draws", "encoders"))
        single = sum(r["interval"] is None for r in rows)
        yield (
            f"How sure. Brackets hold 95% intervals of the mean, which rest on {_span(draws)} draws of classes and "
            f"{_span(encoders)} encoders; {single} of {len(rows)} cells have none, because nothing was repeated in "
            f"them. The test images of a draw, and a control's one fit, are taken as given. The best of several cells "
            f"looks better than it is: compare cells by the tables of differences."
        )


def _span(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _beside_the_paper(summary: Summary) -> str:
    told = []
    for latent in dict.fromkeys(r["latent"] for r in tables.in_order(summary["classification"])):
        rows = [r for r in summary["classification"] if r["latent"] == latent and tables.is_papers(r)]
        cells = [r[m]["paper"] for r in rows for m in METRICS if "paper" in r[m]]
        judged = [cell["interval"] for cell in cells if cell["interval"] is not None]
        above, below = sum(low > 0 for low, _ in judged), sum(high < 0 for _, high in judged)
        if cells:
            told.append(
                f"{latent} has {len(cells)} cells with a counterpart in its tables, {len(judged)} of them with an "
                f"interval of the difference, which leaves out zero in {above + below}: ours is higher in {above}, "
                f"lower in {below}"
            )
    if not told:
        return "Beside the paper: no cell has a counterpart there (latent 384+20, CIFAR-100 and MNIST)."
    both = {"random_forest", "random_forest_onehot"} <= {r["classifier"] for r in summary["classification"]}
    forests = " The paper's one Random Forest stands beside two of ours, on class labels and on one-hot targets."
    return f"Beside the paper: {'; '.join(told)}. These cells carry a star.{forests if both else ''}"
