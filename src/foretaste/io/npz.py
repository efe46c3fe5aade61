"""NumPy archives with ``x`` and ``y``, and optionally ``classes`` and ``ids``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.cache import file_identity
from foretaste.io.decoding import Loaded, Size
from foretaste.io.images import resize_image
from foretaste.io.parallel import map_ordered
from foretaste.io.store import gather
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples

CHUNK_BYTES = 4 * 2**20
"""Bytes read at a time."""
SMALL = 2**28
"""Bytes that labels, class names or ids may take."""


def read_npz(path: Path, *, resize: Size | None, on_progress: OnProgress) -> Loaded:
    """Read ``x``, ``uint8 (N, H, W, C)`` or ``(N, H, W)`` images or ``(N, D)`` numbers, and ``y``, ``(N,)`` integers.

    Nothing is unpickled, and ``x`` is read in pieces, so it may be larger than memory.

    Raises:
        ForetasteError: it is no such archive, holds Python objects, or its arrays do not fit together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [name for name in ("x", "y") if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise ForetasteError(f"{path} has no array {' and no array '.join(missing)}; it needs x and y")
            labels = _small(archive, "y", path)
            classes, ids = (
                _small(archive, name, path).astype(np.str_) if f"{name}.npy" in archive.namelist() else None
                for name in ("classes", "ids")
            )
            with archive.open("x.npy") as file:
                inputs = _inputs(file, path, resize, on_progress)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, SyntaxError) as error:
        raise ForetasteError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (len(inputs),):
        raise ForetasteError(f"{path}: x has {len(inputs)} samples, but y has shape {labels.shape}")
    if not len(inputs):
        raise ForetasteError(f"{path} holds no samples")
    try:
        return Loaded(
            Samples.from_arrays(inputs, labels, None if classes is None else [str(name) for name in classes], ids)
        )
    except ForetasteError as error:
        raise ForetasteError(f"{path}: {error}") from error


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


def _inputs(file: IO[bytes], path: Path, resize: Size | None, on_progress: OnProgress) -> NDArray[Any]:
    shape, fortran, dtype = _header(file, "x", path)
    images = dtype == np.uint8 and len(shape) in (3, 4)
    if not images and not (len(shape) == 2 and dtype.kind in "fiu"):
        raise ForetasteError(f"{path}: x must be uint8 images (N, H, W, C) or numbers (N, D), not {dtype} {shape}")
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
            on_progress(Progress(phase=f"reading {path}", done=done, total=shape[0]))

    def resized(chunk: NDArray[Any]) -> NDArray[Any]:
        return np.stack([resize_image(image, resize) for image in chunk]) if resize else chunk

    chunks = map_ordered(resized, raw()) if images else (chunk.astype(np.float32) for chunk in raw())
    return gather(chunks, shape[0], ["npz", file_identity(path), resize]).array
