"""Images, labels, the one split, and the draws of classes.

Everything leaves here as uint8, (N, H, W, C), and labels as int64, (N,). Nothing that a stranger hands over is
unpickled: `.npz` files are read as plain arrays, and CIFAR's own pickles only after torchvision's checksum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from study.config import DataConfig, InputError
from study.pictures import UNREADABLE, Images, Pictures, resized, shaped
from study.seeds import derive
from study.shapes import check_text

Labels = NDArray[np.int64]

#: Known sets: where each comes from, for `study datasets`.
KNOWN = {
    "cifar10": "CIFAR-10, by torchvision",
    "cifar100": "CIFAR-100, by torchvision",
    "mnist": "MNIST, by torchvision; grey made RGB and resized",
    "digits": "scikit-learn's 1,797 handwritten digits, grey made RGB and resized; always present",
    "photos": "crops of scikit-learn's two sample photographs, without labels; always present",
}

#: Pictures of a class of one's own: one to test, one to validate, some to learn from.
SMALLEST = 5


@dataclass(frozen=True)
class ImageSet:
    """A data set in memory. The test part may be empty only for sets without labels to learn."""

    name: str
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    class_names: tuple[str, ...]

    @property
    def images(self) -> Images:
        """Training part, then test part: what the indices of a `Split` count."""
        return np.concatenate((self.train_images, self.test_images))

    @property
    def labels(self) -> Labels:
        return np.concatenate((self.train_labels, self.test_labels))

    def digest(self) -> str:
        """SHA-256 of the images and labels as they are used here."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            digest.update(repr((array.shape, array.dtype.str)).encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


# --- loading -----------------------------------------------------------------------------------------------------


def load(name: str, data_dir: Path, *, size: int = 32, channels: int = 3) -> ImageSet:
    """Load a set, resized to squares of `size` pixels; raise `InputError` with the way out.

    `name` is `npz:FILE`, `folder:DIR` or a known set. The last is looked for in `data_dir` as `<name>.npz`, then in
    torchvision's own layout, then downloaded by torchvision.
    """
    if name.startswith("npz:"):
        # The same part in every study: its images train no encoder that another takes over.
        found = _with_test_part(_read_npz(Path(name.removeprefix("npz:")), name))
    elif name.startswith("folder:"):
        found = _read_folder(Path(name.removeprefix("folder:")), name, size, channels)
    elif name not in KNOWN:
        raise InputError(f"data set {name!r}: must be one of {', '.join(KNOWN)}, npz:FILE or folder:DIR")
    elif name == "digits":
        found = _digits()
    elif name == "photos":
        found = _photos(size)
    elif (data_dir / f"{name}.npz").exists():
        found = _read_npz(data_dir / f"{name}.npz", name)
    else:
        found = _torchvision(name, data_dir)
    return ImageSet(
        name,
        shaped(found.train_images, size, channels),
        found.train_labels,
        shaped(found.test_images, size, channels),
        found.test_labels,
        found.class_names,
    )


def present(name: str, data_dir: Path) -> str:
    """Say where a known set would be read from, or "" if it would have to be fetched."""
    if name in ("digits", "photos"):
        return "comes with scikit-learn"
    if (data_dir / f"{name}.npz").exists():
        return str(data_dir / f"{name}.npz")
    try:
        _torchvision(name, data_dir, download=False)
    except InputError:
        return ""
    return f"{data_dir} (torchvision)"


