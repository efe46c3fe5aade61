"""Data sets that are known by name and fetched once."""

from __future__ import annotations

import csv
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.decoding import Encoded, Loaded, Reading, decode
from foretaste.io.download import RemoteFile, fetch
from foretaste.io.images import BadImageError, resize_image
from foretaste.io.original import EncodedOriginal, SamplesOriginal
from foretaste.io.signs import draw_signs
from foretaste.samples import Samples, row_ids

NAMES = ("cifar10", "gtsrb", "signs")
SPLITS = ("train", "test")

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GTSRB_CLASSES = (
    "speed limit 20",
    "speed limit 30",
    "speed limit 50",
    "speed limit 60",
    "speed limit 70",
    "speed limit 80",
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "trucks prohibited",
    "no entry",
    "general caution",
    "dangerous curve left",
    "dangerous curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "beware of ice or snow",
    "wild animals crossing",
    "end of all limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "go straight or right",
    "go straight or left",
    "keep right",
    "keep left",
    "roundabout mandatory",
    "end of no passing",
    "end of no passing for trucks",
)
GTSRB_SIZE = (32, 32)
"""What the signs, 15 to 250 pixels wide, are resized to if nothing else is asked for."""
SIGNS_TRAIN, SIGNS_TEST = 6000, 2000
MAX_MEMBER = 2**22
"""Bytes of one image in an archive."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the named sets come from, pinned."""

    cifar10: RemoteFile
    gtsrb_train: RemoteFile
    gtsrb_test: RemoteFile
    gtsrb_test_labels: RemoteFile


_ERDA = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
OFFICIAL = Sources(
    cifar10=RemoteFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        size=170_052_171,
    ),
    gtsrb_train=RemoteFile(
        url=f"{_ERDA}/GTSRB_Final_Training_Images.zip",
        sha256="d32ac4b5fa9a1cbd1994768413902e8193599d9434cf0a8eb9cfd00a6d3a290c",
        size=276_294_756,
    ),
    gtsrb_test=RemoteFile(
        url=f"{_ERDA}/GTSRB_Final_Test_Images.zip",
        sha256="48ba6fab7e877eb64eaf8de99035b0aaecfbc279bee23e35deca4ac1d0a837fa",
        size=88_978_620,
    ),
    gtsrb_test_labels=RemoteFile(
        url=f"{_ERDA}/GTSRB_Final_Test_GT.zip",
        sha256="f94e5a7614d75845c74c04ddb26b8796b9e483f43541dd95dd5b726504e16d6d",
        size=99_620,
    ),
)


def read_named(name: str, split: str, reading: Reading, *, sources: Sources = OFFICIAL) -> Loaded:
    """Read the ``split``, "train" or "test", of a set in ``NAMES``.

    Raises:
        UsageError: there is no such split.
        ForetasteError: the set cannot be fetched, or a file is not what it should be.
    """
    if split not in SPLITS:
        raise UsageError(f"{name} has no split {split}; it has {' and '.join(SPLITS)}")
    train = split == "train"
    if name == "gtsrb":
        return _gtsrb(train, sources, replace(reading, resize=reading.resize or GTSRB_SIZE))
    whole = samples = _signs(train) if name == "signs" else _cifar10(train, fetch(sources.cifar10, reading.on_progress))
    if reading.resize is not None:
        assert samples.images is not None
        images = np.stack([resize_image(image, reading.resize) for image in samples.images])
        samples = Samples(samples.labels, samples.classes, samples.ids, images=images)
    return Loaded(samples, original=SamplesOriginal(whole))


def _signs(train: bool) -> Samples:
    return draw_signs(SIGNS_TRAIN, seed=0) if train else draw_signs(SIGNS_TEST, seed=1)


def _cifar10(train: bool, archive: Path) -> Samples:
    """Krizhevsky 2009; binary version: one byte of label, then 32 x 32 pixels of red, of green, of blue."""
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
    wanted = {f"cifar-10-batches-bin/{name}": name for name in names}
    record, parts = 1 + 3 * 32 * 32, {}
    try:
        # Members are read by their expected names into memory; nothing is extracted.
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                if member.isfile() and member.name in wanted and member.size % record == 0 and member.size < 2**26:
                    file = tar.extractfile(member)
                    assert file is not None
                    parts[wanted[member.name]] = np.frombuffer(file.read(), np.uint8).reshape(-1, record)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ForetasteError(f"{archive} is damaged; delete it and try again") from error
    if missing := [name for name in names if name not in parts]:
        raise ForetasteError(f"{archive} does not hold {missing[0]}; delete it and try again")
    rows = np.concatenate([parts[name] for name in names])
    images = np.ascontiguousarray(rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Samples(rows[:, 0].astype(np.int64), CIFAR10_CLASSES, row_ids(len(rows)), images=images)


def _gtsrb(train: bool, sources: Sources, reading: Reading) -> Loaded:
    """Stallkamp et al. 2012, the final training and test sets; whole pictures, not cut to the sign's box."""
    path = fetch(sources.gtsrb_train if train else sources.gtsrb_test, reading.on_progress)
    try:
        labels = None if train else _gtsrb_labels(fetch(sources.gtsrb_test_labels, reading.on_progress))
        with zipfile.ZipFile(path) as archive:
            found = _gtsrb_members(archive, labels)

        def payloads() -> Iterator[bytes | BadImageError]:
            with zipfile.ZipFile(path) as archive:
                for name, _, _ in found:
                    small = archive.getinfo(name).file_size <= MAX_MEMBER
                    yield archive.read(name) if small else BadImageError("is too large")

        encoded = Encoded(
            origin="gtsrb",
            labels=np.array([label for _, label, _ in found], dtype=np.int64),
            classes=GTSRB_CLASSES,
            ids=np.array([name for _, _, name in found], dtype=np.str_),
            payloads=payloads,
            name=lambda row: f"gtsrb, {found[row][2]}",
            identity=sources.gtsrb_train.sha256 if train else sources.gtsrb_test.sha256,
        )
        return decode(encoded, reading).noting((), EncodedOriginal(encoded, None))
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ForetasteError(f"{path} is damaged; delete it and try again") from error


def _gtsrb_members(archive: zipfile.ZipFile, labels: dict[str, int] | None) -> list[tuple[str, int, str]]:
    """Return (member, label, id) of each image, sorted; members with other names are not looked at.

    ``labels`` gives the test set's; the training set has them in its paths.
    """
    if labels is None:
        pattern = re.compile(r"GTSRB/Final_Training/Images/((\d{5})/\d{5}_\d{5}\.ppm)")
    else:
        pattern = re.compile(r"GTSRB/Final_Test/Images/((\d{5}\.ppm))")
    matches = (pattern.fullmatch(name) for name in sorted(set(archive.namelist())))
    found = [(match[0], int(match[2]) if labels is None else labels[match[2]], match[1]) for match in matches if match]
    if not found or not all(0 <= label < len(GTSRB_CLASSES) for _, label, _ in found):
        raise ValueError("not the archive it should be")
    return found


def _gtsrb_labels(path: Path) -> dict[str, int]:
    with zipfile.ZipFile(path) as archive, archive.open("GT-final_test.csv") as file:
        rows = csv.DictReader(TextIOWrapper(file, "utf-8"), delimiter=";")
        return {row["Filename"]: int(row["ClassId"]) for row in rows}
