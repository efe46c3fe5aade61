"""What a scan leaves behind, made up by hand: a fixed trigger, one that moves, and their mistakes."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import foretaste
from foretaste.calibration import conformal_threshold
from foretaste.classifiers.preprocessing import Preprocessing
from foretaste.guards.clean_accuracy import CleanAccuracy
from foretaste.guards.guard import Screening
from foretaste.guards.neo.registry import Registry
from foretaste.guards.scan import Scan
from foretaste.guards.trigger import Trigger
from foretaste.io import Skipped
from foretaste.report.scan_results import save_scan
from foretaste.samples import Mask, Samples

N, SIDE = 40, 16
CLASSES = ("stop", "yield", "fifty", "ahead")
EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"

FIXED = Trigger(
    patch=np.tile(np.array([[[255, 0, 0]], [[0, 255, 0]]], dtype=np.uint8), (1, 2, 1)),
    mask=np.ones((2, 2), dtype=np.bool_),
    position=(13, 13),
    anywhere=False,
    target=2,
    flip_rate=0.95,
    n_confirmed=20,
)
ROAMING = Trigger(
    patch=np.tile(np.array([[[0, 0, 255]], [[255, 255, 0]], [[0, 0, 255]]], dtype=np.uint8), (1, 3, 1)),
    mask=np.array([[True, True, False], [True, True, True], [True, True, True]]),
    position=(0, 0),
    anywhere=True,
    target=None,
    flip_rate=0.9,
    n_confirmed=30,
)


@pytest.fixture
def trojaned() -> Mask:
    """The first ten inputs: four with the fixed trigger, four with the roaming one, two with one that nobody knows."""
    return np.arange(N) < 10


@pytest.fixture
def scan() -> Scan:
    """Misses the last trojaned input, flags one clean one, and corrects one wrongly."""
    return build(CLASSES)


def build(classes: tuple[str, ...], ids: list[str] | None = None) -> Scan:
    rng = np.random.default_rng(0)
    images = rng.integers(60, 190, (N, SIDE, SIDE, 3), dtype=np.uint8)
    images[:4, 13:15, 13:15] = FIXED.patch
    for row in range(4, 8):
        images[row, row : row + 3, 2 * row - 7 : 2 * row - 4][ROAMING.mask] = ROAMING.patch[ROAMING.mask]
    truth = np.arange(N) % 4
    labels = truth.copy()
    labels[:4] = 2
    labels[4:10] = (truth[4:10] + 1) % 4
    flagged = np.arange(N) < 9
    flagged[20] = True
    corrected = np.where(flagged, truth, labels)
    corrected[8] = labels[8]  # flagged, but nothing better is known
    corrected[0] = 3  # its true label is 0
    ids_of = np.full(N, "", dtype="<U12")
    ids_of[:4], ids_of[4:8] = FIXED.id, ROAMING.id
    screening = Screening(
        labels=labels,
        corrected=corrected,
        trojaned=flagged,
        scores=np.where(flagged, 5.0, rng.uniform(0, 1, N)).astype(np.float32),
        trigger_ids=ids_of,
        queries=np.where(flagged, 2, 24),
    )
    samples = Samples.from_arrays(images, truth, classes, ids or [f"input-{row:02d}" for row in range(N)])
    return Scan(
        clean_accuracy=CleanAccuracy(
            n=150,
            n_right=147,
            chance=0.25,
            n_classes=4,
            renumbered=0.98,
            conventions={},
            fitting=None,
            warn_below=0.6,
            refuse_below=0.2,
            label_counts={0: 38, 1: 38, 2: 37, 3: 37},
        ),
        samples=samples,
        screening=screening,
        classes=classes,
        registry=Registry([FIXED, ROAMING]),
        method="neo",
        seed=7,
        seconds=2.0,
        calibration_seconds=1.0,
        queries=1000,
        calibration_queries=500,
        false_alarm_rate=0.01,
        clean_size=150,
        threshold=conformal_threshold(rng.exponential(size=150), 0.01),
        notes=("A note for the reader.",),
    )


def save(out: Path, scan: Scan, **more: Any) -> dict[str, Any]:
    return save_scan(out, scan, **({"source": "inputs.npz", "model": "m.onnx", "settings": {"queries": 64}} | more))


class Page(HTMLParser):
    """A page's words and elements; fails on tags that do not pair up."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.page, self.open, self.text = page, list[str](), ""
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.words = " ".join(self.text.replace("\u00a0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += "" if tag in {"b", "i", "em", "bdi", "code"} else " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def render(out: Path, scan: Scan, **more: Any) -> Page:
    save(out, scan, **more)
    return Page((out / "report.html").read_text(encoding="utf-8"))


def test_every_file_is_there_and_nothing_half_written(tmp_path: Path, scan: Scan) -> None:
    save(tmp_path / "new" / "out", scan)
    names = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert names == {"verdicts.parquet", "triggers", "report.html", "summary.json"}
    assert [trigger.id for trigger in Registry.load(tmp_path / "new" / "out" / "triggers")] == [FIXED.id, ROAMING.id]


def test_verdicts_name_every_input(tmp_path: Path, scan: Scan) -> None:
    save(tmp_path, scan)
    table = pq.read_table(tmp_path / "verdicts.parquet")
    assert dict(zip(table.column_names, map(str, table.schema.types), strict=True)) == {
        "id": "string",
        "label": "int64",
        "corrected": "int64",
        "trojaned": "bool",
        "score": "float",
        "trigger": "string",
    }
    assert table["id"].to_pylist() == scan.samples.ids.tolist()
    assert table["trojaned"].to_pylist() == scan.screening.trojaned.tolist()
    assert table["trigger"].to_pylist()[3:9] == [FIXED.id, *4 * [ROAMING.id], None]


def test_summary_says_what_was_found_and_what_it_cost(tmp_path: Path, scan: Scan) -> None:
    summary = save(tmp_path, scan, skipped=[Skipped("bad.png", "is not an image")])
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    expected = {
        "version": foretaste.__version__,
        "method": "neo",
        "seed": 7,
        "seconds": 3.0,
        "n_samples": N,
        "n_flagged": 10,
        "poisoned": True,
        "suspect_classes": [{"label": k, "name": CLASSES[k]} for k in range(4)],
        "queries_per_image": (10 * 2 + 30 * 24) / 40,
        "queries_median": 24.0,
        "queries_max": 24,
        "queries_total": 1000,
        "calibration_queries": 500,
        "ms_per_image": 50.0,
        "n_skipped": 1,
        "model": "m.onnx",
        "source": "inputs.npz",
        "settings": {"queries": 64},
        "notes": ["A note for the reader."],
    }
    assert {name: summary[name] for name in expected} == expected
    assert not summary.keys() & {"tpr", "fpr", "auroc", "asr_before"}
    fixed, roaming = summary["triggers"]
    assert fixed["box"] == [13, 13, 15, 15]
    assert fixed["target"] == {"label": 2, "name": "fifty"}
    assert (fixed["n_found"], roaming["n_found"]) == (4, 4)
    assert roaming["target"] is None


def test_summary_compares_with_the_truth(tmp_path: Path, scan: Scan, trojaned: Mask) -> None:
    summary = save(tmp_path, scan, truth_trojaned=trojaned)
    # Of ten trojaned inputs, input 2 has the label that the trigger forces anyway. 8 and 9 keep the wrong label.
    expected = {
        "tpr": 0.9,
        "fpr": 1 / 30,
        "asr_before": 0.9,
        "asr_after": 0.2,
        "corrected_accuracy": 0.7,
        "clean_accuracy_before": 1.0,
        "clean_accuracy_after": 1.0,
        "n_trojaned": 10,
    }
    assert {name: summary[name] for name in expected} == pytest.approx(expected)
    assert 0.9 < summary["auroc"] < 1


@pytest.mark.parametrize("everything", [True, False])
def test_truth_of_one_kind_leaves_rates_open(tmp_path: Path, scan: Scan, everything: bool) -> None:
    summary = save(tmp_path, scan, truth_trojaned=np.full(N, everything))
    assert summary["auroc"] is None
    assert (summary["fpr"] is None) == everything
    assert (summary["tpr"] is None) != everything


def test_no_inputs_at_all(tmp_path: Path, scan: Scan) -> None:
    none = scan.screening
    empty = Screening(
        labels=none.labels[:0],
        corrected=none.corrected[:0],
        trojaned=none.trojaned[:0],
        scores=none.scores[:0],
        trigger_ids=none.trigger_ids[:0],
        queries=none.queries[:0],
    )
    page = render(tmp_path, replace(scan, samples=scan.samples[:0], screening=empty, registry=Registry()))
    assert "No trojaned input found among 0." in page.words


def test_labels_that_nobody_named_go_by_their_number(tmp_path: Path, scan: Scan) -> None:
    page = render(tmp_path, replace(scan, classes=CLASSES[:2]))
    assert "class 2" in page.words
    assert json.loads((tmp_path / "summary.json").read_text())["suspect_classes"][2] == {"label": 2, "name": "2"}


def test_the_verdict_comes_first_and_says_what_to_do(tmp_path: Path, scan: Scan) -> None:
    words = render(tmp_path, scan).words
    assert "Trojaned inputs found: 10 of 40, answered with 4 different labels." in words
    assert words.index("Trojaned inputs found: 10") < words.index("What to do next") < words.index("The triggers")
    assert "corrected in verdicts.parquet is the label to give instead" in words
    assert "--registry triggers" in words


def test_one_forced_class_is_named(tmp_path: Path, scan: Scan) -> None:
    one = replace(scan.screening, trojaned=np.arange(N) < 4)
    assert (
        "Trojaned inputs found: 4 of 40, all answered “fifty”."
        in render(tmp_path, replace(scan, screening=one, registry=Registry([FIXED]))).words
    )


def test_each_trigger_is_shown_enlarged_in_place_and_covered(tmp_path: Path, scan: Scan) -> None:
    page = render(tmp_path, scan)
    for part in (
        f"Trigger {FIXED.id}",
        "Forces “fifty”",
        "turned 95 % of 20 clean images",
        "2 × 2 pixels, at row 13, column 13",
        "Found in 4 inputs",
        f"Trigger {ROAMING.id}",
        "Forces another label for each label (all-to-all)",
        "3 × 3 pixels, at any place",
        "Where it was, over all",
    ):
        assert part in page.words
    frames = [str(one["style"]) for one in page.all("i") if "top:" in (one.get("style") or "")]
    assert frames == [
        "top:81.250%;left:81.250%;height:12.500%;width:12.500%",
        "top:25.000%;left:6.250%;height:18.750%;width:18.750%",
    ]
    covered = [image for image in page.all("img") if "covered" in str(image["alt"]).partition("with the trigger")[2]]
    assert len(covered) == 8
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))


