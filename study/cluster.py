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

import yaml

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
def connected(address: str | None, resources: ResourcesConfig) -> Iterator[str]:
    """Start Ray on this machine, or join the cluster at `address`; leave it in the end.

    Yields what the user should know where no machine can hold a trial yet, else nothing.

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
        yield _check_shares(resources, address)
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


def _check_shares(wanted: ResourcesConfig, address: str | None) -> str:
    """A share that no node can ever give would wait for ever; a cluster may still grow, one machine cannot."""
    import ray

    there = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(map(wanted.fit, there)):
        return ""
    if address is None:
        key, share = ("cpu", wanted.cpu) if wanted.cpu > there[0].get("CPU", 0) else ("gpu", wanted.gpu)
        raise InputError(f"resources.{key} = {share}: this machine has {there[0].get(key.upper(), 0):g}: ask for less")
    asked = f"resources.cpu = {wanted.cpu} and resources.gpu = {wanted.gpu:g}"
    if not _may_come(wanted, len(there)):
        raise InputError(f"{asked}: no machine of the cluster has so much, and none will come that has: ask for less")
    return f"{asked}: no machine of the cluster has so much yet: waiting for one (on the head, `ray status` tells more)"


def _may_come(wanted: ResourcesConfig, there: int) -> bool:
    """Whether the cluster's autoscaler, if it has one, may bring a machine that gives so much.

    What a lab's own machines have, no file says: one that is missing may be the one.
    """
    import ray

    on_head = ray.remote(_told_to_autoscaler).options(num_cpus=0, resources={"node:__internal_head__": 0.001})
    told = ray.get(on_head.remote(ray.get_runtime_context().gcs_address))
    if not isinstance(told, dict):
        return bool(told)
    return told["max_workers"] > 0 and any(
        kind.get("max_workers", 0) > 0
        and (wanted.fit(kind["resources"]) if kind.get("resources") else there <= told["max_workers"])
        for kind in told["available_node_types"].values()
    )


def _told_to_autoscaler(head: str) -> dict[str, Any] | bool:
    """On the head: the file its autoscaler goes by; False without one, True where another container has it."""
    import psutil  # Ray brings it along

    for process in psutil.process_iter(["cmdline"]):
        words = dict(word.partition("=")[::2] for word in process.info["cmdline"] or ())
        if words.get("--gcs-address") == head and "--autoscaling-config" in words:
            told: dict[str, Any] = yaml.safe_load(Path(words["--autoscaling-config"]).expanduser().read_text())
            return told
    return "RAY_USAGE_STATS_KUBERAY_IN_USE" in os.environ


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
