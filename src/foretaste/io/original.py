"""Sources as they are: their own rows, undecoded and with all columns, in parquet or in their own format."""

from __future__ import annotations

import csv
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_folder, atomic_path
from foretaste.io.decoding import Encoded
from foretaste.io.images import BadImageError
from foretaste.io.parquet_writer import IMAGE, Rows, class_label, hub_metadata, write_batches, write_parquet
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples

BATCH_ROWS = 64
"""Images that are read again at a time."""


@dataclass(frozen=True)
class ArrowOriginal:
    """The rows of Arrow tables: parquet files, or a saved ``datasets`` folder."""

    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]

    def write_parquet(self, path: Path, rows: Rows, on_progress: OnProgress) -> None:
        """Write the rows with all their columns."""
        write_batches(self.batches(), self.schema, path, rows, on_progress)

    def copy(self, folder: Path, name: str, rows: Rows, on_progress: OnProgress) -> None:
        """Write nothing: parquet is how such a source is written."""


@dataclass(frozen=True, eq=False)
class EncodedOriginal:
    """Encoded images outside a table: files of a folder, members of an archive.

    Attributes:
        encoded: the images.
        folder: the folder that they are files below; None if they are no files.
    """

    encoded: Encoded
    folder: Path | None

    def write_parquet(self, path: Path, rows: Rows, on_progress: OnProgress) -> None:
        """Write the images as they are encoded, in the Hugging Face image layout."""
        features = {"image": {"_type": "Image"}, "label": class_label(self.encoded.classes)}
        schema = pa.schema([("image", IMAGE), ("label", pa.int64())], hub_metadata(features))
        write_batches(self._batches(schema, set(rows.tolist())), schema, path, rows, on_progress)

    def _batches(self, schema: pa.Schema, wanted: set[int]) -> Iterator[pa.RecordBatch]:
        batch: list[dict[str, object]] = []
        for row, payload in enumerate(self.encoded.payloads()):
            content = read_again(payload, self.encoded.name(row)) if row in wanted else None
            image = {"bytes": content, "path": str(self.encoded.ids[row])}
            batch.append({"image": image, "label": int(self.encoded.labels[row])})
            if len(batch) == BATCH_ROWS:
                yield pa.RecordBatch.from_pylist(batch, schema)
                batch = []
        yield pa.RecordBatch.from_pylist(batch, schema)

    def copy(self, folder: Path, name: str, rows: Rows, on_progress: OnProgress) -> Path | None:
        """Copy the files, with their dates, into a folder of the name."""
        if self.folder is None:
            return None
        target = folder / name
        wanted = set(rows.tolist())
        with atomic_folder(target) as temporary:
            for row, file in enumerate(self.encoded.payloads()):
                if row in wanted and isinstance(file, Path):
                    place = temporary / file.relative_to(self.folder)
                    place.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, place)
                on_progress(Progress(phase=f"copying {name}", done=row + 1, total=len(self.encoded.labels)))
        return target


def read_again(payload: bytes | Path | BadImageError, name: str) -> bytes:
    """Return an encoded image as it is.

    Raises:
        ForetasteError: it cannot be read any more.
    """
    try:
        if isinstance(payload, BadImageError):
            raise ForetasteError(f"{name} {payload}")
        return payload if isinstance(payload, bytes) else payload.read_bytes()
    except OSError as error:
        raise ForetasteError(f"cannot read {name} again: {error.strerror or error}") from error