def _read_npz(path: Path, name: str) -> ImageSet:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (*UNREADABLE, TypeError) as error:  # an array alone is no context
        raise InputError(f"{path}: is not a readable .npz archive, or is cut short ({error})") from None
    except ValueError as error:
        reason = "holds pickled objects, which are never loaded" if "pickle" in str(error) else f"is damaged ({error})"
        raise InputError(f"{path}: {reason}: save plain arrays with numpy.savez") from None
    if "train_images" not in arrays:
        raise InputError(f"{path}: has no train_images; it holds {', '.join(arrays) or 'nothing'}")
    parts: dict[str, NDArray[Any]] = {}
    for part in ("train", "test"):
        images = arrays.get(f"{part}_images", arrays["train_images"][:0])
        labels = arrays.get(f"{part}_labels", np.zeros(len(images), dtype=np.int64))
        _check_images(path, f"{part}_images", images, empty=part == "test")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
            raise InputError(
                f"{path}: {part}_labels of type {labels.dtype} and shape {labels.shape}: must be whole numbers, "
                f"one for each of the {len(images)} images"
            )
        parts |= {f"{part}_images": images, f"{part}_labels": labels.astype(np.int64)}
    labels = np.concatenate((parts["train_labels"], parts["test_labels"]))
    given = arrays.get("class_names")
    if given is not None and given.ndim != 1:
        raise InputError(f"{path}: class_names of shape {given.shape}: must be a list")
    if given is None and labels.max() >= len(labels):
        raise InputError(f"{path}: labels up to {labels.max()} of {len(labels)} images: count classes from 0")
    names = tuple(map(str, np.arange(labels.max() + 1) if given is None else given))
    check_text(str(path), names)
    if labels.min() < 0 or labels.max() >= len(names):
        raise InputError(
            f"{path}: labels from {labels.min()} to {labels.max()}: must be from 0 to {len(names) - 1}, "
            f"because there are {len(names)} class names"
        )
    return ImageSet(name=name, class_names=names, **parts)


def _check_images(path: Path, key: str, images: NDArray[Any], *, empty: bool) -> None:
    what = f"{path}: {key} of type {images.dtype} and shape {images.shape}"
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise InputError(f"{what}: holds values that are not finite: give uint8 from 0 to 255")
    if images.dtype != np.uint8:
        raise InputError(f"{what}: must be uint8 from 0 to 255")
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (1, 3)) or 0 in images.shape[1:]:
        raise InputError(f"{what}: must be (N, H, W), (N, H, W, 1) or (N, H, W, 3)")
    if not len(images) and not empty:
        raise InputError(f"{what}: must hold at least one image")


def _read_folder(path: Path, name: str, size: int, channels: int) -> ImageSet:
    """Pictures in class folders, or without classes; a fifth of each class, by a fixed seed, is the test part."""
    pictures = Pictures(path, size=size, channels=channels)
    chunks = list(pictures)
    images = np.concatenate([chunk.images for chunk in chunks])
    told = [label for chunk in chunks for label in chunk.labels]
    names, labels = sorted(set(told)), np.unique(told, return_inverse=True)[1]
    if len(names) > 1:
        pictures.require_classes()
    check_text(str(path), names)
    counts = np.bincount(labels)
    if counts.min() < SMALLEST:
        what = f"class {names[counts.argmin()]!r}" if names[0] else "the folder"
        raise InputError(f"{path}: {what} has {counts.min()} pictures: a split takes {SMALLEST}, add some or remove it")
    rng = np.random.default_rng(0)
    train, test = stratified(labels, 0.2, rng)
    train = rng.permutation(train)  # folders come class by class, and the first images are kept from training
    classes = tuple(one or "picture" for one in names)
    return ImageSet(name, images[train], labels[train], images[test], labels[test], classes)


def _torchvision(name: str, data_dir: Path, *, download: bool = True) -> ImageSet:
    from torchvision import datasets as torchvision_datasets

    cls: Callable[..., Any] = getattr(torchvision_datasets, name.upper())
    try:
        parts = [cls(root=str(data_dir), train=train, download=download) for train in (True, False)]
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:  # of files cut short
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"data set {name}: is not in {data_dir} and could not be downloaded ({reason}): "
            f"put {name}.npz or torchvision's own files there, or name another folder with --data-dir"
        ) from None
    (train_images, train_labels), (test_images, test_labels) = (
        (np.asarray(part.data), np.asarray(part.targets, dtype=np.int64)) for part in parts
    )
    return ImageSet(name, train_images, train_labels, test_images, test_labels, tuple(parts[0].classes))


