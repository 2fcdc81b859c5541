"""Optuna: what to try next, and views of what was tried.

The records are the truth. Optuna's study lives in memory and is filled from them at every start; `optuna.db`, and any
other storage, is a copy for Optuna's own tools that is never read back.
"""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.importance import get_param_importances
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy.exc import SQLAlchemyError

from aae.config import AutoencoderConfig
from study.config import InputError, StudyConfig
from study.front import own_points
from study.objectives import directions
from study.records import Record
from study.search_config import SearchConfig, configured
from study.seeds import derive
from study.trial import TrialSpec

optuna.logging.set_verbosity(optuna.logging.ERROR)

#: How often a sampler may propose what was tried before it is asked no more, and how often chance may.
REPEATS = 10, 1000

#: The true states, for those who look. The samplers are told otherwise, see `Proposals.tell`.
STATES = {"complete": TrialState.COMPLETE, "stopped": TrialState.PRUNED, "failed": TrialState.FAIL}


# --- what to try next --------------------------------------------------------------------------------------------


class Proposals:
    """The points of a search, each proposed once over all runs of the study.

    Args:
        finished: records of the trials of earlier runs.
        started: points that an earlier run began and did not finish; they come first.
    """

    def __init__(self, config: StudyConfig, finished: Iterable[Record], started: Iterable[dict[str, Any]]) -> None:
        search, finished = config.search, list(finished)
        self._config, self._base = config, config.autoencoder(config.latents[0])
        self._directions = directions(search)
        self._known = {record.trial for record in finished}
        self._open: dict[str, Trial] = {}
        # Another seed for every start: the first proposals of the first one are not wanted again.
        seed = derive(config.seed, "sampler", len(finished))
        self._samplers = [_sampler(search, seed), RandomSampler(seed=seed)]
        self.study = optuna.create_study(directions=list(self._directions.values()), sampler=self._samplers[0])
        for record in finished:
            self.study.add_trial(_frozen(search, record, _told(record.what["status"])))
        started = list(started)
        #: How many that were begun are still to come.
        self.begun = len(started)
        for point in filter(None, [*started, *own_points(config)]):
            self.study.enqueue_trial(point, skip_if_exists=True)

    def ask(self) -> tuple[TrialSpec, dict[str, Any]] | None:
        """The next trial and its point; None when chance finds no point that was not tried."""
        self.begun = max(0, self.begun - 1)
        for sampler, repeats in zip(self._samplers, REPEATS, strict=True):
            self.study.sampler = sampler
            for _ in range(repeats):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # experimental, or sampling some keys on their own
                    trial = self.study.ask()
                    point = _suggest(self._config.search, trial)
                spec = self._spec(point)
                if spec and spec.id not in self._known:
                    self.study.sampler = self._samplers[0]
                    self._known.add(spec.id)
                    self._open[spec.id] = trial
                    return spec, point
                self.study.tell(trial, state=TrialState.FAIL)
        return None

    def _spec(self, point: dict[str, Any]) -> TrialSpec | None:
        """The trial of a point; None where two of its values exclude each other."""
        try:
            return search_spec(self._config, configured(self._base, point))
        except ValueError:
            return None

    def tell(self, trial: str, status: str, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Say how a trial ended; return what the sampler noted on it, which its record must keep."""
        asked = self._open.pop(trial)
        state = _told(status)
        values = _values(self._directions, metrics) if state == TrialState.COMPLETE else None
        self.study.tell(asked, values, state)
        noted: dict[str, Any] = self.study.get_trials(deepcopy=False)[asked.number].system_attrs
        return {key: value for key, value in noted.items() if "Sampler" in key}

    def importances(self) -> dict[str, dict[str, float]]:
        """Importance of each parameter for each objective, as Optuna rates them; {} where there is too little."""
        rated = {}
        for number, (name, direction) in enumerate(self._directions.items()):
            sign = -1 if direction == "maximize" else 1  # it takes lower values for better ones
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    rated[name] = get_param_importances(self.study, target=lambda t, n=number, s=sign: s * t.values[n])
            except (ValueError, RuntimeError):
                rated[name] = {}
        return {name: {key: float(value) for key, value in one.items()} for name, one in rated.items()}


def search_spec(config: StudyConfig, autoencoder: AutoencoderConfig) -> TrialSpec:
    """The trial of one configuration: all of a search share their seed, which pairs them."""
    return TrialSpec(config=autoencoder, instance=0, seed=derive(config.seed, "search"))


def _told(status: str) -> TrialState:
    """What a sampler hears. A failure would be forgotten and its corner proposed for ever: it is called stopped."""
    return TrialState.COMPLETE if status == "complete" else TrialState.PRUNED


def _sampler(search: SearchConfig, seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are experimental in some versions
        if search.sampler == "tpe":
            return TPESampler(seed=seed)
        if search.sampler == "nsga2":
            return NSGAIISampler(seed=seed, population_size=min(50, max(4, search.trials // 4)))
        if search.sampler == "gp":
            return GPSampler(seed=seed)
        if search.sampler == "qmc":
            return QMCSampler(scramble=True, seed=seed, warn_independent_sampling=False)  # else all seeds are one
        return RandomSampler(seed=seed)


def _suggest(search: SearchConfig, trial: Trial) -> dict[str, Any]:
    for dimension in search.space:
        if dimension.choices:
            trial.suggest_categorical(dimension.key, dimension.options)
            continue
        if dimension.off and not trial.suggest_categorical(f"{dimension.key}.on", [True, False]):
            continue
        low, high = dimension.bounds()
        suggest: Any = trial.suggest_int if dimension.whole else trial.suggest_float
        suggest(dimension.key, low, high, log=dimension.log)
    return dict(trial.params)


def _distributions(search: SearchConfig) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for dimension in search.space:
        if dimension.choices:
            found[dimension.key] = CategoricalDistribution(dimension.options)
            continue
        if dimension.off:
            found[f"{dimension.key}.on"] = CategoricalDistribution([True, False])
        kind: Any = IntDistribution if dimension.whole else FloatDistribution
        found[dimension.key] = kind(*dimension.bounds(), log=dimension.log)
    return found


def _values(objectives: Iterable[str], metrics: Mapping[str, float]) -> list[float]:
    return [metrics[f"objective.{name}"] for name in objectives]


def _frozen(search: SearchConfig, record: Record, state: TrialState, folder: Path | None = None) -> FrozenTrial:
    """A finished trial as Optuna keeps it."""
    point = record.detail["params"]
    every = _distributions(search)
    about = {"trial": record.trial, "status": record.what["status"], "seconds": record.seconds}
    about |= {"reason": record.detail["reason"]} if "reason" in record.detail else {}
    kept = folder is not None and record.what["status"] == "complete"
    about |= {"folder": str(folder / "trials" / record.trial)} if folder and kept else {}
    return create_trial(
        state=state,
        params=point,
        distributions={key: every[key] for key in point},
        values=_values(directions(search), record.metrics) if state == TrialState.COMPLETE else None,
        user_attrs=about,
        system_attrs=record.detail.get("sampler", {}),
    )


# --- for Optuna's own tools --------------------------------------------------------------------------------------


class Mirrors:
    """`optuna.db` in the study's folder, and another storage if one is wanted, after every finished trial.

    In the other storage the study has the name that the folder's manifest gives it.
    """

    def __init__(self, config: StudyConfig, folder: Path) -> None:
        self._search, self._folder = config.search, folder
        self._work = folder / ".optuna.db"
        search = config.search
        self._work.unlink(missing_ok=True)  # made again from the records: the folder may have got another name
        with _in_one_line():
            # Connected to by its path: in a URL, characters of a path may mean something.
            work = RDBStorage("sqlite://", engine_kwargs={"creator": partial(sqlite3.connect, self._work)})
            self._studies = [self._open(work, folder.name)]
            if search.storage:  # where others may have a study of that name
                other = _storage(search.storage)
                name = json.loads((folder / "manifest.json").read_text())["study"]
                self._studies.append(self._open(other, name))
            self._have = [{t.user_attrs.get("trial") for t in one.get_trials(deepcopy=False)} for one in self._studies]

    def _open(self, storage: BaseStorage, name: str) -> Study:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            directions=list(directions(self._search).values()),
            load_if_exists=True,
        )

    def add(self, records: Iterable[Record]) -> None:
        """Bring every copy up to date; a trial that is there is not added again."""
        with _in_one_line():
            self._add(list(records))

    def _add(self, records: list[Record]) -> None:
        for study, have in zip(self._studies, self._have, strict=True):
            for record in records:
                if record.trial not in have:
                    study.add_trial(_frozen(self._search, record, STATES[record.what["status"]], self._folder))
                    have.add(record.trial)
        beside = self._folder / ".optuna.db.beside"
        with closing(sqlite3.connect(self._work)) as work, closing(sqlite3.connect(beside)) as copy:
            work.backup(copy)
        beside.replace(self._folder / "optuna.db")


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Whatever a database says is a disk that is full, or away."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, sqlite3.Error, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise OSError(f"Optuna's copy: {' '.join(str(error).split())[:200]}") from None


def _storage(url: str) -> BaseStorage:
    try:
        if url.startswith("journal:"):
            return JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
        return RDBStorage(url)
    except ImportError:
        raise InputError(
            f"search.storage = {url!r}: needs the driver of its database: for postgresql+psycopg:// "
            f"pip install '.[postgres]'"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"search.storage = {url!r}: cannot be opened ({reason}): give a database URL or journal:FILE"
        ) from None
