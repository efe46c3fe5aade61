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


def test_labels_may_be_texts_and_stand_anywhere(tmp_path: Path) -> None:
    samples = io.load(write(tmp_path / "a.CSV", "id,Label,a,b\nx,malware,1,2\ny,benign,3,4\n"))
    assert samples.classes == ("benign", "malware")
    assert samples.labels.tolist() == [1, 0]
    assert samples.ids.tolist() == ["x", "y"]
    assert samples.inputs.tolist() == [[1, 2], [3, 4]]


def test_without_a_name_for_them_the_labels_are_in_the_last_column(tmp_path: Path) -> None:
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
        ("a,class\n1,0.5\n2,1\n", "column class are neither whole numbers nor texts"),
        ("a,class\n1,-1\n2,1\n", "label -1"),
        ("a,class\n2026-01-01,0\n2026-01-02,1\n", "column a holds neither numbers nor texts"),
        ("a,class\n1,0\ninf,1\n", r"row 1\) has NaN or infinite"),
        ("a,class\n1,0\n1,2,3\n", "cannot read"),
        ("id,a,class\nx,1,0\nx,2,1\n", "ids repeat"),
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
