"""Encoder and decoder as two separate files: what may be handed out, and what must not.

Each is a safetensors file (no code runs when it is read) of mode 0600, with its configuration and the identity of
the pair in the header. The identity is random: whoever holds the encoder cannot compute it, only read it there.
Weights that half precision holds exactly, which those of finished training are, take half the room.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from aae.config import LatentConfig, NetworkConfig, from_plain
from aae.flow import Whitening
from aae.locks import MAGIC, LockError, unlock
from aae.networks import Autoencoder, Decoder, Encoder

#: The layout of the files; another number is refused.
FORMAT = "2"

#: What one half never uses of a whitening, and therefore does not hold.
UNUSED = {"encoder": "inverse", "decoder": "matrix"}

Header = dict[str, str]
Shapes = dict[str, list[int]]
Tensors = dict[str, Tensor]

_PARTS: dict[str, Callable[[LatentConfig, NetworkConfig], nn.Module]] = {"encoder": Encoder, "decoder": Decoder}


class KeyFileError(ValueError):
    """A file is not an encoder or decoder of ours, or is damaged."""


@dataclass(frozen=True)
class Key:
    """One half of a pair, ready to use: in evaluation mode, on the CPU."""

    part: str
    pair: str
    latent: LatentConfig
    network: NetworkConfig
    module: nn.Module


def write_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in one step: beside its place, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp creates with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def keeps_private(folder: Path) -> bool:
    """Whether a file there can have mode 0600. A share mounted from elsewhere may give all files one mode."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".mode-") as probe:
        return not os.fstat(probe.fileno()).st_mode & 0o077


def save_pair(folder: Path, nets: Autoencoder, network: NetworkConfig) -> str:
    """Write `encoder.safetensors` and `decoder.safetensors` to a folder; return the identity of the pair.

    The encoder is written last, so where there is an encoder its decoder is complete.
    """
    pair = secrets.token_hex(16)
    for part in ("decoder", "encoder"):
        module = getattr(nets, part)
        header = {
            "format": FORMAT,
            "part": part,
            "pair": pair,
            "latent": json.dumps(asdict(nets.latent)),
            "network": json.dumps(asdict(network)),
        }
        tensors = {
            name: _smallest(value.detach().cpu().contiguous())
            for name, value in module.state_dict().items()
            if not name.endswith(f"whitening.{UNUSED[part]}")
        }
        write_private(folder / f"{part}.safetensors", save(tensors, metadata=header))
    return pair


def _smallest(value: Tensor) -> Tensor:
    """A matrix in half precision, where that holds it exactly."""
    if value.dtype != torch.float32 or value.dim() < 2 or not torch.equal(value.half().float(), value):
        return value
    return value.half()


def load_key(path: Path, part: str | None = None, passphrase: Callable[[], str] | None = None) -> Key:
    """Read an encoder or a decoder.

    Args:
        path: the file.
        part: "encoder" or "decoder" where only that will do.
        passphrase: asked for where the file is locked.

    Raises:
        KeyFileError: the file is missing, damaged, foreign, locked, or the other part; the message says which.
    """
    try:
        with _opened(path, passphrase) as (header, shapes, read):
            found, latent, network = _described(path, header)
            if part is not None and found != part:
                raise KeyFileError(f"{path}: is the {found} of a pair: give the {part} instead")
            try:
                with torch.device("meta"):  # shapes first, memory after: a hostile header allocates nothing
                    module = _PARTS[found](latent, network)
                for whitening in module.modules():
                    if isinstance(whitening, Whitening):
                        setattr(whitening, UNUSED[found], None)
            except (TypeError, ValueError) as error:  # as of half a layer
                raise _not_valid(path, error) from None
            _check_shapes(path, module, shapes)
            tensors = read()
    except FileNotFoundError:
        raise KeyFileError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise KeyFileError(f"{path}: is not a readable safetensors file ({error})") from None
    module.load_state_dict(_checked(path, module, tensors), assign=True)
    return Key(found, header["pair"], latent, network, module.eval().requires_grad_(requires_grad=False))


