"""A study's folder in an S3 bucket, for machines that share no file system.

The driver writes into a local folder as ever. `Storage` carries what is new there into the bucket, and first brings
back what an earlier driver left: records as numbered segments that never change, everything else as objects named
like the files. Trials exchange checkpoints and keys with the bucket where they run. One driver writes at a time: it
holds a lease, and a dead one's runs out.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

from aae.keys import write_private
from study.bucket import Bucket, GoneError, StorageError, Stored, TakenError
from study.config import InputError, StorageConfig
from study.records import HOST, write_whole
from study.shapes import parsed

#: Seconds after which a lease that nobody renewed is a dead driver's.
LEASE_SECONDS = 90.0

#: Seconds between two looks at what is new in the local folder.
INTERVAL = 5.0

#: Trials alone write these; a driver neither carries nor brings them.
CHECKPOINT = "checkpoint.safetensors"

_LEASE, _RECORDS, _SEGMENTS = "lease.json", "records.jsonl", "records/"


# --- a trial -----------------------------------------------------------------------------------------------------


@contextmanager
def trial_folder(folder: Path, trial: str, bucket: Bucket | None) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Where the files of a trial lie while it runs, and how they are carried on.

    Without a bucket they lie in `folder`, which the driver sees. With one they lie on this machine while the trial
    runs, and what an earlier run left is there already.

    Raises:
        StorageError: this machine, which may have come later than the driver looked, does not see the study's folder.
    """
    if bucket is None:
        if not (folder.parent / "config.json").exists():
            raise StorageError(
                f"{folder.parent}: {HOST} does not see it: put --out on a folder that all machines share, or set "
                f"storage.url"
            )
        yield folder / trial, lambda: None
        return
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        bring_trial(bucket, trial, Path(name))
        yield Path(name), lambda: carry_trial(bucket, trial, Path(name))


def bring_trial(bucket: Bucket, trial: str, folder: Path) -> None:
    """Bring the files of a trial into a folder of its own, keys with mode 0600."""
    for name in bucket.listing(f"trials/{trial}/"):
        if name.endswith("/"):  # a marker of the folder
            continue
        write_private(folder / PurePosixPath(name).name, bucket.get(name))


def carry_trial(bucket: Bucket, trial: str, folder: Path) -> None:
    """Carry the files of a trial into the bucket; its result last, and then its checkpoint goes."""
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in sorted(files, key=lambda path: path.name == "result.json"):
        bucket.put(f"trials/{trial}/{path.name}", path.read_bytes())
    if (folder / "result.json").exists():
        bucket.delete(f"trials/{trial}/{CHECKPOINT}")


# --- the driver --------------------------------------------------------------------------------------------------


class Storage:
    """A study's folder alone: every machine sees it, or there is but one."""

    bucket: Bucket | None = None

    def bring(self, trial: str) -> None:
        """Have the files of a finished trial in the local folder."""

    def carry(self) -> None:
        """Have all that lies in the local folder where trials look for it."""

    def check(self) -> None:
        """Raise `InputError` if another driver has taken over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        pass


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Tell a disk that is full, or away, in one line; `InputError`."""
    try:
        yield
    except ConnectionError:
        raise  # of a pipe or of Ray
    except StorageError as error:
        raise InputError(f"{error}: put that right; the same command goes on") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error}): make room; the same command goes on") from None


def opened(config: StorageConfig, folder: Path, allowed: Callable[[bytes], None] = lambda kept: None) -> Storage:
    """The storage of a study; used as a context manager, it holds the lease and keeps the bucket up to date.

    Args:
        allowed: raises where a study of this `config.json`, which the bucket holds, is not ours to continue.

    Raises:
        InputError: boto3 is not installed.
    """
    if config.url is None:
        return Storage()
    try:
        import boto3  # noqa: F401
    except ImportError:
        raise InputError("storage.url: needs boto3: pip install '.[s3]'") from None
    return BucketStorage(Bucket(config.url, config.endpoint), folder, allowed)


