"""A study on several nodes that share no folder, while nodes die: real Ray nodes, a real S3 server, one machine."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.bucket import Bucket, StorageError, _client
from study.cluster import ENVIRONMENT
from study.records import read_records
from tests.conftest import run_study
from tests.kill import timeless

#: Two trials at once with half a GPU each.
NODE = {"num_cpus": 2, "num_gpus": 1}


@pytest.fixture
def nodes(monkeypatch):
    """A head without CPUs and two nodes, each with a logical GPU."""
    from ray.cluster_utils import Cluster

    for key, value in (ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(key, value)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(**NODE)
    yield cluster
    cluster.shutdown()


def command(toml, out, cluster, *settings):
    return [
        sys.executable, "-m", "study.cli", "run", str(toml), "--out", str(out), "--address", cluster.address,
        *(word for setting in settings for word in ("--set", setting)),
    ]  # fmt: skip


def wait_for(process, condition):
    until = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


def lose(cluster, node):
    """As a spot machine vanishes; another takes its place."""
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**NODE)


def trials_on(cluster, *nodes):
    """How many trials with half a GPU each node runs."""
    left = cluster.global_state.available_resources_per_node()
    return [round((1 - left.get(node.node_id, {"GPU": 1}).get("GPU", 0)) / 0.5) for node in nodes]


def test_nodes_die_and_nothing_is_lost(nodes, s3, finished, tiny_toml, tmp_path):
    out, bucket = tmp_path / "out", Bucket("s3://lab/cluster", s3)
    settings = f"storage.url={bucket.url}", f"storage.endpoint={s3}", "resources.gpu=0.5"
    run = command(tiny_toml, out, nodes, *settings)
    study = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first, second = nodes.list_all_nodes()[1:]
    wait_for(study, lambda: sum(trials_on(nodes, first, second)) > 2)  # so two share a card, and another has its own
    wait_for(study, lambda: any(name.endswith("checkpoint.safetensors") for name in bucket.listing("trials/")))
    lose(nodes, first)
    wait_for(study, lambda: sum(r.kind == "classification" for r in read_records(out)) >= 3)
    lose(nodes, second)
    told = study.communicate(timeout=600)[1]
    assert study.returncode == 0, told
    records = read_records(out)
    assert len({r.key for r in records}) == len(records)
    assert timeless(out) == timeless(finished)  # none lost, and every number as on one machine

    names = bucket.listing()
    assert not [name for name in names if name.endswith("checkpoint.safetensors") or name == "lease.json"]
    head = tmp_path / "new head"
    place = settings[:2]  # and no GPU: this time Ray starts here
    again = run_study("run", tiny_toml, "--out", head, *(w for s in place for w in ("--set", s)), "--json")
    events = [json.loads(line) for line in again.stdout.splitlines()]
    work = {event["phase"]: event["total"] for event in events if event.get("done") == 0}
    assert work == dict.fromkeys(("trials", "pairs", "classification", "attacks"), 0) | {"report": 2}
    assert timeless(head) == timeless(finished)
    for decoder in head.rglob("decoder.safetensors"):
        assert stat.S_IMODE(decoder.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_head_that_is_lost_in_training_is_replaced(nodes, s3, finished, tiny_toml, tmp_path):
    """Driver, head and workers go at once, and with them every local file; the bucket stays."""
    bucket = Bucket("s3://lab/lost", s3)
    place = f"storage.url={bucket.url}", f"storage.endpoint={s3}"
    study = subprocess.Popen(command(tiny_toml, tmp_path / "out", nodes, *place), stderr=subprocess.DEVNULL)
    wait_for(study, lambda: any(name.endswith("checkpoint.safetensors") for name in bucket.listing("trials/")))
    study.kill()
    study.wait()
    nodes.shutdown()
    shutil.rmtree(tmp_path / "out")
    begun = next(name for name in bucket.listing("trials/") if name.endswith("checkpoint.safetensors")).split("/")[1]
    settings = [word for setting in place for word in ("--set", setting)]
    again = run_study("run", tiny_toml, "--out", tmp_path / "again", *settings, "--json")
    epochs = [json.loads(line) for line in again.stdout.splitlines() if '"epoch"' in line]
    assert min(event["epoch"] for event in epochs if event["trial"] == begun) > 1  # on from where it was
    assert timeless(tmp_path / "again") == timeless(finished)


#: What an autoscaler goes by, that may bring a machine.
FILE = """
max_workers: 1
available_node_types:
  head: {resources: {CPU: 0}, max_workers: 0}
  worker: {resources: {CPU: 4}, max_workers: 1}