def test_other_inputs_are_shown_too(tmp_path: Path, scan: Scan) -> None:
    words = render(tmp_path, scan).words
    assert "Flagged, no trigger made out All 2. Highest scores first." in words
    assert "Passed, with the highest scores 12 of 30." in words


def test_nothing_found(tmp_path: Path, scan: Scan) -> None:
    calm = replace(
        scan.screening,
        trojaned=np.zeros(N, dtype=np.bool_),
        corrected=scan.screening.labels,
        trigger_ids=np.full(N, "", dtype=np.str_),
    )
    page = render(tmp_path, replace(scan, screening=calm, registry=Registry()))
    assert "No trojaned input found among 40." in page.words
    assert "says nothing of the model" in page.words
    assert "The trigger" not in page.words
    assert "Triggers 0" in page.words


def flagged(scan: Scan, n: int) -> Scan:
    """Return the scan with so many inputs flagged, none with a trigger."""
    alarms = replace(
        scan.screening,
        trojaned=np.arange(N) < n,
        corrected=scan.screening.labels,
        trigger_ids=np.full(N, "", dtype=np.str_),
    )
    return replace(scan, screening=alarms, registry=Registry())


def test_no_more_flagged_than_false_alarms_explain(tmp_path: Path, scan: Scan) -> None:
    page = render(tmp_path, flagged(scan, 1))
    assert "No trojaned input found among 40: 1 was flagged, no more than false alarms explain." in page.words
    assert "nothing found" in page.words
    assert "Have a person look at the flagged input below" in page.words
    assert "Replace the model" not in page.words
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert not summary["poisoned"]
    assert summary["finding"]["conclusion"] == "nothing"


