"""Fetch a file once, over HTTPS, and trust it only if its checksum is the pinned one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import httpx

from foretaste.errors import ForetasteError
from foretaste.io.atomic import atomic_path
from foretaste.io.cache import cache_dir, sweep
from foretaste.progress import OnProgress, Progress

LOOPBACK = frozenset(["localhost", "127.0.0.1", "::1"])
TIMEOUT = httpx.Timeout(30.0)
"""Seconds to connect, and between two pieces of the answer."""
PIECE = 2**20


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: where it is; HTTPS, or HTTP on the loopback interface.
        sha256: what it must hash to, in hexadecimal.
        size: bytes it must have.
    """

    url: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """The last part of the address."""
        return httpx.URL(self.url).path.rsplit("/", 1)[-1]


def fetch(file: RemoteFile, on_progress: OnProgress) -> Path:
    """Return the cached copy of a file, downloading it if there is none; it appears whole and verified, or not at all.

    Raises:
        ForetasteError: it cannot be fetched, is not what it should be, or the cache cannot be written.
    """
    target = cache_dir() / "downloads" / f"{file.sha256[:16]}-{file.name}"
    if target.is_file() and target.stat().st_size == file.size and sha256_of(target) == file.sha256:
        return target
    sweep(target.parent)
    with atomic_path(target) as temporary:
        try:
            _download(file, temporary, on_progress)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ForetasteError(f"cannot download {file.url}: {error or type(error).__name__}") from error
        if sha256_of(temporary) != file.sha256:
            raise ForetasteError(f"{file.url} is not the file it should be: its SHA-256 is not {file.sha256}")
    return target


def _download(file: RemoteFile, temporary: Path, on_progress: OnProgress) -> None:
    local = httpx.URL(file.url).host in LOOPBACK

    def refuse_plain(request: httpx.Request) -> None:
        # Called for every hop, so that no redirect leaves HTTPS.
        if request.url.scheme != "https" and not (local and request.url.host in LOOPBACK):
            raise ForetasteError(f"{file.url} leads to {request.url}, which is not HTTPS")

    done = 0
    with (
        httpx.Client(follow_redirects=True, timeout=TIMEOUT, event_hooks={"request": [refuse_plain]}) as client,
        client.stream("GET", file.url, headers={"Accept-Encoding": "identity"}) as answer,
        temporary.open("wb") as target,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ForetasteError(f"cannot download {file.url}: the server answered {answer.status_code}")
        for piece in answer.iter_raw(PIECE):
            done += len(piece)
            if done > file.size:
                break
            target.write(piece)
            on_progress(Progress(phase=f"downloading {file.name}", done=done, total=file.size))
    if done != file.size:
        relation = "more than" if done > file.size else f"{done} of"
        raise ForetasteError(
            f"cannot download {file.url}: the server sent {relation} {file.size} bytes; try again later"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
