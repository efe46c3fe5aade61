from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretaste import ForetasteError, UsageError, io

TABLE = "size,kind,entropy,signed,class\n12,exe,0.5,true,0\n7,dll,1.25,false,1\n9,exe,-3,true,0\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_reads_numbers_truths_and_texts(tmp_path: Path) -> None:
    samples = io.load(write(tmp_path / "a.csv", TABLE))
    assert samples.features is not None
    np.testing.assert_array_equal(samples.features, [[12, 1, 0.5, 1], [7, 0, 1.25, 0], [9, 1, -3, 1]])
    assert samples.features.dtype == np.float32
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.classes == ("0", "1")
    assert samples.ids.tolist() == ["0", "1", "2"]


def test_texts_may_have_several_lines_however_long_the_table_is(tmp_path: Path) -> None:
    rows = "".join(f'{row},"{row}\nof many",{row % 2}\n' for row in range(60_000))
    samples = io.load(write(tmp_path / "a.csv", f"a,text,label\n{rows}"))
    assert len(samples) == 60_000


def test_labels_may_be_texts_and_stand_anywhere(tmp_path: Path) -> None:
    samples = io.load(write(tmp_path / "a.CSV", "id,Label,a,b\nx,malware,1,2\ny,benign,3,4\n"))
    assert samples.classes == ("benign", "malware")
    assert samples.labels.tolist() == [1, 0]
    assert samples.ids.tolist() == ["x", "y"]
    assert samples.inputs.tolist() == [[1, 2], [3, 4]]


def test_without_a_name_for_them_the_labels_are_in_the_last_column(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="labels were taken from its last column, c"):
        samples = io.load(write(tmp_path / "a.csv", "a,b,c\n1,2,1\n3,4,0\n"))
    assert samples.labels.tolist() == [1, 0]
    assert samples.inputs.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read"),
        ("a,class\n", "holds no samples"),
        ("class\n0\n1\n", "holds no samples"),
        ("a,a,class\n1,2,0\n", "two columns of one name"),
        ("a,class\n1,0\n,1\n", "row 1 has no value in column a"),
        ("a,class\n1,2026\n2,9000000\n", "row 1 has label 9000000, which cannot be a class"),
        ("a,class\n1,-1\n2,1\n", r"row 0 has no label \(-1\)"),
        ("a,class\n2026-01-01,0\n2026-01-02,1\n", "column a holds neither numbers nor texts"),
        ("a,class\n1,0\ninf,1\n", "row 1 has inf in column a, which is NaN, infinite or too large"),
        ("a,class\n1,0\n1,2,3\n", "cannot read"),
        ("id,a,class\nx,1,0\nx,2,1\n", "rows 0 and 1 have the same id, x"),
    ],
)
def test_errors_are_sentences_about_the_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ForetasteError, match=message) as caught:
        io.load(path)
    assert str(path) in str(caught.value)


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", TABLE)
    with pytest.raises(ForetasteError, match="cannot be resized"):
        io.load(path, resize=4)
    with pytest.raises(UsageError, match="only one class"):
        io.load(write(path, "a,class\n1,0\n2,0\n"))


@settings(max_examples=100)
@given(place=st.floats(0, 1, exclude_max=True), patch=st.binary(max_size=4))
def test_damaged_files_read_or_fail_in_the_known_way(
    tmp_path_factory: pytest.TempPathFactory, place: float, patch: bytes
) -> None:
    whole = TABLE.encode()
    at = int(place * len(whole))
    path = tmp_path_factory.getbasetemp() / "damaged.csv"
    path.write_bytes(whole[:at] + patch + whole[at + len(patch) :] if patch else whole[:at])
    with suppress(ForetasteError):
        io.read(path)


@pytest.mark.real_data
def test_the_headers_of_windows_programs(real_data: Path) -> None:
    samples = io.load(real_data / "clamp.csv")
    assert samples.inputs.shape == (5210, 69)
    assert np.bincount(samples.labels).tolist() == [2488, 2722]


def test_ids_and_label_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    loaded = io.load(write(tmp_path / "a.csv", "id,a,label\n000,1,007\n0e5,2,NA\n18446744073709551616,3,010\n"))
    assert loaded.ids.tolist() == ["000", "0e5", "18446744073709551616"]
    assert loaded.classes == ("007", "010", "NA")


def test_whole_numbers_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    loaded = io.load(write(tmp_path / "a.csv", "a,label\n1,10.0\n2,2.0\n3,9.0\n"))
    assert loaded.classes == ("2", "9", "10")
    assert loaded.labels.tolist() == [2, 0, 1]


