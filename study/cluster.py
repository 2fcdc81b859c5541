"""Connecting to Ray."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from study.bucket import Bucket
from study.config import InputError, ResourcesConfig

#: What a Ray process needs to know before it is imported: no calls home, no loggers of its own, old quiet output.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end Tune alone, and the study would go on without its trials
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

#: Seconds a machine has to reach the study's folder or bucket.
ANSWERS = 300

#: On one machine Ray, which runs whatever it is sent, has to listen on loopback alone, and to let in only who knows a
#: token that leaves no file behind. Its switch for the first is named after the systems where that is the rule.
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


@contextmanager
def connected(address: str | None, resources: ResourcesConfig) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at `address`; leave it in the end.

    Raises:
        InputError: the address does not answer, or no node can ever hold one trial.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    for key in ("RAY_TASK_MAX_RETRIES", "RAY_task_oom_retries"):  # out of memory, Ray else tries for ever
        os.environ[key] = str(resources.retries)
    if address is None:
        if "ray" not in sys.modules:  # which looks at these when it is imported
            os.environ |= ALONE | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        elif "RAY_AUTH_MODE" not in os.environ:
            raise InputError(
                "Ray was imported before, and would let in anyone: set RAY_AUTH_MODE before, or use `study`"
            )
    else:
        _check_answers(address)
    import ray

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial that is lost is told in one line, not a trace
    try:
        ray.init(
            address=address or "local",  # None would join whatever Ray runs here
            include_dashboard=False if address is None else None,
            runtime_env=None if address is None else _own_code(),
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, error) from None
    # A batch system's, or a spot machine's, last word. Ray's own handler aborts; this stops as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        _check_shares(ray.cluster_resources(), resources, scales=address is not None)
        yield
    finally:
        ray.shutdown()


def _own_code() -> dict[str, Any]:
    """The driver's own code goes along: machines need what it imports, and never run another version of the project."""
    places = (importlib.util.find_spec(room) for room in ("aae", "attacks", "classifiers", "engine", "study"))
    modules = [place.submodule_search_locations[0] for place in places if place and place.submodule_search_locations]
    return {"py_modules": modules, "excludes": ["__pycache__"]}


def _check_answers(address: str) -> None:
    """Ask before Ray does: it tries for minutes, and then ends the process."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str | None, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:160]
    if address is None:
        return InputError(f"Ray does not start on this machine ({reason}): see its memory, disk and /tmp/ray")
    return InputError(
        f"--address {address}: no Ray cluster answers there ({reason}): "
        f"start one with `ray up cluster.yaml` or leave --address away"
    )


def _check_shares(available: dict[str, float], wanted: ResourcesConfig, *, scales: bool) -> None:
    """A share that no node can ever give would wait for ever; a cluster may still grow, one machine cannot."""
    for key, share in (("CPU", wanted.cpu), ("GPU", wanted.gpu)):
        if not scales and share > available.get(key, 0):
            raise InputError(
                f"resources.{key.lower()} = {share}: this machine has {available.get(key, 0):g}: ask for less"
            )


def check_nodes(out: Path, bucket: Bucket | None) -> None:
    """Have every machine of the cluster reach what the driver writes: the bucket, or the study's folder.

    Raises:
        InputError: one does not.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    token = secrets.token_hex(16)
    sign = out / f".probe-{token}"

    @ray.remote(num_cpus=0)
    def reach() -> str:
        try:
            if bucket:
                bucket.probe()
            elif sign.read_text() != token:
                return "holds something else"
        except (OSError, ImportError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def told(answer: Any) -> str:
        try:
            return str(ray.get(answer, timeout=max(1.0, until - time.monotonic())))
        except (
            ray.exceptions.NodeDiedError,
            ray.exceptions.TaskUnschedulableError,
            ray.exceptions.WorkerCrashedError,
        ):
            return ""  # it left meanwhile, as spot machines do
        except ray.exceptions.RayError as error:  # no answer in time, or it cannot run our code
            return f"{type(error).__name__}: {' '.join(str(error).split())}"

    try:
        sign.write_text(token)
        until, asked = time.monotonic() + ANSWERS, {}
        for node in ray.nodes():  # all at once: one that does not answer takes minutes
            if node["Alive"]:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                asked[node["NodeManagerAddress"]] = reach.options(scheduling_strategy=there).remote()
        for machine, answer in asked.items():
            if reason := told(answer):
                raise InputError(
                    f"{bucket.url if bucket else out}: machine {machine} does not reach it ({reason[:200]}): put --out "
                    f"on a folder that all machines share, or set storage.url"
                )
    finally:
        sign.unlink(missing_ok=True)
