"""Ray Tune around `trial`: one Tune trial is one autoencoder at its share of CPU and GPU.

Tune runs a fixed list of trials, or asks `Proposals` for the next one as long as a search goes on. It keeps no state
that matters: a trial finds its own checkpoint by its identity, so Tune's folder is scratch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from aae.networks import Autoencoder
from engine import claim
from study.bucket import Bucket, StorageError
from study.config import InputError, ResourcesConfig, StudyConfig
from study.objectives import OBJECTIVES, Bench, Trained, directions, measure
from study.proposals import Mirrors, Proposals
from study.records import Record, RecordFile, write_whole
from study.shapes import read_json
from study.storage import trial_folder
from study.trial import TrialSpec, run_trial

#: What to do about machines that are lost faster than trials are begun again.
AGAIN = "the same command goes on; resources.retries says how often a trial is begun again"

#: What a scheduler sees of a trial that failed: no epoch, and worse than anything that is measured.
_FAILED = {"epoch": 0, "judged": 1e9}


@dataclass(frozen=True)
class Ended:
    """How a trial ended."""

    spec: TrialSpec
    status: str
    """`complete`, `stopped` by a scheduler, `failed`, or `lost`: its process died more often than it is begun again."""
    reason: str
    metrics: dict[str, float]
    """Of its last epoch."""
    host: str = ""
    """The machine that trained it."""


#: Called in the driver for every finished epoch: trial, its metrics.
OnEpoch = Callable[[TrialSpec, dict[str, float]], None]
#: Called in the driver once for every trial.
OnEnd = Callable[[Ended], None]
#: Makes the record of a trial, from how it ended and what else belongs into it: `role`, `detail`.
MakeRecord = Callable[[Ended, str, dict[str, Any]], Record]


def run_trials(
    specs: list[TrialSpec],
    bench: Bench,
    folder: Path,
    bucket: Bucket | None,
    resources: ResourcesConfig,
    concurrent: int | None,
    objectives: list[str],
    on_epoch: OnEpoch,
    on_end: OnEnd,
) -> None:
    """Train autoencoders side by side; what each leaves behind lies in `folder/trials/<trial>/`.

    Args:
        concurrent: so many at once at most; None, as many as the shares allow.

    Raises:
        InputError: one was lost for good, which says nothing against its configuration: it gets no record.
    """
    left, lost = {spec.id: spec for spec in specs}, []

    def end(ended: Ended) -> None:
        if ended.status == "lost":
            lost.append(ended)
            return
        on_end(ended)
        del left[ended.spec.id]

    for _ in range(1 + resources.retries):
        if left and not lost:
            space = {"spec": tune.grid_search([spec.plain() for spec in left.values()])}
            constants = {"objectives": objectives, "judged_by": None, "sign": 1}
            asked = tune.TuneConfig(max_concurrent_trials=concurrent, reuse_actors=True)
            _fit(bench, folder, bucket, resources, space | constants, asked, _Listener(on_epoch, end))
    for ended in lost:
        raise InputError(
            f"{folder}: trial {ended.spec.id} was lost ({ended.reason}): give it more memory, as a larger "
            f"resources.cpu does (fewer at once), or resources.retries; the same command goes on"
        )
    if left:
        raise InputError(f"{folder}: trials were lost with their machines ({', '.join(left)}): {AGAIN}")


def run_search(
    config: StudyConfig,
    bench: Bench,
    folder: Path,
    bucket: Bucket | None,
    records: RecordFile,
    on_epoch: OnEpoch,
    make: MakeRecord,
) -> None:
    """Go on with a search until its trials, its time or its space are used up; a record for every trial that ended.

    Records are the only memory. A trial that an earlier run began, and did not finish, is begun first; so is one that
    was lost with its machine.
    """
    for _ in range(1 + config.resources.retries):
        lost, proposals = _go_on(config, bench, folder, bucket, records, on_epoch, make)
        if not lost:
            break
    else:
        raise InputError(f"{folder}: trials of the search were lost with their machines: {AGAIN}")
    for record in search_records(records.records):
        if record.what["status"] == "complete":
            (folder / "trials" / record.trial / STARTED).unlink(missing_ok=True)
        else:
            shutil.rmtree(folder / "trials" / record.trial, ignore_errors=True)
    write_whole(folder / "artifacts" / "importances.json", json.dumps(proposals.importances(), indent=1) + "\n")


def _go_on(
    config: StudyConfig,
    bench: Bench,
    folder: Path,
    bucket: Bucket | None,
    records: RecordFile,
    on_epoch: OnEpoch,
    make: MakeRecord,
) -> tuple[bool, Proposals]:
    """Go on once; whether a trial was lost, and the proposals."""
    search = config.search
    mirrors = Mirrors(config, folder)
    finished = search_records(records.records)
    mirrors.add(finished)
    started = list(_started(folder, {record.trial for record in finished}))
    proposals = Proposals(config, finished, started)
    concurrent = search.concurrent or _places(config.resources)
    asking = _Asking(proposals, folder, search.time_budget and search.time_budget * concurrent, finished)
    stale: list[Path] = []

    def on_end(ended: Ended) -> None:
        if ended.status == "lost":  # a search goes on without it, and does not propose it again
            ended = replace(ended, status="failed")
        noted = proposals.tell(ended.spec.id, ended.status, ended.metrics)
        detail = {"params": asking.points.pop(ended.spec.id)} | ({"sampler": noted} if noted else {})
        record = make(ended, "search", detail)
        records.append(record)
        asking.spent += record.seconds
        mirrors.add([record])
        # Its process may write once more: the folder of a stopped trial goes when the next trial ends.
        while stale:
            shutil.rmtree(stale.pop(), ignore_errors=True)
        if ended.status != "complete":
            stale.append(folder / "trials" / ended.spec.id)

    left, listener = search.trials - len(finished), _Listener(on_epoch, on_end)
    if left > 0:
        judged_by = None if search.scheduler == "none" else search.judged_by
        wanted = directions(search).get(search.judged_by, OBJECTIVES[search.judged_by].direction)
        sign = -1 if wanted == "maximize" else 1
        constants = {"objectives": list(directions(search)), "judged_by": judged_by, "sign": sign}
        asked = tune.TuneConfig(
            search_alg=asking,
            scheduler=_scheduler(config),
            num_samples=left,
            max_concurrent_trials=concurrent,
            reuse_actors=True,
        )
        _fit(bench, folder, bucket, config.resources, constants, asked, listener)
    return listener.given_up, proposals


def search_records(records: list[Record]) -> list[Record]:
    """The trials of the search itself, in the order in which they ended."""
    return [record for record in records if record.kind == "trial" and record.what.get("role") == "search"]


# --- Tune --------------------------------------------------------------------------------------------------------


def _fit(
    bench: Bench,
    folder: Path,
    bucket: Bucket | None,
    resources: ResourcesConfig,
    space: dict[str, Any],
    asked: tune.TuneConfig,
    listener: _Listener,
) -> None:
    scratch = folder / ".tune"
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_train, bench=bench, bucket=bucket), {"cpu": resources.cpu, "gpu": resources.gpu}
        ),
        param_space={**space, "folder": str(folder / "trials"), "threads": resources.cpu, "gpu": resources.gpu},
        tune_config=asked,
        run_config=tune.RunConfig(
            name="trials",
            storage_path=str(scratch),
            callbacks=[listener],
            stop=_UnlessTrouble(listener),
            failure_config=tune.FailureConfig(max_failures=resources.retries),
            verbose=0,
        ),
    )  # fmt: skip
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if listener.trouble:
        raise listener.trouble


def _train(config: dict[str, Any], bench: Bench, bucket: Bucket | None) -> None:
    """The trainable. Bit-for-bit repetition needs the thread count set here: a worker may be an old one.

    What raises is reported and not tried again, since it would raise again; a process that is lost is begun again.
    """
    torch.set_num_threads(config["threads"])
    spec = TrialSpec.from_plain(config["spec"])
    judged_by = config["judged_by"]

    def measured(nets: Autoencoder, metrics: dict[str, float], last: bool) -> dict[str, float]:
        names = config["objectives"] if last else []
        trained = Trained(nets, spec.config, spec.seed, metrics, bench)
        return measure(dict.fromkeys([*names, *([judged_by] if judged_by else [])]), trained)

    judged: dict[str, float] = {}
    try:
        device = claim(config["gpu"])
        with trial_folder(Path(config["folder"]), spec.id, bucket) as (folder, carry):
            for metrics in run_trial(spec, bench.train, bench.held_out, folder, device=device, measure=measured):
                carry()
                if judged_by is not None:
                    judged = {"judged": config["sign"] * metrics[f"objective.{judged_by}"]}
                tune.report(metrics | judged)
    except OSError as error:  # a disk that is full, or away: not the trial's fault
        tune.report(_FAILED | {"away": str(error), "storage": isinstance(error, StorageError)})
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        tune.report(_FAILED | {"failed": reason})


class _Listener(tune.Callback):
    """Hands on what happens to trials. After trouble nothing more is handed on: the trials begin again another time."""

    def __init__(self, on_epoch: OnEpoch, on_end: OnEnd) -> None:
        self._on_epoch, self._on_end = on_epoch, on_end
        self.trouble: Exception | None = None
        """What ends the study. Tune takes what a callback raises for a failure of the trial, and goes on."""
        self.given_up = False
        """Whether Tune gave up a trial too early: a loss while a process passes to the next trial counts twice."""
        self._last: dict[str, dict[str, float]] = {}
        self._host: dict[str, str] = {}
        self._failed: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for a restore that we never ask for; open files do not pickle

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
        spec = TrialSpec.from_plain(trial.config["spec"])
        if "failed" in result:
            self._failed[spec.id] = result["failed"]
            taken = {"time_total_s": float(result["time_total_s"])}  # a time budget counts it
            self._last[spec.id] = self._last.get(spec.id, {}) | taken
            return
        if "away" in result:
            self.trouble = self.trouble or (StorageError if result["storage"] else OSError)(result["away"])
            return
        numbers = {k: v for k, v in result.items() if isinstance(v, int | float) and not isinstance(v, bool)}
        self._last[spec.id], self._host[spec.id] = numbers, str(result.get("hostname", ""))
        self._hand_on(self._on_epoch, spec, numbers)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        spec = TrialSpec.from_plain(trial.config["spec"])
        metrics = self._last.pop(spec.id, {})
        reason = self._failed.pop(spec.id, "")
        whole = metrics.get("epoch") == spec.config.training.epochs
        status = "failed" if reason or not metrics else "complete" if whole else "stopped"
        host = self._host.pop(spec.id, "")
        ended = Ended(spec, status, reason or ("" if metrics else "ended without a result"), metrics, host)
        self._hand_on(self._on_end, ended)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        if trial.num_failures <= trial.max_failures:
            self.given_up = True
            return
        spec = TrialSpec.from_plain(trial.config["spec"])
        metrics, host = self._last.pop(spec.id, {}), self._host.pop(spec.id, "")
        self._hand_on(self._on_end, Ended(spec, "lost", _reason(trial), metrics, host))

    def _hand_on(self, to: Callable[..., None], *what: Any) -> None:
        if not self.trouble:
            try:
                to(*what)
            except Exception as error:
                self.trouble = error


def _reason(trial: Any) -> str:
    """Why a trial was lost the last time, in Ray's words: their first line, or the last one of a trace."""
    told = Path(trial.error_file).read_text().rpartition("Failure # ")[2].partition("\n")[2].strip().splitlines()
    return " ".join((told[-1] if told[0].startswith("ray::") else told[0]).split())[:200]