@contextmanager
def _opened(path: Path, passphrase: Callable[[], str] | None) -> Iterator[tuple[Header, Shapes, Callable[[], Tensors]]]:
    """Header, shapes, and a function that reads the tensors; a locked file is unlocked in memory alone."""
    if not is_locked(path):
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
            yield file.metadata() or {}, shapes, lambda: {name: file.get_tensor(name) for name in shapes}
        return
    if passphrase is None:
        raise KeyFileError(f"{path}: is locked by a passphrase: unlock it first, or use a command that asks for it")
    try:
        content = unlock(path.read_bytes(), passphrase())
    except LockError as error:
        raise KeyFileError(f"{path}: {error}") from None
    tensors = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__", {})
    yield header, {name: list(value.shape) for name, value in tensors.items()}, lambda: tensors


def is_identity(pair: str) -> bool:
    """Whether a text can be the identity of a pair, and so may be printed, whoever wrote it."""
    return re.fullmatch("[0-9a-f]{32}", pair) is not None


def is_locked(path: Path) -> bool:
    """Whether a file is locked by a passphrase; `OSError` where it cannot be read."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _described(path: Path, header: dict[str, str]) -> tuple[str, LatentConfig, NetworkConfig]:
    missing = {"format", "part", "pair", "latent", "network"} - set(header)
    if missing:
        raise KeyFileError(f"{path}: is not an encoder or decoder of this project (no {', '.join(sorted(missing))})")
    if header["format"] != FORMAT or header["part"] not in _PARTS:
        raise KeyFileError(f"{path}: has format {header['format']!r}, part {header['part']!r}: cannot be read here")
    if not is_identity(header["pair"]):
        raise KeyFileError(f"{path}: names its pair {header['pair'][:40]!r}, not by 32 hexadecimal digits")
    try:
        latent, network = (_configuration(cls, header[key]) for cls, key in _CONFIGURATIONS)
    except (ValueError, TypeError, RecursionError) as error:
        raise _not_valid(path, error) from None
    return header["part"], latent, network


def _not_valid(path: Path, error: Exception) -> KeyFileError:
    told = "a value is of another kind than its key takes" if isinstance(error, TypeError) else error
    return KeyFileError(f"{path}: its configuration is not valid: {told}")


_CONFIGURATIONS: tuple[tuple[type[Any], str], ...] = ((LatentConfig, "latent"), (NetworkConfig, "network"))


def _configuration(cls: type[Any], text: str) -> Any:
    values = json.loads(text)
    if not isinstance(values, dict):
        raise TypeError(f"{cls.__name__} is not a table")
    return from_plain(cls, values)


def _check_shapes(path: Path, module: nn.Module, shapes: dict[str, list[int]]) -> None:
    wanted = {name: list(value.shape) for name, value in module.state_dict().items()}
    if shapes != wanted:
        odd = sorted(name for name in wanted.keys() | shapes.keys() if wanted.get(name) != shapes.get(name))
        raise KeyFileError(f"{path}: {odd[0]} does not fit the configuration in the same file ({len(odd)} such)")


def _checked(path: Path, module: nn.Module, tensors: Tensors) -> Tensors:
    """The tensors in the precision of the module."""
    found = {}
    for name, wanted in module.state_dict().items():
        value = tensors[name]
        if value.dtype == torch.float16 and wanted.dtype == torch.float32 and value.dim() > 1:
            value = value.float()
        if value.dtype != wanted.dtype or (value.is_floating_point() and not bool(value.isfinite().all())):
            raise KeyFileError(f"{path}: {name} holds values that are not finite or not of type {wanted.dtype}")
        if name.endswith(".running_var") and bool((value < 0).any()):
            raise KeyFileError(f"{path}: {name} holds negative variances")
        if name.endswith(".shuffled") and not torch.equal(value.sort().values, torch.arange(len(value))):
            raise KeyFileError(f"{path}: {name} does not hold every dimension once")
        found[name] = value
    return found
