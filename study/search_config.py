"""What a search may choose, what it is judged by, and how: configurations below `config`, checked when built.

A point of the space is a flat mapping from keys to values, as Optuna names parameters: `latent.gaussian` holds a value
of that field; `latent.categorical.on`, where a dimension may be switched off, says whether it was.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from aae.config import AutoencoderConfig, LatentConfig, NetworkConfig, TrainingConfig, require

Sampler = Literal["tpe", "nsga2", "gp", "random", "qmc"]
Scheduler = Literal["none", "asha", "median"]

#: Objectives that take an attacker.
OF_SECRECY = {"pairs_to_unmask", "mse_at_k", "reidentification"}

#: Searching these would compare what cannot be compared.
FIXED = {
    "training.epochs": "epochs are what a scheduler spares; set them for all",
    "training.recipe": "it only sets other keys: search adversarial_weight, contrastive_weight, network.branch, "
    "schedule or whiten",
    "network.image_size": "images are loaded in one size",
    "network.channels": "images are loaded in one form",
}


def _kind_of(key: str) -> Any:
    """The type of a field of the autoencoder's configuration; `ValueError` where there is no such field."""
    sections = {"latent": LatentConfig, "network": NetworkConfig, "training": TrainingConfig}
    section, _, field = key.removesuffix(".on").partition(".")
    hints = typing.get_type_hints(sections[section]) if section in sections else {}
    known = [f"{name}.{f.name}" for name, cls in sections.items() for f in dataclasses.fields(cls)]
    require(field in hints, "key", key, "one of " + ", ".join(k for k in known if k not in FIXED))
    require(key not in FIXED, "key", key, f"another one: {FIXED.get(key)}")
    hint = hints[field]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _typed(kind: Any, key: str, choice: Any) -> Any:
    """A choice as its field holds it: two ways to write one value must not be two trials."""
    if typing.get_origin(kind) is tuple and isinstance(choice, list | tuple):
        kinds = typing.get_args(kind)
        each = kinds[:1] * len(choice) if kinds[1:] == (...,) else kinds
        require(len(each) == len(choice), "choices", choice, f"lists of {len(each)}, as {key} is")
        return tuple(_typed(one, key, value) for one, value in zip(each, choice, strict=True))
    if kind is float and type(choice) is int:
        return float(choice)
    if typing.get_origin(kind) is Literal:
        require(choice in typing.get_args(kind), "choices", choice, f"of {', '.join(typing.get_args(kind))}")
        return choice
    require(isinstance(kind, type) and type(choice) is kind, "choices", choice, f"of the kind that {key} is")
    return choice


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One key of the space: a range, or choices."""

    key: str
    """A field of the autoencoder, as `latent.gaussian`, `training.learning_rate` or `network.widths`."""
    low: float | None = None
    """Least value of a range."""
    high: float | None = None
    """Greatest value of a range."""
    log: bool = False
    """Search the range on a logarithmic scale."""
    off: bool = False
    """0, outside the range, is a choice of its own: it switches the part off."""
    choices: tuple[Any, ...] = ()
    """Values to choose from, instead of a range."""

    def __post_init__(self) -> None:
        kind = _kind_of(self.key)
        if self.choices:
            object.__setattr__(self, "choices", tuple(_typed(kind, self.key, choice) for choice in self.choices))
            given = (self.low, self.high, self.log, self.off) != (None, None, False, False)
            require(not given, "choices", self.choices, "alone, or a range without choices")
            require(len(set(self.choices)) == len(self.choices), "choices", self.choices, "different from each other")
            return
        require(kind in (int, float), "choices", self.choices, f"given: {self.key} is no number")
        holds = self.low is not None and self.high is not None and self.low < self.high
        require(holds, "low, high", (self.low, self.high), f"a range of {self.key}, from less to more, or choices")
        assert self.low is not None
        require(not self.log or self.low > 0, "low", self.low, "above 0 on a logarithmic scale")
        whole = kind is float or all(float(end).is_integer() for end in (self.low, self.high or 0))
        require(whole, "low, high", (self.low, self.high), f"whole, as {self.key} is")

    @property
    def whole(self) -> bool:
        """Whether the field takes whole numbers only."""
        return _kind_of(self.key) is int

    @property
    def options(self) -> list[Any]:
        """The choices as Optuna takes them: a list is written as JSON text."""
        return [json.dumps(choice) if isinstance(choice, tuple) else choice for choice in self.choices]

    def bounds(self) -> tuple[float, float]:
        """Both ends of the range, whole where the field is."""
        assert self.low is not None
        assert self.high is not None
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """One thing to make large or small."""

    name: str
    """`accuracy`, `held_out_mse`, `mse_at_k` or another of those that docs/search.md explains."""
    direction: Literal["minimize", "maximize"] | None = None
    """Unset, the natural one."""
    reference: float | None = None
    """The value from which the hypervolume is measured; unset, the worst that was seen."""


#: The latent configuration and the batch size, as far as they are worth a look.
SPACE = (
    Dimension(key="latent.gaussian", low=16, high=1024, log=True),
    Dimension(key="latent.categorical", low=2, high=100, off=True),
    Dimension(key="training.batch_size", low=16, high=256, log=True),
)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """A search over configurations of the autoencoder. Every `latents` entry is tried first, if it lies in the space,
    and confirmed beside the finalists; the first of them is what finalists are compared with."""

    trials: int = 0
    """Autoencoders to try, failed and stopped ones among them; 0: no search."""
    objectives: tuple[ObjectiveConfig, ...] = (ObjectiveConfig(name="accuracy"), ObjectiveConfig(name="held_out_mse"))
    """What is sought; several give a Pareto front."""
    space: tuple[Dimension, ...] = SPACE
    """The keys to search, and where; all others are the study's."""
    sampler: Sampler = "tpe"
    """Optuna's TPE, NSGA-II, Gaussian process, random or quasi-random choice."""
    scheduler: Scheduler = "none"
    """Stop trials early: asynchronous successive halving, or below the median of the others; epochs are counted."""
    judged_by: str = "held_out_mse"
    """The objective by which a scheduler stops, measured after every epoch."""
    grace: int = 1
    """Epochs that no scheduler shortens."""
    concurrent: int | None = None
    """Trials at once, those on fresh seeds among them; unset, as many as the shares allow."""
    time_budget: float | None = None
    """Seconds of trials, over those at once: afterwards no further one begins. Unset, no limit."""
    finalists: int = 3
    """At most so many configurations of the front, or best ones, are trained again; first those that dominate the first
    of `latents`."""
    fresh_seeds: int = 4
    """New seeds for each finalist and each of `latents`."""
    draws: int = 3
    """Choices of classes for each number of classes behind the accuracy of a trial; other ones than the study's."""
    classifier: str = "mlp"
    """What measures the accuracy of a trial."""
    storage: str | None = None
    """A further Optuna storage to keep up to date: a database URL, or `journal:FILE`."""

    def __post_init__(self) -> None:
        require(0 <= self.trials <= 1_000_000, "trials", self.trials, "from 0 to 1000000")
        for name, values in (
            ("objectives", [objective.name for objective in self.objectives]),
            ("space", [dimension.key for dimension in self.space]),
        ):
            require(len(values) >= 1 and len(set(values)) == len(values), name, values, "one or more, each once")
        try:
            url = urlsplit(self.storage or "")
            told = url.password or "password" in parse_qs(url.query)
        except ValueError as error:
            raise ValueError(f"storage: is no URL ({error}): give a database URL or journal:FILE") from None
        require(
            not told, "storage", "…", "a URL without a password, which would be kept: PGPASSWORD or ~/.pgpass give it"
        )
        require(1 <= self.grace <= 100_000, "grace", self.grace, "from 1 to 100000")
        require(self.concurrent is None or 1 <= self.concurrent <= 10_000, "concurrent", self.concurrent, "1 or more")
        require(self.time_budget is None or self.time_budget > 0, "time_budget", self.time_budget, "above 0 seconds")
        require(1 <= self.finalists <= 100, "finalists", self.finalists, "from 1 to 100")
        require(2 <= self.fresh_seeds <= 1000, "fresh_seeds", self.fresh_seeds, "from 2 to 1000")
        require(1 <= self.draws <= 1000, "draws", self.draws, "from 1 to 1000")

    def check(self, base: AutoencoderConfig) -> None:
        """Raise `ValueError` unless both ends of every range, and every choice, make a configuration."""
        for dimension in self.space:
            values = dimension.options or [*dimension.bounds(), *([0] if dimension.off else [])]
            for value in values:
                configured(base, {dimension.key: value})


