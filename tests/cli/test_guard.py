"""``foretaste guard`` around a guard that is quick: a white corner is a trigger."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foretaste import cli, io
from foretaste.calibration import Threshold, conformal_threshold
from foretaste.classifiers.classifier import Classifier
from foretaste.errors import UsageError
from foretaste.guards import GUARDS, neo
from foretaste.guards.guard import Screening
from foretaste.guards.neo.registry import Registry
from foretaste.guards.trigger import Trigger
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Images, Samples

if TYPE_CHECKING:
    from tests.conftest import CheckJson, CheckSarif

SIDE, CORNER = 8, 2

MODEL = """
import os, time
from pathlib import Path

import numpy as np

CALLS = Path(__file__).with_name("calls.txt")


def classify(images):
    with CALLS.open("a") as file:
        file.write(f"{len(images)}\\n")
    if os.environ.get("MODEL_DOWN_AFTER") and asked() > int(os.environ["MODEL_DOWN_AFTER"]):
        raise OSError("the model is down")
    time.sleep(float(os.environ.get("MODEL_PAUSE", 0)))
    dark = images[:, 4:].mean(axis=(1, 2, 3)) < 100
    white = (images[:, :2, :2] == 255).all(axis=(1, 2, 3))
    return np.where(white, 2, np.where(dark, 0, 1))


def asked():
    return sum(map(int, CALLS.read_text().split())) if CALLS.exists() else 0
"""


@dataclass(frozen=True, kw_only=True)
class Corner:
    """Ask about each image with its corner grey; a label that changes, and whose corner is white, is trojaned."""

    name: ClassVar[str] = "corner"
    summary: ClassVar[str] = "white corners"
    needs_scores: ClassVar[bool] = False

    at_once: int = 16
    search_budget: float | None = None

    def calibrate(
        self,
        classifier: Classifier,
        clean: Samples,
        *,
        false_alarm_rate: float,
        seed: int,
        on_progress: OnProgress = silent,
    ) -> "CornerScreener":
        if self.at_once < 1:
            raise UsageError("at_once must be 1 or more")
        classifier.classify(clean.inputs)
        return CornerScreener(self, classifier, conformal_threshold(np.linspace(0, 0.4, len(clean)), false_alarm_rate))


class CornerScreener:
    def __init__(self, method: Corner, classifier: Classifier, threshold: Threshold) -> None:
        self.method, self.classifier, self.threshold = method, classifier, threshold
        self.registry = Registry()

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        covered = images.copy()
        covered[:, :CORNER, :CORNER] = 128
        labels, corrected = [], []
        for start in range(0, len(images), self.method.at_once):
            stop = min(start + self.method.at_once, len(images))
            labels.append(self.classifier.classify(images[start:stop]).labels)
            corrected.append(self.classifier.classify(covered[start:stop]).labels)
            on_progress(Progress(phase="corner: screen", done=stop, total=len(images)))
        before = np.concatenate(labels)
        after = np.concatenate(corrected)
        trojaned = before != after
        trigger_ids = np.full(len(images), "", dtype="<U12")
        if trojaned.any():
            patch = np.full((CORNER, CORNER, images.shape[3]), 255, dtype=np.uint8)
            whole = np.ones((CORNER, CORNER), dtype=np.bool_)
            trigger = Trigger(
                patch=patch, mask=whole, position=(0, 0), anywhere=False, target=2, flip_rate=1.0, n_confirmed=20
            )
            trigger_ids[trojaned] = self.registry.add(trigger).id
        return Screening(
            labels=before,
            corrected=after,
            trojaned=trojaned,
            scores=trojaned.astype(np.float32),
            trigger_ids=trigger_ids,
            queries=np.full(len(images), 2),
        )


@dataclass(frozen=True, kw_only=True)
class Blank:
    """Find nothing, and tell nothing."""

    name: ClassVar[str] = "blank"
    summary: ClassVar[str] = "nothing"
    needs_scores: ClassVar[bool] = False

    def calibrate(self, classifier: Classifier, clean: Samples, **options: Any) -> "BlankScreener":
        return BlankScreener(classifier)


class BlankScreener:
    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        labels = self.classifier.classify(images).labels
        return Screening(
            labels=labels,
            corrected=labels,
            trojaned=np.zeros(len(images), dtype=np.bool_),
            scores=np.zeros(len(images), dtype=np.float32),
            trigger_ids=np.full(len(images), "", dtype=np.str_),
            queries=np.ones(len(images), dtype=np.int64),
        )


if __name__ == "__main__":  # the process that a test below interrupts
    # A shell starts what runs in the background deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    GUARDS["corner"] = Corner
    sys.exit(cli.main(sys.argv[1:]))


@pytest.fixture(autouse=True)
def _guards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GUARDS, "corner", Corner)
    monkeypatch.setitem(GUARDS, "blank", Blank)


def draw(n: int, seed: int) -> tuple[Images, np.ndarray[Any, np.dtype[np.int64]]]:
    """Draw dark images, label 0, and bright ones, label 1."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    low = np.where(labels == 0, 10, 150)[:, None, None, None]
    return (low + rng.integers(0, 60, (n, SIDE, SIDE, 3))).astype(np.uint8), labels


