"""An S3 bucket as a place for small objects: put on a condition, get, list, delete; every failure is one clear line."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

#: How often an object is read that breaks off.
READS = 4


class StorageError(OSError):
    """The bucket does not answer, or not as wanted."""


class TakenError(StorageError):
    """An object is there that must not be, or has changed."""


class GoneError(StorageError):
    """An object is not there."""


_KINDS: dict[Any, type[StorageError]] = {
    **dict.fromkeys(("PreconditionFailed", "ConditionalRequestConflict", "412", "409"), TakenError),
    **dict.fromkeys(("NoSuchKey", "404"), GoneError),
}


@dataclass(frozen=True)
class Stored:
    """What a bucket says of an object."""

    size: int
    modified: float
    etag: str


@dataclass(frozen=True)
class Bucket:
    """Objects below one place of an S3 bucket; any process may hold one."""

    url: str
    endpoint: str | None = None
    attempts: int = 12
    """How often a call is tried, with pauses that grow."""

    def put(self, name: str, content: bytes, **condition: str) -> str:
        """Write an object; return its tag. `TakenError` where the condition (`IfNoneMatch`, `IfMatch`) fails.

        An object to match that is gone is `GoneError`.
        """
        try:
            with self._told(f"write {name}") as s3:
                return str(s3.put_object(**self._object(name), Body=content, **condition)["ETag"])
        except TakenError:
            if self.get(name) == content:  # an attempt whose answer was lost
                return self.age(name)[0]
            raise

    def get(self, name: str) -> bytes:
        """Read an object. What is cut off while it comes is asked for again: boto3 tries again to begin alone."""
        from botocore.exceptions import IncompleteReadError, ReadTimeoutError, ResponseStreamingError

        with self._told(f"read {name}") as s3:
            for _ in range(READS - 1):
                body = s3.get_object(**self._object(name))["Body"]
                with suppress(IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    return bytes(body.read())
            return bytes(s3.get_object(**self._object(name))["Body"].read())

    def listing(self, under: str = "") -> dict[str, Stored]:
        """All objects whose names begin so, by name."""
        place = self._object(under)
        found = {}
        with self._told("list objects") as s3:
            for page in s3.get_paginator("list_objects_v2").paginate(Bucket=place["Bucket"], Prefix=place["Key"]):
                for item in page.get("Contents", []):
                    name = item["Key"][len(place["Key"]) - len(under) :]
                    found[name] = Stored(item["Size"], item["LastModified"].timestamp(), item["ETag"].strip('"'))
        return found

    def delete(self, *names: str) -> None:
        with self._told("delete objects") as s3:
            for name in names:
                s3.delete_object(**self._object(name))

    def age(self, name: str) -> tuple[str, float]:
        """Tag of an object, and the seconds since it was written, by the bucket's clock; `GoneError` without one."""
        from email.utils import parsedate_to_datetime

        with self._told(f"read {name}") as s3:
            answer = s3.head_object(**self._object(name))
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return answer["ETag"], (now - answer["LastModified"]).total_seconds()

    def probe(self) -> None:
        """Write, read and delete an object; `StorageError` where that fails, or where a condition is not kept."""
        name, content = f".probe-{secrets.token_hex(8)}", secrets.token_bytes(16)
        self.put(name, content)
        if self.get(name) != content:
            raise StorageError(f"{self.url}: gives back something else than was written")
        try:
            self.put(name, secrets.token_bytes(16), IfNoneMatch="*")
        except TakenError:
            return
        finally:
            self.delete(name)
        raise StorageError(f"{self.url}: overwrites what must not be (no conditional writes): two drivers could meet")

    def _object(self, name: str) -> dict[str, str]:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return {"Bucket": bucket, "Key": f"{prefix.strip('/')}/{name}".lstrip("/")}

    @contextmanager
    def _told(self, what: str) -> Iterator[Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield _client(self.endpoint, self.attempts)
        except ClientError as error:
            reason = " ".join(str(error).split())[:200]
            raise _KINDS.get(error.response.get("Error", {}).get("Code"), StorageError)(
                f"{self.url}: cannot {what} ({reason})"
            ) from None
        except BotoCoreError as error:
            raise StorageError(f"{self.url}: cannot {what} ({' '.join(str(error).split())[:200]})") from None


@functools.cache
def _client(endpoint: str | None, attempts: int) -> Any:
    import boto3
    from botocore.config import Config

    patient = Config(retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=5, read_timeout=60)
    return boto3.client("s3", endpoint_url=endpoint, config=patient)
