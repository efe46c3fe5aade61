"""What cells share, computed once: stored whole or not at all under a name that follows from what it depends on.

An artefact is one safetensors file of arrays, one of which is its facts as JSON. The place is a folder, or any address
that fsspec can write to, so that the machines of a cluster need no common disk.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_path, remove_unfinished, writing
from foretaste.io.cache import ABANDONED_AFTER

FACTS = "facts"
"""The array of an artefact's file that is the facts, as the bytes of their JSON."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """Arrays by name, and facts that JSON can hold."""

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]

    def packed(self) -> bytes:
        """Return the content of its file."""
        facts = np.frombuffer(json.dumps(dict(self.facts), allow_nan=False).encode(), np.uint8)
        return save({FACTS: facts} | {name: np.ascontiguousarray(array) for name, array in self.arrays.items()})

    @classmethod
    def unpacked(cls, content: bytes) -> Artefact:
        """Return what ``packed`` was made of.

        Raises:
            SafetensorError, ValueError, KeyError: the content is damaged.
        """
        arrays = load(content)
        return cls(arrays, json.loads(arrays.pop(FACTS).tobytes()))


def tell_nobody(sentence: str) -> None:
    """Listen to nothing."""


@dataclass(frozen=True)
class Store:
    """Where a benchmark keeps its artefacts and its cells' results.

    Attributes:
        root: a folder, or an address with a scheme, such as ``s3://bucket/folder``.
        on_damage: told in a sentence of an artefact that cannot be read and is made anew.
    """

    root: str
    on_damage: Callable[[str], None] = tell_nobody

    @property
    def remote(self) -> bool:
        """Whether the place is no folder of this machine."""
        return "://" in self.root

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all; ``name`` is relative, its parts separated by slashes.

        Raises:
            ForetasteError: it cannot be written, for example because the disk is full.
        """
        if not self.remote:
            with atomic_path(Path(self.root) / name) as temporary:
                temporary.write_bytes(content)
            return
        fs, path = self.address(name)
        with writing(Path(name)):
            fs.pipe_file(path, content)  # object stores show an object when it is complete

    def read(self, name: str) -> bytes | None:
        """Return what a file holds, or None if there is none.

        Raises:
            ForetasteError: it is there and cannot be read.
        """
        try:
            if not self.remote:
                return (Path(self.root) / name).read_bytes()
            fs, path = self.address(name)
            content: bytes = fs.cat_file(path)
            return content
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ForetasteError(f"cannot read {self.root}/{name}: {error.strerror or error}") from error

    def exists(self, name: str) -> bool:
        """Return whether a file is there."""
        if not self.remote:
            return (Path(self.root) / name).exists()
        fs, path = self.address(name)
        return bool(fs.exists(path))

    def address(self, name: str) -> tuple[Any, str]:
        """Return the file system of a remote place, and the path there.

        Raises:
            ForetasteError: nothing that is installed can write there.
        """
        try:
            from fsspec.core import url_to_fs

            fs, path = url_to_fs(f"{self.root}/{name}")
        except (ImportError, ValueError) as error:
            raise ForetasteError(f"cannot use {self.root}: {error}") from error
        return fs, path

    def once(self, kind: str, key: str, make: Callable[[], Artefact]) -> Artefact:
        """Return an artefact, which is made if nobody has made it before.

        Args:
            kind: what it is ("victim").
            key: hash of all that it depends on.
            make: computes it.

        Raises:
            ForetasteError: it cannot be written, or ``make`` fails.
        """
        name = artefact_name(kind, key)
        content = self.read(name)
        if content is not None:
            try:
                return Artefact.unpacked(content)
            except (SafetensorError, ValueError, KeyError):
                self.on_damage(f"{self.root}/{name} is damaged, and is made anew")
        artefact = make()
        self.write(name, artefact.packed())
        return artefact

    def workdir(self, key: str) -> Path:
        """Return a local folder for checkpoints and what methods share, in which a killed run finds its own again.

        Raises:
            ForetasteError: it cannot be made.
        """
        kept = self._workplace / key
        with writing(kept):
            kept.mkdir(parents=True, exist_ok=True)
            os.utime(kept)  # what a killed run left long ago is gone on with, not swept away
        return kept

    def forget(self, key: str) -> None:
        """Remove such a folder, when nobody needs it any more."""
        shutil.rmtree(self._workplace / key, ignore_errors=True)

    def sweep(self) -> None:
        """Remove such folders of a remote place in which nothing has changed for a day.

        A run on a cluster leaves them on machines that whoever started it cannot reach; other workers on this machine,
        of that run or another, are at work in theirs.
        """
        for folder in self._workplace.glob("*") if self.remote else ():
            try:
                changed = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
            except OSError:  # another worker was quicker, or is at work there
                continue
            if time.time() - changed > ABANDONED_AFTER:
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def _workplace(self) -> Path:
        return Path(gettempdir()) / "foretaste-bench" if self.remote else Path(self.root) / "work"

    def tidy(self) -> None:
        """Remove the half-written files that killed runs left; nobody else may be writing."""
        if not self.remote:
            for folder in Path(self.root).glob("**/"):
                remove_unfinished(folder)


def artefact_name(kind: str, key: str) -> str:
    """Return the name of an artefact's file."""
    return f"artefacts/{kind}-{key}.safetensors"