@dataclass(frozen=True)
class Case:
    """A model, inputs and clean images in a folder."""

    folder: Path
    inputs: str
    clean: str
    truth: str

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def arguments(self, *more: str, method: str = "corner") -> list[str]:
        given = ["--model", "corner_model:classify", "--clean", self.clean, "--out", str(self.out)]
        return ["guard", "scan", self.inputs, *given, "--method", method, *more]

    @property
    def asked(self) -> int:
        return sum(map(int, (self.folder / "calls.txt").read_text().split()))


def build(folder: Path, trojaned: list[int], n: int = 60) -> Case:
    (folder / "corner_model.py").write_text(MODEL)
    images, labels = draw(n, 0)
    images[trojaned, :CORNER, :CORNER] = 255
    np.savez(folder / "inputs.npz", x=images, y=labels)
    clean, clean_labels = draw(40, 1)
    np.savez(folder / "clean.npz", x=clean, y=np.append(clean_labels[:-1], 2))
    ids = io.load(folder / "inputs.npz").ids
    io.write_truth(io.Truth(trojaned=frozenset(ids[trojaned].tolist())), folder / "truth.json")
    return Case(folder, *(str(folder / name) for name in ("inputs.npz", "clean.npz", "truth.json")))


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Sixty inputs, the third and the fourth trojaned."""
    return stage(build(tmp_path, [2, 3]), monkeypatch)


def stage(case: Case, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.syspath_prepend(str(case.folder))
    monkeypatch.delitem(sys.modules, "corner_model", raising=False)
    return case


def test_the_clean_set_may_have_other_columns(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for name in ("inputs", "clean"):
        io.write_parquet(io.load(case.folder / f"{name}.npz"), case.folder / f"{name}.parquet")
        table = pq.read_table(case.folder / f"{name}.parquet")
        paths.append(str(case.folder / f"{name}-two.parquet"))
        pq.write_table(table.append_column("target", table["label"]), paths[-1])
    two = replace(case, inputs=paths[0], clean=paths[1])
    assert cli.main(two.arguments()) == 4
    assert "--label-column" in capsys.readouterr().err
    assert cli.main(two.arguments("--label-column", "target")) == 1


def test_trojaned_inputs_are_exit_code_1_and_everything_is_there(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(case.arguments()) == 1
    text = capsys.readouterr().out
    assert text.startswith("trojaned inputs found: 2 of 60, 2 with a trigger; what to answer instead is in ")
    assert "2 x 2 pixels at row 0, column 0, forces 2 (100.00% of 20 clean images); in 2 inputs" in text
    assert "the truth" not in text
    assert {path.name for path in case.out.iterdir()} == {"verdicts.parquet", "triggers", "summary.json", "report.html"}
    table = pq.read_table(case.out / "verdicts.parquet").to_pydict()
    assert list(table) == ["id", "label", "corrected", "trojaned", "score", "trigger"]
    assert table["trojaned"] == [row in (2, 3) for row in range(60)]
    assert table["label"][:4] == [0, 1, 2, 2]
    assert table["corrected"][:4] == [0, 1, 0, 1]
    (trigger,) = Registry.load(case.out / "triggers")
    assert table["trigger"][1:4] == [None, trigger.id, trigger.id]
    summary = json.loads((case.out / "summary.json").read_text())
    assert summary["suspect_classes"] == [{"label": 2, "name": "2"}]
    assert (summary["n_samples"], summary["n_flagged"], summary["poisoned"]) == (60, 2, True)
    assert (summary["queries_per_image"], summary["queries_max"]) == (2, 2)
    assert summary["ms_per_image"] > 0
    assert summary["triggers"][0]["box"] == [0, 0, 2, 2]
    assert summary["triggers"][0]["n_found"] == 2


def test_nothing_found_is_exit_code_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = stage(build(tmp_path, []), monkeypatch)
    assert cli.main(case.arguments()) == 0
    assert capsys.readouterr().out.startswith("nothing found in 60 inputs\n")
    assert len(Registry.load(case.out / "triggers")) == 0


@dataclass(frozen=True, kw_only=True)
class Alarmed:
    """Flag the first inputs, and show no trigger."""

    name: ClassVar[str] = "alarmed"
    summary: ClassVar[str] = "alarms"
    needs_scores: ClassVar[bool] = False

    alarms: int = 1

    def calibrate(self, classifier: Classifier, clean: Samples, **options: Any) -> "AlarmedScreener":
        return AlarmedScreener(classifier, self.alarms)


class AlarmedScreener(BlankScreener):
    def __init__(self, classifier: Classifier, alarms: int) -> None:
        super().__init__(classifier)
        self.alarms = alarms

    def screen(self, images: Images, on_progress: OnProgress = silent) -> Screening:
        return replace(super().screen(images), trojaned=np.arange(len(images)) < self.alarms)


@pytest.mark.parametrize(
    ("alarms", "fail_on", "code", "text"),
    [
        (1, "found", 0, "nothing found in 60 inputs: no more than false alarms explain; 1 flagged without a trigger"),
        (
            6,
            "found",
            1,
            "suspicious inputs: 6 of 60, more than false alarms explain; 6 flagged without a trigger (p = ",
        ),
        (6, "10%", 1, "suspicious inputs: 6 of 60"),
        (6, "0.11", 0, "suspicious inputs: 6 of 60"),
        (1, "0.01", 0, "nothing found in 60 inputs: no more"),
        (6, "trigger", 0, "suspicious inputs: 6 of 60"),
        (6, "never", 0, "suspicious inputs: 6 of 60"),
        (0, "warning", 0, "nothing found in 60 inputs\n"),
    ],
)
def test_only_what_false_alarms_do_not_explain_is_exit_code_1(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    alarms: int,
    fail_on: str,
    code: int,
    text: str,
    check_sarif: "CheckSarif",
) -> None:
    monkeypatch.setitem(GUARDS, "alarmed", Alarmed)
    log = case.folder / "found.sarif"
    arguments = ["--set", f"alarms={alarms}", "--fail-on", fail_on, "--sarif", str(log)]
    assert cli.main(case.arguments(*arguments, method="alarmed")) == code
    results = check_sarif(json.loads(log.read_text()))["results"]
    assert [result["ruleId"] for result in results] == ["suspicious-inputs"] * (alarms == 6)
    assert capsys.readouterr().out.startswith(text)
    summary = json.loads((case.out / "summary.json").read_text())
    assert summary["poisoned"] == (alarms == 6)
    assert summary["finding"]["conclusion"] == ("excess" if alarms == 6 else "nothing")
    assert summary["finding"]["n_unexplained"] == alarms


def test_a_label_that_has_become_frequent_is_a_warning_and_an_exit_code_if_asked_for(
    case: Case, capsys: pytest.CaptureFixture[str], check_json: "CheckJson", check_sarif: "CheckSarif"
) -> None:
    images, labels = draw(80, 0)
    np.savez(case.inputs, x=images[labels == 0], y=labels[labels == 0])
    log = case.folder / "found.sarif"
    assert cli.main(case.arguments("--sarif", str(log), method="blank")) == 0
    assert "warning: 100 % of the inputs are answered “class 0”, and 50 %" in capsys.readouterr().out.replace(
        "\u00a0", " "
    )
    shift = json.loads((case.out / "summary.json").read_text())["finding"]["label_shift"]
    assert (shift["label"], shift["share"], shift["clean_share"]) == (0, 1, 0.5)
    check_json(json.loads((case.out / "summary.json").read_text()))
    [result] = check_sarif(json.loads(log.read_text()))["results"]
    assert (result["ruleId"], result["properties"]["class"]) == ("label-shift", "0")
    assert cli.main(case.arguments("--fail-on", "warning", method="blank")) == 1


def test_the_models_accuracy_on_the_clean_set_is_told_and_recorded(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(case.arguments()) == 1
    assert "clean images: the model is right on 97.50% of 40\n" in capsys.readouterr().out
    summary = json.loads((case.out / "summary.json").read_text())
    assert (summary["clean_accuracy"]["n_right"], summary["clean_accuracy"]["n"]) == (39, 40)
    assert summary["preprocessing"] is None


def test_a_function_that_takes_floats_is_given_them_if_asked_and_refused_with_a_reason_if_not(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model wants −1 … 1: given bytes, it sees everything as bright."""
    (case.folder / "float_model.py").write_text(
        "import numpy as np\n\n\ndef classify(images):\n    return (images.mean(axis=(1, 2, 3)) > -0.2).astype(int)\n"
    )
    arguments = [*case.arguments(method="blank"), "--model", "float_model:classify"]
    assert cli.main(arguments) == 4
    error = capsys.readouterr().err
    assert "the model gives only 19 of 40 clean images their own label" in error
    assert "with --mean 0.5 --std 0.5 (−1 to 1) it is right on" in error
    assert not (case.out / "summary.json").exists()
    assert cli.main([*arguments, "--mean", "0.5", "--std", "0.5"]) == 0
    summary = json.loads((case.out / "summary.json").read_text())
    assert summary["preprocessing"] == {"scale": 1, "mean": [0.5], "std": [0.5], "channels": "rgb"}


