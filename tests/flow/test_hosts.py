"""`ray up` on hosts of their own, a study on them while one loses power, `ray down`: `make test-cluster`."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from benchmarks.timing import write_page
from study.cli import main
from study.records import read_records
from tests.conftest import TINY, run_study
from tests.hosts import Hosts, require_hosts
from tests.kill import timeless

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = Path(sys.executable).parent.parent

#: The lab's laptop, the head, two workers.
LAPTOP, HEAD, *WORKERS = 1, 2, 3, 4


@pytest.fixture
def hosts(tmp_path):
    require_hosts()
    with Hosts(tmp_path, 4) as hosts:
        yield hosts


def cluster_file(hosts, folder):
    """`clusters/onprem.yaml`, filled in; the hosts use the environment of this test, on their common disk."""
    config = yaml.safe_load((ROOT / "clusters" / "onprem.yaml").read_text())
    config["provider"] |= {"head_ip": hosts.address(HEAD), "worker_ips": [hosts.address(n) for n in WORKERS]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    config["setup_commands"] = ["mountpoint -q /", config["setup_commands"][1], f"ln -sfn {ENVIRONMENT} ~/study-env"]
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
        self.told, self._begin = [], time.monotonic()

    def tell(self, what):
        now = time.monotonic()
        self.told.append(f"{what}: {now - self._begin:.0f} s")
        self._begin = now
        print(self.told[-1], flush=True)


def wait_for(condition, process, seconds=600):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.1)


def wait_until_gone(hosts, numbers, names):
    until = time.monotonic() + 300
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
        subprocess.run(on_laptop(f"exec {path} {started}"), check=True, capture_output=True, timeout=400)
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
        for host in (HEAD, WORKERS[1]):  # as docs/cluster.md says: `ray down` stops the head alone
            hosts.run(host, "study-env/bin/ray stop")
        wait_until_gone(hosts, (HEAD, WORKERS[1]), "ray/|ray::|raylet|gcs_server|study run")
        clock.tell("down, until the last node was gone")
    for variable in [name for name in os.environ if name.startswith("OPENBLAS_")]:
        monkeypatch.delenv(variable)  # who logs in to a host has none; other kernels give other last digits
    run_study("run", name, "--out", tmp_path / "straight", "--quiet")
    assert timeless(out) == timeless(tmp_path / "straight")
    assert main(["compare", str(out), str(tmp_path / "straight"), "--exact"]) == 0
    if os.environ.get("KEEP_TIMES"):
        clock.told.append(f"{len(timeless(out))} records, equal to those of one machine")
        head = "`clusters/onprem.yaml` on four hosts made of namespaces on one machine, one of them lost.\n"
        page = "\n".join([head, *(f"- {line}" for line in clock.told), ""])
        write_page("cluster", [page], f"KEEP_TIMES=1 STUDY={Path(name).stem} make test-cluster")


#: Ray's own provider of nodes that are processes of one machine.
GROWING = {
    "cluster_name": "growing",
    "max_workers": 2,
    "idle_timeout_minutes": 0.2,
    "upscaling_speed": 10,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "auth": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    **{f"{part}_commands": [] for part in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{part}_start_ray_commands": [] for part in ("head", "worker")},
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 1, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_come_when_there_is_work_and_leave_after_it(tmp_path):
    require_hosts()
    (tmp_path / "growing.yaml").write_text(yaml.safe_dump(GROWING))
    (tmp_path / "tiny.toml").write_text(TINY.replace("instances = 2", "instances = 3"))
    with Hosts(tmp_path, 1) as hosts:

        def words(command):
            settings = "RAY_AUTH_MODE=disabled RAY_FAKE_CLUSTER=1 RAY_enable_autoscaler_v2=0"
            return hosts.ssh(1, f"cd {ROOT} && {settings} {ENVIRONMENT}/bin/{command}")

        def workers():
            told = subprocess.run(words("ray status"), capture_output=True, text=True).stdout
            return sum(map(int, re.findall(r"^ (\d+) worker$", told, re.MULTILINE)))  # active or idle

        start = f"ray start --head --num-cpus=0 --autoscaling-config={tmp_path}/growing.yaml"
        subprocess.run(words(start), check=True, capture_output=True)
        run = f"study run {tmp_path}/tiny.toml --address auto --out {tmp_path}/out --set resources.gpu=1 --quiet"
        assert workers() == 0
        study = subprocess.Popen(words(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: workers() == 2, study)
        told = study.communicate(timeout=700)
        assert study.returncode == 0, told
        until = time.monotonic() + 240
        while workers():
            assert time.monotonic() < until
            time.sleep(1)
    assert {r.what["status"] for r in read_records(tmp_path / "out") if r.kind == "trial"} == {"complete"}
