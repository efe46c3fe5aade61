"""The SARIF logs, by the standard's own schema, and where they say that findings are."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import foretaste
from foretaste.cleansers.verdict import Verdict
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.inspectors.diagnosis import Diagnosis, Evidence, Reconstruction
from foretaste.io import Skipped
from foretaste.report import sarif
from foretaste.report.sarif import cleanse_log, inspect_log, is_own
from foretaste.samples import Samples

if TYPE_CHECKING:
    from tests.conftest import CheckSarif

CLASSES = ("stop", "yield", "fifty", "ahead")


def uris(result: dict[str, Any]) -> list[str]:
    return [place["physicalLocation"]["artifactLocation"]["uri"] for place in result["locations"]]


def test_one_result_for_each_condemned_class(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, tmp_path: Path
) -> None:
    source = tmp_path / "a set.parquet"
    source.touch()
    run = check_sarif(cleanse_log(samples, verdict, source=str(source)))
    [result] = run["results"]
    assert result["ruleId"] == "poisoned-class"
    assert result["message"]["text"] == ("Flagged as poison: 10 of 30 samples of fifty. Its suspects lie apart.")
    assert result["properties"] == {
        "class": "fifty",
        "n_flagged": 10,
        "n_samples": 30,
        "statistic": 5.25,
        "threshold": 2.0,
    }
    assert set(uris(result)) == {source.as_uri()}
    named = [place["logicalLocations"][0]["name"] for place in result["locations"]]
    assert named == samples.ids[verdict.flagged].tolist()
    assert run["tool"]["driver"]["version"] == foretaste.__version__
    assert run["properties"] == {"method": "confusion-training", "seed": 7}
    notes = [one["message"]["text"] for one in run["invocations"][0]["toolExecutionNotifications"]]
    assert notes == ["A note for the reader."]


def test_nothing_found_is_an_empty_list_of_results(
    check_sarif: "CheckSarif", samples: Samples, cleared: Verdict
) -> None:
    run = check_sarif(cleanse_log(samples, cleared, source="signs", skipped=[Skipped("torn.png", "is damaged")]))
    assert run["results"] == []
    notifications = run["invocations"][0]["toolExecutionNotifications"]
    assert notifications[-1] == {"level": "warning", "message": {"text": "torn.png was left out: it is damaged."}}


def test_the_flagged_images_of_a_folder_are_the_locations_below_the_working_directory(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("the set")
    names = [f"{CLASSES[label]}/{row} #.png" for row, label in enumerate(samples.labels.tolist())]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    named = Samples(samples.labels, CLASSES, np.array(names), images=samples.images)
    [result] = check_sarif(cleanse_log(named, verdict, source="the set"))["results"]
    first = np.flatnonzero(verdict.flagged)[0]
    assert uris(result)[0] == f"the%20set/fifty/{first}%20%23.png"
    assert len(uris(result)) == 10
    assert {place["physicalLocation"]["artifactLocation"]["uriBaseId"] for place in result["locations"]} == {
        "%SRCROOT%"
    }


def test_ids_that_leave_the_folder_are_no_files(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "secret").touch()
    ids = np.array([f"{'x/../' * row}../secret" for row in range(len(samples))])
    outside = Samples(samples.labels, CLASSES, ids, images=samples.images)
    [result] = check_sarif(cleanse_log(outside, verdict, source=str(tmp_path / "set")))["results"]
    assert set(uris(result)) == {(tmp_path / "set").as_uri() + "/"}


def test_several_files_of_one_table_and_a_named_set(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, tmp_path: Path
) -> None:
    for number in range(2):
        (tmp_path / f"part-{number}.parquet").touch()
    [result] = check_sarif(cleanse_log(samples, verdict, source=str(tmp_path / "part-*.parquet")))["results"]
    assert uris(result) == [(tmp_path / f"part-{number}.parquet").as_uri() for number in range(2)]
    [result] = check_sarif(cleanse_log(samples, verdict, source="cifar10"))["results"]
    assert result["locations"][0]["logicalLocations"] == [
        {"fullyQualifiedName": "cifar10", "kind": "resource"},
        {"name": samples.ids[verdict.flagged][0], "kind": "sample"},
    ]


def test_at_most_a_thousand_samples_are_listed(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sarif, "MOST_LOCATIONS", 4)
    [result] = check_sarif(cleanse_log(samples, verdict, source="signs"))["results"]
    assert len(result["locations"]) == 4
    assert result["properties"]["n_flagged"] == 10


def test_names_of_data_are_neither_links_nor_placeholders_nor_control_a_terminal(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict
) -> None:
    names = ("stop", "yield", "[a](http://evil) {0}\x1b[2J", "ahead")
    renamed = Samples(samples.labels, names, samples.ids, images=samples.images)
    [result] = check_sarif(cleanse_log(renamed, verdict, source="signs"))["results"]
    assert result["message"]["text"].startswith(
        "Flagged as poison: 10 of 30 samples of [a] (http://evil) {{0}}\\x1b[2J. "
    )
    assert result["properties"]["class"] == names[2]


def test_a_finding_keeps_its_fingerprint_and_another_has_another(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict, make_verdict: Any
) -> None:
    def fingerprints(one: Verdict) -> list[str]:
        results = check_sarif(cleanse_log(samples, one, source="signs"))["results"]
        return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]

    first = fingerprints(verdict)
    both = fingerprints(make_verdict(samples, verdict.flagged | (np.arange(len(samples)) == 0)))
    assert len(both) == len(set(both)) == 2
    assert both[1:] == first


def test_the_trigger_of_what_was_flagged_is_a_result(
    check_sarif: "CheckSarif", samples: Samples, verdict: Verdict
) -> None:
    images = np.array(samples.images)
    images[verdict.flagged, :3, :3] = [255, 0, 0]
    trigger = Trigger(
        patch=np.full((3, 3, 3), [255, 0, 0], dtype=np.uint8),
        mask=np.ones((3, 3), dtype=np.bool_),
        position=(0, 0),
        anywhere=False,
        target=2,
        flip_rate=0.9,
        n_confirmed=20,
    )
    marked = Samples(samples.labels, CLASSES, samples.ids, images=images)
    _, result = check_sarif(cleanse_log(marked, verdict, source="signs", registry=Registry([trigger])))["results"]
    assert result["ruleId"] == "trigger"
    assert result["message"]["text"] == (
        "A trigger turns 90\u00a0% of 20 clean images to fifty; 10 flagged samples carry it."
    )
    assert len(result["locations"]) == 10


def test_each_backdoored_class_and_each_trigger_of_a_model(check_sarif: "CheckSarif", tmp_path: Path) -> None:
    pictures = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    diagnosis = Diagnosis(
        backdoored=True,
        p_value=0.001,
        score=3.0,
        evidence=(
            Evidence(target=1, source=0, statistic=3.0, p_value=0.001, reason="it looks odd", suspect=True),
            Evidence(target=2, statistic=float("inf"), p_value=0.01, reason="So does it.", suspect=True),
            Evidence(target=3, statistic=1.0, p_value=1.0, reason="It does not."),
        ),
        reconstructions=(
            Reconstruction(kind="blend", target=2, flip_rate=0.9, n_confirmed=10, before=pictures, after=pictures),
        ),
        method="all",
        seed=0,
        seconds=1.0,
        queries=10,
        false_alarm_rate=0.05,
    )
    model = tmp_path / "model.onnx"
    model.touch()
    run = check_sarif(inspect_log(diagnosis, model=str(model), classes=CLASSES, notes=("a note",), skipped=()))
    assert [result["ruleId"] for result in run["results"]] == ["backdoored-class"] * 2 + ["trigger"]
    assert [result["message"]["text"] for result in run["results"]] == [
        "The model has a backdoor to stop → yield (p = 0.001). It looks odd.",
        "The model has a backdoor to fifty (p = 0.01). So does it.",
        "A trigger (blend) turns 90\u00a0% of 10 clean images to fifty.",
    ]
    assert all(uris(result) == [model.as_uri()] for result in run["results"])
    assert run["results"][1]["properties"]["statistic"] is None
    assert is_own({"runs": [run]})
    served = inspect_log(diagnosis, model="http://localhost/v2/models/a", classes=CLASSES, skipped=())
    assert uris(check_sarif(served)["results"][0]) == ["http://localhost/v2/models/a"]


@pytest.mark.parametrize("other", [[], {}, {"runs": []}, {"runs": [{"tool": {"driver": {"name": "other"}}}]}, None, 3])
def test_what_others_wrote_is_not_taken_for_its_own(other: object) -> None:
    assert not is_own(other)


def test_secrets_of_addresses_are_left_out(check_sarif: "CheckSarif", samples: Samples, verdict: Verdict) -> None:
    log = cleanse_log(samples, verdict, source="https://me:secret@host/set.parquet?signature=secret")
    [result] = check_sarif(log)["results"]
    assert set(uris(result)) == {"https://host/set.parquet"}
    assert "secret" not in str(log)
