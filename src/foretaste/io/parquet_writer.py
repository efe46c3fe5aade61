"""Parquet in the Hugging Face layout, written; ``datasets.load_dataset("parquet", …)`` reads it too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foretaste.io.atomic import atomic_path
from foretaste.io.images import encode_png
from foretaste.io.parallel import map_ordered
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Mask, Samples

GROUP_BYTES = 32 * 2**20
"""Bytes of one written row group; little more is held."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""The Hugging Face type of an encoded image."""

Rows = NDArray[np.intp]
"""``intp (n,)``, rows of a source, ascending."""

_HUB_FEATURES = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"}


def hub_metadata(features: dict[str, Any]) -> dict[bytes, bytes]:
    """Return the schema metadata that describes columns to Hugging Face ``datasets``."""
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def class_label(classes: Sequence[str]) -> dict[str, Any]:
    """Return the Hugging Face description of a column of labels."""
    return {"_type": "ClassLabel", "names": list(classes)}


def write_batches(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, rows: Rows, on_progress: OnProgress
) -> None:
    """Write the chosen rows of a stream of batches as parquet."""
    held: list[pa.RecordBatch] = []
    done = start = size = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for batch in batches:
            first, last = np.searchsorted(rows, [start, start + len(batch)])
            start += len(batch)
            if last > first:
                held.append(batch.take(pa.array(rows[first:last] - (start - len(batch)))))
                done, size = done + int(last - first), size + held[-1].nbytes
            if size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held, schema))
                held, size = [], 0
            on_progress(Progress(phase=f"writing {path.name}", done=done, total=max(1, len(rows))))
        writer.write_table(pa.Table.from_batches(held, schema))


def write_parquet(
    samples: Samples, path: str | Path, *, rows: Mask | None = None, on_progress: OnProgress = silent
) -> None:
    """Write samples so that reading the file gives them back bit for bit, ids included.

    Images: column ``image``, a struct of ``bytes`` (PNG) and ``path`` (the id), and ``label``. Feature vectors: columns
    ``features``, ``label`` and ``id``. The class names are in the schema metadata under ``huggingface``.

    The samples are taken in pieces, so they may be larger than memory.

    Args:
        samples: the N samples.
        path: the file; missing parent folders are made.
        rows: ``bool (N,)``, which of them to write; None is all.
        on_progress: called as the work goes on.

    Raises:
        ForetasteError: the file cannot be written; an older file of the name is left as it was.
    """
    schema = _schema(samples)
    size = max(1, min(10_000, GROUP_BYTES // max(1, samples.inputs.itemsize * int(np.prod(samples.sample_shape)))))
    chosen = np.arange(len(samples)) if rows is None else np.flatnonzero(rows)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for start in range(0, len(chosen), size):
            part = samples[chosen[start : start + size]]
            writer.write_table(_table(part, schema))
            on_progress(Progress(phase=f"writing {Path(path).name}", done=start + len(part), total=len(chosen)))


def _schema(samples: Samples) -> pa.Schema:
    label = class_label(samples.classes)
    if samples.images is not None:
        fields = {"image": IMAGE, "label": pa.int64()}
        features = {"image": {"_type": "Image"}, "label": label}
    else:
        fields = {"features": pa.list_(pa.float32()), "label": pa.int64(), "id": pa.string()}
        features = {"features": _HUB_FEATURES, "label": label, "id": {"dtype": "string", "_type": "Value"}}
    return pa.schema(list(fields.items()), hub_metadata(features))


def _table(part: Samples, schema: pa.Schema) -> pa.Table:
    ids, labels = pa.array(part.ids.tolist(), pa.string()), pa.array(part.labels)
    if part.images is not None:
        images = part.images
        blocks = (images[start : start + 64] for start in range(0, len(images), 64))
        encoded = [png for block in map_ordered(_encode_block, blocks) for png in block]
        column = pa.StructArray.from_arrays(
            [pa.array(encoded, pa.binary()), ids], fields=list(schema.field("image").type)
        )
        return pa.Table.from_arrays([column, labels], schema=schema)
    assert part.features is not None
    width = part.features.shape[1]
    offsets = pa.array(np.arange(len(part) + 1, dtype=np.int32) * width)
    column = pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(part.features).reshape(-1)))
    return pa.Table.from_arrays([column, labels, ids], schema=schema)


def _encode_block(images: NDArray[np.uint8]) -> list[bytes]:
    return [encode_png(image) for image in images]
