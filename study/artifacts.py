"""What a picture needs and a record cannot hold: small arrays in `artifacts/`, written whole, never unpickled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from aae.masking import mask
from study.config import InputError
from study.datasets import ImageSet
from study.pictures import UNREADABLE
from study.records import file_name, write_arrays

#: Images of a labelled set whose masked vectors are kept for the projector.
SAMPLES = 256


def artifact(folder: Path, kind: str, *names: str) -> Path:
    """Where an artifact lies; the last name is that of a set of images, which may come from data."""
    return folder / "artifacts" / f"{'-'.join([kind, *names[:-1], file_name(names[-1])])}.npz"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """What `study.records.write_arrays` wrote; `InputError` for anything else."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, *UNREADABLE) as error:
        raise InputError(f"{path}: is damaged ({error}): remove it") from None


def keep_samples(folder: Path, image_set: ImageSet, encoders: Mapping[str, Callable[[], nn.Module]]) -> None:
    """Keep some test images of a labelled set with their labels, and their masked vectors under each encoder.

    A file that is there is not made again: the images are the same, chosen evenly over the test part.
    """
    count = len(image_set.test_labels)
    chosen = np.linspace(0, count - 1, min(count, SAMPLES)).astype(np.int64)
    images, path = image_set.test_images[chosen], artifact(folder, "samples", image_set.name)
    if not path.exists():
        names = np.array(image_set.class_names)[image_set.test_labels[chosen]]
        write_arrays(path, images=images, labels=names)
    for trial, load in encoders.items():
        path = artifact(folder, "vectors", trial, image_set.name)
        if not path.exists():
            write_arrays(path, vectors=mask(load(), images).astype(np.float16))
