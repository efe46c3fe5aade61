import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretaste import ForetasteError, io
from foretaste.io import Loaded
from foretaste.progress import Progress, silent


def written(loaded: Loaded, rows: list[int], path: Path) -> pa.Table:
    assert loaded.original is not None
    loaded.original.write_parquet(path, np.array(rows, dtype=np.intp), silent)
    return pq.read_table(path)


def test_images_of_a_folder_are_written_as_their_files_are(
    tmp_path: Path, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foretaste.io.parquet_writer.GROUP_BYTES", 1000)
    for label in range(2):
        (tmp_path / "set" / str(label)).mkdir(parents=True)
        for i in range(50):
            (tmp_path / "set" / str(label) / f"{i:02d}.png").write_bytes(encode("I;16", 700 * i + label))
    loaded = io.read(tmp_path / "set", resize=2)
    rows = [0, 63, 64, 65, 99]
    table = written(loaded, rows, tmp_path / "a.parquet")
    for row, image in zip(rows, table["image"].to_pylist(), strict=True):
        assert image["path"] == loaded.samples.ids[row]
        assert image["bytes"] == (tmp_path / "set" / image["path"]).read_bytes()
    assert table["label"].to_pylist() == [0, 1, 1, 1, 1]
    assert io.load(tmp_path / "a.parquet").classes == ("0", "1")
    assert len(written(loaded, [], tmp_path / "b.parquet")) == 0
    whole = written(loaded, list(range(100)), tmp_path / "c.parquet")
    assert pq.read_metadata(tmp_path / "c.parquet").num_row_groups > 1
    assert [image["path"] for image in whole["image"].to_pylist()] == loaded.samples.ids.tolist()


def test_rows_of_several_files_keep_their_columns_and_their_description(
    tmp_path: Path, encode: Callable[..., bytes]
) -> None:
    (tmp_path / "set").mkdir()
    for part in range(2):
        columns = {"img": [encode(), encode()], "target": [0, 1], "caption": [f"{part}a", f"{part}b"]}
        table = pa.table(columns).replace_schema_metadata({"curator": "me"})
        pq.write_table(table, tmp_path / "set" / f"train-0000{part}-of-00002.parquet")
    table = written(io.read(tmp_path / "set"), [1, 2], tmp_path / "a.parquet")
    assert table["caption"].to_pylist() == ["0b", "1a"]
    assert table.schema.metadata[b"curator"] == b"me"


def test_rows_are_those_of_the_source_whatever_was_left_out(tmp_path: Path) -> None:
    x = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, -1, 1, 0, 1]))
    loaded = io.read(tmp_path / "a.npz", resize=2, on_bad="skip")
    assert loaded.rows is not None
    assert loaded.rows.tolist() == [0, 2, 3, 4]
    written(loaded, [2, 4], tmp_path / "a.parquet")
    again = io.load(tmp_path / "a.parquet").inputs[..., 0]
    np.testing.assert_array_equal(again, x[[2, 4]])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_a_table_are_split_as_they_were_read(tmp_path: Path, end: str) -> None:
    cells = ['5" pipe', '"a, ""b"""', f'"two{end}lines"', 'x"y"', '"q"tail', "plain"] * 5
    lines = ["text,a,label", *(f"{cell},{row}.5,{row % 2}" for row, cell in enumerate(cells))]
    (tmp_path / "set.csv").write_bytes(end.join([*lines[:9], "", *lines[9:]]).encode())
    loaded = io.read(tmp_path / "set.csv")
    assert len(loaded.samples) == 30
    assert loaded.original is not None
    chosen = [0, 2, 3, 12, 29]
    path = loaded.original.copy(tmp_path, "chosen", np.array(chosen, dtype=np.intp), silent)
    assert path is not None
    wanted = [lines[0], *(lines[row + 1] for row in chosen)]
    assert path.read_bytes().decode().rstrip() == end.join(wanted)


def test_a_table_that_has_changed_is_not_split(tmp_path: Path) -> None:
    lines = ["a,label", *(f"{row},{row % 2}" for row in range(20))]
    (tmp_path / "set.csv").write_text("\n".join(lines))
    loaded = io.read(tmp_path / "set.csv")
    (tmp_path / "set.csv").write_text("\n".join(lines[:-1]))
    assert loaded.original is not None
    with pytest.raises(ForetasteError, match="has 19 rows now, but 20 were read"):
        loaded.original.copy(tmp_path, "chosen", np.arange(3), silent)
    assert not (tmp_path / "chosen.csv").exists()


def test_what_an_archive_holds_beside_its_arrays_goes_along_as_it_is(tmp_path: Path) -> None:
    x = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    objects = np.array([{"a": 1}, None, 3, 4, 5], dtype=object)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 1, 0, 1]), weights=np.arange(5), meta=objects)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("README.txt", "mine")
    loaded = io.read(tmp_path / "a.npz")
    assert loaded.original is not None
    path = loaded.original.copy(tmp_path, "chosen", np.array([1, 4]), silent)
    assert path is not None
    with zipfile.ZipFile(tmp_path / "a.npz") as before, zipfile.ZipFile(path) as after:
        assert after.namelist() == before.namelist()
        for name in ("README.txt", "meta.npy"):
            assert after.read(name) == before.read(name)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["x"], x[[1, 4]])
        assert arrays["weights"].tolist() == [1, 4]


def test_a_copy_that_is_interrupted_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    loaded = io.read(tree)
    assert loaded.original is not None

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        loaded.original.copy(out, "cleansed", np.arange(2), interrupt)
    assert list(out.iterdir()) == []


def test_a_source_that_is_gone_is_named(tree: Path, tmp_path: Path) -> None:
    loaded = io.read(tree)
    (tree / "cat" / "1.png").unlink()
    with pytest.raises(ForetasteError, match=r"cannot read .*cat/1\.png again: No such file or directory"):
        written(loaded, [1], tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()