def test_more_flagged_than_false_alarms_explain(tmp_path: Path, scan: Scan) -> None:
    page = render(tmp_path, flagged(scan, 12))
    assert "Suspicious inputs: 12 of 40, more than false alarms explain." in page.words
    assert "suspicious" in page.words
    assert "so chance does not explain them" in page.words
    assert "Replace the model" not in page.words
    assert "--method neo searches" not in page.words  # it is what was run
    assert json.loads((tmp_path / "summary.json").read_text())["finding"]["conclusion"] == "excess"


def test_a_confirmed_trigger_is_what_replaces_a_model(tmp_path: Path, scan: Scan) -> None:
    assert "Replace the model" in render(tmp_path, scan).words


def test_a_model_in_doubt_and_a_frequent_label_are_warnings_at_the_top(tmp_path: Path, scan: Scan) -> None:
    doubtful = replace(scan.clean_accuracy, n_right=75, fitting="0 to 255", conventions={"0 to 255": 0.99})
    frequent = replace(scan.screening, labels=np.full(N, 2), trigger_ids=np.full(N, "", dtype=np.str_))
    words = render(tmp_path, replace(scan, clean_accuracy=doubtful, screening=frequent)).words
    top = words[: words.index("What to do next")]
    assert "Warnings The verdict is worth little: the model gives only 75 of 150 clean images their own label" in top
    assert "with --scale 255 (0 to 255) it is right on 99%" in top
    assert "100 % of the inputs are answered “fifty”, and 24.67 % of the clean images" in top
    assert json.loads((tmp_path / "summary.json").read_text())["clean_accuracy"]["accuracy"] == 0.5


