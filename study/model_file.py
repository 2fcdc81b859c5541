"""A neural network that learned from masked forms, as a file: what the receiving side keeps and uses again.

A safetensors file (no code runs when it is read): the layers, the scaler's mean and scale, and in the header the
identity of the pair whose masked forms it learned from, with what else `ModelInfo` says. Forests and AdaBoost have
no such format in scikit-learn, so only the neural network is kept.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn.preprocessing import StandardScaler

from aae.config import LatentConfig, require
from aae.keys import is_identity
from classifiers import MLP, layer_shapes
from classifiers.config import MlpConfig
from study.config import InputError
from study.records import write_whole

#: The layout of the file; another number is refused.
FORMAT = "1"

#: Characters of a description: room for thousands of classes, and nothing that could fill the memory.
LONGEST = 2**20


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What a saved network says of itself."""

    pair: str
    """Identity of the encoder's pair: masked forms of another mean nothing to it."""
    gaussian: int
    categorical: int
    classes: tuple[str, ...]
    """Names, in the order of the network's outputs."""
    hidden: tuple[int, int]
    trained_on: int
    """Masked forms it saw, those that chose the epoch included."""
    validation_accuracy: float
    """On the part that chose the epoch: too kind by that choice."""

    def __post_init__(self) -> None:
        is_pair = isinstance(self.pair, str) and is_identity(self.pair)
        require(bool(is_pair), "pair", self.pair, "32 hexadecimal digits")
        for key in ("gaussian", "categorical", "trained_on"):
            value = getattr(self, key)
            require(type(value) is int and value >= 0, key, value, "a whole number")
        LatentConfig(gaussian=self.gaussian, categorical=self.categorical)
        require(
            isinstance(self.hidden, tuple) and all(type(width) is int for width in self.hidden),
            "hidden",
            self.hidden,
            "two whole numbers",
        )
        MlpConfig(hidden=self.hidden)
        named = isinstance(self.classes, tuple) and all(_is_text(name) for name in self.classes)
        require(named and len(set(self.classes)) == len(self.classes) >= 2, "classes", self.classes, "names, each once")
        accuracy = self.validation_accuracy
        require(type(accuracy) is float and 0 <= accuracy <= 1, "validation_accuracy", accuracy, "from 0 to 1")

    @property
    def length(self) -> int:
        """Numbers in one masked form."""
        return self.gaussian + self.categorical

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The arrays that belong in the file."""
        layers = layer_shapes((self.length, *self.hidden, len(self.classes)))
        return layers | {"mean": (self.length,), "scale": (self.length,)}


def _is_text(name: object) -> bool:
    """Whether a name can be written as UTF-8: JSON lets halves of characters through."""
    return isinstance(name, str) and not re.search("[\ud800-\udfff]", name)


@dataclass(frozen=True)
class Model:
    """A fitted network with the scaler in front of it; its labels are indices of `info.classes`."""

    info: ModelInfo
    scaler: StandardScaler
    network: MLP

    def predict(self, vectors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The likeliest class of each masked form, by index, and its probability.

        Raises `InputError` where the numbers grow beyond what floats hold.
        """
        with np.errstate(all="ignore"):
            scaled = self.scaler.transform(vectors).astype(np.float32)
        score_NC = self.network.predict_proba(scaled) if np.isfinite(scaled).all() else np.array([[np.nan]])
        if not np.isfinite(score_NC).all():
            raise InputError("masked forms, or the weights of the model, are too large to give probabilities")
        best_N = score_NC.argmax(axis=1)
        return best_N, score_NC[np.arange(len(best_N)), best_N]


def write_model(path: Path, model: Model) -> None:
    """Write a model in one step; `InputError` where it cannot be written."""
    description = asdict(model.info)
    header = {"format": FORMAT, "part": "classifier", "pair": description.pop("pair")}
    header["model"] = json.dumps(description, ensure_ascii=False)
    if len(header["model"]) > LONGEST:
        raise InputError(f"{path}: the names of the classes are longer than {LONGEST} characters: give shorter ones")
    arrays = model.network.state() | {"mean": model.scaler.mean_, "scale": model.scaler.scale_}
    try:
        write_whole(path, save(arrays, metadata=header))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}): choose another place") from None


def read_model(path: Path) -> Model:
    """Read a model; `InputError` where the file is missing, damaged, foreign or says what cannot be."""
    try:
        with safe_open(path, framework="np") as file:
            info = _described(path, file.metadata() or {})
            found = {name: file.get_slice(name) for name in file.keys()}
            _check_shapes(path, info, {name: (part.get_dtype(), *part.get_shape()) for name, part in found.items()})
            arrays = {name: file.get_tensor(name) for name in found}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: is not a readable safetensors file ({_short(error)})") from None
    for name, array in arrays.items():
        if not np.isfinite(array).all() or (name == "scale" and not (array > 0).all()):
            raise InputError(f"{path}: {name} holds values that are not finite, or not above 0")
    scaler = StandardScaler()
    scaler.mean_, scaler.scale_, scaler.n_features_in_ = arrays.pop("mean"), arrays.pop("scale"), info.length
    return Model(info, scaler, MLP.from_state(arrays, np.arange(len(info.classes))))


def is_model(path: Path) -> bool:
    """Whether a file calls itself a saved network."""
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("part") == "classifier"
    except (SafetensorError, OSError):
        return False


def _described(path: Path, header: dict[str, str]) -> ModelInfo:
    if header.get("part") != "classifier" or not header.keys() >= {"format", "pair", "model"}:
        raise InputError(f"{path}: is no saved classifier of this project: make one with `study classify --save`")
    if header["format"] != FORMAT or len(header["model"]) > LONGEST:
        raise InputError(f"{path}: has format {header['format'][:20]!r} or too long a description: cannot be read here")
    try:
        values: Any = json.loads(header["model"])
        require(isinstance(values, dict), "model", values, "a table")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        return ModelInfo(pair=header["pair"], **values)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its description is not valid: {_short(error)}") from None


def _check_shapes(path: Path, info: ModelInfo, found: dict[str, tuple[Any, ...]]) -> None:
    """Compare shapes and types with what the description asks for, before any memory is taken."""
    wanted = {name: ("F64" if name in ("mean", "scale") else "F32", *shape) for name, shape in info.shapes.items()}
    if odd := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise InputError(f"{path}: {_short(odd[0])} does not fit the description in the same file ({len(odd)} such)")


def _short(message: object) -> str:
    """One line of printable text, however long and odd the file made it."""
    return "".join(c if c.isprintable() else " " for c in str(message)[:200])
