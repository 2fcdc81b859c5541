"""What a search found, in numbers: its trials, front and hypervolume, the finalists on fresh seeds, and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from study.config import StudyConfig
from study.config_text import identified
from study.front import Points, hypervolume, judgement, on_front, oriented, paired, reference_point
from study.objectives import OBJECTIVES, directions
from study.records import Record
from study.search_config import names
from study.seeds import identity

#: The epochs of a finished trial, by its identity.
Histories = Callable[[str], list[dict[str, float]]]

#: Fresh seeds without which no configuration is said to dominate another.
ENOUGH = 4

#: Accuracy on the test parts, from the full classification; it takes the place of the accuracy on validation draws.
TEST = "test accuracy"

#: What makes a mask useful: where more is sought, it is judged by itself too.
USE = (TEST, "accuracy", "held_out_mse")


def summarise_search(config: StudyConfig, records: list[Record], histories: Histories) -> dict[str, Any]:
    """The part `search` of a study's summary.

    `objectives` with their directions and reference; `trials` in the order in which they ended, each with its point,
    status, values and whether it is on the front; `hypervolume` after each complete trial; `finalists` with their
    means, paired differences to the first latent configuration and verdict, and where more than accuracy and held-out
    error is sought the verdict on these alone, `verdict_on_use`; `recommendation`.
    """
    directed = directions(config.search)
    searched = [r for r in records if r.kind == "trial" and r.what.get("role") == "search"]
    complete = [r for r in searched if r.what["status"] == "complete"]
    if not complete:
        return {}
    points = oriented(complete, directed)
    reference = reference_point(config.search, directed, points)
    front = {r.trial for r, chosen in zip(complete, on_front(points), strict=True) if chosen}
    signs = {name: -1 if direction == "maximize" else 1 for name, direction in directed.items()}
    finalists = _finalists(config, records, histories)
    return {
        "objectives": [
            {"name": name, "direction": direction, "meaning": OBJECTIVES[name].meaning, "reference": signs[name] * r}
            for (name, direction), r in zip(directed.items(), reference.tolist(), strict=True)
        ],
        "parameters": list(names(config.search.space)),
        "trials": [_trial(r, directed, r.trial in front) for r in searched],
        "hypervolume": _growing(points, reference),
        "finalists": finalists,
        "recommendation": _recommendation(finalists),
    }  # fmt: skip


def _growing(points: Points, reference: Points) -> list[float]:
    """The hypervolume after each point; it takes long to find, and grows with those alone that join the front."""
    found: list[float] = []
    for n in range(1, len(points) + 1):
        joins = on_front(points[:n])[-1]
        found.append(hypervolume(points[:n], reference) if joins or not found else found[-1])
    return found


def _trial(record: Record, directed: Mapping[str, str], front: bool) -> dict[str, Any]:
    values = {name: record.metrics.get(f"objective.{name}") for name in directed}
    return {
        "trial": record.trial,
        "name": _name(record),
        "status": record.what["status"],
        "front": front,
        "params": record.detail["params"],
        "values": values if record.what["status"] == "complete" else dict.fromkeys(directed),
        "seconds": record.seconds,
        "reason": record.detail.get("reason", ""),
    }


def _name(record: Record) -> str:
    """A configuration in words."""
    more = f", {record.variant}" if record.variant else ""
    return f"{record.gaussian}+{record.categorical}, batch {record.batch_size}{more}"


# --- on fresh seeds ----------------------------------------------------------------------------------------------


def _finalists(config: StudyConfig, records: list[Record], histories: Histories) -> list[dict[str, Any]]:
    """Every configuration that was trained with fresh seeds; the first is what the others are compared with."""
    fresh = [r for r in records if r.kind == "trial" and r.what.get("role") == "fresh"]
    groups: dict[str, list[Record]] = {}
    for record in fresh:
        groups.setdefault(record.what["point"], []).append(record)
    first = identity(identified(config.autoencoder(config.latents[0])))
    if first not in groups:
        return []
    tested = _test_accuracies(config, records)
    compared = _compared(config, tested)
    use = {name: direction for name, direction in compared.items() if name in USE}
    measured = {point: _measured(group, compared, tested) for point, group in groups.items()}
    comparisons = max(1, (len(groups) - 1) * len(compared))
    rows = []
    for point in [first, *(p for p in groups if p != first)]:
        values = measured[point]
        row: dict[str, Any] = {
            "point": point,
            "name": _name(groups[point][0]),
            "seeds": sum(r.what["status"] == "complete" for r in groups[point]),
            "means": {name: _mean(one) for name, one in values.items()},
        }
        if point != first:
            differences = {name: paired(values[name], measured[first][name], comparisons) for name in compared}
            row["differences"] = differences
            row["verdict"] = _verdict(differences, compared, groups[point] + groups[first])
            if len(use) == 2 < len(compared):
                row["verdict_on_use"] = _verdict(differences, use, groups[point] + groups[first])
            row["equal_seconds"] = _at_equal_seconds(groups[point], groups[first], histories)
        rows.append(row)
    return rows


def _verdict(differences: Mapping[str, dict[str, Any] | None], compared: Mapping[str, str], fresh: list[Record]) -> str:
    """The judgement on what is compared, with a doubt where there is one."""
    chosen = {name: differences[name] for name in compared}
    said = judgement(chosen, compared)
    doubt = _doubt(fresh, _seeds(chosen))
    return f"better in everything, {doubt}" if said == "dominates" and doubt else said


def _seeds(differences: Mapping[str, dict[str, Any] | None]) -> int:
    """Fresh seeds on which everything is compared: of a search that has not ended, fewer than were trained."""
    return min((d["seeds"] if d else 0 for d in differences.values()), default=0)


def _doubt(fresh: list[Record], seeds: int) -> str:
    """Why a configuration that is better in everything is not said to dominate."""
    failed = sum(r.what["status"] != "complete" for r in fresh)
    if failed:
        return f"but {failed} of the fresh trials failed"
    return "" if seeds >= ENOUGH else f"but on {seeds} seeds, where it takes {ENOUGH}"


def _compared(config: StudyConfig, tested: Mapping[str, float]) -> dict[str, str]:
    """What is compared on fresh seeds, with directions."""
    return {
        TEST if name == "accuracy" and tested else name: direction
        for name, direction in directions(config.search).items()
    }


def _test_accuracies(config: StudyConfig, records: list[Record]) -> dict[str, float]:
    """Mean accuracy of each autoencoder over the draws that all have, by the classifier of the search."""
    found: dict[str, dict[tuple[Any, ...], float]] = {}
    for r in records:
        if r.kind == "classification" and r.what["representation"] == "masked":
            wanted = "shared" if "shared" in config.protocols else config.protocols[0]
            if (r.what["protocol"], r.what["classifier"]) == (wanted, config.search.classifier):
                draw = tuple(r.what[key] for key in ("dataset", "classes", "draw"))
                found.setdefault(r.trial, {})[draw] = r.metrics["accuracy"]
    shared = set.intersection(*map(set, found.values())) if found else set()
    return {trial: float(np.mean([of[draw] for draw in sorted(shared)])) for trial, of in found.items() if shared}


def _measured(
    group: list[Record], compared: Mapping[str, str], tested: Mapping[str, float]
) -> dict[str, dict[int, float]]:
    """For everything compared, its value by fresh seed."""
    complete = [r for r in group if r.what["status"] == "complete"]
    return {
        name: {
            r.instance: tested[r.trial] if name == TEST else r.metrics[f"objective.{name}"]
            for r in complete
            if name != TEST or r.trial in tested
        }
        for name in compared
    }


def _mean(values: Mapping[int, float]) -> dict[str, Any] | None:
    return paired(values, dict.fromkeys(values, 0.0), 1)


def _at_equal_seconds(ours: list[Record], theirs: list[Record], histories: Histories) -> dict[str, Any] | None:
    """The difference in held-out error after the training seconds that both took, by seed, at whole epochs."""
    left: dict[int, float] = {}
    right: dict[int, float] = {}
    for ours_i, theirs_i in ((a, b) for a in ours for b in theirs if a.instance == b.instance):
        if {ours_i.what["status"], theirs_i.what["status"]} != {"complete"}:
            continue
        pair = [histories(r.trial) for r in (ours_i, theirs_i)]
        seconds = min(sum(epoch["seconds"] for epoch in history) for history in pair)
        reached = [_reached(history, seconds) for history in pair]
        if None not in reached:
            left[ours_i.instance], right[ours_i.instance] = reached  # type: ignore[assignment]
    return paired(left, right, 1)


def _reached(history: list[dict[str, float]], seconds: float) -> float | None:
    ends = np.cumsum([epoch["seconds"] for epoch in history])
    done = int((ends <= seconds + 1e-9).sum())
    return history[done - 1]["held_out_mse"] if done else None


def _recommendation(finalists: list[dict[str, Any]]) -> str:
    """One line, with its reasons."""
    if len(finalists) < 2:
        return "No configuration was confirmed beside the study's own: nothing to recommend."
    first, others = finalists[0], finalists[1:]
    what = " and ".join(map(_words, first["means"]))

    def reasons(row: dict[str, Any]) -> str:
        told = (
            f"{_words(name)} {d['mean']:+.4f} [{d['interval'][0]:+.4f}, {d['interval'][1]:+.4f}]"
            for name, d in row["differences"].items()
            if d is not None
        )
        return "; ".join(told)

    def on(*rows: dict[str, Any]) -> str:
        return f"on {min(_seeds(row['differences']) for row in rows)} fresh paired seeds"

    for row in others:
        if row["verdict"] == "dominates":
            taken = f"Take {row['name']}: {on(row)} it dominates {first['name']} on {what} ({reasons(row)})."
            return taken + _on_use(first, others)
    told = " ".join(f"{row['name']}: {row['verdict']} ({reasons(row)})." for row in others)
    kept = f"Keep {first['name']}: {on(*others)} no configuration that was found dominates it on {what}."
    return f"{kept}{_on_use(first, others)} {told}"


def _on_use(first: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """What dominates on accuracy and held-out error alone; nothing where no more than these was sought."""
    if "verdict_on_use" not in others[0]:
        return ""
    better = " and ".join(row["name"] for row in others if row["verdict_on_use"] == "dominates")
    use = " and ".join(_words(name) for name in first["means"] if name in USE)
    return f" On {use} alone, {first['name']} is dominated by {better or 'none that was found'}."


def _words(name: str) -> str:
    return name.replace("_", " ")
