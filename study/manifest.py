"""Where a study's numbers come from: versions, commit, machine, seeds, hashes of the data."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import secrets
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from study.config import StudyConfig
from study.datasets import ImageSet
from study.opening import read_manifest
from study.records import HOST, write_whole
from study.trial import TrialSpec

PACKAGES = ("ray", "torch", "torchvision", "scikit-learn", "optuna", "numpy", "pandas", "tensorboardX", "safetensors")


def write_manifest(folder: Path, config: StudyConfig, specs: list[TrialSpec], data: list[ImageSet]) -> None:
    """Add this run to `manifest.json`; earlier runs of the same study stay in it, and so does its name.

    The name, `study`, is made once and goes where the folder goes, into a bucket or under another name.
    """
    path = folder / "manifest.json"
    before = read_manifest(folder) if path.exists() else {"runs": []}
    runs = before["runs"]
    content = {
        "schema": 1,
        "study": before.get("study") or f"{folder.name}-{secrets.token_hex(4)}",
        "title": config.title,
        "seed": config.seed,
        "trial_seeds": {spec.id: spec.seed for spec in specs},
        "encoders_from": config.encoders.from_,
        "data": {
            d.name: {"sha256": d.digest(), "train": len(d.train_images), "test": len(d.test_images)} for d in data
        },
        "runs": [*runs, _this_run()],
    }
    write_whole(path, json.dumps(content, indent=2) + "\n")


def end_manifest(folder: Path) -> None:
    """Write down that the last run measured all there was to measure."""
    path = folder / "manifest.json"
    content = read_manifest(folder)
    content["runs"][-1]["ended"] = _now()
    write_whole(path, json.dumps(content, indent=2) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _this_run() -> dict[str, Any]:
    return {
        "time": _now(),
        "host": HOST,
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "packages": versions(),
        "commit": commit(),
    }


def processor() -> str:
    """The name of the driver's processor, whose kind decides how numbers are rounded."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions() -> dict[str, str]:
    """Installed versions of what can move a result."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def commit() -> str:
    """The commit of the checkout this code lies in, with a mark where files differ; the version elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if (root / ".git").exists():
        try:
            return subprocess.run(
                ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            pass
    try:
        return importlib.metadata.version("masked-study")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
