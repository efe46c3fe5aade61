import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from foretaste import ForetasteError, UsageError, io
from foretaste.io.decoding import Loaded, Reading
from foretaste.io.download import RemoteFile, fetch
from foretaste.io.named import OFFICIAL, Sources, read_named
from foretaste.progress import Progress, silent

Encode = Callable[..., bytes]


@dataclass
class Server:
    """A web server on the loopback interface."""

    base: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    asked: list[str] = field(default_factory=list)

    def offer(self, name: str, content: bytes) -> RemoteFile:
        self.files[f"/{name}"] = content
        return RemoteFile(url=f"{self.base}/{name}", sha256=hashlib.sha256(content).hexdigest(), size=len(content))


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            if self.path in state.redirects:
                self.send_response(302)
                self.send_header("Location", state.redirects[self.path])
                self.end_headers()
                return
            content = state.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write((content or b"")[: state.cut])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        state.base = f"http://127.0.0.1:{httpd.server_address[1]}"
        yield state
        httpd.shutdown()
        thread.join()


def left(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file()]


def test_a_file_is_fetched_once(server: Server, own_cache: Path) -> None:
    file, seen = server.offer("a.bin", bytes(3_000_000)), list[Progress]()
    path = fetch(file, seen.append)
    assert path.read_bytes() == bytes(3_000_000)
    assert (seen[-1].done, seen[-1].total) == (3_000_000, 3_000_000)
    assert fetch(file, silent) == path
    assert server.asked == ["/a.bin"]
    assert path.is_relative_to(own_cache)


def test_a_damaged_copy_is_fetched_again(server: Server) -> None:
    file = server.offer("a.bin", b"right")
    fetch(file, silent).write_bytes(b"wrong")
    assert fetch(file, silent).read_bytes() == b"right"


def test_a_wrong_checksum_leaves_nothing(server: Server, own_cache: Path) -> None:
    file = replace(server.offer("a.bin", b"content"), sha256="0" * 64)
    with pytest.raises(ForetasteError, match="is not the file it should be"):
        fetch(file, silent)
    assert left(own_cache) == []


def test_an_interrupted_download_leaves_nothing_and_can_be_repeated(server: Server, own_cache: Path) -> None:
    file = server.offer("a.bin", bytes(100_000))
    server.cut = 50_000
    with pytest.raises(ForetasteError, match=r"cannot download http.*a\.bin"):
        fetch(file, silent)
    assert left(own_cache) == []
    server.cut = None
    assert fetch(file, silent).stat().st_size == 100_000


def test_a_file_of_another_size(server: Server, own_cache: Path) -> None:
    file = server.offer("a.bin", bytes(100))
    for size, message in ((99, "more than 99 bytes"), (101, "100 of 101 bytes")):
        with pytest.raises(ForetasteError, match=message):
            fetch(replace(file, size=size), silent)
    assert left(own_cache) == []


def test_only_https_outside_the_loopback_interface(server: Server) -> None:
    file = server.offer("a.bin", b"x")
    with pytest.raises(ForetasteError, match="which is not HTTPS"):
        fetch(replace(file, url="http://example.invalid/a.bin"), silent)
    server.redirects["/a.bin"] = "http://example.invalid/a.bin"
    with pytest.raises(ForetasteError, match=r"leads to http://example\.invalid/a\.bin, which is not HTTPS"):
        fetch(file, silent)
    assert all(one.url.startswith("https://") for one in vars(OFFICIAL).values())


def test_network_faults_are_one_sentence(server: Server) -> None:
    with pytest.raises(ForetasteError, match="the server answered 404"):
        fetch(RemoteFile(url=f"{server.base}/gone", sha256="0" * 64, size=1), silent)
    server.redirects["/loop"] = "/loop"
    for url in (f"{server.base}/loop", "http://127.0.0.1:1/a", "https://localhost:1/a"):
        with pytest.raises(ForetasteError, match=f"cannot download {url}"):
            fetch(RemoteFile(url=url, sha256="0" * 64, size=1), silent)


