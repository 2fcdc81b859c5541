"""An S3 bucket as a place for small objects: put on a condition, get, list, delete; every failure is one clear line."""

from __future__ import annotations

import functools
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


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
    patience: float = 120.0
    """Seconds for which a bucket that is away is asked again; boto3 counts attempts: a dozen were over in 40 s."""

    def put(self, name: str, content: bytes, **condition: str) -> str:
        """Write an object; return its tag. `TakenError` where the condition (`IfNoneMatch`, `IfMatch`) fails.

        An object to match that is gone is `GoneError`.
        """
        try:
            return self._ask(
                f"write {name}",
                lambda s3: str(s3.put_object(**self._object(name), Body=content, **condition)["ETag"]),
            )
        except TakenError:
            if self.get(name) == content:  # an attempt whose answer was lost
                return self.age(name)[0]
            raise

    def get(self, name: str) -> bytes:
        """Read an object. What is cut off while it comes is asked for again: boto3 tries again to begin alone."""
        return self._ask(f"read {name}", lambda s3: bytes(s3.get_object(**self._object(name))["Body"].read()))

    def listing(self, under: str = "") -> dict[str, Stored]:
        """All objects whose names begin so, by name."""
        place = self._object(under)
        pages = self._ask(
            "list objects",
            lambda s3: list(s3.get_paginator("list_objects_v2").paginate(Bucket=place["Bucket"], Prefix=place["Key"])),
        )
        return {
            item["Key"][len(place["Key"]) - len(under) :]: Stored(
                item["Size"], item["LastModified"].timestamp(), item["ETag"].strip('"')
            )
            for page in pages
            for item in page.get("Contents", [])
        }

    def delete(self, *names: str) -> None:
        for place in map(self._object, names):
            self._ask(f"delete {place['Key']}", functools.partial(_delete, place))

    def age(self, name: str) -> tuple[str, float]:
        """Tag of an object, and the seconds since it was written, by the bucket's clock; `GoneError` without one."""
        from email.utils import parsedate_to_datetime

        answer = self._ask(f"read {name}", lambda s3: s3.head_object(**self._object(name)))
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

    def _ask(self, what: str, question: Callable[[Any], _Answer]) -> _Answer:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            IncompleteReadError,
        )

        until, pause = time.monotonic() + self.patience, 0.5
        while True:
            try:
                return question(_client(self.endpoint))
            except ClientError as error:
                reason, kind = error, _KINDS.get(error.response.get("Error", {}).get("Code"), StorageError)
                away = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
            except BotoCoreError as error:
                reason, kind = error, StorageError
                away = isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError)
            if not away or time.monotonic() + pause > until:
                raise kind(f"{self.url}: cannot {what} ({' '.join(str(reason).split())[:200]})") from None
            time.sleep(pause)
            pause = min(2 * pause, 8.0) * random.uniform(0.75, 1.0)  # many trials must not come at once


def _delete(place: dict[str, str], s3: Any) -> None:
    s3.delete_object(**place)


@functools.cache
def _client(endpoint: str | None) -> Any:
    import boto3
    from botocore.config import Config

    once = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=5, read_timeout=60)
    return boto3.client("s3", endpoint_url=endpoint, config=once)
