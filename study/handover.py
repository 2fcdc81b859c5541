"""What changes hands: what is learned from a file of masked forms, and pictures restored with the key.

The owner masks; the receiver needs neither encoder nor images.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.preprocessing import StandardScaler

import classifiers
from aae.keys import Key, KeyFileError, is_locked, load_key, write_private
from aae.locks import LockError, lock, unlock
from aae.masking import unmask
from classifiers import ClassifiersConfig, Scores
from study.aggregate import welch
from study.config import InputError
from study.datasets import Labels, stratified
from study.masked_file import MaskedFile, Vectors, open_masked
from study.model_file import Model, ModelInfo, is_model, read_model
from study.records import appearing
from study.seeds import derive

#: Share of masked forms that test a classifier; of the rest, the same share chooses the epoch.
TEST = 0.2


def read_key(path: Path, part: str | None, passphrase: Callable[[], str] | None = None) -> Key:
    """One half of a pair, or either; `InputError` where the file is none, or another passphrase's."""
    try:
        return load_key(path, part, passphrase)
    except KeyFileError as error:
        raise InputError(str(error)) from None


def write_pictures(
    decoder: Key, masked: MaskedFile, out: Path, *, anyway: bool, told: Callable[[int], None] = lambda count: None
) -> int:
    """Restore masked forms as PNG pictures `000000.png`, ...; return how many.

    Args:
        told: is called after every chunk with how many there are.

    Raises:
        InputError: the decoder is another pair's (unless `anyway`), another length's, or the folder is in use.
    """
    if decoder.latent.length != masked.length:
        raise InputError(
            f"{masked.path}: masked forms of {masked.length} numbers; this decoder takes {decoder.latent.length}"
        )
    if decoder.pair != masked.pair and not anyway:
        raise InputError(
            f"{masked.path}: was masked by pair {masked.pair}, and this is the decoder of pair {decoder.pair}: give "
            f"the matching one, or --anyway to see what a stranger sees"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty: choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    number = 0
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", ignore_cleanup_errors=True) as name:
        beside = Path(name) / "pictures"
        beside.mkdir()
        for vectors, _, _ in masked.chunks():
            for image in np.rint(unmask(decoder.module, vectors) * 255).astype(np.uint8):
                Image.fromarray(image.squeeze()).save(beside / f"{number:06d}.png")
                number += 1
            told(number)
        beside.replace(out)
    return number


def classify_masked(
    masked: MaskedFile, names: tuple[str, ...], config: ClassifiersConfig, repeats: int, seed: int
) -> pd.DataFrame:
    """Accuracy, precision and recall of classifiers on labelled masked forms, over repeated random splits.

    Each split is stratified, 64% for training, 16% to choose the epoch, 20% to test; vectors are standardised on the
    training part. Splits share images, so Student's interval over them is widened by what they share: the corrected
    resampled t of Nadeau and Bengio (Machine Learning 52, 2003). What is measured depends on the seed alone.
    """
    vectors, labels, classes = _labelled(masked)
    rows = []
    for name in names:
        measured = [
            _one_split(vectors, labels, len(classes), name, config, derive(seed, "handover", repeat))
            for repeat in range(repeats)
        ]
        row: dict[str, Any] = {"classifier": name, "splits": repeats}
        for metric in ("accuracy", "precision", "recall"):
            values = np.array([getattr(scores, metric) for scores in measured])
            row[metric] = float(values.mean())
            ends = _over_splits(values) if repeats > 1 else (np.nan, np.nan)
            row |= {f"{metric}_low": ends[0], f"{metric}_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def _over_splits(values: NDArray[np.float64]) -> list[float]:
    shared = len(values) * TEST / (1 - TEST) ** 2  # test over training images
    return welch(float(values.mean()), (float(values.std(ddof=1)) * np.sqrt(1 + shared), len(values)))


def _labelled(masked: MaskedFile) -> tuple[Vectors, Labels, list[str]]:
    """Masked forms, their classes by index, and the names of the classes; `InputError` where there are too few."""
    vectors, told = masked.whole()
    classes, labels = np.unique(told, return_inverse=True)
    smallest = np.bincount(labels).min()
    if len(classes) < 2 or smallest < 5:
        raise InputError(
            f"{masked.path}: it takes two classes, of five images each; classes here: {len(classes)}, images in the "
            f"smallest: {smallest}"
        )
    return vectors, labels, classes.tolist()


def _one_split(
    vectors: Vectors, labels: Labels, classes: int, name: str, config: ClassifiersConfig, seed: int
) -> Scores:
    rng = np.random.default_rng(seed)
    rest, test = stratified(labels, TEST, rng)
    train, validation = (rest[part] for part in stratified(labels[rest], TEST, rng))
    scaler, fitted = _fitted(vectors, labels, train, validation, classifiers.build(name, config, seed))
    return classifiers.score(labels[test], fitted.predict(scaler.transform(vectors[test]).astype(np.float32)), classes)


def _fitted(
    vectors: Vectors, labels: Labels, train: Labels, validation: Labels, classifier: Any
) -> tuple[StandardScaler, Any]:
    scaler = StandardScaler().fit(vectors[train])
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = scaler.transform(vectors).astype(np.float32)
    if not np.isfinite(scaled).all():
        raise InputError("masked forms: hold numbers too large to learn from: mask the pictures again")
    parts = [(scaled[part], labels[part]) for part in (train, validation)]
    return scaler, classifiers.fit(classifier, *parts)


def learn_model(masked: MaskedFile, config: ClassifiersConfig, seed: int) -> Model:
    """One neural network from all labelled masked forms; a stratified 16% of them choose the epoch."""
    vectors, labels, classes = _labelled(masked)
    seed = derive(seed, "handover", "model")
    train, validation = stratified(labels, 0.16, np.random.default_rng(seed))
    scaler, network = _fitted(vectors, labels, train, validation, classifiers.build("mlp", config, seed))
    try:
        info = ModelInfo(
            pair=masked.pair,
            gaussian=masked.gaussian,
            categorical=masked.categorical,
            classes=tuple(classes),
            hidden=network.hidden,
            trained_on=len(labels),
            validation_accuracy=float(network.history_[network.best_epoch_ - 1]["validation_accuracy"]),
        )
    except ValueError as error:
        raise InputError(f"{masked.path}: {error}") from None
    return Model(info, scaler, network)


def write_predictions(path: Path, masked: MaskedFile, out: Path) -> dict[str, int]:
    """Write the class of every masked form, as the model in `path` sees it, to a table, a chunk at a time.

    Returns:
        How many `forms`; with labels also how many are `right`, and how many `unknown`: of classes the model lacks.

    Raises:
        InputError: the model is another pair's or another length's, or the table is there already.
    """
    model = read_model(path)
    wanted, given = (f"{one.gaussian}+{one.categorical}" for one in (model.info, masked))
    if wanted != given:
        raise InputError(f"{masked.path}: masked forms of {given} numbers; the model {path} takes {wanted}")
    if model.info.pair != masked.pair:
        raise InputError(
            f"{masked.path}: was masked by pair {masked.pair}, and {path} learned from pair {model.info.pair}: mask "
            f"with that pair's encoder, or learn anew from masked forms of this pair"
        )
    with appearing(out) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        return _predict_into(file, model, masked)


def _cell(text: str) -> str:
    """A stranger's text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _predict_into(file: TextIO, model: Model, masked: MaskedFile) -> dict[str, int]:
    classes, known = np.array(model.info.classes, dtype=object), frozenset(model.info.classes)
    cells = np.array([_cell(name) for name in model.info.classes], dtype=object)
    first = "name" if masked.has_names else "number"
    file.write(f"{first},class,probability\n")
    counts = dict.fromkeys(("forms", "right", "unknown") if masked.has_labels else ("forms",), 0)
    for vectors, labels, names in masked.chunks():
        try:
            best, probability = model.predict(vectors)
        except InputError as error:
            raise InputError(f"{masked.path}: {error}") from None
        begin = counts["forms"]
        told = map(_cell, names) if masked.has_names else range(begin, begin + len(vectors))
        table = pd.DataFrame({first: list(told), "class": cells[best], "probability": probability})
        table.to_csv(file, index=False, header=False, float_format="%.6f", lineterminator="\n")
        counts["forms"] += len(vectors)
        if masked.has_labels:
            counts["right"] += int((classes[best] == np.array(labels, dtype=object)).sum())
            counts["unknown"] += sum(label not in known for label in labels)
    return counts


def turn_lock(path: Path, passphrase: Callable[[], str], *, locked: bool) -> None:
    """Lock or unlock a decoder where it lies; it stays readable by its owner alone.

    Raises:
        InputError: the file is no decoder, is already so, or the passphrase is too short or not the right one.
    """
    try:
        if is_locked(path) == locked:
            raise InputError(f"{path}: is {'already' if locked else 'not'} locked")
        asked = passphrase()
        read_key(path, "decoder", lambda: asked)  # nothing else is locked, and nothing damaged
        content = path.read_bytes()
        write_private(path, lock(content, asked) if locked else unlock(content, asked))
    except LockError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read or written ({error.strerror})") from None


def _begins(path: Path, mark: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(mark)) == mark
    except OSError:  # told by who reads it in earnest
        return False


def inspect(path: Path, passphrase: Callable[[], str] | None = None) -> dict[str, Any]:
    """What a file of this project says of itself."""
    if _begins(path, b"PAR1"):
        masked = open_masked(path)
        return {"kind": "masked forms"} | {key: value for key, value in vars(masked).items() if key != "path"}
    if is_model(path):
        model = read_model(path)
        numbers = sum(array.size for array in model.network.state().values())
        return {"kind": "classifier", **vars(model.info), "parameters": numbers}
    key = read_key(path, None, passphrase)
    numbers = sum(parameter.numel() for parameter in key.module.parameters())
    return {
        "kind": key.part,
        "locked": is_locked(path),
        "pair": key.pair,
        **vars(key.latent),
        "network": json.loads(json.dumps(vars(key.network))),
        "parameters": numbers,
    }
