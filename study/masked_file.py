"""A file of masked forms: what the owner hands over, and the receiver reads.

Apache Parquet: a column `masked` of float32 lists, and `label` and `name` only where they were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aae.config import LatentConfig
from aae.keys import Key, is_identity
from aae.masking import mask
from study.config import InputError
from study.pictures import Pictures
from study.records import appearing
from study.shapes import check_text

#: The layout of the file; another number is refused.
FORMAT = "1"

#: Masked forms written at once. What the file's end will say of each group stays in memory, between what torch frees:
#: with a group for each 500 images, memory grew by hundreds of bytes an image.
GROUP = 10_000

#: Bytes of a label or a name at most: a file's name may have 255 on each level.
LONGEST_TEXT = 4096

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class MaskedFile:
    """A file of masked forms, open for reading."""

    path: Path
    pair: str
    gaussian: int
    categorical: int
    count: int
    has_labels: bool
    has_names: bool

    @property
    def length(self) -> int:
        return self.gaussian + self.categorical

    def chunks(self) -> Iterator[tuple[Vectors, list[str], list[str]]]:
        """Masked forms, labels and names, a group of rows at a time; lists are empty where there are none."""
        try:
            yield from self._chunks()
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"{self.path}: is damaged ({' '.join(str(error).split())[:120]})") from None

    def _chunks(self) -> Iterator[tuple[Vectors, list[str], list[str]]]:
        # Unless told, pyarrow keeps the whole file in memory, and every repetition of a text.
        texts = ["label"] * self.has_labels + ["name"] * self.has_names
        with pq.ParquetFile(self.path, pre_buffer=False, read_dictionary=texts) as file:
            for batch in file.iter_batches(batch_size=1000):
                rows = batch.column("masked")
                flat = rows.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
                whole = not rows.null_count and (rows.value_lengths().to_numpy() == self.length).all()
                if not whole or not np.isfinite(flat).all():
                    raise InputError(f"{self.path}: holds masked forms that are not {self.length} finite numbers")
                labels = self._texts(batch, "label") if self.has_labels else []
                names = self._texts(batch, "name") if self.has_names else []
                yield flat.reshape(-1, self.length), labels, names

    def _texts(self, batch: pa.RecordBatch, name: str) -> list[str]:
        column = batch.column(name)
        if column.null_count or column.dictionary.null_count:
            raise InputError(f"{self.path}: leaves a label or a name out: make it again with `study mask`")
        if len(column) and (longest := pc.max(pc.binary_length(column.dictionary)).as_py()) > LONGEST_TEXT:
            raise InputError(f"{self.path}: has a {name} of {longest:,} bytes: must be {LONGEST_TEXT:,} at most")
        texts: list[str] = column.to_pylist()
        return texts

    def whole(self) -> tuple[Vectors, NDArray[Any]]:
        """All masked forms and labels; `InputError` where there are no labels."""
        if not self.has_labels:
            raise InputError(f"{self.path}: has no labels: mask again with --labels")
        if not self.count:
            raise InputError(f"{self.path}: holds no masked forms: mask some pictures first")
        parts = list(self.chunks())
        # One long label must not make the others as long.
        return np.concatenate([p[0] for p in parts]), np.array([label for p in parts for label in p[1]], dtype=object)


def open_masked(path: Path) -> MaskedFile:
    """Look into a file of masked forms; `InputError` where it is none."""
    try:
        with pq.ParquetFile(path) as file:
            schema, count = file.schema_arrow, file.metadata.num_rows
            header = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not a readable Parquet file ({' '.join(str(error).split())[:120]})") from None
    if header.get("format") != FORMAT or "pair" not in header or "masked" not in schema.names:
        raise InputError(f"{path}: holds no masked forms of this project: make it with `study mask`")
    if not is_identity(header["pair"]):
        raise InputError(f"{path}: names its pair {header['pair'][:40]!r}, not by 32 hexadecimal digits")
    try:
        latent = LatentConfig(gaussian=int(header["gaussian"]), categorical=int(header["categorical"]))
    except (KeyError, ValueError):
        raise InputError(f"{path}: does not say how long a masked form is: make it again with `study mask`") from None
    if len(set(schema.names)) < len(schema.names):
        raise InputError(f"{path}: has several columns of one name: make it again with `study mask`")
    if schema.field("masked").type != pa.list_(pa.float32()):
        raise InputError(f"{path}: masked is {schema.field('masked').type}: must be lists of float32")
    told = {name: schema.field(name).type for name in ("label", "name") if name in schema.names}
    if odd := set(told.values()) - {pa.string()}:
        raise InputError(f"{path}: labels or names are {odd.pop()}: must be text")
    return MaskedFile(path, header["pair"], latent.gaussian, latent.categorical, count, "label" in told, "name" in told)


def write_masked(
    encoder: Key,
    pictures: Pictures,
    out: Path,
    *,
    labels: bool,
    names: bool,
    told: Callable[[int], None] = lambda count: None,
) -> int:
    """Mask pictures into a file, a chunk at a time; return how many. The file appears when it is whole.

    Args:
        told: is called after every chunk with how many there are.
    """
    if labels:
        pictures.require_classes()
    header = {"format": FORMAT, "pair": encoder.pair, **{k: str(v) for k, v in vars(encoder.latent).items()}}
    columns = [("masked", pa.list_(pa.float32()))]
    columns += [("label", pa.string())] if labels else []
    columns += [("name", pa.string())] if names else []
    schema = pa.schema(columns, metadata=header)
    count = 0
    group: list[pa.Table] = []
    with appearing(out) as beside:
        # Hardly a number comes twice: a dictionary of them makes the file longer.
        with pq.ParquetWriter(beside, schema, compression="zstd", use_dictionary=["label"]) as writer:
            for chunk in pictures:
                check_text(str(pictures.path), [*(chunk.labels if labels else []), *(chunk.names if names else [])])
                masked = mask(encoder.module, chunk.images)
                offsets = pa.array(np.arange(0, masked.size + 1, masked.shape[1], dtype=np.int32))
                arrays = [pa.ListArray.from_arrays(offsets, pa.array(masked.ravel()))]
                arrays += [pa.array(chunk.labels)] if labels else []
                arrays += [pa.array(chunk.names)] if names else []
                group.append(pa.Table.from_arrays(arrays, schema=schema))
                if sum(map(len, group)) >= GROUP:
                    writer.write_table(pa.concat_tables(group))
                    group.clear()
                count += len(masked)
                told(count)
            if group:
                writer.write_table(pa.concat_tables(group))
        if not count:
            raise InputError(f"{pictures.path}: holds no picture that can be read")
    return count
