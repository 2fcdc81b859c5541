"""A configuration as text: read from TOML and settings, written, compared with an earlier one, explained key by key."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import json
import sys
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from aae.config import AutoencoderConfig
from study.config import InputError, StudyConfig
from study.search_config import OF_SECRECY
from study.shapes import UNREADABLE_TEXT

# --- reading -----------------------------------------------------------------------------------------------------


def presets() -> dict[str, Path]:
    """The studies that come with the package, by name."""
    folder = Path(str(resources.files("study"))) / "presets"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_config(name_or_file: str, settings: list[str]) -> StudyConfig:
    """Read a preset or a TOML file and apply `key=value` settings; raise `InputError` for anything amiss."""
    known = presets()
    path = known.get(name_or_file, Path(name_or_file))
    if name_or_file not in known and not path.suffix:
        raise InputError(
            f"preset {name_or_file!r}: is not known{_suggestion(name_or_file, list(known))}; "
            f"there are {', '.join(known)}, or give a .toml file"
        )
    try:
        text = path.read_text(encoding="utf-8")
        tomllib.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, *UNREADABLE_TEXT) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    try:
        return _configured(text, settings)
    except InputError as error:
        raise InputError(_blamed(path, text, settings, str(error))) from None


def _configured(text: str, settings: list[str]) -> StudyConfig:
    values = tomllib.loads(text)
    for setting in settings:
        _apply(values, setting)
    config: StudyConfig = from_table(StudyConfig, values)
    return config


def _blamed(path: Path, text: str, settings: list[str], message: str) -> str:
    """The message under the file, or under the first setting with which it comes up."""
    for count in range(len(settings)):
        try:
            _configured(text, settings[:count])
        except InputError as error:
            if str(error) == message:
                break
    else:
        count = len(settings)
    if not count:
        return f"{path}: {message}"
    key = settings[count - 1].partition("=")[0].strip()
    # The value as the message has it: one that holds a password is not told.
    return f"--set {message.replace(' = ', '=', 1) if message.startswith(f'{key} = ') else f'{key}: {message}'}"


def _apply(values: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise InputError("must be key=value, for example training.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    except RecursionError as error:
        raise InputError(f"cannot be read as TOML: {error}") from None
    *sections, last = key.strip().split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise InputError(f"{section} is not a section")
    values[last] = value


def from_table(cls: type[Any], table: Mapping[str, Any], path: str = "") -> Any:
    """Build a configuration dataclass from a TOML table; `InputError` names the dotted key, its value, the way out."""
    hints = typing.get_type_hints(cls)
    fields = {f.name.rstrip("_"): f.name for f in dataclasses.fields(cls)}
    for key in table:
        if key not in fields:
            raise InputError(f"unknown key {path}{key}{_suggestion(key, list(fields))}")
    values = {fields[key]: _convert(hints[fields[key]], value, f"{path}{key}") for key, value in table.items()}
    for f in dataclasses.fields(cls):
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"{path}{f.name} is missing: give it a value")
    try:
        return cls(**values)
    except ValueError as error:
        raise InputError(f"{path}{error}") from None


def _convert(hint: Any, value: Any, key: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_table(typing.cast("type[Any]", hint), value, f"{key}.")
    if origin is Literal and value in arguments:
        return value
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in arguments if a is not type(None)]
        return None if value is None else _convert(inner[0], value, key)
    if origin is tuple and isinstance(value, list):
        every = arguments[1:] == (...,)
        if every or len(arguments) == len(value):
            kinds = [arguments[0]] * len(value) if every else arguments
            return tuple(
                _convert(kind, item, f"{key}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
            )
    if hint is float and type(value) in (int, float):
        if not abs(value) <= sys.float_info.max:
            raise InputError(f"{key} = {value!r:.80}: must be a finite number")
        return float(value)
    if hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if hint in (int, bool, str) and type(value) is hint:
        return value
    raise InputError(f"{key} = {value!r:.200}: must be {_kind(hint)}")


def _kind(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "a table"
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return _kind(next(a for a in arguments if a is not type(None)))
    if origin is tuple:
        return "a list, each " + _kind(arguments[0])
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "any value"}[hint]


def _suggestion(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {close[0]}?" if close else ""


# --- writing, comparing, explaining ------------------------------------------------------------------------------


def to_plain(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values, complete; `from_plain` takes it back."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def from_plain(cls: type[Any], values: Any) -> Any:
    """Take back what `to_plain` gave; `InputError` for anything else."""

    def trimmed(part: Any) -> Any:
        return {key.rstrip("_"): trimmed(v) for key, v in part.items()} if isinstance(part, Mapping) else part

    if not isinstance(values, Mapping):
        raise InputError("it is no table")
    try:
        return from_table(cls, trimmed(values))
    except RecursionError:
        raise InputError("it nests too deeply") from None


#: Keys that may change from one run of a study to the next, and keys that may grow.
FREE = (
    "title", "resources.gpu", "resources.retries", "storage.url", "storage.endpoint", "search.concurrent",
    "search.time_budget", "search.storage",
)  # fmt: skip
MORE = (
    "draws",
    "instances",
    "attacks.draws",
    "attacks.encoders",
    "search.trials",
    "search.finalists",
    "search.fresh_seeds",
)


#: Keys of a configuration that studies were published without, at the values that are as good as not there.
LATER = {
    "network": {"branch": 0.0},
    "training": {"contrastive_weight": 0.0, "contrastive_temperature": 0.1},
}


def identified(config: AutoencoderConfig) -> dict[str, Any]:
    """What the names of a configuration are hashes of: a key that came later must not change those of before."""
    plain: dict[str, Any] = to_plain(config)
    for section, later in LATER.items():
        plain[section] = {k: v for k, v in plain[section].items() if k not in later or v != later[k]}
    return plain


def completed(plain: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration of an autoencoder, with the keys that came later as it was without them."""
    return plain | {section: later | plain.get(section, {}) for section, later in LATER.items()}


