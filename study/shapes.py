"""What a file of JSON has to hold before anything is taken from it: whoever wrote it, or cut it short."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from study.config import InputError

#: What reading text that is no JSON, no TOML or no UTF-8, or nests too deeply, raises.
UNREADABLE_TEXT = (ValueError, RecursionError)

KINDS = {str: "text", int: "a whole number", float: "a finite number", dict: "a table", list: "a list"}


def amiss(value: Any, shape: Any, name: str = "") -> str:
    """Say where and how a value from JSON differs from a shape; "" where it does not.

    Args:
        shape: a type, `float` for every finite number; [shape], a list of one or more; {key: shape}, a table with at
            least these keys, `str` standing for every key.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{name or 'it'} is no table"
        asked = {key: shape[str] for key in value if str in shape} | {
            k: one for k, one in shape.items() if k is not str
        }
        begin = f"{name}." if name else ""
        if lacking := [key for key in asked if key not in value]:
            return f"{begin}{lacking[0]} is missing"
        found = (amiss(value[key], one, f"{begin}{key}") for key, one in asked.items())
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            return f"{name or 'it'} is no list of one or more"
        found = (amiss(one, shape[0], f"{name}[{i}]") for i, one in enumerate(value))
    elif shape is float:
        known = isinstance(value, int | float) and abs(value) <= sys.float_info.max
        return "" if known else f"{name} = {value!r:.80}: must be a finite number"
    else:
        return "" if isinstance(value, shape) else f"{name} = {value!r:.80}: must be {_kind(shape)}"
    return next(filter(None, found), "")


def _kind(shape: Any) -> str:
    kinds = shape.__args__ if isinstance(shape, types.UnionType) else (shape,)
    return " or ".join(KINDS.get(kind, "null") for kind in kinds)


def check_text(what: str, texts: Iterable[str]) -> None:
    """Raise `InputError` for a name that is not UTF-8: no terminal prints it, and no file of ours can hold it."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError(f"{what}: {text!r} is not UTF-8: choose another name") from None


def read_json(path: Path, shape: Any) -> Any:
    """What a file of JSON holds; `InputError` where it cannot be read or has not the shape."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): bring it back") from None
    return parsed(str(path), content, shape)


def parsed(place: str, content: bytes, shape: Any) -> Any:
    """What JSON from a place holds; `InputError` where it is none or has not the shape."""
    try:
        value = json.loads(content)
        odd = amiss(value, shape)
    except UNREADABLE_TEXT as error:
        raise InputError(f"{place}: is damaged ({error}): bring it back") from None
    if odd:
        raise InputError(f"{place}: is damaged, or another program's ({odd}): bring it back")
    return value
