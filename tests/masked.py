"""A file of masked forms for tests, of any numbers."""

import pyarrow as pa
import pyarrow.parquet as pq


def file_of(path, vectors, *, pair="ab" * 16, labels=None, names=None, lengths=(8, 2)):
    """A file of masked forms as `study mask` writes it, of any vectors."""
    header = {"format": "1", "pair": pair, "gaussian": str(lengths[0]), "categorical": str(lengths[1])}
    columns = {"masked": pa.array(list(vectors), type=pa.list_(pa.float32()))}
    columns |= {"label": pa.array(labels, type=pa.string())} if labels is not None else {}
    columns |= {"name": pa.array(names, type=pa.string())} if names is not None else {}
    pq.write_table(pa.table(columns).replace_schema_metadata(header), path)
    return path
