import os
from pathlib import Path

import numpy as np
import pytest

from foretaste import ForetasteError, Samples, UsageError, io
from foretaste.progress import Progress


@pytest.mark.parametrize("source", ["nowhere.parquet", "cifar11", "nowhere"])
def test_a_source_that_does_not_exist(source: str) -> None:
    with pytest.raises(UsageError, match=f"{source} does not exist; give .* cifar10, gtsrb, signs"):
        io.load(source)


def test_other_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"")
    with pytest.raises(UsageError, match="not a kind of file"):
        io.load(tmp_path / "a.pkl")


@pytest.mark.parametrize("resize", [0, -1, (0, 4), (2**15, 2**15)])
def test_resize_out_of_range(tree: Path, resize: int | tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="cannot resize"):
        io.load(tree, resize=resize)


def test_a_source_without_splits_has_none_to_choose(tree: Path, tmp_path: Path, pictures: Samples) -> None:
    with pytest.raises(UsageError, match="has no split test; it has none"):
        io.load(tree, split="test")
    io.write_parquet(pictures, tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="has no splits; leave --split out"):
        io.load(tmp_path / "a.parquet", split="test")
    assert len(io.read(tree, default_split="test").samples) == len(io.load(tree))


def test_a_set_of_one_occurring_class_keeps_the_others_names(tmp_path: Path, pictures: Samples) -> None:
    quarantine = pictures[pictures.labels == 1]
    io.write_parquet(quarantine, tmp_path / "q.parquet")
    assert io.load(tmp_path / "q.parquet").classes == pictures.classes


def test_progress_ends_at_the_total(tree: Path) -> None:
    seen: list[Progress] = []
    io.load(str(tree), on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (6, 6)
    assert [one.done for one in seen] == sorted(one.done for one in seen)


@pytest.mark.parametrize("which", ["ids", "classes"])
def test_names_that_are_no_unicode_are_refused(tmp_path: Path, pictures: Samples, which: str) -> None:
    names = {"ids": pictures.ids.tolist(), "classes": list(pictures.classes)}
    names[which][1] = "b\udcff"
    np.savez(tmp_path / "a.npz", x=pictures.inputs, y=pictures.labels, ids=names["ids"], classes=names["classes"])
    with pytest.raises(
        ForetasteError, match=r"a\.npz: the (id|class name) 'b\\udcff' \(number 1\) is not valid Unicode"
    ):
        io.read(tmp_path / "a.npz")


def test_a_folder_whose_names_are_not_utf8_is_read_with_escapes(tree: Path) -> None:
    stray = bytes(tree) + b"/stray\xff.txt"
    Path(os.fsdecode(stray)).write_text("x")
    Path(os.fsdecode(bytes(tree) + b"/cat/\xff.png")).write_bytes((tree / "cat" / "0.png").read_bytes())
    loaded = io.read(tree)
    assert "cat/\\xff.png" in loaded.samples.ids.tolist()
    assert [one.name for one in loaded.skipped] == ["stray\\xff.txt"]