@dataclass(frozen=True, eq=False)
class ArraysOriginal:
    """The arrays of an ``.npz`` file.

    Attributes:
        path: the file.
        kept: the rows that were not left out.
        samples: reads these again, not resized.
    """

    path: Path
    kept: Rows
    samples: Callable[[], Samples]

    def write_parquet(self, path: Path, rows: Rows, on_progress: OnProgress) -> None:
        """Write images as PNG, which loses nothing, or features."""
        write_parquet(self.samples(), path, rows=np.isin(self.kept, rows), on_progress=on_progress)

    def copy(self, folder: Path, name: str, rows: Rows, on_progress: OnProgress) -> Path:
        """Write the archive with the chosen rows of each array that has one for each sample, all else as it is."""
        target = folder / f"{name}.npz"
        with zipfile.ZipFile(self.path) as archive, atomic_path(target) as temporary:
            members = archive.infolist()
            with archive.open("x.npy") as file:
                total = len(np.lib.format.read_array(file, allow_pickle=False))
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as written:
                for done, member in enumerate(members):
                    array = None if member.filename == "classes.npy" else read_array(archive, member)
                    with written.open(member.filename, "w", force_zip64=True) as file:
                        if array is not None and array.ndim > 0 and len(array) == total:
                            np.save(file, array[rows], allow_pickle=False)
                        else:
                            with archive.open(member) as source:
                                shutil.copyfileobj(source, file)
                    on_progress(Progress(phase=f"writing {target.name}", done=done + 1, total=len(members)))
        return target


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any] | None:
    """Return an array of an archive; None for what is no array, or one of Python objects, which are never loaded."""
    if not member.filename.endswith(".npy"):
        return None
    try:
        with archive.open(member) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
            return array
    except ValueError:
        return None


@dataclass(frozen=True, eq=False)
class CsvOriginal:
    """The lines of a ``.csv`` file.

    Attributes:
        path: the file.
        table: its columns, as they were read.
    """

    path: Path
    table: pa.Table

    def write_parquet(self, path: Path, rows: Rows, on_progress: OnProgress) -> None:
        """Write all columns."""
        write_batches(iter(self.table.to_batches()), self.table.schema, path, rows, on_progress)

    def copy(self, folder: Path, name: str, rows: Rows, on_progress: OnProgress) -> Path:
        """Write the lines as they are, the header first.

        Raises:
            ForetasteError: the file has other rows than were read; it cannot be read or written.
        """
        target = folder / f"{name}.csv"
        wanted, row = set(rows.tolist()), -1
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            for row, record in enumerate(self._records(), start=-1):
                if row == -1 or row in wanted:
                    file.write(record)
            if row != self.table.num_rows - 1:
                raise ForetasteError(f"{self.path} has {row + 1} rows now, but {self.table.num_rows} were read")
        return target

    def _records(self) -> Iterator[bytes]:
        """Yield the file's records with their line ends: lines joined while a quoted text goes on; no empty ones."""
        taken: list[str] = []

        def lines() -> Iterator[str]:
            for line in file:
                taken.append(line)
                yield line

        # Each byte becomes a letter, so that nothing is lost whatever the encoding is. As to Arrow, a quote opens a
        # text only where a field starts, and any of "\n", "\r\n" and "\r" ends a line.
        with self.path.open(encoding="latin-1", newline="") as file:
            try:
                for _ in csv.reader(lines()):
                    record = "".join(taken).encode("latin-1")
                    taken.clear()
                    if record.strip(b"\r\n"):
                        yield record if record.endswith((b"\n", b"\r")) else record + b"\n"
            except csv.Error as error:
                raise ForetasteError(f"cannot read {self.path} again: {error}") from error


@dataclass(frozen=True, eq=False)
class SamplesOriginal:
    """Samples that came from no file of the user's.

    Attributes:
        samples: the samples, not resized.
    """

    samples: Samples

    def write_parquet(self, path: Path, rows: Rows, on_progress: OnProgress) -> None:
        """Write the samples, images as PNG."""
        chosen = np.zeros(len(self.samples), dtype=np.bool_)
        chosen[rows] = True
        write_parquet(self.samples, path, rows=chosen, on_progress=on_progress)

    def copy(self, folder: Path, name: str, rows: Rows, on_progress: OnProgress) -> None:
        """Write nothing: parquet is how such a source is written."""
