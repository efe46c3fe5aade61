import csv
import io
import json
import re
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING

import pytest

from foretaste.bench import page, results, tables
from foretaste.bench.artefacts import Store
from foretaste.bench.doors import CleanserDoor, Column, percent
from foretaste.bench.results import Figure
from foretaste.errors import ForetasteError, UsageError

from .conftest import Finished

if TYPE_CHECKING:
    from tests.conftest import CheckJson


def other_commit(place: Path, n: int = 1) -> None:
    """Have the first cells be of another commit."""
    for path in sorted((place / "out/cells").glob("*.json"))[:n]:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"commits": ["0123456789ab"]}))


def second_seed(place: Path, finished: Finished, **figures: float) -> None:
    """Add another seed to every cell of the plan, and its result for the corner on BadNets."""
    plan = json.loads((place / "out/plan.json").read_text())
    plan["cells"] = [cell | {"seed": seed} for cell in plan["cells"] for seed in (0, 1)]
    (place / "out/plan.json").write_text(json.dumps(plan))
    record = finished.records["badnets", "corner", False]
    cell = record.cell.model_copy(update={"seed": 1})
    other = record.model_copy(update={"cell": cell, "figures": {**record.figures, **figures}})
    (place / f"out/cells/{cell.key}.json").write_text(other.model_dump_json())


def test_rows_are_means_over_the_seeds_and_the_best_is_marked(place: Path, finished: Finished) -> None:
    second_seed(place, finished, tpr=0.9, fpr=0.01)
    gathered = results.gather(Store("out"))
    [section] = gathered.sections
    assert section.methods == (("corner", False), ("rated", False), ("broken", False), ("rated", True))
    [clean, attacked] = section.trials
    assert (clean.name, attacked.name) == ("no attack", "badnets 10 %")
    corner, rated, oracle, broken = attacked.rows
    assert corner.figures["tpr"] == Figure(mean=0.95, deviation=stdev([0.9, 1.0]), best=True)
    assert not rated.figures["tpr"].best
    assert oracle.oracle
    assert not any(figure.best for figure in oracle.figures.values())
    assert corner.goodness == pytest.approx(0.95 - 0.005)
    assert rated.missing == (1,)
    assert [record.failed for record in broken.failures] == ["unexpected ZeroDivisionError in inspect: no such luck"]
    assert len(gathered.missing) == 6


def test_what_all_share_is_best_of_none(place: Path) -> None:
    for path in (place / "out/cells").glob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"figures": {**record["figures"], "fpr": 0.25}}))
    [_, attacked] = results.gather(Store("out")).sections[0].trials
    corner, rated, *_ = attacked.rows
    assert corner.figures["fpr"] == rated.figures["fpr"] == Figure(mean=0.25, deviation=None, best=False)
    assert corner.figures["tpr"].best


def test_figures_of_several_commits_are_not_mixed_unless_told_and_then_marked(place: Path) -> None:
    other_commit(place)
    with pytest.raises(UsageError, match="figures of 2 commits"):
        results.gather(Store("out"))
    gathered = results.gather(Store("out"), mix_commits=True)
    assert gathered.commits["a"] == "0123456789ab"
    marks = [row.marks for trial in gathered.sections[0].trials for row in trial.rows]
    assert sorted(marks) == ["a", "b", "b", "b", "b", "b", "b"]
    assert "[a] 0123456789ab" in tables.markdown(gathered)
    assert "<sup>a</sup>" in page.page(gathered)


def test_marks_go_on_after_z() -> None:
    assert [results.letter(number) for number in (0, 25, 26, 51, 52, 701, 702)] == [
        "a",
        "z",
        "aa",
        "az",
        "ba",
        "zz",
        "aaa",
    ]


def test_markdown_has_a_row_for_each_method_of_each_attack(place: Path) -> None:
    text = tables.markdown(results.gather(Store("out")))
    lines = text.splitlines()
    assert lines[0] == "# Three methods"
    assert "## Cleansers: tiny signs (200 of 240), compact-resnet" in lines
    [corner] = [line for line in lines if line.startswith("| badnets 10 % | corner ")]
    assert corner.startswith("| badnets 10 % | corner | **100** | **0** | **100** | ")
    assert any(line.startswith("| badnets 10 % | *rated (oracle)* |") for line in lines)
    assert "- tiny signs (200 of 240), no attack, compact-resnet, broken, seed 0: unexpected ZeroDivisionError" in text
    assert f"Specification {results.gather(Store('out')).specification}; commit " in text