def test_folders_called_by_numbers_are_those_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text they would be sorted 0, 10, 2; a model without names numbers its classes 0, 2 and 10."""
    case = stage(build(tmp_path, []), monkeypatch)
    (case.folder / "level_model.py").write_text(
        "import numpy as np\n\n\ndef classify(images):\n"
        "    return np.array([0, 2, 10])[images.mean(axis=(1, 2, 3)).astype(int) // 90]\n"
    )
    for name, level in (("0", 40), ("2", 120), ("10", 220)):
        (tmp_path / "clean" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (SIDE, SIDE), (level, level, level + number)).save(
                tmp_path / "clean" / name / f"{number}.png"
            )
    arguments = [*case.arguments(method="blank"), "--model", "level_model:classify", "--clean", str(tmp_path / "clean")]
    assert cli.main(arguments) == 0
    assert json.loads((case.out / "summary.json").read_text())["clean_accuracy"]["accuracy"] == 1


def test_class_names_in_a_file_are_the_models(case: Case) -> None:
    names = case.folder / "names.txt"
    names.write_text("dark\nbright\nwhite\n")
    for name, label in (("white", 2), ("bright", 1), ("dark", 0)):
        folder = case.folder / "trusted" / name
        folder.mkdir(parents=True)
        images = draw(40, 1)[0][label % 2 :: 2].copy()
        if label == 2:
            images[:, :CORNER, :CORNER] = 255
        for row, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{row}.png")
    arguments = [*case.arguments(), "--clean", str(case.folder / "trusted"), "--class-names", str(names)]
    assert cli.main(arguments) == 1
    summary = json.loads((case.out / "summary.json").read_text())
    assert summary["clean_accuracy"]["accuracy"] == 1
    assert summary["suspect_classes"] == [{"label": 2, "name": "white"}]


def test_a_truth_without_trojaned_inputs_claims_none_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = stage(build(tmp_path, []), monkeypatch)
    assert cli.main(case.arguments("--truth", case.truth)) == 0
    assert "against the truth: no input is trojaned; 0.00% false alarms" in capsys.readouterr().out


def test_a_guard_that_makes_out_no_triggers_leaves_none(case: Case) -> None:
    assert cli.main(case.arguments(method="blank")) == 0
    assert not (case.out / "triggers").exists()
    assert json.loads((case.out / "summary.json").read_text())["threshold"] is None


def test_json_is_all_that_is_printed_and_the_same_as_the_file(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = case.arguments("--set", "at_once=7", "--seed", "4", "--search-budget", "2.5", "--json")
    assert cli.main(arguments) == 1
    output = capsys.readouterr()
    summary = json.loads(output.out)
    assert output.err == ""
    assert summary == json.loads((case.out / "summary.json").read_text())
    assert (summary["method"], summary["seed"]) == ("corner", 4)
    assert summary["settings"] == {"at_once": 7, "search_budget": 2.5}


def test_the_truth_gives_the_rates(
    case: Case, capsys: pytest.CaptureFixture[str], check_json: "CheckJson", check_sarif: "CheckSarif"
) -> None:
    log = case.folder / "found.sarif"
    assert cli.main(case.arguments("--truth", case.truth, "--sarif", str(log))) == 1
    assert "100.00% of the trojaned found, 0.00% false alarms, 100.00% corrected rightly" in capsys.readouterr().out
    summary = json.loads((case.out / "summary.json").read_text())
    expected = {"tpr": 1, "fpr": 0, "auroc": 1, "corrected_accuracy": 1, "asr_before": 1, "asr_after": 0}
    assert {name: summary[name] for name in expected} == expected
    for name in ("summary.json", "triggers/triggers.json"):
        check_json(json.loads((case.out / name).read_text()))
    [result] = check_sarif(json.loads(log.read_text()))["results"]
    assert result["ruleId"] == "trigger"
    assert result["message"]["text"] == "A trigger turns 100\u00a0% of 20 clean images to class 2; 2 inputs carry it."
    assert [place["logicalLocations"][0]["name"] for place in result["locations"]] == ["02", "03"]
    [related] = result["relatedLocations"]
    assert related["logicalLocations"] == [{"fullyQualifiedName": "corner_model:classify", "kind": "resource"}]


def test_inputs_need_no_labels(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "inputs" / "all"
    folder.mkdir(parents=True)
    for row, image in enumerate(np.load(case.inputs)["x"][:6]):
        Image.fromarray(image).save(folder / f"{row}.png")
    arguments = case.arguments()
    arguments[2] = str(tmp_path / "inputs")
    assert cli.main(arguments) == 1
    assert json.loads((case.out / "summary.json").read_text())["n_flagged"] == 2


def test_triggers_of_an_earlier_run_are_known_and_go_with_those_of_this_one(case: Case, tmp_path: Path) -> None:
    other = Trigger(
        patch=np.zeros((3, 3, 3), dtype=np.uint8),
        mask=np.ones((3, 3), dtype=np.bool_),
        position=(5, 5),
        anywhere=False,
        target=1,
        flip_rate=0.9,
        n_confirmed=30,
    )
    Registry([other]).save(tmp_path / "known")
    assert cli.main(case.arguments("--registry", str(tmp_path / "known"))) == 1
    assert {trigger.target for trigger in Registry.load(case.out / "triggers")} == {1, 2}
    assert [trigger["n_found"] for trigger in json.loads((case.out / "summary.json").read_text())["triggers"]] == [
        0,
        2,
    ]
    # Without the registry the other trigger is gone, its picture too.
    assert cli.main(case.arguments()) == 1
    assert len(list((case.out / "triggers").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--method", "nonesuch"], "there is no guard 'nonesuch'"),
        (["--method", "blank", "--search-budget", "3"], "search_budget"),
        (["--set", "at_onze=3"], "there is no setting 'at_onze'; known: at_once, search_budget"),
        (["--set", "at_once=0"], "at_once must be 1 or more"),
        (["--false-alarm-rate", "1.5"], "false-alarm rate"),
        (["--clean", "nowhere.npz"], "nowhere.npz"),
        (["--model", "model.pt"], "model.pt"),
        (["--model", "no_such_module_anywhere:f"], "no_such_module_anywhere"),
        (["--timeout", "3"], "timeout"),
        (["--mean", "0.5;0.5"], "--mean takes one number or three, separated by commas, not 0.5;0.5"),
        (["--std", "0"], "std must be above 0"),
        (["--channels", "grb"], "channels must be rgb or bgr, not grb"),
        (["--class-names", "nowhere.txt"], "cannot read class names from nowhere.txt"),
    ],
)
def test_bad_usage(options: list[str], complaint: str, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(case.arguments(*options)) == 4
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("foretaste: error: ")
    assert output.err.count("\n") == 1
    assert complaint in output.err


def test_the_truth_about_a_training_set_is_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    io.write_truth(io.Truth(poison=frozenset(["00"])), case.truth)
    assert cli.main(case.arguments("--truth", case.truth)) == 4
    assert "is about a training set" in capsys.readouterr().err


def test_feature_vectors_are_refused(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(case.inputs, x=np.zeros((40, 5), dtype=np.float32), y=np.arange(40) % 2)
    assert cli.main(case.arguments()) == 4
    assert "guards screen images" in capsys.readouterr().err


def test_a_missing_registry_is_told_before_anything_is_asked(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(case.arguments("--registry", "nowhere")) == 2
    assert "there is no registry of triggers in nowhere" in capsys.readouterr().err
    assert not (case.folder / "calls.txt").exists()


def test_inputs_that_were_not_searched_are_told(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(case.arguments("--method", "neo", "--search-budget", "0", "--json")) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["notes"] == ["in 60 inputs only known triggers were looked for, because of the search budget"]


def test_a_model_that_dies_half_way_is_taken_up_again(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_DOWN_AFTER", "80")
    assert cli.main(case.arguments()) == 2
    output = capsys.readouterr()
    assert output.err.count("\n") == 1
    assert "the model is down" in output.err
    assert "stopped in corner: screen at 16 of 60, with " in output.err
    assert f"answers kept in {case.out / '.work'}: start again with the same arguments to go on" in output.err
    assert not (case.out / "summary.json").exists()
    asked = case.asked

    monkeypatch.delenv("MODEL_DOWN_AFTER")
    assert cli.main(case.arguments("--json")) == 1
    resumed = json.loads(capsys.readouterr().out)
    # Of 40 clean images and 2 questions for each of 60 inputs, 72 had been answered; 32 of them were asked again.
    assert case.asked - asked == 40 + 120 - 72 + 32
    assert not (case.out / ".work").exists()
    verdicts = pq.read_table(case.out / "verdicts.parquet")

    assert cli.main(case.arguments("--json")) == 1
    summary = json.loads(capsys.readouterr().out)
    assert pq.read_table(case.out / "verdicts.parquet").equals(verdicts)
    for timing in ("seconds", "created", "ms_per_image"):
        resumed.pop(timing), summary.pop(timing)
    assert resumed == summary


def test_an_interrupted_scan_says_how_far_it_got_and_goes_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(case.folder))
    monkeypatch.setenv("MODEL_PAUSE", "0.2")
    process = subprocess.Popen(
        [sys.executable, __file__, *case.arguments("--set", "at_once=1")], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (case.folder / "calls.txt").exists() or case.asked < 50:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    told, goes_on = errors.splitlines()
    assert told.startswith("stopped in corner: screen at ")
    assert f"answers kept in {case.out / '.work'}" in told
    assert goes_on == "interrupted; start again with the same arguments to go on"
    assert not (case.out / "summary.json").exists()

    monkeypatch.delenv("MODEL_PAUSE")
    assert cli.main(case.arguments("--set", "at_once=1")) == 1
    assert not (case.out / ".work").exists()


def test_the_list_names_every_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["guard", "scan", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(GUARDS)


def test_what_cleanse_took_out_becomes_a_registry(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], check_json: "CheckJson"
) -> None:
    def learn(
        quarantine: Samples, classifier: Classifier, clean: Samples, *, seed: int, on_progress: OnProgress
    ) -> Registry:
        assert (len(quarantine), len(clean), seed) == (60, 40, 3)
        screener = Corner().calibrate(classifier, clean, false_alarm_rate=0.01, seed=seed)
        screener.screen(quarantine.inputs, on_progress)
        return screener.registry

    monkeypatch.setattr(neo, "learn", learn)
    images, labels = draw(60, 0)
    images[:4, :CORNER, :CORNER] = 255
    labels[:4] = 2
    np.savez(case.folder / "quarantine.npz", x=images, y=labels)
    arguments = ["guard", "learn", str(case.folder / "quarantine.npz"), "--model", "corner_model:classify"]
    arguments += ["--clean", case.clean, "--seed", "3", "--out", str(case.out)]
    assert cli.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("triggers reconstructed from 60 samples: 1\n")
    assert "forces 2 (100.00% of 20 clean images); in 4 samples" in text
    assert {path.suffix for path in case.out.iterdir()} == {".json", ".png"}

    # A second time, the trigger is known already.
    assert cli.main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check_json(result)
    assert [trigger["n_found"] for trigger in result["triggers"]] == [4]
    assert len(Registry.load(case.out)) == 1


@pytest.mark.parametrize("verb", ["scan", "learn"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["guard", verb, "--help"]) == 0
    assert "--model" in capsys.readouterr().out


def test_inputs_without_labels_are_screened_and_what_was_left_out_is_told(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(case.inputs) as arrays:
        images = arrays["x"]
    np.savez(case.folder / "bare.npz", x=images)
    (case.folder / "flat").mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image).save(case.folder / "flat" / f"{row:02d}.png")
    (case.folder / "flat" / "torn.png").write_bytes(b"x")
    for name, left_out in (("bare.npz", False), ("flat", True)):
        inputs = str(case.folder / name)
        arguments = replace(case, inputs=inputs).arguments("--on-bad", "skip")
        assert cli.main(arguments) == 1
        text = capsys.readouterr().out
        assert text.startswith("trojaned inputs found: 2 of 60")
        assert (f"note: {inputs}: left out 1; first {inputs}/torn.png" in text) is left_out


def test_grey_inputs_are_rgb_beside_a_clean_set_in_rgb(case: Case) -> None:
    with np.load(case.inputs) as arrays:
        np.savez(case.folder / "grey.npz", x=arrays["x"][..., :1])
    assert cli.main(replace(case, inputs=str(case.folder / "grey.npz")).arguments()) == 1
    assert json.loads((case.out / "summary.json").read_text())["n_flagged"] == 2


def test_what_the_scan_reads_is_not_overwritten(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(case.arguments()) == 1
    before = (case.out / "triggers" / "triggers.json").read_bytes()
    assert cli.main(case.arguments("--registry", str(case.out / "triggers"))) == 4
    assert "triggers would be overwritten; choose another folder" in capsys.readouterr().err
    assert (case.out / "triggers" / "triggers.json").read_bytes() == before


def test_a_model_that_prints_leaves_json_alone(
    case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (case.folder / "chatty_model.py").write_text(
        MODEL.replace("def classify(images):", "def classify(images):\n    print('1/1')")
    )
    arguments = ["chatty_model:classify" if one == "corner_model:classify" else one for one in case.arguments("--json")]
    assert cli.main(arguments) == 1
    output = capsys.readouterr()
    assert json.loads(output.out)["n_flagged"] == 2
    assert "1/1" in output.err


def test_an_empty_quarantine_has_no_triggers(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    io.write_parquet(io.load(case.clean)[:0], case.folder / "quarantine.parquet")
    given = ["--model", "corner_model:classify", "--clean", case.clean, "--out", str(case.out)]
    assert cli.main(["guard", "learn", str(case.folder / "quarantine.parquet"), *given]) == 0
    assert capsys.readouterr().out == "triggers reconstructed from 0 samples: 0\n"
    assert len(Registry.load(case.out)) == 0
    assert not (case.folder / "calls.txt").exists()
