"""Pictures of one's own: a folder, a folder of class folders, or an `.npz`, read a few at a time.

Nothing a stranger hands over is trusted: links that leave the folder and pictures that unpack to more than
`LARGEST` pixels are refused, arrays are never unpickled, and of pictures not yet read only the path is in memory.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.nn import functional

from study.config import InputError

Images = NDArray[np.uint8]

#: Pixels of the largest picture that is opened.
LARGEST = 50_000_000

#: Images read, masked and written at once, and what they may weigh in an archive: as many as fit, but one at least.
CHUNK, CHUNK_BYTES = 500, 1 << 26

#: Bytes of the labels, or of the names of classes, in an archive.
SMALL = 1 << 28

#: What reading a damaged, encrypted or hostile archive raises.
UNREADABLE = (OSError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, KeyError, RuntimeError, MemoryError)

ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}

#: What is opened, whatever a file is called: Pillow knows formats that start other programs.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")


def _of_bytes(picture: Image.Image) -> Image.Image:
    """A picture of 8 bits a channel; Pillow would cut the values of deeper ones off at 255."""
    if picture.mode.startswith("I;16"):
        deep = np.asarray(picture).astype(np.uint32)
        shallow = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
        shallow.info["exif"] = picture.getexif().tobytes()
        return shallow
    if picture.mode in ("I", "F"):
        raise ValueError("has 32 bits a channel, whose black and white are not told: 8 or 16 are read")
    return picture


@dataclass(frozen=True)
class Chunk:
    """Some images, and what is known of each."""

    images: Images
    """uint8, (N, size, size, channels)."""
    names: list[str]
    labels: list[str]
    """Empty text where there is none."""


class Pictures:
    """Images from a path, brought to squares of one size.

    Args:
        path: a folder of pictures, a folder of class folders (their names are the labels), or an `.npz` with `images`
            or `train_images`, uint8, and perhaps labels of the same prefix.
        size, channels: what the encoder wants. A picture that is not square loses its longer ends.
        skip_broken: leave out pictures that cannot be read, instead of raising.

    Attributes:
        count: pictures there are.
        unclassed: one that has no class; "" where all have.
        skipped: one line for each picture left out.
    """

    def __init__(self, path: Path, *, size: int, channels: int, skip_broken: bool = False) -> None:
        self.path, self._size, self._channels, self._skip_broken = path, size, channels, skip_broken
        self.skipped: list[str] = []
        if path.is_dir():
            self._files = _listed(path)
            self.count = len(self._files)
            self.unclassed = next((file.name for file in self._files if file.parent == path), "")
        elif path.suffix == ".npz" and path.exists():
            self._member = _ArrayReader(path)
            self.count = self._member.shape[0]
            self.unclassed = "" if self._member.has_labels else "image 0"
        else:
            raise InputError(f"{path}: must be a folder of pictures, a folder of class folders, or an .npz file")

    def __iter__(self) -> Iterator[Chunk]:
        """Raises `InputError` for a picture that cannot be read, unless those are skipped."""
        return self._from_folder() if self.path.is_dir() else self._from_array()

    def require_classes(self) -> None:
        """Raise `InputError` unless every picture has a class."""
        if self.unclassed:
            raise InputError(
                f"{self.path}: {self.unclassed} has no class: put every picture into a class folder, or labels into "
                f"the .npz"
            )

    def _from_folder(self) -> Iterator[Chunk]:
        for begin in range(0, self.count, CHUNK):
            images, names, labels = [], [], []
            for file in self._files[begin : begin + CHUNK]:
                try:
                    images.append(self._opened(file))
                except InputError as error:
                    if not self._skip_broken:
                        raise
                    self.skipped.append(str(error))
                    continue
                inside = file.relative_to(self.path)
                names.append(str(inside))
                labels.append(inside.parts[0] if len(inside.parts) > 1 else "")
            if images:
                yield Chunk(np.stack(images), names, labels)

    def _opened(self, file: Path) -> Images:
        try:
            inside = file.resolve().is_relative_to(self.path.resolve())
        except (OSError, RuntimeError):  # a link that leads to itself
            inside = False
        if not inside:
            raise InputError(f"{file}: is a link that leaves {self.path}: copy the picture there instead")
        try:
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                fitted = self._fitted(picture) if width * height <= LARGEST else None
        except Exception as error:  # Pillow's readers of damaged files raise whatever they meet
            raise InputError(f"{file}: is not a picture that can be read ({error}): mend it or skip it") from None
        if fitted is None:
            raise InputError(f"{file}: has {width} x {height} pixels, more than {LARGEST:,}: shrink it first")
        return fitted

    def _fitted(self, picture: Image.Image) -> Images:
        upright = ImageOps.exif_transpose(_of_bytes(picture)).convert("RGB" if self._channels == 3 else "L")
        fitted = ImageOps.fit(upright, (self._size, self._size), Image.Resampling.BILINEAR)
        return np.asarray(fitted, dtype=np.uint8).reshape(self._size, self._size, self._channels)

    def _from_array(self) -> Iterator[Chunk]:
        names = self._member.class_names
        begin = 0
        for images, labels in self._member:
            given = [] if labels is None else labels.tolist()
            told = [names[n] if isinstance(n, int) and 0 <= n < len(names) else str(n) for n in given]
            numbers = [str(begin + i) for i in range(len(images))]
            yield Chunk(shaped(images, self._size, self._channels), numbers, told or [""] * len(images))
            begin += len(images)


def _listed(folder: Path) -> list[Path]:
    """The pictures in a folder and in the folders of it, by name."""
    found = [file for pattern in ("*", "*/*") for file in folder.glob(pattern) if file.suffix.lower() in ENDINGS]
    files = sorted(file for file in found if file.is_file() or file.is_symlink())
    if not files:
        raise InputError(f"{folder}: holds no pictures ({', '.join(sorted(ENDINGS))}), nor folders of them")
    return files


class _ArrayReader:
    """Rows of the images in an `.npz`, as they come out of the archive: the whole is never in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                members = {name.removesuffix(".npy") for name in archive.namelist()}
        except UNREADABLE as error:
            raise InputError(f"{path}: is not a readable .npz archive, or is cut short ({error})") from None
        prefix = next((p for p in ("", "train_") if f"{p}images" in members), None)
        if prefix is None:
            raise InputError(f"{path}: has neither images nor train_images; it holds {', '.join(sorted(members))}")
        self._name, label = f"{prefix}images", f"{prefix}labels"
        try:
            with zipfile.ZipFile(path) as archive, archive.open(f"{self._name}.npy") as file:
                self.shape, self._dtype = self._header(file)
        except UNREADABLE as error:
            raise InputError(f"{path}: {self._name} cannot be read ({error})") from None
        channels = (*self.shape, 1)[3] if len(self.shape) in (3, 4) else 0
        possible = channels in (1, 3) and min(self.shape) >= 0 and 0 < math.prod(self.shape[1:3]) <= LARGEST
        if self._dtype != np.uint8 or not possible:
            raise InputError(
                f"{path}: {self._name} of type {self._dtype} and shape {self.shape}: must be uint8, (N, H, W) or "
                f"(N, H, W, 1 or 3), up to {LARGEST:,} pixels each"
            )
        if not self.shape[0]:
            raise InputError(f"{path}: {self._name} holds no images")
        self._labels, self.class_names = self._small(label if label in members else ""), self._class_names(members)
        if self._labels is not None and (self._labels.shape != self.shape[:1] or self._labels.dtype.kind not in "iuU"):
            raise InputError(
                f"{path}: {label} of type {self._labels.dtype} and shape {self._labels.shape}: must be whole numbers "
                f"or text, ({self.shape[0]},)"
            )

    def __iter__(self) -> Iterator[tuple[NDArray[np.uint8], NDArray[Any] | None]]:
        row = int(np.prod(self.shape[1:]))
        most = max(1, min(CHUNK, CHUNK_BYTES // row))
        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._name}.npy") as file:
            self._header(file)
            for begin in range(0, self.shape[0], most):
                count = min(most, self.shape[0] - begin)
                try:
                    content = file.read(count * row)
                except UNREADABLE as error:
                    raise InputError(f"{self._path}: {self._name} is damaged ({error})") from None
                if len(content) < count * row:
                    raise InputError(f"{self._path}: {self._name} is cut short after {begin} images")
                images = np.frombuffer(bytearray(content), dtype=np.uint8).reshape(count, *self.shape[1:])
                yield images, None if self._labels is None else self._labels[begin : begin + count]

    @property
    def has_labels(self) -> bool:
        return self._labels is not None

    def _header(self, file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        try:
            version = np.lib.format.read_magic(file)
            shape, column_major, dtype = (
                np.lib.format.read_array_header_1_0(file) if version == (1, 0) else ((), True, np.dtype("V"))
            )  # headers of later versions may have gigabytes
        except ValueError as error:
            raise InputError(f"{self._path}: {self._name} is not an array ({error})") from None
        if column_major or dtype.hasobject:
            raise InputError(f"{self._path}: {self._name}: must be a plain array, save it with numpy.savez")
        return shape, dtype

    def _small(self, name: str) -> NDArray[Any] | None:
        if not name:
            return None
        array: NDArray[Any] | None = None
        try:
            with zipfile.ZipFile(self._path) as whole, whole.open(f"{name}.npy") as file:
                shape, dtype = self._header(file)
                if math.prod(shape) * dtype.itemsize <= SMALL:
                    file.seek(
                        0
                    )  # in the member that was looked at: numpy takes one called `labels` before `labels.npy`
                    array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, *UNREADABLE) as error:
            raise InputError(f"{self._path}: {name}: is not a plain array ({error})") from None
        if array is None:
            raise InputError(f"{self._path}: {name}: unpacks to more than {SMALL:,} bytes: give shorter ones")
        return array

    def _class_names(self, members: set[str]) -> list[str]:
        names = self._small("class_names") if "class_names" in members else None
        if names is not None and names.ndim != 1:
            raise InputError(f"{self._path}: class_names of shape {names.shape}: must be a list")
        return [] if names is None else [str(name) for name in names]


def shaped(images: NDArray[Any], size: int, channels: int) -> Images:
    """Bring images to (N, size, size, channels): grey becomes RGB by repetition, RGB becomes grey by its mean."""
    images = images[..., None] if images.ndim == 3 else images
    if images.shape[3] < channels:
        images = np.repeat(images, channels, axis=3)
    elif images.shape[3] > channels:
        images = np.rint(images.mean(axis=3, keepdims=True)).astype(np.uint8)
    return resized(images, size) if images.shape[1:3] != (size, size) else np.ascontiguousarray(images)


def resized(images: Images, size: int) -> Images:
    """Bilinear with antialiasing; the paper does not name its filter."""
    parts = [
        functional.interpolate(
            torch.from_numpy(np.ascontiguousarray(chunk)).permute(0, 3, 1, 2).float(),
            size=(size, size),
            mode="bilinear",
            antialias=True,
            align_corners=False,
        )
        for chunk in np.array_split(images, max(1, len(images) // 5000))
    ]
    return torch.cat(parts).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
