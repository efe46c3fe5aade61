"""Sources on other machines: whatever fsspec opens, copied to the cache and read from there."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from foretaste.errors import ForetasteError, UsageError
from foretaste.io.cache import cache_dir, sweep
from foretaste.io.download import sha256_of
from foretaste.io.folder import SPLITS
from foretaste.io.parquet import chosen_split, splits_of
from foretaste.progress import OnProgress, Progress
from foretaste.sanitising import described, public_address

FILES = (".parquet", ".npz", ".csv")
"""Suffixes of the files that can be read alone."""
WEB = frozenset(["http", "https"])
"""Protocols with which only files can be read, since a web server does not say what else it has."""
MARKS = (
    *("ETag", "etag", "Digest", "Content-MD5", "md5Hash", "checksum", "blob_id"),
    *("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created"),
)
"""What file systems call something that changes when a file does."""
NOT_FOUND = 404
"""What a web server answers where there is nothing."""
AT_ONCE = 64
"""Files that are asked for together."""


def is_remote(source: str | Path) -> bool:
    """Return whether a source is an address: a protocol, "://", and the rest."""
    return isinstance(source, str) and re.match(r"[a-z][a-z0-9+.-]*://", source, re.IGNORECASE) is not None


def fetch_remote(address: str, split: str | None, on_progress: OnProgress) -> Path | list[Path]:
    """Copy a source to the cache, unless the same version of it is there, and return the copy.

    The copy appears whole or not at all. It is used again while the server says, by a checksum or a time of change,
    that the files are the same; a server that says neither is asked for them each time.

    Args:
        address: a file; a pattern that ``.parquet`` files match; or a folder, of which the parquet files of the split
            are copied, or if there are none, everything.
        split: the part to read of a source that has parts.
        on_progress: called as the work goes on.

    Returns:
        The copy of a file or folder, or the parquet files of one table.

    Raises:
        UsageError: the extra or a protocol's package is missing, there is no such source or split, or it is not clear
            which one is meant.
        ForetasteError: the server does not answer, sends something else than it announced, or the cache cannot be
            written.
    """
    with _understandable(address):
        found = _find(address)
        wanted = _chosen(found, split)
        copy = _copy(found, wanted, on_progress)
    if found.kind == "file":
        return copy / wanted[0]
    # Of a folder without tables everything is wanted, and read as any folder is.
    return [copy / name for name in wanted] if wanted[0].lower().endswith(".parquet") else copy


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What is at an address.

    Attributes:
        address: the address.
        name: the address as it may be shown.
        kind: what it turned out to be.
        files: what fsspec says of each file, by its name from the address on; no name leads out of a folder.
        system: the fsspec file system.
    """

    address: str
    name: str
    kind: Literal["file", "pattern", "folder"]
    files: Mapping[str, Mapping[str, Any]]
    system: Any


@contextmanager
def _understandable(address: str) -> Iterator[None]:
    name = public_address(address)
    try:
        yield
    except ForetasteError:
        raise
    except FileNotFoundError as error:
        # Of web servers fsspec says this whatever the reason is.
        if (reason := error.__cause__) and _protocol(address) in WEB and getattr(reason, "status", None) != NOT_FOUND:
            raise ForetasteError(f"cannot read {name}: {public_address(described(reason))}") from error
        raise UsageError(f"{name} does not exist") from None
    except ImportError as error:
        needed = "it needs the extra foretaste[remote]" if error.name in ("fsspec", "huggingface_hub") else str(error)
        raise UsageError(f"{name} cannot be opened here: {needed}") from None
    except Exception as error:  # each file system has errors of its own
        raise ForetasteError(f"cannot read {name}: {public_address(described(error))}") from error


def _find(address: str) -> _Found:
    import fsspec

    name, protocol = public_address(address), _protocol(address)
    if protocol not in fsspec.available_protocols():
        raise UsageError(f"{name}: there is no protocol {protocol}:// that could be read")
    system, path = fsspec.url_to_fs(address)
    system.invalidate_cache()
    kind: Literal["file", "pattern", "folder"] = "file"
    if protocol in WEB:
        base, infos = (
            path.partition("?")[0].rpartition("/")[0],
            {path.partition("?")[0]: {**system.info(path), "name": path}},
        )
    elif _is_pattern(path):
        kind, base = "pattern", re.split(r"[*\[]", path)[0].rpartition("/")[0]
        infos = {one: info for one, info in system.find(base, detail=True).items() if fnmatchcase(one, path)}
    elif (info := system.info(path))["type"] == "file":
        base, infos = info["name"].rpartition("/")[0], {info["name"]: info}
    else:
        kind, base, infos = "folder", info["name"], system.find(path, detail=True)
    files = {one.removeprefix(base).lstrip("/"): infos[one] for one in sorted(infos)}
    # The names become files of the cache, and a server may send any.
    files = {one: info for one, info in files.items() if not {"", ".", ".."} & set(re.split(r"[/\\]", one))}
    if not files:
        raise FileNotFoundError(address)
    return _Found(address=address, name=name, kind=kind, files=files, system=system)