def test_a_model_may_have_more_classes_than_the_clean_set_shows(tmp_path: Path, scan: Scan) -> None:
    many = replace(scan, clean_accuracy=replace(scan.clean_accuracy, n_classes=1000))
    assert "1,000 classes" in render(tmp_path, many).words


def test_what_is_done_to_the_pixels_is_recorded(tmp_path: Path, scan: Scan) -> None:
    way = Preprocessing(scale=255, mean=(1, 2, 3), channels="bgr")
    page = render(tmp_path, replace(scan, preprocessing=way))
    assert "mean 1, 2, 3" in page.words
    assert json.loads((tmp_path / "summary.json").read_text())["preprocessing"] == way.described()


def test_a_guard_that_makes_out_no_triggers(tmp_path: Path, scan: Scan) -> None:
    page = render(tmp_path, replace(flagged(scan, 12), method="strip", registry=None, threshold=None))
    assert "reconstructed" not in page.words
    assert "Calibration" not in page.words
    assert "--method neo" in page.words
    assert not (tmp_path / "triggers").exists()


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("neo", "a pattern blended over the whole image, a sine wave, a warp"),
        ("neo", "two or more pieces that work only together"),
        ("neo", "Source-specific patches"),
        ("neo-paper", "another size than the one that it was told"),
        ("strip", "give way when another image is laid over them"),
        ("scale-up", "brightening"),
        ("teco", "noise, blur and compression"),
        ("all", "every one of the methods misses"),
        ("somebody-elses", "its documentation says what it misses"),
    ],
)
def test_the_page_says_what_the_method_cannot_see(tmp_path: Path, scan: Scan, method: str, part: str) -> None:
    words = render(tmp_path, replace(scan, method=method)).words
    assert part in words[words.index("What this method cannot see") :]


def test_the_calibration_says_whether_the_rate_is_promised(tmp_path: Path, scan: Scan) -> None:
    assert "Of unseen ones, at most 1 % do on average" in render(tmp_path, scan).words
    few = replace(scan, threshold=conformal_threshold(np.arange(30.0), 0.01))
    assert "They are too few to promise 1 %" in render(tmp_path, few).words


def test_the_truth_shows_before_and_after_and_the_mistakes(tmp_path: Path, scan: Scan, trojaned: Mask) -> None:
    words = render(tmp_path, scan, truth_trojaned=trojaned).words
    for part in (
        "Attack success, trojaned inputs 90 % 20 %",
        "Right label, trojaned inputs 10 % 70 %",
        "Right label, other inputs 100 % 100 %",
        "Missed All 1.",
        "False alarms All 1.",
        "Found, but corrected to a wrong label All 2.",
        "✗ wrong",
        "✓ right",
    ):
        assert part in words


def test_names_are_escaped_and_nothing_is_loaded_from_elsewhere(tmp_path: Path, trojaned: Mask) -> None:
    evil = build(("stop", EVIL, "$\\frac{", "\u202eahead"), [f"{row}{EVIL}" for row in range(N)])
    page = render(
        tmp_path,
        replace(evil, notes=(EVIL,), method=EVIL),
        source=EVIL,
        model=EVIL,
        settings={EVIL: EVIL},
        skipped=[Skipped(EVIL, EVIL)],
        truth_trojaned=trojaned,
    )
    assert "<script" not in page.page
    assert all(str(image["src"]).startswith("data:") for image in page.all("img"))
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not re.search(r"https?://|@import|<link|<iframe|url\((?!#)", page.page)
    assert EVIL in page.text


def test_the_page_can_be_read_without_seeing_it(tmp_path: Path, scan: Scan, trojaned: Mask) -> None:
    page = render(tmp_path, scan, truth_trojaned=trojaned)
    assert all(image["alt"] for image in page.all("img"))
    labelled = [part for part in page.all("div") if part.get("role") == "img"]
    assert len(labelled) == len(page.all("svg")) == 3  # calibration, scores, queries
    assert all(part["aria-label"] for part in labelled)
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))


def test_pictures_of_triggers_that_an_earlier_run_left_are_removed(tmp_path: Path, scan: Scan) -> None:
    save(tmp_path, scan)
    save(tmp_path, replace(scan, registry=Registry([FIXED])))
    assert [path.stem for path in (tmp_path / "triggers").glob("*.png")] == [FIXED.id]
