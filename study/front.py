"""Pareto fronts, their hypervolume, and the verdict on fresh seeds. Everything here is made small: see `oriented`.

Shapes: N points, M objectives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.aggregate import LEVEL, welch
from study.config import StudyConfig
from study.objectives import directions
from study.records import Record
from study.search_config import SearchConfig, configured, point_of

Points = NDArray[np.float64]


def oriented(records: Iterable[Record], directed: Mapping[str, str]) -> Points:
    """The objectives of records, (N, M), with those to be made large turned round."""
    signs = [-1 if direction == "maximize" else 1 for direction in directed.values()]
    rows = [[s * r.metrics[f"objective.{n}"] for s, n in zip(signs, directed, strict=True)] for r in records]
    return np.array(rows, dtype=np.float64).reshape(-1, len(directed))


def dominating(points_NM: Points, point_M: Points) -> NDArray[np.bool_]:
    """Which points are as good as one in everything and better in something, (N,)."""
    return np.all(points_NM <= point_M, axis=1) & np.any(points_NM < point_M, axis=1)


def on_front(points_NM: Points) -> NDArray[np.bool_]:
    """Which points no other one dominates; of equal points the first."""
    chosen = np.ones(len(points_NM), dtype=bool)
    for i, point in enumerate(points_NM):
        equal = (points_NM[:i] == point).all(axis=1)
        chosen[i] = not (dominating(points_NM, point).any() or equal.any())
    return chosen


def hypervolume(points_NM: Points, reference_M: Points) -> float:
    """Volume that is dominated by the points and dominates the reference, exactly, slice by slice."""
    inside = points_NM[(points_NM < reference_M).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference_M[0] - inside.min())
    inside = inside[on_front(inside)]
    inside = inside[np.argsort(inside[:, 0])]
    ends = np.append(inside[1:, 0], reference_M[0])
    return sum(
        float(end - point[0]) * hypervolume(inside[: i + 1, 1:], reference_M[1:])
        for i, (point, end) in enumerate(zip(inside, ends, strict=True))
        if end > point[0]
    )


def reference_point(search: SearchConfig, directed: Mapping[str, str], points_NM: Points) -> Points:
    """The stated reference, oriented; where none is stated, the worst value seen and a hundredth of the range more."""
    worst, best = points_NM.max(axis=0), points_NM.min(axis=0)
    reference = worst + 0.01 * np.where(worst > best, worst - best, 1.0)
    for i, objective in enumerate(search.objectives):
        if objective.reference is not None:
            reference[i] = -objective.reference if directed[objective.name] == "maximize" else objective.reference
    return reference


def own_points(config: StudyConfig) -> list[dict[str, Any] | None]:
    """The point of each of the study's own latent configurations; None for one that lies outside the space."""
    configs = [config.autoencoder(latent) for latent in config.latents]
    points = [(point_of(config.search.space, c), c) for c in configs]
    return [point if point is not None and configured(configs[0], point) == c else None for point, c in points]


def finalists(config: StudyConfig, records: Sequence[Record]) -> list[Record]:
    """The trials worth fresh seeds: best first, of a front those that together cover the greatest hypervolume.

    Of a front, trials that dominate the one of the first latent configuration come before all others: whether any
    configuration does is what fresh seeds are to say. The study's own latent configurations are confirmed anyway and
    stand aside.
    """
    own = own_points(config)
    ended = [r for r in records if r.what["status"] == "complete"]
    complete = [r for r in ended if r.detail["params"] not in own]
    if not complete:
        return []
    directed = directions(config.search)
    points = oriented(complete, directed)
    if len(directed) == 1:
        return [complete[i] for i in np.argsort(points[:, 0], kind="stable")[: config.search.finalists]]
    reference = reference_point(config.search, directed, points)
    firsts = oriented((r for r in ended if r.detail["params"] == own[0]), directed)  # one, or none that is complete
    beats = {i for first in firsts for i in np.flatnonzero(dominating(points, first)).tolist()}
    left: list[int] = np.flatnonzero(on_front(points)).tolist()
    chosen: list[int] = []
    while left and len(chosen) < config.search.finalists:
        best = max(left, key=lambda i: (i in beats, hypervolume(points[[*chosen, i]], reference)))
        left.remove(best)
        chosen.append(best)
    return [complete[i] for i in chosen]


# --- the verdict -------------------------------------------------------------------------------------------------


def paired(ours: Mapping[int, float], theirs: Mapping[int, float], comparisons: int) -> dict[str, Any] | None:
    """The mean difference over the seeds both have, with its t interval; None below two seeds.

    The level is corrected for the number of comparisons (Bonferroni), so that all intervals hold together.
    """
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return None
    difference = np.array([ours[i] - theirs[i] for i in both])
    mean, side = float(difference.mean()), (float(difference.std(ddof=1)), len(both))
    return {"mean": mean, "interval": welch(mean, side, level=1 - (1 - LEVEL) / comparisons), "seeds": len(both)}


def judgement(differences: Mapping[str, dict[str, Any] | None], directed: Mapping[str, str]) -> str:
    """`dominates` or `is dominated` when every interval lies on one side of zero; else what each objective says."""
    says = {}
    for name, difference in differences.items():
        if difference is None:
            says[name] = "unknown"
            continue
        sign = -1 if directed[name] == "maximize" else 1
        low, high = sorted(sign * end for end in difference["interval"])
        same = low == high == 0
        says[name] = "same" if same else "better" if high < 0 else "worse" if low > 0 else "undecided"
    kinds = set(says.values())
    for alone, word in (("better", "dominates"), ("worse", "is dominated")):
        if alone in kinds and kinds <= {alone, "same"}:
            return word
    return ", ".join(f"{name.replace('_', ' ')} {one}" for name, one in says.items())