class BucketStorage(Storage):
    """The folder and its copy in a bucket."""

    def __init__(self, bucket: Bucket, folder: Path, allowed: Callable[[bytes], None]) -> None:
        self.bucket: Bucket = bucket
        self._folder, self._allowed = folder, allowed
        #: A folder without it is not the one that was carried: someone removed that, or its disk is away.
        self._sign, self._signed = folder / ".carried", False
        self._up: dict[str, tuple[int, int]] = {}
        self._segments, self._sent = 0, 0
        self._ending, self._over, self._lost, self._lock = threading.Event(), threading.Event(), "", threading.Lock()
        self._carrying = threading.Thread(target=self._keep_carrying, name="storage", daemon=True)
        # By itself: carrying much, or waiting for an answer, must not age the lease.
        self._renewing = threading.Thread(target=self._keep_lease, name="lease", daemon=True)

    def __enter__(self) -> Self:
        try:
            replace(self.bucket, patience=1).probe()
            self._tag = self._take_lease()
            self._renewed = _now()
            self._renewing.start()
            self._bring_all()
        except BaseException as error:
            self._give_back()
            if isinstance(error, StorageError):
                raise InputError(
                    f"{error}: storage.url and storage.endpoint say where, AWS's own settings who"
                ) from None
            raise
        self._carrying.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._ending.set()
        self._carrying.join()
        try:
            self._carry_all()
        except StorageError as error:
            if not self._lost:
                raise InputError(f"{error}: everything is in {self._folder}; the same command carries it up") from None
        finally:
            self._give_back()
        if kind is None:
            self.check()

    def _give_back(self) -> None:
        """End the lease, if it was taken and is still ours."""
        held = self._renewing.is_alive()
        self._over.set()
        self._sign.unlink(missing_ok=True)
        if held:
            self._renewing.join()
            with suppress(StorageError):  # it runs out by itself
                self._renew()
                if not self._lost:
                    self.bucket.delete(_LEASE)

    def bring(self, trial: str) -> None:
        folder = self._folder / "trials" / trial
        if not (folder / "result.json").exists():
            with self._lock:
                bring_trial(self.bucket, trial, folder)
                self._up |= {f"trials/{trial}/{path.name}": _state(path) for path in folder.iterdir()}

    def carry(self) -> None:
        with self._lock:
            self._carry_all()

    def check(self) -> None:
        if self._lost:
            raise InputError(self._lost)

    # --- the lease

    def _take_lease(self) -> str:
        """Take it, if need be after waiting whether its holder renews it."""
        while True:
            try:
                return self.bucket.put(_LEASE, _holder(), IfNoneMatch="*")
            except (TakenError, GoneError):  # gone: given back as it was looked at
                pass
            try:
                tag, age = self.bucket.age(_LEASE)
                holder = parsed(f"{self.bucket.url}/{_LEASE}", self.bucket.get(_LEASE), {"host": str, "pid": int})
                if age > LEASE_SECONDS or _is_dead(holder):
                    return self.bucket.put(_LEASE, _holder(), IfMatch=tag)
            except (GoneError, TakenError):
                continue  # given back, or another was faster
            until = time.monotonic() + LEASE_SECONDS - age + 1
            while time.monotonic() < until:
                time.sleep(1)
                try:
                    if self.bucket.age(_LEASE)[0] != tag:
                        raise InputError(
                            f"{self.bucket.url}: a driver on {holder['host']} (process {holder['pid']}) runs this "
                            f"study: wait for it, or choose another storage.url"
                        )
                except GoneError:
                    break

    def _renew(self) -> None:
        try:
            self._tag = self.bucket.put(_LEASE, _holder(), IfMatch=self._tag)
            self._renewed = _now()
        except (GoneError, TakenError):
            self._lost = f"{self.bucket.url}: another driver has taken over: this one ends; the same command goes on"

    def _keep_lease(self) -> None:
        """Until the study ends: renew the lease. Without an answer try again, as long as it lasts."""
        while not self._over.wait(LEASE_SECONDS / 6) and not self._lost:
            try:
                self._renew()
            except StorageError:
                if _now() - self._renewed > LEASE_SECONDS:
                    self._lost = (
                        f"{self.bucket.url}: has not answered for {LEASE_SECONDS:.0f} s: the same command goes on"
                    )

    # --- up

    def _keep_carrying(self) -> None:
        while not self._ending.wait(INTERVAL):
            with suppress(OSError), self._lock:  # the next look tries again
                self._carry_all()

    def _put(self, name: str, content: bytes, **condition: str) -> None:
        self._check_lease()
        self.bucket.put(name, content, **condition)

    def _check_lease(self) -> None:
        """`StorageError` where another driver has taken over, or may have: this one may have been held still."""
        if self._lost or _now() - self._renewed > LEASE_SECONDS:
            raise StorageError(self._lost or f"{self.bucket.url}: the lease ran out")

    def _carry_all(self) -> None:
        """Files first, then the records that were there before: a record never comes before what it speaks of."""
        if not self._signed and self._folder.exists():
            self._sign.touch()
            self._signed = True
        records = self._folder / _RECORDS
        end = records.stat().st_size if records.exists() else 0
        here = {}
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            if "/." not in f"/{name}" and path.name not in (CHECKPOINT, _RECORDS) and path.is_file():
                try:
                    here[name] = _state(path)
                    if self._up.get(name) != here[name]:
                        self._put(name, path.read_bytes())
                except FileNotFoundError:
                    here.pop(name, None)  # replaced or removed meanwhile: the next look sees it
        for name in self._up.keys() - here.keys() if self._sign.exists() else ():
            self._check_lease()
            parent = PurePosixPath(name).parent
            trial = parent.parent.name == "trials" and not (self._folder / parent).exists()
            self.bucket.delete(*(self.bucket.listing(f"{parent}/") if trial else [name]))
        self._up = here
        self._carry_records(records, end)

    def _carry_records(self, records: Path, end: int) -> None:
        if end <= self._sent:
            return
        with records.open("rb") as file:
            file.seek(self._sent)
            whole, newline, _ = file.read(end - self._sent).rpartition(b"\n")
        if newline:
            try:
                self._put(f"{_SEGMENTS}{self._segments:08}.jsonl", whole + newline, IfNoneMatch="*")
            except TakenError:
                self._lost = f"{self.bucket.url}: another driver has written records: this one ends"
                return
            self._segments += 1
            self._sent += len(whole) + 1

    # --- down

    def _bring_all(self) -> None:
        """Have everything that is in the bucket in the local folder."""
        there = self.bucket.listing()
        if "config.json" in there:  # before anything is brought
            kept = self.bucket.get("config.json")
            self._allowed(kept)
            if not (self._folder / "config.json").exists():  # first: what is cut off after this goes on
                write_whole(self._folder / "config.json", kept)
        self._bring_records(sorted(name for name in there if name.startswith(_SEGMENTS)))
        for name, stored in there.items():
            pure = PurePosixPath(name)
            ours = not name.startswith((_LEASE, _SEGMENTS)) and "/." not in f"/{name}" and not pure.is_absolute()
            folder = not name or name.endswith("/")  # a marker that browsers of buckets make
            if not ours or folder or pure.name == CHECKPOINT:
                continue
            path = self._folder / pure
            if not path.exists() or (_differs(path, stored) and path.stat().st_mtime < stored.modified):
                (write_private if pure.suffix == ".safetensors" else write_whole)(path, self.bucket.get(name))
            if not _differs(path, stored):
                self._up[name] = _state(path)

    def _bring_records(self, segments: list[str]) -> None:
        path = self._folder / _RECORDS
        theirs = b"".join(self.bucket.get(name) for name in segments)
        ours = path.read_bytes() if path.exists() else b""
        ours = ours[: ours.rfind(b"\n") + 1]
        if not (theirs.startswith(ours) or ours.startswith(theirs)):
            raise InputError(
                f"{self._folder}: holds other records than {self.bucket.url}: move the folder away, or choose another "
                f"storage.url"
            )
        if len(theirs) > len(ours):
            write_whole(path, theirs)
        self._segments, self._sent = len(segments), len(theirs)


def _now() -> float:
    """Seconds that go on while a machine sleeps, where the system can tell them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _machine() -> str:
    """What tells apart machines, boots and containers of one name; empty where the system does not say."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + str(Path("/proc/self/ns/pid").readlink())
    return ""


def _holder() -> bytes:
    holder = {"host": HOST, "machine": _machine(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    return json.dumps(holder).encode()


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether it was a process of this machine that is gone."""
    if holder.get("host") != HOST or not _machine() or holder.get("machine") != _machine():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(holder["pid"]) == os.getpid()


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _differs(path: Path, stored: Stored) -> bool:
    """By size and, as far as a tag is one, by MD5."""
    if path.stat().st_size != stored.size:
        return True
    tag = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    return len(stored.etag) == 32 and stored.etag != tag
