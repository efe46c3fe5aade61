import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from foretaste import ForetasteError, Samples, UsageError, io

Same = Callable[[Samples, Samples], None]
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(path: Path, names: list[str] | None = None, **columns: pa.Array) -> Path:
    features = {"label": {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def images(*payloads: bytes | None, paths: list[str | None] | None = None) -> pa.Array:
    paths = paths or [None] * len(payloads)
    return pa.array([{"bytes": b, "path": p} for b, p in zip(payloads, paths, strict=True)], IMAGE)


def test_round_trip_of_colour_images(tmp_path: Path, pictures: Samples, same: Same) -> None:
    io.write_parquet(pictures, tmp_path / "new" / "x.parquet")
    same(io.load(tmp_path / "new" / "x.parquet"), pictures)


def test_round_trip_in_several_row_groups(
    tmp_path: Path, pictures: Samples, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.io.parquet_writer.GROUP_BYTES", 5000)
    io.write_parquet(pictures, tmp_path / "x.parquet")
    assert pq.ParquetFile(tmp_path / "x.parquet").num_row_groups > 5
    same(io.load(tmp_path / "x.parquet"), pictures)


@settings(max_examples=40)
@given(st.data())
def test_round_trip_of_anything(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    if data.draw(st.booleans()):
        side, channels = data.draw(st.integers(1, 9)), data.draw(st.sampled_from([1, 3]))
        inputs: Any = data.draw(arrays.arrays(np.uint8, (n, side, 3, channels)))
    else:
        number = st.floats(width=32, allow_nan=False, allow_infinity=False)
        inputs = data.draw(arrays.arrays(np.float32, (n, data.draw(st.integers(1, 5))), elements=number))
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
    samples = Samples.from_arrays(
        inputs,
        data.draw(arrays.arrays(np.int64, n, elements=st.integers(0, 2))),
        data.draw(st.lists(text, min_size=3, max_size=3)),
        data.draw(st.lists(text, min_size=n, max_size=n, unique=True)),
    )
    path = tmp_path_factory.mktemp("trip") / "x.parquet"
    io.write_parquet(samples, path)
    again = io.load(path)
    assert again.inputs.dtype == samples.inputs.dtype
    assert again.inputs.tobytes() == samples.inputs.tobytes()
    assert again.inputs.shape == samples.inputs.shape
    assert again.labels.tolist() == samples.labels.tolist()
    assert again.ids.tolist() == samples.ids.tolist()
    assert again.classes == samples.classes


def test_metadata_is_in_the_hugging_face_layout(tmp_path: Path, pictures: Samples) -> None:
    io.write_parquet(pictures, tmp_path / "x.parquet")
    schema = pq.read_schema(tmp_path / "x.parquet")
    label = {"_type": "ClassLabel", "names": ["a", "b", "ü"]}
    assert json.loads(schema.metadata[b"huggingface"]) == {
        "info": {"features": {"image": {"_type": "Image"}, "label": label}}
    }
    assert schema.field("image").type == IMAGE
    assert schema.field("label").type == pa.int64()


def test_an_empty_set_can_be_written(tmp_path: Path, pictures: Samples) -> None:
    io.write_parquet(pictures[:0], tmp_path / "x.parquet")
    assert pq.read_metadata(tmp_path / "x.parquet").num_rows == 0
    with pytest.raises(ForetasteError, match="holds no samples"):
        io.load(tmp_path / "x.parquet")


def test_ids_are_paths_if_unique_else_row_numbers(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    label = pa.array([0, 1])
    unique = write(tmp_path / "a.parquet", image=images(encode(), encode(), paths=["p", "q"]), label=label)
    assert io.load(unique).ids.tolist() == ["p", "q"]
    repeated = write(tmp_path / "b.parquet", image=images(encode(), encode(), paths=["p", "p"]), label=label)
    assert io.load(repeated).ids.tolist() == ["0", "1"]
    own = write(
        tmp_path / "c.parquet", img=images(encode(), encode(), paths=["p", "q"]), label=label, id=pa.array(["s", "t"])
    )
    assert io.load(own).ids.tolist() == ["s", "t"]


def test_plain_bytes_string_labels_and_missing_names(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    column = pa.array([encode(), encode()])
    assert io.load(write(tmp_path / "a.parquet", image=column, label=pa.array(["dog", "cat"]))).classes == (
        "cat",
        "dog",
    )
    assert io.load(write(tmp_path / "b.parquet", image=column, labels=pa.array([2, 0]))).classes == ("0", "1", "2")


def test_paths_lead_to_files_inside_the_folder_only(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    (tmp_path / "set").mkdir()
    for place in (tmp_path / "set" / "in.png", tmp_path / "out.png"):
        place.write_bytes(encode())
    label = pa.array([0, 1])
    inside = write(tmp_path / "set" / "a.parquet", image=images(None, encode(), paths=["in.png", None]), label=label)
    assert len(io.load(inside)) == 2
    for path in ("../out.png", str(tmp_path / "out.png"), "/etc/passwd"):
        outside = write(tmp_path / "set" / "b.parquet", image=images(None, encode(), paths=[path, None]), label=label)
        with pytest.raises(ForetasteError, match=r"row 0 .* outside the set's folder"):
            io.load(outside)
    gone = write(tmp_path / "set" / "c.parquet", image=images(None, encode(), paths=["x\0y", None]), label=label)
    with pytest.raises(ForetasteError, match="row 0 "):
        io.load(gone)


def test_errors_name_file_and_row(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    file, good, two = tmp_path / "x.parquet", images(encode(), encode()), ["a", "b"]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"image": good, "label": pa.array([0, 2])}, "row 1 has label 2, outside the 2 classes"),
        (
            {"image": good, "label": pa.array([-1, 1])},
            r"row 0 has no label \(-1\); --on-bad skip leaves such samples out",
        ),
        ({"image": good, "label": pa.array([0, None])}, "row 1 has no label"),
        (
            {"image": good, "label": pa.array([0.5, 1])},
            "row 0 has label 0.5; labels are either all whole numbers or all texts",
        ),
        ({"image": good, "other": pa.array([0, 1])}, "has no label column; it has image, other"),
        ({"photo": good, "label": pa.array([0, 1])}, "no image column of a known name; .* --image-column photo"),
        ({"image": pa.array([1, 2]), "label": pa.array([0, 1])}, "column image holds int64"),
        ({"image": images(encode(), b"no"), "label": pa.array([0, 1])}, "row 1 is not a PNG"),
        ({"image": images(encode(), None), "label": pa.array([0, 1])}, "row 1 holds no image"),
        ({"image": good, "label": pa.array([0, 1]), "id": pa.array(["s", "s"])}, "rows 0 and 1 have the same id, s"),
        ({"image": good, "label": pa.array([0, 1]), "id": pa.array(["s", None])}, "row 1 has no id"),
        ({"features": pa.array([[1.0], [float("nan")]]), "label": pa.array([0, 1])}, "row 1 has NaN"),
        ({"features": pa.array([[1.0], [None]]), "label": pa.array([0, 1])}, "row 1 has NaN"),
        ({"features": pa.array([[1.0], [1.0, 2.0]]), "label": pa.array([0, 1])}, "row 1 has 2 features, others have 1"),
        ({"features": pa.array([[1.0], None]), "label": pa.array([0, 1])}, "row 1 has no features, others have 1"),
        ({"features": pa.array(["a", "b"]), "label": pa.array([0, 1])}, "column features holds string"),
    ]
    for columns, message in cases:
        write(file, two, **columns)
        with pytest.raises(ForetasteError, match=message) as caught:
            io.load(file)
        assert str(file) in str(caught.value)


def test_labels_without_names_are_bounded(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    path = write(tmp_path / "x.parquet", image=images(encode(), encode()), label=pa.array([0, 2**62]))
    with pytest.raises(ForetasteError, match="cannot be a class"):
        io.load(path)


@pytest.mark.parametrize(
    "metadata", ["{", "[]", '"x"', '{"info": 3}', '{"info": {"features": {"label": {"names": 5}}}}']
)
def test_damaged_metadata(tmp_path: Path, encode: Callable[..., bytes], metadata: str) -> None:
    table = pa.table({"image": images(encode(), encode()), "label": pa.array([0, 1])})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "x.parquet")
    with pytest.raises(ForetasteError, match="metadata"):
        io.load(tmp_path / "x.parquet")


def test_text_that_is_no_utf8(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    broken = pa.array([b"\xff", b"ok"]).view(pa.string())
    with pytest.raises(ForetasteError, match="cannot read"):
        io.load(write(tmp_path / "x.parquet", image=images(encode(), encode()), label=pa.array([0, 1]), id=broken))


def test_features_cannot_be_resized(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", features=pa.array([[1.0], [2.0]]), label=pa.array([0, 1]))
    with pytest.raises(ForetasteError, match="cannot be resized"):
        io.load(path, resize=8)


def test_not_parquet_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    for content in (b"", b"hello", b"PAR1PAR1"):
        path.write_bytes(content)
        with pytest.raises(ForetasteError, match=r"cannot read .*x\.parquet"):
            io.load(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "x.parquet"
    rng = np.random.default_rng(0)
    io.write_parquet(Samples.from_arrays(rng.integers(0, 256, (9, 4, 4, 3), dtype=np.uint8), np.arange(9) % 2), path)
    return path.read_bytes()


@settings(max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(max_size=4))
def test_damaged_files_read_or_fail_in_the_known_way(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, place: float, patch: bytes
) -> None:
    at = int(place * len(whole))
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    path.write_bytes(whole[:at] + patch + whole[at + len(patch) :] if patch else whole[:at])
    with suppress(ForetasteError):
        assert len(io.read(path).samples)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, pictures: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"old")

    def fail(images: object) -> list[bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foretaste.io.parquet_writer._encode_block", fail)
    with pytest.raises(ForetasteError, match=r"cannot write .*x\.parquet: No space left on device"):
        io.write_parquet(pictures, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.parquet"]


def test_only_the_chosen_rows_are_written(
    tmp_path: Path, pictures: Samples, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.io.parquet_writer.GROUP_BYTES", 5000)
    chosen = np.arange(len(pictures)) % 3 == 0
    io.write_parquet(pictures, tmp_path / "x.parquet", rows=chosen)
    same(io.load(tmp_path / "x.parquet"), pictures[chosen])


def test_writing_takes_the_samples_in_pieces(
    tmp_path: Path, pictures: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.io.parquet_writer.GROUP_BYTES", 10 * pictures.inputs[0].nbytes)
    taken: list[int] = []
    take = Samples.__getitem__

    def noted(self: Samples, rows: NDArray[np.intp]) -> Samples:
        taken.append(len(rows))
        return take(self, rows)

    monkeypatch.setattr(Samples, "__getitem__", noted)
    io.write_parquet(pictures, tmp_path / "x.parquet", rows=np.arange(len(pictures)) != 7)
    assert (max(taken), sum(taken)) == (10, len(pictures) - 1)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
def test_all_of_arrows_types_for_bytes_and_texts(
    tmp_path: Path, encode: Callable[..., bytes], kind: pa.DataType, text: pa.DataType
) -> None:
    label = pa.array(["dog", "cat"], text)
    plain = write(tmp_path / "a.parquet", image=pa.array([encode(), encode()], kind), label=label)
    column = pa.StructArray.from_arrays(
        [pa.array([encode(), encode()], kind), pa.array(["p", "q"], text)], names=["bytes", "path"]
    )
    parts = write(tmp_path / "b.parquet", image=column, label=label)
    for file in (plain, parts):
        assert io.load(file).labels.tolist() == [1, 0]


@pytest.mark.parametrize(("image", "label"), [("Image", "Label"), ("jpg", "cls"), ("img", "target"), ("png", "CLASS")])
def test_columns_of_known_names(tmp_path: Path, encode: Callable[..., bytes], image: str, label: str) -> None:
    path = write(tmp_path / "a.parquet", **{image: images(encode(), encode()), label: pa.array([True, False])})
    assert io.load(path).labels.tolist() == [1, 0]


def test_columns_of_other_names_are_named_by_the_user(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    path = write(
        tmp_path / "a.parquet", photo=images(encode(), encode()), species=pa.array([1.0, 0.0]), label=pa.array([0, 0])
    )
    samples = io.load(path, image_column="photo", label_column="species")
    assert samples.labels.tolist() == [1, 0]
    with pytest.raises(UsageError, match="has no column foto; it has photo, species, label"):
        io.load(path, image_column="foto")


@pytest.mark.parametrize("place", ["", "data"])
def test_the_files_of_a_split_are_one_set(tmp_path: Path, encode: Callable[..., bytes], place: str) -> None:
    folder = tmp_path / "set" / place
    folder.mkdir(parents=True)
    for name, values in (("train-00000-of-00002", [0, 1]), ("train-00001-of-00002", [2, 2])):
        write(folder / f"{name}.parquet", image=images(encode(), encode()), label=pa.array(values))
    assert io.load(tmp_path / "set").labels.tolist() == [0, 1, 2, 2]
    assert io.load(str(folder / "train-*.parquet")).labels.tolist() == [0, 1, 2, 2]
    write(folder / "test-00000-of-00001.parquet", image=images(encode(), encode()), label=pa.array([1, 0]))
    with pytest.raises(UsageError, match="has the splits test, train; name one of them with --split"):
        io.load(tmp_path / "set")
    assert io.load(tmp_path / "set", split="test").labels.tolist() == [1, 0]
    (folder / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(ForetasteError, match="holds 1 of the 2 files of train"):
        io.load(tmp_path / "set", split="train")


def test_files_with_other_columns_are_no_one_set(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    write(tmp_path / "a.parquet", image=images(encode(), encode()), label=pa.array([0, 1]))
    write(tmp_path / "b.parquet", image=images(encode(), encode()), label=pa.array(["0", "1"]))
    with pytest.raises(ForetasteError, match=r"the columns of .*b\.parquet differ from those of .*a\.parquet"):
        io.load(tmp_path)


def test_columns_of_numbers_and_texts_are_features(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", a=pa.array([1, 2]), kind=pa.array(["x", "y"]), target=pa.array([0, 1]))
    samples = io.load(path)
    assert samples.inputs.tolist() == [[1, 0], [2, 1]]
    assert samples.labels.tolist() == [0, 1]


def test_samples_without_labels_or_with_bad_features_are_left_out_if_that_is_asked_for(
    tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    path = write(tmp_path / "a.parquet", image=images(encode(), encode(), encode()), label=pa.array([1, None, 0]))
    loaded = io.read(path, on_bad="skip")
    assert loaded.samples.ids.tolist() == ["0", "2"]
    assert [one.reason for one in loaded.skipped] == ["has no label"]
    rows = pa.array([[1.0], [float("nan")], [2.0, 3.0], None, [4.0]])
    path = write(tmp_path / "b.parquet", features=rows, label=pa.array([0, 1, 1, 0, 1]))
    loaded = io.read(path, on_bad="skip")
    assert loaded.samples.inputs.tolist() == [[1], [4]]
    assert loaded.samples.labels.tolist() == [0, 1]
    assert len(loaded.skipped) == 3


def test_inputs_need_no_labels(tmp_path: Path, encode: Callable[..., bytes]) -> None:
    for more in ({}, {"label": pa.array([-1, -1])}, {"label": pa.array([None, None], pa.int64())}):
        path = write(tmp_path / "a.parquet", image=images(encode(), encode()), **more)
        assert io.read(path, use="ignore").samples.labels.tolist() == [0, 0]
