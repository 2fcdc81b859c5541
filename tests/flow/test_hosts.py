"""`ray up` on hosts of their own, a study on them while one loses power, `ray down`: `make test-cluster`."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from study.cli import main
from study.records import read_records
from tests.conftest import TINY, run_study
from tests.hosts import Hosts, missing
from tests.kill import timeless

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = Path(sys.executable).parent.parent

#: The lab's laptop, the head, two workers.
LAPTOP, HEAD, *WORKERS = 1, 2, 3, 4


@pytest.fixture
def hosts(tmp_path):
    if reason := missing():
        (pytest.fail if os.environ.get("REQUIRE_CLUSTER") else pytest.skip)(reason)
    with Hosts(tmp_path, 4) as hosts:
        yield hosts


def cluster_file(hosts, folder):
    """`clusters/onprem.yaml`, filled in; the hosts use the environment of this test, on their common disk."""
    config = yaml.safe_load((ROOT / "clusters" / "onprem.yaml").read_text())
    config["provider"] |= {"head_ip": hosts.address(HEAD), "worker_ips": [hosts.address(n) for n in WORKERS]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    config["setup_commands"] = [config["setup_commands"][0], f"ln -sfn {ENVIRONMENT} ~/study-env"]
    for kind, cpus in (("head", 0), ("worker", 1)):  # as many trials at once as this machine has cores
        commands = config[f"{kind}_start_ray_commands"]
        config[f"{kind}_start_ray_commands"] = [
            c.replace("ray start", f"ray start --num-cpus={cpus}") for c in commands
        ]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


class Clock:
    def __init__(self):
        self._begin = time.monotonic()

    def tell(self, what):
        now = time.monotonic()
        print(f"{what}: {now - self._begin:.0f} s", flush=True)
        self._begin = now


def wait_for(condition, process, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def wait_until_gone(hosts, numbers, names):
    """Workers notice by themselves, within a minute or so, that their head is gone."""
    until = time.monotonic() + 180
    left = True
    while left:
        told = [hosts.run(n, f"pgrep -fa '{names}'", check=False).stdout for n in numbers]
        left = [line for text in told for line in text.splitlines() if "pgrep" not in line]
        assert time.monotonic() < until, left
        time.sleep(1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_study_outlives_a_host(hosts, tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.toml").write_text(TINY)
    name, out = os.environ.get("STUDY", str(tmp_path / "tiny.toml")), tmp_path / "study"
    path, ray = cluster_file(hosts, tmp_path), ENVIRONMENT / "bin" / "ray"

    def on_laptop(command):
        return hosts.ssh(LAPTOP, f"cd {ROOT} && RAY_UP_enable_autoscaler_v2=0 {ray} {command}")

    subprocess.run(on_laptop("get-auth-token --generate"), check=True, capture_output=True)
    with capsys.disabled(), monkeypatch.context() as patch:
        patch.setenv("HOME", str(tmp_path / f"host-{LAPTOP}" / "home"))
        patch.chdir(ROOT)
        assert main(["check", str(path)]) == 0
        clock = Clock()
        up = subprocess.run(on_laptop(f"up -y {path}"), capture_output=True, text=True)
        assert up.returncode == 0, up.stdout[-3000:] + up.stderr[-3000:]
        started = shlex.quote(
            "until RAY_AUTH_MODE=token ~/study-env/bin/ray status 2>&1 | grep -q '/2.0 CPU'; do sleep 1; done"
        )
        subprocess.run(on_laptop(f"exec {path} {started}"), check=True, capture_output=True, timeout=180)
        clock.tell("three hosts up")
        command = f"RAY_AUTH_MODE=token ~/study-env/bin/study run {name} --address auto --out {out} --quiet"
        study = subprocess.Popen(
            on_laptop(f"exec {path} {shlex.quote(command)}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: len(list(out.glob("trials/*/checkpoint.safetensors"))) == len(WORKERS), study)
        clock.tell("both workers in training")
        hosts.kill(WORKERS[0])
        running = {f"trial/{path.parent.name}" for path in out.glob("trials/*/checkpoint.safetensors")}
        wait_for(lambda: {r.key for r in read_records(out)} >= running, study)
        clock.tell("a host lost, until what ran on it was made elsewhere")
        told = study.communicate(timeout=1200)
        assert study.returncode == 0, told
        clock.tell("the rest of the study")
        down = subprocess.run(on_laptop(f"down -y {path}"), capture_output=True, text=True)
        assert down.returncode == 0, down.stdout[-3000:] + down.stderr[-3000:]
        clock.tell("down")
        wait_until_gone(hosts, (HEAD, WORKERS[1]), "raylet|gcs_server|study run")
        clock.tell("down, until the last node was gone")
        hosts.run(
            WORKERS[1], "~/study-env/bin/ray stop"
        )  # as docs/cluster.md says: else a log reader stays for minutes
        wait_until_gone(hosts, (HEAD, WORKERS[1]), "ray/|ray::|study run")
    run_study("run", name, "--out", tmp_path / "straight", "--quiet")
    assert timeless(out) == timeless(tmp_path / "straight")
    assert main(["compare", str(out), str(tmp_path / "straight"), "--exact"]) == 0