class _UnlessTrouble(tune.Stopper):
    def __init__(self, listener: _Listener) -> None:
        self._listener = listener

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Every trial at once."""
        return self._listener.trouble is not None


# --- the search --------------------------------------------------------------------------------------------------

#: Beside the checkpoint of a trial that a search began: its point.
STARTED = "started.json"


class _Asking(Searcher):
    """Tune's view of `Proposals`. How trials end is told by the listener, which knows their reasons."""

    def __init__(self, proposals: Proposals, folder: Path, budget: float | None, finished: list[Record]) -> None:
        super().__init__()
        self._proposals, self._folder, self._budget = proposals, folder, budget
        self.spent = sum(record.seconds for record in finished)
        self.points: dict[str, dict[str, Any]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        over = self._budget is not None and self.spent >= self._budget and not self._proposals.begun
        asked = None if over else self._proposals.ask()
        if asked is None:
            return str(Searcher.FINISHED)
        spec, point = asked
        self.points[spec.id] = point
        write_whole(self._folder / "trials" / spec.id / STARTED, json.dumps(point))
        return {"spec": spec.plain()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        pass

    def save(self, checkpoint_path: str) -> None:
        """Tune would keep this for a restore that is never asked for."""


def _started(folder: Path, finished: set[str]) -> Iterator[dict[str, Any]]:
    """The points of trials that were begun and have no record, oldest first."""
    for torn in (folder / "trials").glob(f"*/.{STARTED}.*"):  # of a driver that was killed while it wrote
        torn.unlink()
        with suppress(OSError):
            torn.parent.rmdir()  # unless there is more in it
    for path in sorted((folder / "trials").glob(f"*/{STARTED}"), key=lambda path: path.stat().st_mtime):
        if path.parent.name not in finished:
            yield read_json(path, {})


def _places(resources: ResourcesConfig) -> int:
    """How many trials the cluster holds at once."""
    available = ray.cluster_resources()
    places = [available.get(key, 0) / share for key, share in (("CPU", resources.cpu), ("GPU", resources.gpu)) if share]
    return max(1, int(min(places)))


def _scheduler(config: StudyConfig) -> TrialScheduler | None:
    search = config.search
    judge = {"time_attr": "epoch", "metric": "judged", "mode": "min"}
    if search.scheduler == "asha":
        epochs = config.training.epochs
        return ASHAScheduler(max_t=epochs, grace_period=min(search.grace, epochs), reduction_factor=3, **judge)
    if search.scheduler == "median":
        return MedianStoppingRule(grace_period=search.grace, min_samples_required=3, **judge)
    return None
