import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import fsspec
import numpy as np
import pytest
from PIL import Image

from foretaste import io
from foretaste.errors import ForetasteError, UsageError
from foretaste.io.remote import fetch_remote
from foretaste.progress import Progress
from foretaste.samples import Samples


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "remote"


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


def drawn(n: int, seed: int = 0) -> Samples:
    """Draw n grey images in two classes."""
    images = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(n) % 2, ["cat", "dog"])


def parquet(n: int, seed: int = 0) -> bytes:
    path = Path(f"{n}-{seed}.parquet")
    io.write_parquet(drawn(n, seed), path)
    return path.read_bytes()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def png(seed: int) -> bytes:
    file = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def test_a_file_is_read_like_a_local_one(memory: Any) -> None:
    memory.pipe("/bucket/train.parquet", parquet(6))
    samples = io.load("memory://bucket/train.parquet")
    assert np.array_equal(samples.inputs, drawn(6).inputs)
    assert samples.classes == ("cat", "dog")


def test_a_copy_is_used_again_until_the_file_changes(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/train.parquet", parquet(6))
    asked: list[object] = []
    honest = type(memory).get

    def get(self: Any, names: list[str], *args: Any) -> None:
        asked.append(names)
        honest(self, names, *args)

    monkeypatch.setattr(type(memory), "get", get)
    for _ in range(2):
        assert len(io.load("memory://bucket/train.parquet")) == 6
    assert len(asked) == 1
    memory.pipe("/bucket/train.parquet", parquet(8))
    assert len(io.load("memory://bucket/train.parquet")) == 8
    assert len(asked) == 2
    assert not list(cache.glob("*.work"))


def test_of_a_folder_the_files_of_the_split_are_copied(memory: Any, cache: Path) -> None:
    for name, n in (("train-00000-of-00002", 4), ("train-00001-of-00002", 6), ("test-00000-of-00001", 2)):
        memory.pipe(f"/set/data/{name}.parquet", parquet(n))
    memory.pipe("/set/README.md", b"# A set")
    with pytest.raises(UsageError, match=r"memory://set has the splits test, train; name one of them with --split"):
        io.load("memory://set")
    assert len(io.load("memory://set", split="train")) == 10
    assert len(list(cache.rglob("*.parquet"))) == 2


def test_tables_in_one_folder_further_down_are_found(memory: Any) -> None:
    memory.pipe("/set/plain/train-00000-of-00001.parquet", parquet(4))
    assert len(io.load("memory://set")) == 4
    memory.pipe("/set/other/train-00000-of-00001.parquet", parquet(4))
    with pytest.raises(UsageError, match=r"has tables in other, plain; add one of these to the address"):
        io.load("memory://set")
    assert len(io.load("memory://set/other")) == 4


def test_a_pattern_names_the_files_of_one_table(memory: Any) -> None:
    memory.pipe("/set/a-1.parquet", parquet(4))
    memory.pipe("/set/a-2.parquet", parquet(6))
    memory.pipe("/set/b.csv", b"x,label\n1,0\n")
    assert len(io.load("memory://set/a-*.parquet")) == 10
    with pytest.raises(UsageError, match=r"matches b\.csv; several files must be \.parquet"):
        io.load("memory://set/*")
    with pytest.raises(UsageError, match=r"memory://set/c\*\.parquet does not exist"):
        io.load("memory://set/c*.parquet")


def test_class_folders_are_copied_whole_or_by_split(memory: Any, cache: Path) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            for seed in range(3):
                memory.pipe(f"/photos/{part}/{label}/{seed}.png", png(seed))
    with pytest.raises(UsageError, match=r"memory://photos has the splits test, train; name one of them with --split"):
        io.load("memory://photos")
    assert not cache.exists()
    samples = io.load("memory://photos", split="test")
    assert sorted(samples.ids) == [f"{label}/{seed}.png" for label in ("cat", "dog") for seed in range(3)]
    assert len(list(cache.rglob("*.png"))) == 6
    assert len(io.load("memory://photos/train")) == 6


def test_errors_name_the_address_and_not_the_copy(memory: Any, cache: Path) -> None:
    memory.pipe("/bucket/train.parquet", b"no parquet")
    with pytest.raises(ForetasteError, match=r"memory://bucket/train\.parquet") as error:
        io.load("memory://bucket/train.parquet")
    assert str(cache) not in str(error.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://bucket/nothing.parquet", r"memory://bucket/nothing\.parquet does not exist"),
        ("carrier-pigeon://loft/a.parquet", r"there is no protocol carrier-pigeon://"),
        (
            "memory://bucket/notes.txt",
            r"notes\.txt is not a kind of file that can be read; give \.parquet, ",
        ),
    ],
)
def test_what_cannot_be_read(memory: Any, address: str, said: str) -> None:
    memory.pipe("/bucket/notes.txt", b"notes")
    with pytest.raises(UsageError, match=said):
        io.load(address)


