from pathlib import Path

import pytest

from foretaste.cli.results_folder import ResultsFolder
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import Progress

FILES = ("model.bin", "summary.json")


def finish(path: Path) -> None:
    """Leave what a whole run leaves."""
    with ResultsFolder(path, FILES) as folder:
        folder.start()
        for name in FILES:
            (path / name).write_text("old")
        folder.finish()


def test_a_run_that_ends_well_leaves_its_results_alone(tmp_path: Path) -> None:
    finish(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(FILES)


def test_a_second_run_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    with ResultsFolder(tmp_path, FILES), pytest.raises(ForetasteError, match="another run writes to"):
        ResultsFolder(tmp_path, FILES).__enter__()
    finish(tmp_path)


def test_the_results_of_an_earlier_run_go_when_the_next_starts_and_other_files_stay(tmp_path: Path) -> None:
    finish(tmp_path)
    (tmp_path / "triggers").mkdir()
    (tmp_path / "triggers" / "triggers.json").write_text('{"triggers": [{"id": "t1"}, {"id": "../mine"}]}')
    for name in ("mine.png", "triggers/t1.png", "triggers/mine.png"):
        (tmp_path / name).write_text("x")
    with ResultsFolder(tmp_path, FILES) as folder:
        assert (tmp_path / "summary.json").exists()
        folder.start()
        assert not (tmp_path / "summary.json").exists()
        assert not (tmp_path / "model.bin").exists()
        folder.finish()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"mine.png", "triggers/mine.png"}


def test_a_run_that_fails_leaves_no_old_results_and_keeps_its_work(tmp_path: Path) -> None:
    finish(tmp_path)

    def fail() -> None:
        with ResultsFolder(tmp_path, FILES) as folder:
            folder.start()
            (folder.work / "checkpoint").write_text("x")
            (tmp_path / "model.bin").write_text("new")
            raise ForetasteError("the disk is full")

    with pytest.raises(ForetasteError, match="full"):
        fail()
    assert not (tmp_path / "summary.json").exists()
    assert (tmp_path / ".work" / "checkpoint").exists()
    finish(tmp_path)


def test_a_run_that_is_refused_leaves_everything_as_it_was(tmp_path: Path) -> None:
    finish(tmp_path / "old")

    def refuse(path: Path) -> None:
        with ResultsFolder(path, FILES):
            raise UsageError("no such class")

    for path in (tmp_path / "old", tmp_path / "new"):
        with pytest.raises(UsageError, match="no such class"):
            refuse(path)
    assert not (tmp_path / "new").exists()
    assert {path.name for path in (tmp_path / "old").iterdir()} == set(FILES)
    assert (tmp_path / "old" / "summary.json").read_text() == "old"


def test_what_a_run_reads_is_not_overwritten(tmp_path: Path) -> None:
    finish(tmp_path)
    with pytest.raises(UsageError, match=r"model\.bin would be overwritten; choose another folder"):
        ResultsFolder(tmp_path, FILES, ["signs", None, tmp_path / "model.bin"])
    for out in (tmp_path, tmp_path / "cat"):
        with pytest.raises(UsageError, match="which the results would become part of"):
            ResultsFolder(out, FILES, [tmp_path])
    folder = ResultsFolder(tmp_path, FILES)
    with pytest.raises(UsageError, match="would be overwritten"):
        folder.keep(tmp_path / ".." / tmp_path.name / "summary.json")


@pytest.mark.parametrize("name", FILES)
def test_files_that_foretaste_did_not_write_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds {name}, which foretaste did not write"):
        ResultsFolder(tmp_path, FILES)


SCHEMA = "urn:foretaste:mine:2"


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        ('{"schema": "urn:foretaste:mine:1"}', None),
        ('{"schema": "urn:foretaste:other:1"}', "the results of another command"),
        ('{"schema": "mine"}', "model.bin, which foretaste did not write"),
        ("{}", "which foretaste did not write"),
        ("[1]", "which foretaste did not write"),
        ("mine", "which foretaste did not write"),
    ],
)
def test_results_are_known_by_the_schema_of_their_summary(tmp_path: Path, summary: str, reason: str | None) -> None:
    (tmp_path / "model.bin").write_text("x")
    (tmp_path / "summary.json").write_text(summary)
    if reason is None:
        ResultsFolder(tmp_path, FILES, schema=SCHEMA)
    else:
        with pytest.raises(UsageError, match=reason):
            ResultsFolder(tmp_path, FILES, schema=SCHEMA)


def test_a_folder_that_is_only_called_as_ours_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds \.work, which foretaste did not write"):
        ResultsFolder(tmp_path, FILES)


def test_a_run_starts_with_the_first_report_and_only_once(tmp_path: Path) -> None:
    finish(tmp_path)
    reports: list[Progress] = []
    with ResultsFolder(tmp_path, FILES) as folder:
        listen = folder.starting(reports.append)
        assert (tmp_path / "summary.json").exists()
        listen(Progress(phase="train", done=0, total=2))
        assert not (tmp_path / "summary.json").exists()
        (tmp_path / "model.bin").write_text("new")
        listen(Progress(phase="train", done=1, total=2))
        folder.start()
        assert (tmp_path / "model.bin").read_text() == "new"
    assert [report.done for report in reports] == [0, 1]


def own_sarif(path: Path) -> Path:
    path.write_text('{"runs": [{"tool": {"driver": {"name": "foretaste"}}}]}')
    return path


def test_the_sarif_file_of_an_earlier_run_goes_when_the_next_starts(tmp_path: Path) -> None:
    sarif = own_sarif(tmp_path / "found.sarif")
    with ResultsFolder(tmp_path / "out", FILES, sarif=sarif) as folder:
        assert sarif.exists()
        folder.start()
        assert not sarif.exists()


@pytest.mark.parametrize("content", ["", "[]", "my notes", '{"runs": []}', "[" * 100_000])
def test_what_another_program_wrote_is_not_taken_for_a_sarif_file(content: str, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text(content)
    with pytest.raises(UsageError, match="notes is no SARIF file of foretaste, and would be overwritten"):
        ResultsFolder(tmp_path / "out", FILES, sarif=tmp_path / "notes")


def test_the_sarif_file_is_no_input_no_result_and_can_be_written(tmp_path: Path) -> None:
    sarif = own_sarif(tmp_path / "found.sarif")
    with pytest.raises(UsageError, match="would be overwritten"):
        ResultsFolder(tmp_path / "out", FILES, [sarif], sarif)
    with pytest.raises(UsageError, match="is one of the results; choose another name"):
        ResultsFolder(tmp_path / "out", FILES, sarif=tmp_path / "out" / "summary.json")
    with pytest.raises(UsageError, match="is no SARIF file"):
        ResultsFolder(tmp_path / "out", FILES, sarif=tmp_path)
