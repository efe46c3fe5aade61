"""From encoded images to samples: in parallel, in order, bounded memory, every bad image reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.images import BadImageError, decode_image
from foretaste.io.keys import LABEL_NAMES, LabelUse, find_column, refuse
from foretaste.io.parallel import map_ordered
from foretaste.io.store import gather
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Labels, Samples

if TYPE_CHECKING:
    from foretaste.io.tables import TableForm

Size = tuple[int, int]
"""(height, width) in pixels."""
OnBad = Literal["stop", "skip"]
"""What to do with an image that cannot be used: end with an error, or leave it out and say so."""

BLOCK_BYTES = 4 * 2**20
"""Decoded bytes that one thread hands over at a time."""


@dataclass(frozen=True)
class Skipped:
    """A file or row that was left out.

    Attributes:
        name: the file, or the row of the file.
        reason: why, as the end of a sentence that starts with the name.
    """

    name: str
    reason: str


class Original(Protocol):
    """A source that samples were read from, to write rows of it as they are there: undecoded, all columns."""

    def write_parquet(self, path: Path, rows: NDArray[np.intp], on_progress: OnProgress) -> None:
        """Write some of the source's rows, ascending, as parquet.

        Raises:
            ForetasteError: the source cannot be read again, or the file not be written.
        """
        ...

    def copy(self, folder: Path, name: str, rows: NDArray[np.intp], on_progress: OnProgress) -> Path | None:
        """Write some of the source's rows, ascending, in the source's own format into a folder.

        Returns:
            What was written; None where the source's format is parquet, or it has none to be written in.

        Raises:
            ForetasteError: as for ``write_parquet``.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source is to be read.

    Attributes:
        resize: (height, width) in pixels to resize images to, or None.
        on_bad: what to do with a sample that cannot be used.
        use: what the labels are for.
        image_column: the column of images, None for one of a known name.
        label_column: the column of labels, None for one of a known name.
        form: how the run's first table was read, None for none.
        on_progress: called as the work goes on.
    """

    resize: Size | None = None
    on_bad: OnBad = "stop"
    use: LabelUse = "compare"
    image_column: str | None = None
    label_column: str | None = None
    form: TableForm | None = None
    on_progress: OnProgress = silent

    def find_label(self, columns: Sequence[str], origin: str) -> str | None:
        """Return the column of labels: the chosen one, that of the run's first table, or one of a known name.

        Raises:
            UsageError: as for ``find_column``.
        """
        first = self.form.label if self.form is not None and self.form.label in columns else None
        return find_column(columns, self.label_column or first, LABEL_NAMES, what="label", origin=origin)


@dataclass(frozen=True, eq=False)
class Loaded:
    """Samples, and what their source held that is not among them.

    Attributes:
        samples: the N samples.
        skipped: what was left out.
        rows: ``intp (N,)``, the row of the source that each sample is; None where they are all rows.
        notes: sentences about what was taken for granted in reading.
        form: how a table was read, None of anything else.
        original: writes rows of the source as they are; None where the samples are all there is.
    """

    samples: Samples
    skipped: tuple[Skipped, ...] = ()
    rows: NDArray[np.intp] | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)
    form: TableForm | None = field(default=None, kw_only=True)
    original: Original | None = field(default=None, kw_only=True)

    def noting(self, notes: tuple[str, ...], original: Original | None = None) -> Self:
        """Return the same with further notes, and with the source it came from if that is given."""
        return replace(self, notes=self.notes + notes, original=original or self.original)


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """Images as a source holds them.

    Attributes:
        origin: the source, for messages.
        labels: ``int64 (N,)``.
        classes: the class names.
        ids: N distinct strings.
        payloads: called for each pass; gives the N encoded images in order: bytes, a file, or why there is none.
        name: what to call row i in messages.
        identity: what the images depend on, as JSON.
        skipped: what was left out already.
        bad: why a row cannot be used, whatever its image is, by row.
    """

    origin: str
    labels: Labels
    classes: tuple[str, ...]
    ids: NDArray[np.str_]
    payloads: Callable[[], Iterable[bytes | Path | BadImageError]]
    name: Callable[[int], str]
    identity: object
    skipped: tuple[Skipped, ...] = ()
    bad: Mapping[int, str] = field(default_factory=dict)


def decode(encoded: Encoded, reading: Reading) -> Loaded:
    """Decode every image. They are grey, C = 1, if all of them are; otherwise RGB, C = 3.

    Raises:
        ForetasteError: an image is bad and ``on_bad`` is "stop", no image is good, sizes differ and ``resize`` is None,
            or the set is too large for memory and the cache cannot be written.
    """
    if reading.on_bad == "stop":
        refuse(encoded.bad, encoded.name)
    identity = ["images", encoded.identity, reading.resize, reading.on_bad, sorted(encoded.bad)]
    run = _Decoding(encoded, reading)
    try:
        result = gather(run.chunks(1), len(encoded.labels), identity, run.notes)
    except _ColourError:
        result = gather(run.chunks(3), len(encoded.labels), identity, run.notes)
    bad = [(int(row), str(reason)) for row, reason in result.notes]
    if not len(result.array):
        why = f": {encoded.name(bad[0][0])} {bad[0][1]}" if bad else ""
        raise ForetasteError(f"{encoded.origin} holds no image that can be read{why}")
    good = np.ones(len(encoded.labels), dtype=np.bool_)
    good[[row for row, _ in bad]] = False
    return Loaded(
        Samples(encoded.labels[good], encoded.classes, encoded.ids[good], images=result.array),
        encoded.skipped + tuple(Skipped(encoded.name(row), reason) for row, reason in bad),
        rows=np.flatnonzero(good),
    )


class _ColourError(Exception):
    """The images were taken for grey, and one is not."""


class _Decoding:
    """One set being decoded."""

    def __init__(self, encoded: Encoded, reading: Reading) -> None:
        self.encoded, self.resize = encoded, reading.resize
        self.on_bad, self.on_progress = reading.on_bad, reading.on_progress
        self.bad: list[tuple[int, str]] = []
        self.size: Size | None = None
        self.first = 0
        self.block = 1

    def notes(self) -> list[tuple[int, str]]:
        """Return (row, reason) of every image that was left out."""
        return self.bad

    def chunks(self, channels: int) -> Iterator[NDArray[Any]]:
        """Yield ``uint8 (n, H, W, channels)``; with one channel, raise _ColourError at the first colour image.

        If the first image is in colour, the channels are three whatever was asked for.
        """
        self.bad, self.size, row, total = [], None, 0, len(self.encoded.labels)
        for block in map_ordered(self._decode_block, self._blocks()):
            chunk = []
            for image in block:
                if isinstance(image, BadImageError):
                    self._refuse(row, str(image))
                else:
                    if self.size is None and image.ndim == 3:
                        channels = 3
                    self._check_size(row, image)
                    if image.ndim == 3 and channels == 1:
                        raise _ColourError
                    chunk.append(
                        image if image.ndim == 3 else np.broadcast_to(image[..., None], (*image.shape, channels))
                    )
                row += 1
            self.on_progress(Progress(phase=f"reading {self.encoded.origin}", done=row, total=total))
            if chunk:
                yield np.stack(chunk)

    def _blocks(self) -> Iterator[list[bytes | Path | BadImageError]]:
        block: list[bytes | Path | BadImageError] = []
        for row, payload in enumerate(self.encoded.payloads()):
            block.append(BadImageError(self.encoded.bad[row]) if row in self.encoded.bad else payload)
            if len(block) >= self.block:
                yield block
                block = []
        if block:
            yield block

    def _decode_block(self, block: list[bytes | Path | BadImageError]) -> list[NDArray[np.uint8] | BadImageError]:
        decoded: list[NDArray[np.uint8] | BadImageError] = []
        for payload in block:
            try:
                decoded.append(payload if isinstance(payload, BadImageError) else decode_image(payload, self.resize))
            except BadImageError as error:
                decoded.append(error)
        return decoded

    def _refuse(self, row: int, reason: str) -> None:
        if self.on_bad == "stop":
            refuse({row: reason}, self.encoded.name)
        self.bad.append((row, reason))

    def _check_size(self, row: int, image: NDArray[np.uint8]) -> None:
        height, width = image.shape[:2]
        if self.size is None:
            self.size, self.first = (height, width), row
            # Blocks start at one image and grow once it is known how large images are.
            self.block = max(1, min(256, BLOCK_BYTES // (3 * height * width)))
        if self.size != (height, width):
            raise ForetasteError(
                f"the images of {self.encoded.origin} differ in size: {self.encoded.name(self.first)} has "
                f"{self.size[1]} x {self.size[0]} pixels, {self.encoded.name(row)} has {width} x {height}; use --resize"
            )
