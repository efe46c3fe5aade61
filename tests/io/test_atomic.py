import json
import stat
from pathlib import Path

import pytest

from foretaste import ForetasteError, io
from foretaste.io.atomic import remove_unfinished


def test_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.json"
    with io.atomic_path(target) as temporary:
        temporary.write_text("x")
        assert temporary.parent == target.parent
        assert not target.exists()
    assert target.read_text() == "x"
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write_half() -> None:
        with io.atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_system_errors_become_one_sentence(tmp_path: Path, error: OSError) -> None:
    with (
        pytest.raises(ForetasteError, match=f"cannot write .*a.txt: {error.strerror}"),
        io.atomic_path(tmp_path / "a.txt"),
    ):
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(ForetasteError, match="cannot write"):
        io.atomic_text(tmp_path / "a" / "b.txt", "x")


def test_json(tmp_path: Path) -> None:
    io.atomic_json(tmp_path / "a.json", {"ü": [1, 0.5, None]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"ü": [1, 0.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        io.atomic_json(tmp_path / "b.json", float("nan"))


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    io.atomic_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_names_that_are_no_unicode_are_escaped(tmp_path: Path) -> None:
    io.atomic_json(tmp_path / "a.json", {"source": "b\udcff"})
    assert "b\\udcff" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"source": "b\udcff"}


def test_what_a_killed_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    with io.atomic_path(tmp_path / "file.txt") as temporary:
        temporary.write_text("whole")
    temporary.write_text("half, as a run that is killed leaves it")
    for name in (".hidden.partial", ".file.txt.0123456789ab.part", "x.0123456789ab.partial"):
        (tmp_path / name).write_text("mine")
    remove_unfinished(tmp_path)
    assert not temporary.exists()
    assert len(list(tmp_path.iterdir())) == 4
