"""Seeds and identities, derived from names and never from the order in which things run."""

from __future__ import annotations

import hashlib
import json


def derive(seed: int, *names: object) -> int:
    """A seed from 0 to 2**31 - 1 for one role, by name: adding another role changes no other number."""
    text = json.dumps([seed, *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 2**31


def identity(content: object, length: int = 8) -> str:
    """A short name for plain JSON content."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]