def refused_changes(old: StudyConfig, new: StudyConfig) -> list[str]:
    """Keys in which `new` may not differ from the study it continues, each with both values.

    Allowed: more draws, instances, latent configurations, attacks, controls or encoders to attack, every instance of
    them, defences, trials, finalists or fresh seeds, mirror images, and pairs but in a search for secrecy; another
    title, another storage, other resources but the threads. The first latent configuration stays first, because others
    are named by what sets them apart from it.
    """
    differences = []
    a, b = dict(flat(to_plain(old))), dict(flat(to_plain(new)))
    for key in sorted(a.keys() | b.keys()):
        before, after = a.get(key), b.get(key)
        if before == after or key in FREE:
            continue
        if key in MORE and None not in (before, after) and after > before:  # type: ignore[operator]
            continue
        if key == "attacks.encoders" and after is None:  # all of them
            continue
        if key == "attacks.every_instance" and after:
            continue
        searched = OF_SECRECY & {one.name for one in old.search.objectives} if old.search.trials else set()
        # Where secrecy is searched, other pairs would judge later trials by another measure.
        grows = ("attacks.names", "attacks.controls", "attacks.defences", *(() if searched else ("attacks.pairs",)))
        if key in grows and set(before) <= set(after):  # type: ignore[arg-type]
            continue
        if key == "latents":
            before, after = (
                [point | {"instances": point["instances"] or one["instances"]} for point in one["latents"]]
                for one in (a, b)
            )
            if _extends(before, after, "instances") and _extends(before[:1], after[:1], "instances"):
                continue
        if key == "tasks" and len(before or ()) == len(after or ()) and _extends(before, after, "mirrored"):
            continue
        differences.append(f"{key} = {after!r} (it was {before!r})")
    return differences


def _extends(before: Any, after: Any, grows: str) -> bool:
    """Every old table is still there, with at least as much under the key that may grow."""

    def identity(table: dict[str, Any]) -> str:
        return json.dumps({k: v for k, v in table.items() if k != grows}, sort_keys=True)

    later = {identity(table): table[grows] for table in after}
    return all(identity(t) in later and (later[identity(t)] or 0) >= (t[grows] or 0) for t in before)


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested tables by their dotted keys."""
    for key, value in values.items():
        name = f"{prefix}{key.rstrip('_')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def documentation(cls: type[Any] = StudyConfig, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Every key of a configuration as (key, kind, default, meaning), from the lines under its fields."""
    hints = typing.get_type_hints(cls)
    meanings = _lines_under_fields(cls)
    for f in dataclasses.fields(cls):
        key = prefix + f.name.rstrip("_")
        hint = hints[f.name]
        arguments = typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            yield from documentation(typing.cast("type[Any]", hint), f"{key}.")
        elif typing.get_origin(hint) is tuple and dataclasses.is_dataclass(arguments[0]):
            yield key, "a list of tables", "", meanings[f.name]
            yield from documentation(typing.cast("type[Any]", arguments[0]), f"{key}[].")
        else:
            default = "required" if f.default is dataclasses.MISSING else json.dumps(f.default)
            yield key, _kind(hint), "unset" if default == "null" else default, meanings[f.name]


def _lines_under_fields(cls: type[Any]) -> dict[str, str]:
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: " ".join(ast.literal_eval(line.value).split())
        for node, line in zip(body.body, body.body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(line, ast.Expr)
        and isinstance(line.value, ast.Constant)
    }
