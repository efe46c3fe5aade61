"""NumPy archives with ``x`` and ``y``, and optionally ``classes`` and ``ids``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import EmptyError, ForetasteError
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Loaded, Reading, Skipped
from foretaste.io.images import resize_image
from foretaste.io.keys import read_labels, refuse
from foretaste.io.original import ArraysOriginal
from foretaste.io.parallel import map_ordered
from foretaste.io.store import gather
from foretaste.progress import Progress, silent
from foretaste.samples import Samples
from foretaste.sanitising import reason

CHUNK_BYTES = 4 * 2**20
"""Bytes read at a time."""
SMALL = 2**28
"""Bytes that labels, class names or ids may take."""


def read_npz(path: Path, reading: Reading) -> Loaded:
    """Read ``x``, ``uint8 (N, H, W, C)`` or ``(N, H, W)`` images or ``(N, D)`` numbers, and ``y``, ``(N,)`` labels.

    Nothing is unpickled, and ``x`` is read in pieces, so it may be larger than memory.

    Raises:
        ForetasteError: it is no such archive, holds Python objects, its arrays do not fit together, or a sample is bad
            and is not to be skipped.
    """
    needed = ("x",) if reading.use == "ignore" else ("x", "y")
    try:
        with zipfile.ZipFile(path) as archive:
            there = archive.namelist()
            missing = [name for name in needed if f"{name}.npy" not in there]
            if missing:
                raise ForetasteError(
                    f"{path} has no array {' and no array '.join(missing)}; it needs {' and '.join(needed)}"
                )
            values, classes, ids = (
                _small(archive, name, path) if f"{name}.npy" in there else None for name in ("y", "classes", "ids")
            )
            if values is not None and values.ndim == 2 and values.shape[1] == 1:
                values = values[:, 0]
            with archive.open("x.npy") as file:
                shape = _shape(file, path)
            if values is not None and values.shape != shape[:1] and reading.use != "ignore":
                raise ForetasteError(f"{path}: x has {shape[0]} samples, but y has shape {values.shape}")
            if not shape[0]:
                raise EmptyError(f"{path} holds no samples")
            names = None if classes is None else classes.astype(np.str_).ravel().tolist()
            given = [None] * shape[0] if values is None else values.tolist()
            labels = read_labels(given, names, origin=str(path), use=reading.use)
            if reading.on_bad == "stop":
                refuse(labels.bad, lambda row: f"{path}: row {row}")
            with archive.open("x.npy") as file:
                inputs = _inputs(file, path, reading)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, SyntaxError) as error:
        raise ForetasteError(f"cannot read {path}: {reason(error)}") from error
    bad = dict(labels.bad)
    if inputs.ndim == 2:
        for row in np.flatnonzero(~np.isfinite(inputs).all(axis=1)).tolist():
            bad.setdefault(row, "has NaN or infinite features")
    if reading.on_bad == "stop":
        refuse(bad, lambda row: f"{path}: row {row}")
    good = np.ones(len(inputs), dtype=np.bool_)
    good[list(bad)] = False
    if not good.any():
        raise ForetasteError(f"{path} holds no sample that can be read: row 0 {bad[0]}")
    kept = slice(None) if good.all() else good
    try:
        samples = Samples.from_arrays(
            inputs[kept], labels.labels[kept], labels.classes, None if ids is None else ids.astype(np.str_)[kept]
        )
    except ForetasteError as error:
        raise ForetasteError(f"{path}: {error}") from error
    whole = replace(reading, resize=None, on_bad="skip", on_progress=silent)
    rows = np.flatnonzero(good)
    return Loaded(
        samples,
        tuple(Skipped(f"{path}: row {row}", bad[row]) for row in sorted(bad)),
        rows=rows,
        original=ArraysOriginal(path, rows, lambda: read_npz(path, whole).samples if reading.resize else samples),
    )


def _header(file: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the head of a ``.npy`` member: shape, whether in Fortran order, dtype."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ForetasteError(f"{path}: array {name} holds Python objects, which are never loaded")
    if dtype.itemsize == 0 or any(type(side) is not int or side < 0 for side in shape):
        raise ForetasteError(f"{path}: array {name} has an impossible shape")
    return shape, fortran, dtype


def _small(archive: zipfile.ZipFile, name: str, path: Path) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        shape, _, dtype = _header(file, name, path)
        if len(shape) > 2 or prod(shape) * dtype.itemsize > SMALL:
            raise ForetasteError(f"{path}: array {name} is too large, shape {shape} of {dtype}")
        return np.frombuffer(_exactly(file, prod(shape) * dtype.itemsize), dtype).reshape(shape)


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("it is truncated")
    return content


def _shape(file: IO[bytes], path: Path) -> tuple[int, ...]:
    """Return the shape of ``x``, which must be that of images or features."""
    shape, _, dtype = _header(file, "x", path)
    images = dtype == np.uint8 and len(shape) in (3, 4)
    if not images and not (len(shape) == 2 and dtype.kind in "fiu"):
        raise ForetasteError(f"{path}: x must be uint8 images (N, H, W, C) or numbers (N, D), not {dtype} {shape}")
    return shape


def _inputs(file: IO[bytes], path: Path, reading: Reading) -> NDArray[Any]:
    resize = reading.resize
    shape, fortran, dtype = _header(file, "x", path)
    images = len(shape) > 2
    if images and ((len(shape) == 4 and shape[3] not in (1, 3)) or 0 in shape[1:]):
        raise ForetasteError(f"{path}: images must be (N, H, W, 1 or 3), not {shape}")
    if resize is not None and not images:
        raise ForetasteError(f"{path} holds feature vectors, which cannot be resized")
    if fortran:
        raise ForetasteError(f"{path}: x is in Fortran order; save numpy.ascontiguousarray(x)")
    row_shape = (*shape[1:], 1) if len(shape) == 3 else shape[1:]
    row_bytes = max(1, prod(row_shape) * dtype.itemsize)

    def raw() -> Iterator[NDArray[Any]]:
        step, done = max(1, CHUNK_BYTES // row_bytes), 0
        while done < shape[0]:
            rows = min(step, shape[0] - done)
            yield np.frombuffer(_exactly(file, rows * row_bytes), dtype).reshape(rows, *row_shape)
            done += rows
            reading.on_progress(Progress(phase=f"reading {path}", done=done, total=shape[0]))

    def resized(chunk: NDArray[Any]) -> NDArray[Any]:
        return np.stack([resize_image(image, resize) for image in chunk]) if resize else chunk

    chunks = map_ordered(resized, raw()) if images else (chunk.astype(np.float32) for chunk in raw())
    return gather(chunks, shape[0], ["npz", file_identity(path), resize]).array