def test_latex_escapes_and_marks(place: Path) -> None:
    plan = json.loads((place / "out/plan.json").read_text())
    for cell in plan["cells"]:
        cell["defence"]["label"] = cell["defence"]["label"].replace("corner", "corner_50% & {more}")
    (place / "out/plan.json").write_text(json.dumps(plan))
    text = tables.latex(results.gather(Store("out")))
    assert r"corner\_50\% \& \{more\}" in text
    assert r"\textbf{100}" in text
    assert r"\textcolor{gray}{rated (oracle)}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_the_csv_has_every_cell_with_its_commit_specification_and_hash(place: Path, finished: Finished) -> None:
    rows = list(csv.DictReader(io.StringIO(tables.comma_separated(results.gather(Store("out"))))))
    assert len(rows) == 7
    for row in rows:
        assert row["commits"]
        assert row["specification"] == finished.specification.key
        assert (Path("out/cells") / f"{row['cell']}.json").exists()
    [one] = [row for row in rows if row["method"] == "rated" and row["oracle"] == "yes"]
    assert float(one["tpr"]) == finished.records["badnets", "rated", True].figures["tpr"]


def test_the_page_is_self_contained_escapes_and_links_to_the_cells(place: Path, finished: Finished) -> None:
    plan = json.loads((place / "out/plan.json").read_text())
    for cell in plan["cells"]:
        cell["defence"]["label"] = cell["defence"]["label"].replace("rated", "<script>")
    (place / "out/plan.json").write_text(json.dumps(plan))
    html = page.page(results.gather(Store("out")))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "http" not in html.replace('http-equiv="Content-Security-Policy"', "")
    record = finished.records["badnets", "corner", False]
    link = f"cells/{record.cell.key}/report.html"
    assert f'href="{link}"' in html
    assert (place / "out" / link).exists()
    assert "100 / 0" in html
    assert re.search(r'\s<span class="failed" title="unexpected ZeroDivisionError[^"]*">0 failed', html)
    assert '<td class="n empty" data-label="TPR, %">–</td>' in html
    assert html.count('<tr class="oracle">') == 1


def test_json_files_name_their_schema(finished: Finished, check_json: "CheckJson") -> None:
    out = finished.folder / "out"
    for path in (out / "plan.json", *(out / "cells").glob("*.json")):
        value = json.loads(path.read_text())
        assert value["schema"] == f"urn:foretaste:bench-{'plan' if path.name == 'plan.json' else 'cell'}:1"
        check_json(value)


def test_what_was_written_before_schemas_had_names_is_read(place: Path) -> None:
    expected = results.gather(Store("out"))
    for path in (place / "out/plan.json", *(place / "out/cells").glob("*.json")):
        value = json.loads(path.read_text())
        del value["schema"]
        path.write_text(json.dumps(value))
    assert results.gather(Store("out")) == expected


def test_a_folder_without_results_is_refused(place: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no plan\.json"):
        results.gather(Store("elsewhere"))
    (place / "out/plan.json").write_text("{}")
    with pytest.raises(ForetasteError, match=r"cannot read out/plan\.json"):
        results.gather(Store("out"))


def test_numbers_are_never_rounded_to_all_or_nothing() -> None:
    assert [percent(value) for value in (None, 0.0, 1e-6, 0.0004, 0.01, 0.5, 0.99, 0.9996, 1 - 1e-6, 1.0)] == [
        *("–", "0", "0.01", "0.04", "1.0", "50.0", "99.0", "99.96", "99.99", "100")
    ]
    share = Column(key="x", title="x", unit="share")
    assert tables.written(share, Figure(mean=0.9, deviation=0.0123)) == "90.0 ± 1.2"
    assert tables.written(share, Figure(mean=1.0, deviation=0.0)) == "100 ± 0.0"
    assert tables.written(share, None) == "–"
    seconds = Column(key="x", title="x", unit="seconds")
    assert [tables.number(seconds, value) for value in (0.123, 1.23, 123.4)] == ["0.12", "1.23", "123"]


def test_a_set_without_poison_is_judged_by_its_false_alarms() -> None:
    door = CleanserDoor()
    assert door.goodness({"tpr": None, "fpr": 0.0}) == 1
    assert door.goodness({"tpr": None, "fpr": 0.025}) == pytest.approx(0.5)
    assert door.goodness({"tpr": None, "fpr": 0.2}) == 0
    assert door.goodness({}) is None
    assert door.headline({"tpr": 0.996, "fpr": 0.0}) == "99.60 / 0"
