from collections.abc import Callable
from pathlib import Path

import pytest

from foretaste import ForetasteError, UsageError, io
from foretaste.io.images import FORMATS


def test_classes_ids_and_order(tree: Path) -> None:
    samples = io.load(tree)
    assert samples.classes == ("cat", "dog")
    assert samples.ids.tolist() == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png"]
    assert samples.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert samples.images is not None
    assert samples.images[:, 0, 0].tolist() == [[0, 0, 9], [0, 1, 9], [0, 2, 9], [1, 0, 9], [1, 1, 9], [1, 2, 9]]


def test_nested_folders_belong_to_their_class(tree: Path) -> None:
    (tree / "cat" / "deep").mkdir()
    (tree / "cat" / "2.png").rename(tree / "cat" / "deep" / "2.PNG")
    assert "cat/deep/2.PNG" in io.load(tree).ids


def test_folders_that_links_lead_to_are_read_once(tree: Path, tmp_path: Path, encode: Callable[..., bytes]) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "9.png").write_bytes(encode())
    (tree / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tree / "cat" / "same").symlink_to(tmp_path / "elsewhere")
    (tree / "cat" / "back").symlink_to(tree / "cat")
    loaded = io.read(tree)
    assert [name for name in loaded.samples.ids.tolist() if name.startswith("cat/")] == [
        "cat/0.png",
        "cat/1.png",
        "cat/2.png",
        "cat/more/deep/9.png",
    ]


def test_all_grey_is_one_channel_and_mixed_is_three(tree: Path, encode: Callable[..., bytes]) -> None:
    for path in tree.rglob("*.png"):
        path.write_bytes(encode("L", 50))
    assert io.load(tree).sample_shape == (4, 6, 1)
    (tree / "dog" / "2.png").write_bytes(encode("RGB", (1, 2, 3)))
    images = io.load(tree).images
    assert images is not None
    assert images.shape == (6, 4, 6, 3)
    assert (images[:5] == 50).all()
    assert (images[5] == (1, 2, 3)).all()


def test_mixed_sizes_name_both_and_the_first_that_differs(tree: Path, encode: Callable[..., bytes]) -> None:
    (tree / "dog" / "1.png").write_bytes(encode(size=(9, 8)))
    with pytest.raises(ForetasteError, match=r"cat/0\.png has 6 x 4 pixels, .*dog/1\.png has 9 x 8; use --resize"):
        io.load(tree)
    assert io.load(tree, resize=5).sample_shape == (5, 5, 3)
    assert io.load(tree, resize=(3, 2)).sample_shape == (3, 2, 3)


def test_a_bad_image_stops_or_is_skipped_and_reported(tree: Path) -> None:
    bad = tree / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(ForetasteError, match=r"cat/0\.png cannot be decoded.*; --on-bad skip leaves such samples out"):
        io.load(tree)
    loaded = io.read(tree, on_bad="skip")
    assert [Path(one.name).name for one in loaded.skipped] == ["0.png"]
    assert loaded.samples.ids[0] == "cat/1.png"
    assert len(loaded.samples) == 5
    with pytest.warns(UserWarning, match=r"left out 1; first .*cat/0\.png, which cannot be decoded"):
        assert len(io.load(tree, on_bad="skip")) == 5


def test_nothing_readable(tree: Path) -> None:
    for path in tree.rglob("*.png"):
        path.write_bytes(b"text")
    with pytest.raises(ForetasteError, match=r"no image that can be read: .*cat/0\.png is not a PNG"):
        io.load(tree, on_bad="skip")


def test_other_files_are_reported(tree: Path) -> None:
    (tree / "cat" / "notes.csv").write_text("x")
    (tree / "README").write_text("x")
    (tree / ".hidden").write_text("x")
    loaded = io.read(tree)
    assert [one.name for one in loaded.skipped] == ["README", "cat/notes.csv"]
    assert len(loaded.samples) == 6


def test_a_fifo_is_not_opened(tree: Path) -> None:
    import os

    os.mkfifo(tree / "cat" / "9.png")
    assert [one.name for one in io.read(tree).skipped] == ["cat/9.png"]


def test_names_that_are_no_unicode_become_escapes(tree: Path) -> None:
    import os

    (tree / "cat" / os.fsdecode(b"\xff.png")).write_bytes((tree / "cat" / "0.png").read_bytes())
    ids = io.load(tree).ids
    assert "cat/\\xff.png" in ids


def test_folders_without_images(tmp_path: Path, tree: Path) -> None:
    with pytest.raises(ForetasteError, match="no subfolders"):
        io.load(tree / "cat")
    empty = tmp_path / "empty"
    (empty / "a").mkdir(parents=True)
    with pytest.raises(ForetasteError, match="no images in its 1 subfolders"):
        io.load(empty)


def test_one_class_is_bad_usage(tree: Path) -> None:
    for path in (tree / "dog").iterdir():
        path.unlink()
    (tree / "dog").rmdir()
    with pytest.raises(UsageError, match="only one class"):
        io.load(tree)


def test_folders_called_by_numbers_count(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    for number in (0, 1, 2, 10, 11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(encode(colour=(number, 0, 0)))
    samples = io.load(tmp_path)
    assert samples.classes == ("0", "1", "2", "10", "11")
    assert samples.inputs[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11]
    assert samples.labels.tolist() == [0, 1, 2, 3, 4]


def test_folders_without_images_are_no_classes(tree: Path) -> None:
    for name in ("__pycache__", "lost+found", "__MACOSX"):
        (tree / name).mkdir()
    (tree / "__MACOSX" / "._0.png").write_bytes(b"x")
    loaded = io.read(tree)
    assert loaded.samples.classes == ("cat", "dog")
    assert [one.name for one in loaded.skipped] == ["__MACOSX", "__pycache__", "lost+found"]


def test_splits_are_no_classes(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    for split, n in (("train", 2), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(n):
                (tmp_path / split / name / f"{i}.png").write_bytes(encode())
    with pytest.raises(UsageError, match="are splits, not classes: test/, train/; name one with --split"):
        io.load(tmp_path)
    samples = io.load(tmp_path, split="train")
    assert samples.ids.tolist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert samples.classes == ("cat", "dog")
    with pytest.raises(UsageError, match="no split val; it has test, train"):
        io.load(tmp_path, split="val")


def test_inputs_without_labels_may_lie_anywhere_in_the_folder(tree: Path, encode: Callable[..., bytes]) -> None:
    (tree / "a.png").write_bytes(encode())
    loaded = io.read(tree, use="ignore")
    assert len(loaded.samples) == 7
    assert loaded.samples.classes == ("unlabelled",)
    assert loaded.skipped == ()


@pytest.mark.skipif("AVIF" not in FORMATS, reason="Pillow was built without AVIF")
def test_avif_where_pillow_has_it(tree: Path, encode: Callable[..., bytes]) -> None:
    (tree / "cat" / "3.avif").write_bytes(encode(form="AVIF"))
    assert "cat/3.avif" in io.load(tree).ids
