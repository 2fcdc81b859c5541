"""What several rooms' tests share: small images, small configurations, one finished study."""

import fnmatch
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # a Ray of this very process leaves no token file behind

TINY = """
title = "Tiny <study>"
seed = 7
draws = 2
controls = ["raw", "pca", "random_projection", "untrained"]
estimators = [3]
[data]
autoencoder = "photos"
held_out = 0
train_images = 960
[training]
epochs = 3
[network]
widths = [8, 16, 16]
discriminator_widths = [32]
[[latents]]
gaussian = 12
categorical = 4
instances = 2
[[latents]]
gaussian = 8
categorical = 0
batch_size = 32
[[tasks]]
data = "digits"
classes = [2, 10]
mirrored = true
[classifiers.mlp]
epochs = 2
hidden = [16, 8]
[classifiers.random_forest]
estimators = 5
[classifiers.adaboost]
estimators = 5
[attacks]
encoders = 1
pairs = [10, 300, 100000]
draws = 2
victims = 60
public = 200
width = 4
steps = 50
optimised = 10
descents = 25
smoothness = [0.01]
matched = 60
defences = ["noise@1"]
"""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Whole studies first; side by side, a file stays together, all that looks at `finished`, and no slow test."""
    items.sort(key=lambda item: item.path.parent.name != "flow")
    for item in items:
        alone = item.name if item.get_closest_marker("slow") else item.path.stem
        item.add_marker(pytest.mark.xdist_group("finished" if "finished" in item.fixturenames else alone))


@pytest.fixture(scope="session")
def images():
    """Smooth random colour images, uint8, (N, 32, 32, 3)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, size=(96, 4, 4, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=1).repeat(8, axis=2))


@pytest.fixture(scope="session")
def tiny_toml(tmp_path_factory):
    path = tmp_path_factory.mktemp("toml") / "tiny.toml"
    path.write_text(TINY)
    return path


def run_study(*arguments, check=True, **kwargs):
    """The installed command in a process of its own."""
    command = [sys.executable, "-m", "study.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, **kwargs)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="session")
def finished(tiny_toml, tmp_path_factory):
    """The folder of a tiny study that ran to its end on Ray."""
    out = tmp_path_factory.mktemp("study") / "tiny"
    done = run_study("run", tiny_toml, "--out", out)
    (out.parent / "stdout").write_text(done.stdout)
    (out.parent / "stderr").write_text(done.stderr)
    return out


@pytest.fixture(scope="session")
def archives():
    """The folder with the real archives; a missing one is a skip, and in CI a failure."""
    folder = Path(os.environ.get("STUDY_DATA_DIR", ""))
    if not (folder / "cifar100.npz").exists():
        reason = "the real archives are not in STUDY_DATA_DIR"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return folder


@pytest.fixture(scope="session")
def some_of_the_archives(archives, tmp_path_factory):
    """The first 12,000 training and 2,000 test images of each: enough to go all the way, and no more."""
    folder = tmp_path_factory.mktemp("archives")
    for path in archives.glob("*.npz"):
        with np.load(path) as whole:
            some = {key: whole[key][: 2_000 if key.startswith("test") else 12_000] for key in whole.files}
        np.savez(folder / path.name, **some)
    return folder


PAGE = (Path(__file__).parent.parent / "results" / "README.md").read_text()


def listed(title):
    """The rows of one section's table, each cell as the names in backticks it holds."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    return [[re.findall(r"`([^`]+)`", cell) or [cell.strip()] for cell in row[:-1]] for row in rows]


def known(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 server on loopback with an empty bucket `lab`: its address. Processes begun here are let in."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    known = {"AWS_ACCESS_KEY_ID": "lab", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    endpoint = f"http://127.0.0.1:{port}"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in known.items():
            patch.setenv(key, value)
        from study.bucket import Bucket

        Bucket("s3://lab", endpoint)._ask("begin", lambda s3: s3.create_bucket(Bucket="lab"))  # waits for the server
        yield endpoint
    server.kill()
    server.wait()