def tar(members: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
        link = tarfile.TarInfo("cifar-10-batches-bin/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def cifar_record(label: int, red: int) -> bytes:
    return bytes([label]) + bytes([red]) * 1024 + bytes([1]) * 1024 + bytes([2]) * 1024


@pytest.fixture
def sources(server: Server, encode: Encode) -> Sources:
    folder = "cifar-10-batches-bin"
    cifar = {f"{folder}/data_batch_{i}.bin": cifar_record(i, 10 * i) + cifar_record(0, 9) for i in range(1, 6)}
    traps = {"../evil.txt": b"x", "/evil.txt": b"x", f"{folder}/../../evil.txt": b"x"}
    train, test = "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images"
    ppm = {"form": "PPM", "size": (40, 50)}
    signs = {f"{train}/{k:05d}/00000_0000{i}.ppm": encode(colour=(k, i, 0), **ppm) for k in (0, 42) for i in (0, 1)}
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"0000{i}.ppm;40;50;5;5;35;45;{40 + i}" for i in range(3)]
    return Sources(
        cifar10=server.offer("c.tar.gz", tar(traps | cifar | {f"{folder}/test_batch.bin": cifar_record(3, 77)})),
        gtsrb_train=server.offer("train.zip", packed(traps | signs | {f"{train}/00000/GT-00000.csv": b"x"})),
        gtsrb_test=server.offer(
            "test.zip", packed(traps | {f"{test}/0000{i}.ppm": encode(colour=(i, 0, 0), **ppm) for i in range(3)})
        ),
        gtsrb_test_labels=server.offer("gt.zip", packed({"GT-final_test.csv": "\r\n".join([head, *rows]).encode()})),
    )


def get(sources: Sources, name: str, split: str, resize: tuple[int, int] | None = None) -> Loaded:
    return read_named(name, split, Reading(resize=resize), sources=sources)


def test_cifar10(sources: Sources) -> None:
    train, test = get(sources, "cifar10", "train").samples, get(sources, "cifar10", "test").samples
    assert train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert train.classes[:2] == ("airplane", "automobile")
    assert train.images is not None
    assert (train.images[0] == (10, 1, 2)).all()
    assert test.labels.tolist() == [3]
    assert get(sources, "cifar10", "test", (8, 9)).samples.sample_shape == (8, 9, 3)


def test_gtsrb(sources: Sources) -> None:
    train, test = get(sources, "gtsrb", "train").samples, get(sources, "gtsrb", "test").samples
    assert train.labels.tolist() == [0, 0, 42, 42]
    assert train.ids.tolist()[0] == "00000/00000_00000.ppm"
    assert train.sample_shape == test.sample_shape == (32, 32, 3)
    assert train.images is not None
    assert train.images[:, 0, 0, :2].tolist() == [[0, 0], [0, 1], [42, 0], [42, 1]]
    assert test.labels.tolist() == [40, 41, 42]
    assert test.ids.tolist() == ["00000.ppm", "00001.ppm", "00002.ppm"]
    assert get(sources, "gtsrb", "test", (8, 8)).samples.sample_shape == (8, 8, 3)


def test_archives_put_nothing_anywhere(sources: Sources, tmp_path: Path, own_cache: Path) -> None:
    for name in ("cifar10", "gtsrb"):
        for split in ("train", "test"):
            get(sources, name, split)
    assert not list(tmp_path.rglob("evil*"))
    assert len(left(own_cache)) == 4


def test_archives_that_are_not_what_they_should_be(server: Server, sources: Sources) -> None:
    for content in (
        b"no archive",
        tar({}),
        packed({"a": b"x"}),
        tar({"cifar-10-batches-bin/test_batch.bin": b"short"}),
    ):
        file = server.offer("bad", content)
        for name, split in (("cifar10", "test"), ("gtsrb", "train"), ("gtsrb", "test")):
            with pytest.raises(ForetasteError, match="delete it and try again"):
                get(Sources(cifar10=file, gtsrb_train=file, gtsrb_test=file, gtsrb_test_labels=file), name, split)


def test_signs_need_no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foretaste.io.named.SIGNS_TRAIN", 40)
    monkeypatch.setattr("foretaste.io.named.SIGNS_TEST", 20)
    train, test = io.load("signs"), io.load("signs", split="test", resize=16)
    assert len(train) == 40
    assert len(test) == 20
    assert test.sample_shape == (16, 16, 3)
    assert train.classes == test.classes
    assert not np.isin(test.ids, train.ids).any()


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "signs"])
def test_unknown_split(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has no split val; it has train and test"):
        io.load(name, split="val")
