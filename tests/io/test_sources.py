from pathlib import Path

import pytest

from foretaste import Samples, UsageError, io
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


def test_a_file_has_no_splits(tree: Path) -> None:
    with pytest.raises(UsageError, match="has no splits"):
        io.load(tree, split="test")


def test_a_set_of_one_occurring_class_keeps_the_others_names(tmp_path: Path, pictures: Samples) -> None:
    quarantine = pictures[pictures.labels == 1]
    io.write_parquet(quarantine, tmp_path / "q.parquet")
    assert io.load(tmp_path / "q.parquet").classes == pictures.classes


def test_progress_ends_at_the_total(tree: Path) -> None:
    seen: list[Progress] = []
    io.load(str(tree), on_progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (6, 6)
    assert [one.done for one in seen] == sorted(one.done for one in seen)
