from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste import ForetasteError, Samples, io
from foretaste.io import decoding

Same = Callable[[Samples, Samples], None]


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every set too large for memory."""
    monkeypatch.setattr("foretaste.io.store.IN_MEMORY", 10)


def cached(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def file(tmp_path: Path, pictures: Samples) -> Path:
    io.write_parquet(pictures, tmp_path / "x.parquet")
    return tmp_path / "x.parquet"


@pytest.mark.usefixtures("small_memory")
def test_large_sets_are_decoded_once_and_mapped(
    file: Path, pictures: Samples, same: Same, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = io.load(file)
    assert isinstance(samples.images, np.memmap)
    same(samples, pictures)
    assert cached(own_cache) == [".json", ".raw"]

    def fail(*_: Any) -> Any:
        raise AssertionError("decoded twice")

    monkeypatch.setattr(decoding, "decode_image", fail)
    same(io.load(file), pictures)


@pytest.mark.usefixtures("small_memory")
def test_what_changes_the_images_changes_the_entry(file: Path, pictures: Samples, same: Same, own_cache: Path) -> None:
    io.load(file)
    assert io.load(file, resize=3).sample_shape == (3, 3, 3)
    io.read(file, on_bad="skip")
    assert len(cached(own_cache)) == 6
    io.write_parquet(pictures[::-1], file)
    same(io.load(file), pictures[::-1])
    assert len(cached(own_cache)) == 8


@pytest.mark.usefixtures("small_memory")
def test_skipped_images_are_remembered(tree: Path) -> None:
    (tree / "cat" / "1.png").write_bytes(b"no")
    first, again = io.read(tree, on_bad="skip"), io.read(tree, on_bad="skip")
    assert first.skipped == again.skipped
    assert len(again.skipped) == 1
    assert isinstance(again.samples.images, np.memmap)
    assert again.samples.ids.tolist() == first.samples.ids.tolist()
    assert again.samples.images.shape == (5, 4, 6, 3)


@pytest.mark.usefixtures("small_memory")
def test_grey_then_colour(tree: Path, encode: Callable[..., bytes]) -> None:
    for path in sorted(tree.rglob("*.png"))[:5]:
        path.write_bytes(encode("L", 50))
    images = io.load(tree).images
    assert images is not None
    assert images[:, 0, 0].tolist() == [[50, 50, 50]] * 5 + [[1, 2, 9]]


@pytest.mark.usefixtures("small_memory")
def test_npz_and_features(tmp_path: Path, pictures: Samples, same: Same) -> None:
    np.savez(tmp_path / "a.npz", x=pictures.inputs, y=pictures.labels, classes=pictures.classes, ids=pictures.ids)
    assert isinstance(io.load(tmp_path / "a.npz").images, np.memmap)
    same(io.load(tmp_path / "a.npz"), pictures)
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    features = Samples.from_arrays(rows, pictures.labels)
    io.write_parquet(features, tmp_path / "f.parquet")
    for _ in range(2):
        again = io.load(tmp_path / "f.parquet")
        assert isinstance(again.features, np.memmap)
        same(again, features)


@pytest.mark.usefixtures("small_memory")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    file: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foretaste.io.atomic.os.fsync", full)
    with pytest.raises(ForetasteError, match=r"cannot write .*\.raw: No space left on device"):
        io.load(file)
    assert cached(own_cache) == []


@pytest.mark.usefixtures("small_memory")
def test_a_killed_run_leaves_no_entry(file: Path, own_cache: Path, pictures: Samples, same: Same) -> None:
    def kill(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        io.read(file, on_progress=kill)
    assert cached(own_cache) == []
    same(io.load(file), pictures)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("damage", ["raw", "json"])
def test_a_damaged_entry_is_made_again(file: Path, own_cache: Path, pictures: Samples, same: Same, damage: str) -> None:
    io.load(file)
    entry = next(own_cache.rglob(f"*.{damage}"))
    entry.write_bytes(entry.read_bytes()[:10])
    same(io.load(file), pictures)


@pytest.mark.usefixtures("small_memory")
def test_what_killed_runs_left_is_swept(file: Path, own_cache: Path) -> None:
    import os

    folder = own_cache / "decoded"
    folder.mkdir(parents=True)
    for name, age in (("old.partial", 1e6), ("new.partial", 0)):
        (folder / name).write_bytes(b"x")
        stamp = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (stamp, stamp))
    for name, age in (("old.work", 1e6), ("new.work", 0)):
        (folder / name).mkdir()
        (folder / name / "checkpoint.safetensors").write_bytes(b"x")
        stamp = (folder / name).stat().st_mtime - age
        os.utime(folder / name, (stamp, stamp))
    io.load(file)
    assert not (folder / "old.partial").exists()
    assert (folder / "new.partial").exists()
    assert not (folder / "old.work").exists()
    assert (folder / "new.work" / "checkpoint.safetensors").exists()


@pytest.mark.usefixtures("small_memory")
def test_a_cache_that_cannot_be_made(file: Path, own_cache: Path) -> None:
    own_cache.write_text("a file")
    with pytest.raises(ForetasteError, match="cannot write"):
        io.load(file)


def test_small_sets_need_no_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("FORETASTE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3, 3), np.uint8), y=np.array([0, 1, 0, 1]))
    assert len(io.load(tmp_path / "a.npz")) == 4
    monkeypatch.setattr("foretaste.io.store.IN_MEMORY", 10)
    with pytest.raises(ForetasteError, match="no home folder for the cache; set FORETASTE_CACHE"):
        io.load(tmp_path / "a.npz")