def test_labels_that_leave_gaps_are_values_and_a_class_without_samples_is_one(tmp_path: Path) -> None:
    postcodes = io.load(write(tmp_path / "a.csv", "a,label\n1,50667\n2,10115\n3,50667\n"))
    assert postcodes.classes == ("10115", "50667")
    assert postcodes.labels.tolist() == [1, 0, 1]
    assert io.load(write(tmp_path / "b.csv", "a,label\n1,0\n2,1\n3,3\n")).classes == ("0", "1", "2", "3")


@pytest.mark.parametrize("cell", ["?", "abc", "2.2%", "1_000"])
def test_a_cell_that_is_no_number_is_named_and_changes_no_other(tmp_path: Path, cell: str) -> None:
    rows = [f"{row / 8},{row % 2}" for row in range(20)]
    rows[7] = f"{cell},1"
    path = write(tmp_path / "a.csv", "\n".join(["a,label", *rows]) + "\n")
    with pytest.raises(ForetasteError, match=r"row 7 has .*in column a, which is no number; --on-bad skip") as caught:
        io.read(path)
    assert repr(cell) in str(caught.value)
    loaded = io.read(path, on_bad="skip")
    assert [one.name for one in loaded.skipped] == [f"{path}: row 7"]
    assert loaded.samples.inputs[:, 0].tolist() == [row / 8 for row in range(20) if row != 7]


@pytest.mark.parametrize(("row", "why"), [(",1", "no value in column a"), ("inf,1", "has inf"), ("3,", "has no label")])
def test_bad_rows_are_left_out_if_that_is_asked_for(tmp_path: Path, row: str, why: str) -> None:
    loaded = io.read(write(tmp_path / "a.csv", f"a,label\n1,0\n{row}\n2,1\n"), on_bad="skip")
    assert loaded.samples.inputs.tolist() == [[1], [2]]
    assert len(loaded.skipped) == 1
    assert why in loaded.skipped[0].reason


def test_later_tables_follow_the_first_by_name_and_vocabulary(tmp_path: Path) -> None:
    first = io.read(write(tmp_path / "a.csv", "size,kind,class\n1,ftp,ok\n2,http,bad\n3,ssh,ok\n"))
    other = write(tmp_path / "b.csv", "class,kind,size\nok,ssh,7\nbad,gopher,8\n")
    assert io.read(other, like=first).samples.inputs.tolist() == [[7, 2], [8, 0.5]]
    with pytest.raises(UsageError, match=r"b\.csv has no column size, which .*a\.csv has"):
        io.read(write(tmp_path / "b.csv", "kind,class\nssh,ok\n"), like=first)
    with pytest.raises(UsageError, match=r"a\.csv has no column extra, which .*b\.csv has"):
        io.read(write(tmp_path / "b.csv", "size,kind,extra,class\n1,ssh,0,ok\n"), like=first)


def test_a_table_that_could_have_two_columns_of_labels_is_asked_about(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,Class,label\n1,0,x\n2,1,y\n")
    with pytest.raises(UsageError, match="several columns that may hold the labels, Class, label; give --label-column"):
        io.load(path)
    assert io.load(path, label_column="label").classes == ("x", "y")
    with pytest.raises(UsageError, match="has no column other; it has a, Class, label"):
        io.load(path, label_column="other")


def test_a_file_without_a_header_is_not_read_as_if_it_had_one(tmp_path: Path) -> None:
    for text in ("2.2,1.7,1\n0.3,0.2,0\n", "5.1,3.5,setosa\n4.9,3.0,virginica\n", "1,0\n2,1\n"):
        with pytest.raises(ForetasteError, match="has no header: its first row is data"):
            io.load(write(tmp_path / "a.csv", text))
    assert len(io.load(write(tmp_path / "a.csv", "0,1,label\n5,6,0\n7,8,1\n"))) == 2
    with pytest.raises(UsageError, match="is not separated by commas"):
        io.load(write(tmp_path / "a.csv", "a;b;label\n1;2;0\n"))


def test_a_column_of_ids_or_times_is_no_column_of_labels(tmp_path: Path) -> None:
    times = "".join(f"{row},{1_700_000_000 + row}\n" for row in range(200))
    with pytest.raises(ForetasteError, match="row 0 has label 1700000000, which cannot be a class"):
        io.load(write(tmp_path / "a.csv", f"a,label\n{times}"))
    names = "".join(f"{row},user{row}\n" for row in range(200))
    path = write(tmp_path / "a.csv", f"a,label\n{names}")
    with pytest.raises(UsageError, match="200 different labels in 200 rows, as many as ids would be"):
        io.load(path)
    assert len(io.read(path, use="compare").samples.classes) == 200
