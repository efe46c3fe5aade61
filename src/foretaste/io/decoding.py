"""From encoded images to samples: in parallel, in order, bounded memory, every bad image reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foretaste.errors import ForetasteError
from foretaste.io.images import BadImageError, decode_image
from foretaste.io.parallel import map_ordered
from foretaste.io.store import gather
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Labels, Samples

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


@dataclass(frozen=True, eq=False)
class Loaded:
    """Samples, and what their source held that is not among them."""

    samples: Samples
    skipped: tuple[Skipped, ...] = ()


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
    """

    origin: str
    labels: Labels
    classes: tuple[str, ...]
    ids: NDArray[np.str_]
    payloads: Callable[[], Iterable[bytes | Path | BadImageError]]
    name: Callable[[int], str]
    identity: object
    skipped: tuple[Skipped, ...] = ()


def decode(encoded: Encoded, *, resize: Size | None, on_bad: OnBad, on_progress: OnProgress) -> Loaded:
    """Decode every image. They are grey, C = 1, if all of them are; otherwise RGB, C = 3.

    Raises:
        ForetasteError: an image is bad and ``on_bad`` is "stop", no image is good, sizes differ and ``resize`` is None,
            or the set is too large for memory and the cache cannot be written.
    """
    identity = ["images", encoded.identity, resize, on_bad]
    run = _Decoding(encoded, resize, on_bad, on_progress)
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
    )


class _ColourError(Exception):
    """The images were taken for grey, and one is not."""


class _Decoding:
    """One set being decoded."""

    def __init__(self, encoded: Encoded, resize: Size | None, on_bad: OnBad, on_progress: OnProgress) -> None:
        self.encoded, self.resize, self.on_bad, self.on_progress = encoded, resize, on_bad, on_progress
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
        block = []
        for payload in self.encoded.payloads():
            block.append(payload)
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
            raise ForetasteError(f"{self.encoded.name(row)} {reason}")
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