def test_a_file_has_no_splits(memory: Any) -> None:
    memory.pipe("/bucket/train.parquet", parquet(6))
    with pytest.raises(UsageError, match=r"has no splits; leave --split out"):
        io.load("memory://bucket/train.parquet", split="train")


def test_names_that_lead_out_of_the_cache_are_not_copied(
    memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/set/cat/0.png", png(0))
    memory.pipe("/set/dog/0.png", png(1))
    honest = type(memory).find

    def find(self: Any, path: str, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = honest(self, path, **kwargs)
        return found | {"/set/../../evil.png": found["/set/cat/0.png"], "/set/..\\evil.png": found["/set/cat/0.png"]}

    monkeypatch.setattr(type(memory), "find", find)
    assert len(io.load("memory://set")) == 2
    assert not list(cache.parent.parent.rglob("*evil*"))


def test_a_file_that_comes_short_leaves_nothing(memory: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/bucket/train.parquet", parquet(6))
    info = type(memory).info
    monkeypatch.setattr(type(memory), "info", lambda self, path, **kwargs: info(self, path) | {"size": 10**6})
    with pytest.raises(ForetasteError, match=r"train\.parquet came with \d+ of 1000000 bytes; try again later"):
        io.load("memory://bucket/train.parquet")
    assert not list(cache.iterdir())


def test_progress_is_told(memory: Any) -> None:
    memory.pipe("/bucket/train.parquet", parquet(6))
    told: list[Progress] = []
    fetch_remote("memory://bucket/train.parquet", None, told.append)
    assert [(one.done, one.total) for one in told] == [(0, 1), (1, 1)]
    assert told[0].phase == "downloading memory://bucket/train.parquet"


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"cannot be opened here: it needs the extra foretaste\[remote\]"):
        io.load("memory://bucket/train.parquet")


def test_a_package_that_an_address_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UsageError, match=r"s3://bucket/set\.parquet cannot be opened here: .*s3fs"):
        io.load("s3://bucket/set.parquet")


def test_local_sources_need_no_fsspec() -> None:
    code = "import sys; sys.modules['fsspec'] = None; from foretaste import io; print(len(io.load('6-0.parquet')))"
    parquet(6)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "6\n"


# On a web server.


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Files(SimpleHTTPRequestHandler):
    """The files of a folder, with a time of change."""

    gets: int = 0

    def do_GET(self) -> None:
        type(self).gets += 1
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


class Unmarked(Files):
    """The same without one."""

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified":
            super().send_header(keyword, value)


@pytest.mark.parametrize(("handler", "gets"), [(Files, 1), (Unmarked, 2)])
def test_a_file_on_a_web_server(handler: type[Files], gets: int, cache: Path) -> None:
    handler.gets = 0
    parquet(6)
    with serving(partial(handler, directory=".")) as server:
        for _ in range(2):
            assert len(io.load(f"{server}/6-0.parquet?signature=secret")) == 6
        assert handler.gets == gets
        with pytest.raises(UsageError, match=r"/7-0\.parquet does not exist") as error:
            io.load(f"{server}/7-0.parquet?signature=secret")
        assert "secret" not in str(error.value)
    assert len(list(cache.iterdir())) == 1


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(ForetasteError, match=r"cannot read http://127\.0\.0\.1:1/a\.parquet: Client"):
        io.load("http://127.0.0.1:1/a.parquet")


# On a Hugging Face hub.


@dataclass
class Hub:
    """A hub with one data set, as far as reading needs one."""

    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.asked.append(path)
                if path.startswith("/api/datasets/people/photos/tree/main"):
                    self.answer(json.dumps([hub.entry(name) for name in hub.files]).encode())
                elif path in ("/api/datasets/people/photos", "/api/datasets/people/photos/revision/main"):
                    self.answer(json.dumps({"id": "people/photos", "sha": "0" * 40, "siblings": []}).encode())
                elif (name := path.removeprefix("/datasets/people/photos/resolve/main/")) in hub.files:
                    self.answer(hub.files[name])
                else:
                    self.answer(b'{"error": "Repository not found"}', 404, {"X-Error-Code": "RepoNotFound"})

            def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for key, value in {"ETag": '"1"', "X-Repo-Commit": "0" * 40, **(headers or {})}.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

        return Handler

    def entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": f"{hash(self.files[name]):x}"}


LOAD = """
from foretaste import io
from foretaste.errors import UsageError

print(len(io.load("hf://datasets/people/photos")), len(io.load("hf://datasets/people/photos")))
try:
    io.load("hf://datasets/people/nothing")
except UsageError as error:
    print(error)
"""


def test_a_data_set_on_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub({"README.md": b"# Photos", "data/train-00000-of-00001.parquet": parquet(6)})
    with serving(hub.handler()) as server:
        monkeypatch.setenv("HF_ENDPOINT", server)  # which is read once, by a process that starts
        done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    assert done.stdout == "6 6\nhf://datasets/people/nothing does not exist\n"
    assert hub.asked.count("/datasets/people/photos/resolve/main/data/train-00000-of-00001.parquet") == 1