def _digits() -> ImageSet:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)
    # scikit-learn gives no test part: every fifth image of a class is one.
    order = np.argsort(labels, kind="stable")
    test = np.zeros(len(labels), dtype=bool)
    test[order[::5]] = True
    return ImageSet(
        "digits", images[~test], labels[~test], images[test], labels[test], tuple(map(str, digits.target_names))
    )


def _photos(size: int, count: int = 6000) -> ImageSet:
    """Random crops of two photographs: test crops from a band in the middle, training crops from both sides of it.

    No pixel of the band is in a training crop.
    """
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    parts = []
    for bands, crops in (([slice(0, 255), slice(385, 640)], count), ([slice(260, 380)], count // 6)):
        regions = [photo[:, band] for photo in load_sample_images().images for band in bands]
        taken = [
            _random_crops(region, side, crops // 3 // len(regions), rng) for region in regions for side in (48, 64, 96)
        ]
        part = np.concatenate([resized(same_side, size) for same_side in taken])
        parts.append(part[rng.permutation(len(part))])
    labels = [np.zeros(len(part), dtype=np.int64) for part in parts]
    return ImageSet("photos", parts[0], labels[0], parts[1], labels[1], ("photo",))


def _random_crops(region: Images, side: int, count: int, rng: np.random.Generator) -> Images:
    """Squares at random places, every second one mirrored."""
    corners = rng.integers(0, np.array(region.shape[:2]) - side + 1, size=(count, 2))
    crops = np.stack([region[top : top + side, left : left + side] for top, left in corners])
    crops[::2] = crops[::2, :, ::-1]
    return crops


# --- splitting ---------------------------------------------------------------------------------------------------


def autoencoder_parts(data: ImageSet, config: DataConfig) -> tuple[Images, Images]:
    """Images to train autoencoders on (the paper's T) and images kept from training (its V)."""
    if config.held_out == 0:
        train, held_out = data.train_images, data.test_images
        if not len(held_out):
            raise InputError(f"data.held_out = 0: {data.name} has no test part: keep some training images instead")
    else:
        if config.held_out >= len(data.train_images):
            raise InputError(
                f"data.held_out = {config.held_out}: {data.name} has {len(data.train_images)} training images: "
                f"keep fewer"
            )
        held_out, train = data.train_images[: config.held_out], data.train_images[config.held_out :]
    return train[: config.train_images], held_out


@dataclass(frozen=True)
class Split:
    """Indices into `ImageSet.images`; no image is in two parts."""

    train: Labels
    validation: Labels
    test: Labels

    def check(self, data: ImageSet, protocol: str) -> None:
        """Raise `InputError` for a class that can be drawn and has no image in some part."""
        classes = np.unique(data.train_labels)
        for part, indices in vars(self).items():
            lacking = np.setdiff1d(classes, data.labels[indices])
            if len(lacking) and (len(indices) or part != "validation"):  # some classifiers need none of that
                raise InputError(
                    f"tasks: {data.name}: class {data.class_names[lacking[0]]!r} has no {part} image in protocol "
                    f"{protocol}: give more images of it, or leave it out"
                )


def split(data: ImageSet, protocol: str, classifier: str, seed: int) -> Split:
    """The one place where labelled images are split.

    `paper`, neural network: the first 10,000 training images (a fifth, where there are fewer than 50,000) validate,
    the rest trains, the test part tests; where either would lack a class, they are drawn from each. `paper`, others:
    training and test part merged, stratified 8:2. `shared`: the training part stratified 8:2 into training and
    validation, and the test part less the images that stand in the training part too, the same for every classifier
    and every representation.
    """
    n, total = len(data.train_images), len(data.labels)
    rng = np.random.default_rng(derive(seed, "split", data.name, protocol))
    if protocol == "paper" and classifier == "mlp":
        kept = min(10_000, n // 5)
        train, validation = np.arange(kept, n), np.arange(kept)
        if any(len(np.unique(data.labels[part])) < len(np.unique(data.train_labels)) for part in (train, validation)):
            train, validation = stratified(data.train_labels, kept / n, rng)  # the set is sorted by class
        return Split(train, validation, np.arange(n, total))
    if protocol == "paper":
        train, test = stratified(data.labels, 0.2, rng)
        return Split(train, train[:0], test)
    train, validation = stratified(data.train_labels, 0.2, rng)
    seen = {image.tobytes() for image in data.train_images}
    fresh = [n + i for i, image in enumerate(data.test_images) if image.tobytes() not in seen]
    return Split(train, validation, np.array(fresh, dtype=np.int64))


@dataclass(frozen=True)
class AttackParts:
    """Indices into `ImageSet.images`: what an attacker may hold, and whose masked forms are to be restored.

    No image is in two parts, and no victim is pixel for pixel an image of the attacker.
    """

    pairs: Labels
    """Leaked pairs are drawn from these."""
    public: Labels
    """Images of the same distribution, whose masked forms only an attacker with an oracle or the weights sees."""
    victims: Labels


def attack_parts(data: ImageSet, victims: int, seed: int) -> AttackParts:
    """Halve the training part, at random, into pairs and public images; victims are of the test part."""
    rng = np.random.default_rng(derive(seed, "attack parts", data.name))
    pairs, public = np.array_split(rng.permutation(len(data.train_images)), 2)
    test = split(data, "shared", "mlp", seed).test
    if len(public) < 2 or len(test) < 2:
        raise InputError(
            f"tasks: {data.name} has too few different images to attack anything: give more, or set attacks.names = []"
        )
    return AttackParts(pairs, public, rng.permutation(test)[:victims])


def stratified(labels: Labels, share: float, rng: np.random.Generator) -> tuple[Labels, Labels]:
    """Indices of two parts; each class gives `share` of its images, rounded, to the second."""
    second = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        second[rng.permutation(members)[: round(share * len(members))]] = True
    return np.flatnonzero(~second), np.flatnonzero(second)


def draws(data: ImageSet, count: int, number: int, seed: int) -> list[tuple[int, ...]]:
    """Random choices of `count` classes, `number` of them, each by its own index; all classes are one choice."""
    classes = np.unique(data.train_labels)  # a class may be named and have no images
    if count > len(classes):
        raise InputError(f"tasks: {data.name} has {len(classes)} classes: {count} cannot be drawn from them")
    if count == len(classes):
        return [tuple(classes.tolist())]
    return [
        tuple(
            sorted(
                np.random.default_rng(derive(seed, "draw", data.name, count, index))
                .choice(classes, count, replace=False)
                .tolist()
            )
        )
        for index in range(number)
    ]


def _with_test_part(data: ImageSet) -> ImageSet:
    """A set without a test part gives a stratified fifth of its training part."""
    if len(data.test_images):
        return data
    train, test = stratified(data.train_labels, 0.2, np.random.default_rng(0))
    images, labels = data.train_images, data.train_labels
    return ImageSet(data.name, images[train], labels[train], images[test], labels[test], data.class_names)


# --- test patterns -----------------------------------------------------------------------------------------------


def patterns(size: int, channels: int) -> Images:
    """Black-and-white test patterns of our own making (the paper's P; its S1 File is not in the text).

    Checkerboards, bars, rings and letters, each also inverted.
    """
    from PIL import Image, ImageDraw, ImageFont

    row, column = np.mgrid[0:size, 0:size]
    period = [max(2, size // k) for k in (2, 4, 8, 16)]
    drawn = [(row // p + column // p) % 2 for p in period]
    drawn += [(axis // p) % 2 for axis in (row, column, row + column, row - column + size) for p in period[1:3]]
    radius = np.hypot(row - (size - 1) / 2, column - (size - 1) / 2)
    drawn += [(radius // p).astype(int) % 2 for p in period[1:]]
    font = ImageFont.load_default(size=size * 0.8)
    for letter in "AEKRSX":
        sheet = Image.new("L", (size, size))
        ImageDraw.Draw(sheet).text((size / 2, size / 2), letter, fill=255, font=font, anchor="mm")
        drawn.append((np.asarray(sheet) > 127).astype(int))
    black_and_white = np.stack([image for one in drawn for image in (one, 1 - one)]).astype(np.uint8) * 255
    return np.repeat(black_and_white[..., None], channels, axis=3)