# --- points of the space -----------------------------------------------------------------------------------------


def configured(base: AutoencoderConfig, point: Mapping[str, Any]) -> AutoencoderConfig:
    """The configuration `base` with the values of a point."""
    changes: dict[str, dict[str, Any]] = {}
    for key, value in point.items():
        section, field = key.split(".")[:2]
        if key.endswith(".on"):
            if not value:  # of the field's own kind, for names are hashes of it
                changes.setdefault(section, {})[field] = type(getattr(getattr(base, section), field))(0)
        elif typing.get_origin(_kind_of(key)) is tuple and isinstance(value, str):
            changes.setdefault(section, {})[field] = tuple(json.loads(value))
        else:
            changes.setdefault(section, {})[field] = value
    if changes.get("training", {}).get("whiten", base.training.whiten) != base.training.whiten:
        changes.setdefault("network", {}).setdefault("couplings", None)  # the recipe decides again
    parts = {section: dataclasses.replace(getattr(base, section), **fields) for section, fields in changes.items()}
    return dataclasses.replace(base, **parts)


def point_of(space: tuple[Dimension, ...], config: AutoencoderConfig) -> dict[str, Any] | None:
    """The point at which a configuration lies, or None outside the space."""
    point: dict[str, Any] = {}
    for dimension in space:
        section, field = dimension.key.split(".")
        value: Any = getattr(getattr(config, section), field)
        value = json.dumps(value) if isinstance(value, tuple) else value
        if dimension.choices:
            inside = value in dimension.options
        else:
            low, high = dimension.bounds()
            if dimension.off:
                point[f"{dimension.key}.on"] = value != 0
                if value == 0:
                    continue
            inside = low <= value <= high
        if not inside:
            return None
        point[dimension.key] = value
    return point


def names(space: tuple[Dimension, ...]) -> Iterator[str]:
    """The names of all parameters of a space."""
    for dimension in space:
        if dimension.off:
            yield f"{dimension.key}.on"
        yield dimension.key
