from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste import ForetasteError, Samples, UsageError, io

Y = np.array([0, 1, 1])


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_reads_images_classes_and_ids(
    tmp_path: Path, pictures: Samples, same: Callable[[Samples, Samples], None]
) -> None:
    assert pictures.images is not None
    arrays: dict[str, Any] = {
        "x": pictures.images,
        "y": pictures.labels,
        "classes": np.array(pictures.classes),
        "ids": pictures.ids,
    }
    same(io.load(save(tmp_path / "a.npz", **arrays)), pictures)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    same(io.load(tmp_path / "b.npz"), pictures)


def test_grey_images_column_labels_and_defaults(tmp_path: Path) -> None:
    samples = io.load(save(tmp_path / "a.npz", x=np.zeros((3, 4, 5), np.uint8), y=Y[:, None].astype(np.uint8)))
    assert samples.sample_shape == (4, 5, 1)
    assert samples.classes == ("0", "1")
    assert samples.ids.tolist() == ["0", "1", "2"]
    assert io.load(tmp_path / "a.npz", resize=2).sample_shape == (2, 2, 1)


def test_reads_features(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float64).reshape(3, 2)
    samples = io.load(save(tmp_path / "a.npz", x=x, y=Y))
    assert samples.features is not None
    assert samples.features.dtype == np.float32
    assert (samples.features == x).all()


def test_errors_are_sentences_about_the_file(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), np.uint8)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"x": images}, "has no array y; it needs x and y"),
        ({"a": images}, "has no array x and no array y"),
        ({"x": images, "y": np.array([0, 1])}, r"x has 3 samples, but y has shape \(2,\)"),
        ({"x": images, "y": np.array([0.5, 1, 1])}, "row 0 has label 0.5; labels are either all whole numbers"),
        ({"x": images, "y": np.array([0, -1, 1])}, r"row 1 has no label \(-1\)"),
        ({"x": images, "y": Y, "classes": np.array(["a"])}, "row 1 has label 1, outside the 1 classes"),
        ({"x": images, "y": Y, "ids": np.array(["a", "a", "b"])}, "ids repeat"),
        ({"x": images.astype(np.float32), "y": Y}, "x must be uint8 images"),
        ({"x": images[..., :2], "y": Y}, "images must be"),
        ({"x": np.full((3, 2), np.nan), "y": Y}, "row 0 has NaN"),
        ({"x": np.asfortranarray(np.ones((3, 4, 4), np.uint8)), "y": Y}, "Fortran order"),
        ({"x": images[:0], "y": Y[:0]}, "holds no samples"),
    ]
    for arrays, message in cases:
        with pytest.raises(ForetasteError, match=message) as caught:
            io.load(save(tmp_path / "a.npz", **arrays))
        assert str(tmp_path / "a.npz") in str(caught.value)
    with pytest.raises(ForetasteError, match="cannot be resized"):
        io.load(save(tmp_path / "a.npz", x=np.ones((3, 2)), y=Y), resize=4)
    with pytest.raises(UsageError, match="only one class"):
        io.load(save(tmp_path / "a.npz", x=images, y=Y * 0))


@pytest.mark.parametrize("name", ["x", "y", "classes", "ids"])
def test_objects_are_never_unpickled(tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return pytest.fail, ("unpickled",)

    arrays: dict[str, Any] = {"x": np.zeros((3, 4, 4), np.uint8), "y": Y, name: np.array([Trap()] * 3)}
    with pytest.raises(ForetasteError, match=f"array {name} holds Python objects"):
        io.load(save(tmp_path / "a.npz", **arrays))


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"hello")
    with pytest.raises(ForetasteError, match=r"cannot read .*a\.npz"):
        io.load(tmp_path / "a.npz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.npz"
    np.savez_compressed(path, x=np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8), y=Y, ids=np.array(["a", "b", "c"]))
    return path.read_bytes()


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(max_size=4))
def test_damaged_files_read_or_fail_in_the_known_way(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, place: float, patch: bytes
) -> None:
    at = int(place * len(whole))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(whole[:at] + patch + whole[at + len(patch) :] if patch else whole[:at])
    with suppress(ForetasteError):
        assert len(io.read(path).samples) == 3


@settings(max_examples=100)
@given(header=st.binary(max_size=120))
def test_damaged_array_headers(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    import zipfile

    path = tmp_path_factory.getbasetemp() / "header.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
        archive.writestr("y.npy", b"\x93NUMPY" + header)
    with pytest.raises(ForetasteError):
        io.read(path)


@pytest.mark.parametrize("shape", ["(-1, 4)", "(True, 4)", "(1000000000000, 4, 4)", "(3, 0)", "(3,)", "()"])
def test_impossible_shapes(tmp_path: Path, shape: str) -> None:
    import zipfile

    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(48))
        with archive.open("y.npy", "w") as file:
            np.save(file, Y)
    with pytest.raises(ForetasteError):
        io.read(tmp_path / "a.npz")


def test_labels_as_floats_truths_and_texts(tmp_path: Path) -> None:
    x = np.zeros((3, 4, 4), np.uint8)
    for y, classes, labels in (
        (np.array([0.0, 2.0, 1.0]), ("0", "1", "2"), [0, 2, 1]),
        (np.array([True, False, True]), ("0", "1"), [1, 0, 1]),
        (np.array(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        (np.array([50667, 10115, 50667]), ("10115", "50667"), [1, 0, 1]),
    ):
        samples = io.load(save(tmp_path / "a.npz", x=x, y=y))
        assert (samples.classes, samples.labels.tolist()) == (classes, labels)
    with pytest.raises(ForetasteError, match="row 1 has label 1700000000, which cannot be a class"):
        io.load(save(tmp_path / "a.npz", x=x, y=np.array([3, 1_700_000_000, 3])))


def test_bad_samples_are_left_out_if_that_is_asked_for(tmp_path: Path) -> None:
    x = np.array([[1.0, 2.0], [np.nan, 1.0], [3.0, 4.0], [5.0, 6.0]])
    loaded = io.read(save(tmp_path / "a.npz", x=x, y=np.array([0, 1, -1, 1])), on_bad="skip")
    assert loaded.samples.inputs.tolist() == [[1, 2], [5, 6]]
    assert loaded.samples.labels.tolist() == [0, 1]
    assert [one.reason for one in loaded.skipped] == ["has NaN or infinite features", "has no label (-1)"]


def test_inputs_need_no_labels(tmp_path: Path) -> None:
    samples = io.read(save(tmp_path / "a.npz", x=np.zeros((3, 4, 4), np.uint8)), use="ignore").samples
    assert samples.labels.tolist() == [0, 0, 0]
    assert samples.classes == ("unlabelled",)