def _protocol(address: str) -> str:
    return address.partition("://")[0].lower()


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*[")


def _chosen(found: _Found, split: str | None) -> list[str]:
    """Return the files to copy: one file, the files of one table, or all of a folder's.

    Raises:
        UsageError: as for ``fetch_remote``.
    """
    names = sorted(found.files)
    tables = [one for one in names if one.lower().endswith(".parquet")]
    if found.kind == "file":
        if PurePosixPath(names[0]).suffix.lower() not in FILES:
            raise UsageError(
                f"{found.name} is not a kind of file that can be read; give {', '.join(FILES)} or a folder"
            )
        if split is not None:
            raise UsageError(f"{found.name} has no splits; leave --split out")
        return names
    if found.kind == "pattern":
        if others := sorted(set(names) - set(tables)):
            raise UsageError(f"{found.name} matches {others[0]}; several files must be .parquet")
        return names
    if tables:
        return _of_split(found, tables, split)
    parts = {one.partition("/")[0] for one in names if one.count("/") > 1}
    if split is None and parts and {part.lower() for part in parts} <= SPLITS:
        raise UsageError(f"{found.name} has the splits {', '.join(sorted(parts))}; name one of them with --split")
    return [one for one in names if one.startswith(f"{split}/")] if split in parts else names


def _of_split(found: _Found, tables: Sequence[str], split: str | None) -> list[str]:
    """Return the parquet files of a split, from the folder itself, ``data`` in it, or the only one that has any."""
    places = defaultdict(list)
    for one in tables:
        places[one.rpartition("/")[0]].append(Path(one))
    place = next((place for place in ("", "data") if place in places), next(iter(places)))
    if place not in ("", "data") and len(places) > 1:
        raise UsageError(f"{found.name} has tables in {', '.join(places)}; add one of these to the address")
    return [one.as_posix() for one in chosen_split(found.name, splits_of(found.name, places[place]), split)]


def _copy(found: _Found, wanted: Sequence[str], on_progress: OnProgress) -> Path:
    """Return a folder in the cache with copies of the files."""
    folder = cache_dir() / "remote"
    marks = {
        one: next((str(found.files[one][mark]) for mark in MARKS if found.files[one].get(mark)), "") for one in wanted
    }
    if all(marks.values()) and (copy := folder / _version(found, marks)).is_dir():
        return copy
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        work = Path(tempfile.mkdtemp(suffix=".work", dir=folder))
    except OSError as error:
        raise ForetasteError(f"cannot write to {error.filename or folder}: {error.strerror or error}") from error
    try:
        _download(found, wanted, work, on_progress)
        copy = folder / _version(found, {one: mark or sha256_of(work / one) for one, mark in marks.items()})
        if not copy.is_dir():  # or the content is the same, or another run was quicker
            work.rename(copy)
        return copy
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _mark(info: Mapping[str, Any]) -> str:
    """Return what changes when a file does; nothing if nobody says."""
    return next((str(info[mark]) for mark in MARKS if info.get(mark)), "")


def _download(found: _Found, wanted: Sequence[str], work: Path, on_progress: OnProgress) -> None:
    phase = f"downloading {found.name}"
    for start in range(0, len(wanted), AT_ONCE):
        on_progress(Progress(phase=phase, done=start, total=len(wanted)))
        some = wanted[start : start + AT_ONCE]
        for one in some:
            (work / one).parent.mkdir(parents=True, exist_ok=True)
        found.system.get([found.files[one]["name"] for one in some], [str(work / one) for one in some])
        for one in some:
            size, announced = (work / one).stat().st_size, found.files[one].get("size")
            if announced is not None and size != announced:
                raise ForetasteError(f"{found.name}: {one} came with {size} of {announced} bytes; try again later")
    on_progress(Progress(phase=phase, done=len(wanted), total=len(wanted)))


def _version(found: _Found, marks: Mapping[str, str]) -> str:
    """Return what this version of some files is called in the cache."""
    version = [found.address, [(one, found.files[one].get("size"), mark) for one, mark in marks.items()]]
    return hashlib.sha256(json.dumps(version).encode()).hexdigest()[:32]