"""

#: Prints what is said of shares, beside a process on the head that has an autoscaler's arguments.
ASKING = """
import subprocess, sys
from study.cluster import connected
from study.config import InputError, ResourcesConfig
address, *files = sys.argv[1:]
for cpu, file in ((1, ""), (4, ""), (8, files[0]), (4, files[0]), (8, files[1])):
    words = [f"--gcs-address={address}", f"--autoscaling-config={file}"] if file else []
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as beside:
        try:
            with connected(address, ResourcesConfig(cpu=cpu)) as waiting:
                print(waiting)
        except InputError as error:
            print("refused:", error)
        beside.stdin.close()
"""


def test_a_share_that_no_machine_will_have_is_refused_and_one_that_may_come_is_waited_for(nodes, tmp_path):
    files = tmp_path / "types.yaml", tmp_path / "own.yaml"
    files[0].write_text(FILE)
    files[1].write_text(FILE.replace("{CPU: 4}", "{}").replace("workers: 1", "workers: 3"))
    asking = [sys.executable, "-c", ASKING, nodes.address, *map(str, files)]
    done = subprocess.run(asking, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    there, nowhere, too_large, coming, unknown = done.stdout.splitlines()
    assert there == ""
    assert nowhere.startswith("refused: resources.cpu = 4 and resources.gpu = 0: no machine of the cluster has so much")
    assert too_large == nowhere.replace("4", "8")
    assert "waiting for one" in coming
    assert "waiting for one" in unknown


def test_the_drivers_code_goes_along(nodes, tmp_path):
    """A driver elsewhere, with another version than the machines have installed, in a folder they cannot read."""
    rooms = "aae", "attacks", "classifiers", "engine", "study"
    for room in rooms:
        shutil.copytree(Path(__file__).parents[2] / room, tmp_path / room)
    (tmp_path / "study" / "__init__.py").write_text('"""Another version."""')
    code = (
        "import ray, shutil\nfrom study.cluster import connected\nfrom study.config import ResourcesConfig\n"
        "def version():\n    import aae, study\n    return study.__doc__, aae.__file__\n"
        f"with connected({nodes.address!r}, ResourcesConfig()):\n"
        f"    for room in {rooms}:\n        shutil.rmtree(room)\n"
        "    print(*ray.get(ray.remote(version).remote()), sep='\\n')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    version, place = done.stdout.splitlines()
    assert version == "Another version.", done.stderr
    assert not place.startswith((str(tmp_path), str(Path(__file__).parents[2])))


#: Prints where Ray's processes listen, as the kernel writes addresses, and how they are told who may speak to them.
LISTENING = """
import os
from pathlib import Path
import study.cli, study.run  # as the command does, which must not bring Ray
from study.cluster import connected
from study.config import ResourcesConfig
from tests.kill import descendants
with connected(None, ResourcesConfig()):
    import ray
    print(ray.get(ray.remote(lambda: os.environ["RAY_AUTH_MODE"]).remote()))
    own = set()
    for pid in [os.getpid(), *descendants(os.getpid())]:
        for handle in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                own.add(os.readlink(handle))
            except FileNotFoundError:
                pass
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                print(fields[1].partition(":")[0])
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc")
def test_on_one_machine_nobody_else_gets_in():
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", LISTENING], cwd=root, capture_output=True, text=True, check=True)
    mode, *addresses = done.stdout.splitlines()
    assert mode == "token"
    assert len(addresses) > 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("s3")  # its credentials
def test_storage_that_is_away_for_half_a_minute(finished, tiny_toml, tmp_path):
    from moto.server import ThreadedMotoServer

    def serve(port):
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)  # what it holds is this process's
        server.start()
        return server

    server = serve(0)
    port = server.get_host_and_port()[1]
    bucket = Bucket("s3://away/study", f"http://127.0.0.1:{port}")
    _client(bucket.endpoint).create_bucket(Bucket="away")
    out = tmp_path / "out"
    settings = "--set", f"storage.url={bucket.url}", "--set", f"storage.endpoint={bucket.endpoint}"
    run = [sys.executable, "-m", "study.cli", "run", str(tiny_toml), "--out", str(out), "--quiet", *settings]
    study = subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(study, lambda: any(name.endswith("checkpoint.safetensors") for name in bucket.listing("trials/")))
        server.stop()
        with pytest.raises(StorageError):
            Bucket(bucket.url, bucket.endpoint, patience=0).listing()
        time.sleep(30)
        assert study.poll() is None
        server = serve(port)
        assert study.wait(timeout=900) == 0, study.stderr.read()
        shutil.rmtree(out)
        run_study(*run[3:])  # all of it lies in the bucket
    finally:
        study.kill()
        server.stop()
    assert timeless(out) == timeless(finished)
