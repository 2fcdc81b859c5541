"""Kill a study in every phase and see that nothing is lost: `python -m tests.kill PRESET-OR-FILE [--kills N]`.

With `--losses N` the driver lives, and machines die: a study on two Ray nodes of this machine, one of which vanishes so
many times, at moments drawn at random from the course of an undisturbed run, and is replaced. With KEEP_TIMES set, what
came of it is kept in `results/benchmarks`.

A study runs in a process group of its own. When its folder shows the wanted phase, the driver is killed with SIGKILL;
what Ray started must end by itself. The same command then goes on, and is killed in the next phase, until it ends.
Phases that last milliseconds are held until the kill (`tests/held/sitecustomize.py`), however fast the machine.
A study without a search must leave the records of an uninterrupted run, in any order, apart from times and hosts. With
a search, what is proposed depends on which trial ends first: no finished trial may be lost, or run twice, and every
trial in `optuna.db` must have ended.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import write_page
from study.cluster import ENVIRONMENT
from study.config_text import read_config
from study.records import read_records

PHASES = ("start", "epoch", "checkpoint", "finished trial", "fan-out", "report")

#: Files that a phase holds back just before they are renamed into place.
HELD = {"epoch": "/checkpoint.safetensors", "checkpoint": "/checkpoint.safetensors", "report": "/figures/"}

#: Seconds Ray's processes have to notice that their driver is gone.
GRACE = 60.0


class Watch:
    """What a study's folder shows. A phase is over when `seen` first says so after the start of a run."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self._begin = folder, time.monotonic()
        self._wait = rng.uniform(0.5, 4.0)
        self._epochs, self._trials = self.checkpoints(), self._kind("trial")
        self._others = self._kind("classification") + self._kind("reconstruction")

    def _kind(self, kind: str) -> int:
        path = self.folder / "records.jsonl"
        return path.read_text().count(f'"kind": "{kind}"') if path.exists() else 0

    def checkpoints(self) -> dict[str, float]:
        """When each was written."""
        found = {}
        for path in self.folder.glob("trials/*/checkpoint.safetensors"):
            try:
                found[path.parent.name] = path.stat().st_mtime
            except FileNotFoundError:
                continue  # its trial has just ended
        return found

    def seen(self, phase: str) -> bool:
        look: dict[str, Callable[[], bool]] = {
            "start": lambda: time.monotonic() - self._begin > self._wait,
            "epoch": lambda: any(self._epochs.get(k) != v for k, v in self.checkpoints().items()),
            "checkpoint": lambda: any(self.folder.glob("trials/*/.checkpoint.safetensors.*")),
            "finished trial": lambda: self._kind("trial") > self._trials,
            "fan-out": lambda: self._kind("classification") + self._kind("reconstruction") > self._others,
            "report": lambda: any((self.folder / "figures").glob(".*")),
        }
        return look[phase]()


def start(study: str, out: Path, more: list[str], phase: str = "") -> subprocess.Popen:
    """The study in a process group of its own, with the files of a phase held back."""
    environment = os.environ | {"HELD": HELD.get(phase, "")}
    if environment["HELD"]:
        paths = [str(Path(__file__).parent / "held"), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-m", "study.cli", "run", study, "--out", str(out), *more]
    log = (out.parent / f"{out.name}.log").open("a")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)


def descendants(root: int) -> dict[int, str]:
    """Every process below one, with the time at which it began: a number alone may be given again."""
    parents, begun = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(path.parent.name)], begun[int(path.parent.name)] = int(fields[1]), fields[19]
    found: dict[int, str] = {}
    level = [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found |= {pid: begun[pid] for pid in level}
    return found


def alive(processes: dict[int, str]) -> list[int]:
    """Which of them still run; a zombie does not."""
    living = []
    for pid, begun in processes.items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[19] == begun and fields[0] != "Z":
            living.append(pid)
    return living


def kill(process: subprocess.Popen) -> float:
    """SIGKILL the driver's group; return the seconds until nothing of it was left. Survivors are an error."""
    below = descendants(process.pid)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    begin = time.monotonic()
    while left := alive(below):
        if time.monotonic() - begin > GRACE:
            names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode() for pid in left}
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"outlived their driver by {GRACE:.0f} s: {names}")
        time.sleep(0.1)
    return time.monotonic() - begin


def run_killed(study: str, out: Path, kills: int, more: list[str], seed: int) -> list[str]:
    """Run a study to its end through so many kills; return the phases in which it was killed."""
    rng = random.Random(seed)
    wanted = [PHASES[i * len(PHASES) // kills] for i in range(kills)]
    done = []
    while True:
        process = start(study, out, more, wanted[0] if wanted else "")
        watch = Watch(out, rng)
        while process.poll() is None:
            if wanted and watch.seen(wanted[0]):
                before = {record.key for record in read_records(out)}
                after = kill(process)
                kept = {record.key for record in read_records(out)}
                assert before <= kept, f"lost {before - kept}"
                phase = wanted.pop(0)
                done.append(phase)
                print(f"kill {len(done)}: {phase}, {len(kept)} records, all gone after {after:.1f} s", flush=True)
                break
            time.sleep(0.002)
        else:
            assert process.returncode == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]
            if not wanted:
                return done
            print(f"not seen any more: {wanted.pop(0)}", flush=True)


def _reached(out: Path) -> tuple[int, float]:
    """What changes whenever a study has come further."""
    watch = Watch(out, random.Random(0))
    return len(read_records(out)) if out.exists() else 0, sum(watch.checkpoints().values())


def run_straight(study: str, out: Path, more: list[str]) -> list[int]:
    """An undisturbed run; return how many records it had, looked at five times a second, until it had all of them."""
    process, counts = start(study, out, more), []
    while process.poll() is None:
        counts.append(len(read_records(out)) if out.exists() else 0)
        time.sleep(0.2)
    assert process.returncode == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]
    whole = len(read_records(out))
    return [count for count in counts if count < whole]


