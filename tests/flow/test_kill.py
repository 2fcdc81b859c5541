"""SIGKILL and the same command again; `tests/kill.py` does it for any study."""

import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import run_study
from tests.flow.test_search import SEARCH
from tests.hosts import require_hosts
from tests.kill import PHASES, check_search, main, start, timeless

#: The same without a search: enough to be killed in every phase, and no more.
SMALL = "instances = 2\n" + SEARCH.partition("[search]")[0]


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("text", [SMALL, SEARCH], ids=["study", "search"])
def test_killed_in_every_phase(text, tmp_path, capsys):
    (tmp_path / "small.toml").write_text(text)
    main([str(tmp_path / "small.toml"), "--kills", str(20 if text == SEARCH else 6), "--out", str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert all(f": {phase}, " in told for phase in PHASES), told


@pytest.mark.slow
@pytest.mark.parametrize("last_word", [signal.SIGTERM, signal.SIGINT])
def test_an_ordered_end_is_told_in_one_line(last_word, tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    out = tmp_path / "out"
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # which a shell's background jobs, and their children, ignore
    study = start(str(tmp_path / "small.toml"), out, ["--quiet", "--set", "training.epochs=500"])  # it lasts
    while not list(out.glob("trials/*/checkpoint.safetensors")):
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(last_word)
    assert study.wait(timeout=60) == 130
    assert (tmp_path / "out.log").read_text() == "study: interrupted; the same command goes on from here\n"


#: Runs a study in a file system of its own that is full at first, and grows; prints each exit status.
FULL = """
set -e
mkdir -p {room}
mount -t tmpfs -o size=64k tmpfs {room}
for size in {sizes}; do
  mount -o remount,size=$size {room}
  {python} -m study.cli run {toml} --out {room}/study --quiet && status=0 || status=$?
  echo "at $size: $status"
done
cp -r {room}/study {kept}
"""


def run_on_a_full_disk(toml, folder):
    """Run a study on a disk that is full twice, and then large; the folder that is left."""
    require_hosts()
    sizes = ("400k", "1500k", "400m")
    script = FULL.format(
        room=folder / "room", kept=folder / "kept", sizes=" ".join(sizes), python=sys.executable, toml=toml
    )
    done = subprocess.run(["unshare", "--mount", "bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*(f"at {size}: 2" for size in sizes[:-1]), f"at {sizes[-1]}: 0"], done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("study: ")]
    assert len(told) == len(sizes) - 1
    full = re.compile("cannot be written .*(No space left on device|disk is full|disk I/O error)")
    assert all(full.search(line) for line in told), told
    assert "Traceback" not in done.stderr
    return folder / "kept"


@pytest.mark.slow
def test_a_full_disk_is_told_and_loses_nothing(finished, tiny_toml, tmp_path):
    assert timeless(run_on_a_full_disk(tiny_toml, tmp_path)) == timeless(finished)


@pytest.mark.slow
def test_a_search_on_a_full_disk_loses_nothing_and_runs_nothing_twice(tmp_path):
    (tmp_path / "search.toml").write_text(SEARCH)
    check_search(run_on_a_full_disk(tmp_path / "search.toml", tmp_path), trials=8)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_out_of_memory_is_told_and_loses_nothing(finished, tiny_toml, tmp_path, monkeypatch):
    """Ray's own guard against a full memory, told that one percent is full: it ends every trial and task."""
    out, trained = tmp_path / "out", tmp_path / "trained"
    shutil.copytree(finished, trained)
    records = (trained / "records.jsonl").read_text().splitlines(keepends=True)
    (trained / "records.jsonl").write_text("".join(line for line in records if '"kind": "trial"' in line))
    with monkeypatch.context() as full:
        full.setenv("RAY_memory_usage_threshold", "0.01")
        trial = run_study("run", tiny_toml, "--out", out, "--quiet", check=False)
        task = run_study("run", tiny_toml, "--out", trained, "--quiet", check=False)
    assert re.fullmatch(r"study: .*: trial g\S+ was lost \(.* low on memory.*goes on\n", trial.stderr), trial.stderr
    assert re.fullmatch(r"study: a task was lost \(OutOfMemoryError: .*goes on\n", task.stderr), task.stderr
    assert trial.returncode == task.returncode == 2
    run_study("run", tiny_toml, "--out", trained, "--quiet")
    assert timeless(trained) == timeless(finished)
