"""Hosts with addresses of their own on one machine, for tests of `ray up`: Linux namespaces, no containers.

Every host has its own network, processes, hostname, home, `/tmp/ray` and `/dev/shm`, and answers ssh; its disk is the
machine's. Nothing outside the namespaces is touched. Needs root, iproute2, openssh-server and rsync.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

import pytest

#: What must be installed.
TOOLS = ("ip", "unshare", "nsenter", "sshd", "ssh", "ssh-keygen", "rsync")


def require_hosts() -> None:
    """Skip the test where there can be no hosts, with the reason; fail it where REQUIRE_CLUSTER is set."""
    if absent := [tool for tool in TOOLS if not shutil.which(tool)]:
        reason = f"not installed: {', '.join(absent)}"
    else:
        probe = ["unshare", "--net", "--mount", "--pid", "--fork", "true"]
        reason = subprocess.run(probe, capture_output=True, text=True).stderr.strip()
    if reason:
        (pytest.fail if os.environ.get("REQUIRE_CLUSTER") else pytest.skip)(reason)


class Hosts:
    """So many hosts on one wire, `10.77.0.1` and on; the first may ssh to all."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._wire = f"study-{folder.stat().st_ino}"

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number}"

    @property
    def key(self) -> Path:
        """The private key that every host takes."""
        return self._folder / "id"

    def __enter__(self) -> Self:
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key)
        _run("ip", "netns", "add", self._wire)
        inside = ["ip", "-n", self._wire]
        _run(*inside, "link", "add", "wire", "type", "bridge")
        _run(*inside, "addr", "add", "10.77.0.254/24", "dev", "wire")
        _run(*inside, "link", "set", "wire", "up")
        for number in range(1, self._count + 1):
            self.boot(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._processes):
            self.kill(number)
        _run("ip", "netns", "del", self._wire)

    def boot(self, number: int) -> None:
        """Start a host, or start it again; returns when it answers ssh."""
        name, place = f"{self._wire}-{number}", self._folder / f"host-{number}"
        for part in ("home/.ssh", "ray", "run"):
            (place / part).mkdir(parents=True, exist_ok=True)
        if not (place / "hostkey").exists():
            _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "hostkey")
        passwd = Path("/etc/passwd").read_text().replace(":/root:", f":{place}/home:", 1)
        (place / "passwd").write_text(passwd)
        (place / "sshd_config").write_text(
            f"HostKey {place}/hostkey\nAuthorizedKeysFile {self.key}.pub\nPermitRootLogin yes\nStrictModes no\n"
            f"UsePAM no\nPidFile none\nUseDNS no\nMaxStartups 100\n"
        )
        _run("ip", "netns", "add", name)
        _run("ip", "-n", self._wire, "link", "add", f"h{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "-n", self._wire, "link", "set", f"h{number}", "master", "wire", "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _run("ip", "-n", name, "link", "set", device, "up")
        _run("ip", "-n", name, "route", "add", "default", "via", "10.77.0.254")  # Ray asks which way is out
        Path("/tmp/ray").mkdir(exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        script = "\n".join((
            "set -e",
            "mount --make-rprivate /",
            "mount -t proc proc /proc",
            "mount -t tmpfs -o size=3g tmpfs /dev/shm",
            f"mount --bind {shlex.quote(str(place / 'ray'))} /tmp/ray",
            f"mount --bind {shlex.quote(str(place / 'passwd'))} /etc/passwd",
            f"hostname host-{number}",
            f"exec {shutil.which('sshd')} -D -e -f {shlex.quote(str(place / 'sshd_config'))}",
        ))  # fmt: skip
        with (place / "log").open("ab") as log:
            self._processes[number] = subprocess.Popen(
                ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                 "bash", "-c", script],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )  # fmt: skip
        until = time.monotonic() + 30
        while self.run(number, "true", check=False).returncode:
            assert time.monotonic() < until, (place / "log").read_text()[-2000:]
            time.sleep(0.2)

    def kill(self, number: int) -> None:
        """The power goes: every process of the host is gone at once, and its address with them."""
        process = self._processes.pop(number)
        process.kill()
        process.wait()
        _run("ip", "-n", self._wire, "link", "del", f"h{number}")
        _run("ip", "netns", "del", f"{self._wire}-{number}")

    def run(self, number: int, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command on a host, as ssh runs it."""
        return subprocess.run(self.ssh(number, command), check=check, capture_output=True, text=True)

    def ssh(self, number: int, command: str) -> list[str]:
        """The words that run a command on a host: from the first host, as everything here."""
        return [
            "ip", "netns", "exec", f"{self._wire}-{number}", "ssh", "-i", str(self.key),
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
            "-o", "ConnectTimeout=5", f"root@{self.address(number)}", command,
        ]  # fmt: skip


def _run(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(map(str, words))}: {done.stderr.strip()}"