def run_losing(study: str, out: Path, moments: list[int], more: list[str], seed: int) -> list[str]:
    """A study on nodes that share its folder; one is lost at so many records; return what was there at each."""
    from ray.cluster_utils import Cluster

    rng = random.Random(seed)
    os.environ |= ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        living = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
        process = start(study, out, ["--address", cluster.address, *more])
        begin, told, before = time.monotonic(), [], _reached(out)
        while process.poll() is None:
            if len(told) == len(moments):
                process.wait()
                break
            time.sleep(0.05)
            now = _reached(out)
            if now[0] < moments[len(told)] or now == before:  # what is lost again before it has begun shows nothing new
                continue
            time.sleep(rng.uniform(0, 1))
            cluster.remove_node(living.pop(rng.randrange(2)), allow_graceful=False)
            living.append(cluster.add_node(num_cpus=1, num_gpus=1))
            kinds = Counter(record.kind for record in read_records(out))
            told.append(f"{time.monotonic() - begin:.0f} s: {dict(kinds) or 'no record yet'}")
            print(f"loss {len(told)} after {told[-1]}", flush=True)
            before = _reached(out)
        assert process.returncode == 0, (out.parent / f"{out.name}.log").read_text()[-3000:]
        assert len(told) == len(moments), "the study ended too early"
        return told
    finally:
        cluster.shutdown()


def timeless(folder: Path) -> list[str]:
    """Records without what differs between two runs."""
    rows = ({**vars(r), "seconds": 0, "host": ""} for r in read_records(folder))
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def check_search(folder: Path, trials: int) -> None:
    """Nothing lost, nothing doubled, nothing left running, and Optuna's copy says the same as the records."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    records = [r for r in read_records(folder) if r.kind == "trial" and r.what.get("role") == "search"]
    points = [json.dumps(r.detail["params"], sort_keys=True) for r in records]
    assert len(records) == len({r.trial for r in records}) == len(set(points)) == trials
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{folder}/optuna.db")
    assert all(t.state.is_finished() for t in study.trials)
    assert sorted(t.user_attrs["trial"] for t in study.trials) == sorted(r.trial for r in records)
    states = {"complete": "COMPLETE", "stopped": "PRUNED", "failed": "FAIL"}
    of = {r.trial: states[r.what["status"]] for r in records}
    assert all(t.state.name == of[t.user_attrs["trial"]] for t in study.trials)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a preset or a TOML file")
    parser.add_argument("--kills", type=int, default=len(PHASES), help="so many kills, spread over the phases")
    parser.add_argument("--losses", type=int, default=0, help="lose so many machines instead")
    parser.add_argument("--out", type=Path, help="where to work (default: a new folder)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options, more = parser.parse_known_args(arguments)
    folder = (options.out or Path(tempfile.mkdtemp(prefix="kill-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = [more[i + 1] for i, word in enumerate(more) if word == "--set"]
    config = read_config(options.study, settings)
    if options.losses and config.search.trials:
        parser.error("--losses: a search proposes as its trials end, so no run of it is another's measure")
    killed, straight = folder / "killed", folder / "straight"
    counts = [] if config.search.trials else run_straight(options.study, straight, more)
    if options.losses:
        moments = sorted(random.Random(options.seed).choices(counts, k=options.losses))
        done = run_losing(options.study, killed, moments, more, options.seed)
    else:
        done = run_killed(options.study, killed, options.kills, more, options.seed)
    records = read_records(killed)
    assert len({r.key for r in records}) == len(records)
    assert not list(killed.rglob("*checkpoint.safetensors*"))
    if config.search.trials:
        check_search(killed, config.search.trials)
    else:
        assert timeless(killed) == timeless(straight)
    if options.losses:
        told = f"{len(done)} machines lost"
    else:
        phases = ", ".join(dict.fromkeys(done))
        told = f"{len(done)} kills in {len(set(done))} phases ({phases})"
    told = f"{config.title}: {told}, {len(records)} records as they should be"
    print(told)
    if os.environ.get("KEEP_TIMES"):
        name = "losses" if options.losses else "kills"
        page = "\n".join([f"{told}.", "", *(f"- {line}" for line in done), ""])
        told_again = [Path(options.study).name, f"--{name}", str(len(done)), *more]
        write_page(name, [page], f"KEEP_TIMES=1 python -m tests.kill {shlex.join(told_again)}")


if __name__ == "__main__":
    main()
