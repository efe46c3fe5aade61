import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foretaste.cleansers.verdict import ClassEvidence, Verdict
from foretaste.io import Loaded, Skipped
from foretaste.report.page import cleanse_page
from foretaste.report.results import save_cleanse
from foretaste.samples import Mask, Samples

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br"}
BLOCKS = {"dt", "dd", "th", "td", "li", "p", "h1", "h2", "h3", "title"}


class Outline(HTMLParser):
    """The elements of a page; fails on tags that do not pair up."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if attributes.get("id"):
            self.ids.append(str(attributes["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in BLOCKS:
            self.text += " "

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def words(self) -> str:
        return " ".join(self.text.replace("\u00a0", " ").split())


Render = Callable[..., tuple[str, Outline]]


@pytest.fixture
def render(tmp_path: Path) -> Render:
    def render(samples: Samples, verdict: Verdict, **more: Any) -> tuple[str, Outline]:
        save_cleanse(tmp_path, samples, verdict, **({"source": "train.parquet", "settings": {"rounds": 6}} | more))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        return page, Outline(page)

    return render


def test_the_verdict_is_one_sentence_at_the_top(render: Render, samples: Samples, verdict: Verdict) -> None:
    _, outline = render(samples, verdict)
    words = outline.words()
    assert "Poison found: 10 of 120 samples, all labelled “fifty”." in words
    assert words.index("Poison found: 10") < words.index("What to do next") < words.index("Evidence, class by class")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ((2,), "Poison found: 1 of 120 samples, labelled “fifty”."),
        ((0, 2), "Poison found: 2 of 120 samples, labelled “stop” and “fifty”."),
        ((0, 1, 3), "Poison found: 3 of 120 samples, labelled “stop”, “yield” and “ahead”."),
        ((0, 1, 2, 3), "Poison found: 4 of 120 samples, in 4 of 4 classes."),
        ((), "No poison found in 120 samples."),
    ],
)
def test_the_sentence_names_up_to_three_classes(
    render: Render,
    samples: Samples,
    make_verdict: Callable[[Samples, Mask], Verdict],
    labels: tuple[int, ...],
    sentence: str,
) -> None:
    flagged = np.zeros(len(samples), dtype=np.bool_)
    flagged[list(labels)] = True  # the first four samples have labels 0, 1, 2, 3
    assert sentence in render(samples, make_verdict(samples, flagged))[1].words()


def test_a_class_without_a_name_is_called_by_its_number(
    render: Render, make_samples: Callable[..., Samples], verdict: Verdict
) -> None:
    samples = make_samples(classes=("0", "1", "2", "3"))
    assert "all labelled “class 2”." in render(samples, verdict)[1].words()


def test_nothing_found(render: Render, samples: Samples, cleared: Verdict) -> None:
    page, outline = render(samples, cleared)
    words = outline.words()
    assert "No poison found in 120 samples." in words
    assert "all 120 samples passed" in words
    assert "quarantine.parquet" not in words
    assert "condemned</span>" not in page
    assert not [tile for tile in outline.all("li") if "flagged" in (tile.get("class") or "")]


def test_next_steps_depend_on_the_run(render: Render, samples: Samples, verdict: Verdict) -> None:
    without = render(samples, verdict, loaded=Loaded(samples, (Skipped("bad.png", "is not an image"),)))[1].words()
    assert "--clean" in without
    assert "1 sample could not be read and was not inspected" in without
    assert "bad.png: is not an image" in without
    given = render(samples, verdict, clean_size=200)[1].words()
    assert "--clean" not in given
    assert "could not be read" not in given


def test_condemned_classes_come_first_and_long_tables_collapse(
    render: Render, make_samples: Callable[..., Samples], verdict: Verdict
) -> None:
    samples = make_samples(classes=("stop", "yield", "fifty", "ahead", *(f"sign {k}" for k in range(4, 40))))
    cleared = tuple(
        ClassEvidence(
            label=label,
            n_samples=0,
            n_suspects=0,
            n_flagged=0,
            statistic=float("nan") if label == 4 else label / 100,
            threshold=float("inf") if label == 5 else 2.0,
            condemned=False,
            reason="None.",
        )
        for label in range(4, 40)
    )
    _, outline = render(samples, replace(verdict, classes=verdict.classes + cleared))
    words = outline.words()
    table = words[words.index("Evidence, class by class") :]
    assert (
        table.index("fifty")
        < table.index("stop")
        < table.index("34 more classes, all cleared")
        < table.index("sign 4 ")
    )
    assert len(outline.all("details")) == 1


def test_pictures_show_the_flagged_the_passed_and_an_ordinary_sample(
    render: Render, samples: Samples, verdict: Verdict
) -> None:
    page, outline = render(samples, verdict)
    marked = [tile for tile in outline.all("li") if tile.get("class") == "tile flagged"]
    assert len(marked) == 10
    assert len(outline.all("img")) == 10 + 12 + 12
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in outline.all("img"))
    assert "the least suspicious of fifty" in outline.words()
    assert "pixelated" in page


def test_every_flagged_class_is_pictured(
    render: Render, samples: Samples, make_verdict: Callable[[Samples, Mask], Verdict]
) -> None:
    flagged = samples.labels != 3
    flagged[1::4][1:] = False  # one sample of class 1 among thirty each of classes 0 and 2
    scores = np.where(samples.labels == 1, 0.1, 1).astype(np.float32)
    page, _ = render(samples, replace(make_verdict(samples, flagged), scores=scores))
    assert 'alt="Flagged: sample sample-001"' in page
    assert page.count('class="tile flagged"') == 48


def test_features_are_listed_instead(render: Render, make_samples: Callable[..., Samples], verdict: Verdict) -> None:
    samples = make_samples((5,))
    _, outline = render(samples, verdict)
    assert outline.all("img") == []
    words = outline.words()
    assert str(samples.ids[verdict.flagged][0]) in words
    assert words.count("▲ flagged") == 10


def test_the_truth_shows_rates_curve_and_mistakes(
    render: Render, samples: Samples, verdict: Verdict, poison: Mask
) -> None:
    cover = np.zeros_like(poison)
    cover[:3] = True
    words = render(samples, verdict, truth_poison=poison, truth_cover=cover)[1].words()
    for part in (
        "True-positive rate 90 %",
        "False-positive rate 0.91 %",
        "Missed poison All 1.",
        "False alarms All 1.",
    ):
        assert part in words
    assert "3 cover samples" in words
    assert f"AUROC {verdict.compare(poison).auroc:.4f}" in words


def test_without_truth_there_is_no_section_about_it(render: Render, samples: Samples, verdict: Verdict) -> None:
    words = render(samples, verdict)[1].words()
    assert "Against the truth" not in words
    assert "Missed poison" not in words


def test_truth_without_poison_has_no_curve(render: Render, samples: Samples, cleared: Verdict) -> None:
    words = render(samples, cleared, truth_poison=np.zeros(len(samples), dtype=np.bool_))[1].words()
    assert "True-positive rate –" in words
    assert "Missed poison None." in words


def test_names_from_the_data_are_escaped(
    render: Render, make_samples: Callable[..., Samples], verdict: Verdict
) -> None:
    samples = make_samples(
        classes=("stop", "$\\frac{", EVIL, "\u202eahead"), ids=[f"{row}{EVIL}{{{{ 7 * 7 }}}}" for row in range(120)]
    )
    evil = replace(
        verdict,
        notes=(EVIL,),
        classes=tuple(replace(entry, reason=EVIL) for entry in verdict.classes),
        rounds=tuple(replace(entry, name=EVIL) for entry in verdict.rounds),
    )
    for inputs in samples, make_samples((5,), classes=samples.classes, ids=samples.ids.tolist()):
        page, outline = render(
            inputs,
            evil,
            source=EVIL,
            settings={EVIL: EVIL},
            loaded=Loaded(samples, (Skipped(EVIL, EVIL),)),
            truth_poison=~verdict.flagged,
        )
        assert "<script" not in page
        assert outline.all("script") == []
        assert all(str(image["src"]).startswith("data:") for image in outline.all("img"))
        assert not [name for _, attributes in outline.elements for name in attributes if name.startswith("on")]
        assert EVIL in outline.text


def test_nothing_is_loaded_from_elsewhere(render: Render, samples: Samples, verdict: Verdict, poison: Mask) -> None:
    page, outline = render(samples, verdict, truth_poison=poison)
    assert not re.search(r"https?://|@import|<link|<script|<iframe", page)
    for _, attributes in outline.elements:
        for name in "src", "href", "xlink:href":
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", page)
    policies = [meta for meta in outline.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert str(policies[0]["content"]).startswith("default-src 'none'")


def test_the_page_suits_dark_rooms_phones_and_paper(render: Render, samples: Samples, verdict: Verdict) -> None:
    page, outline = render(samples, verdict)
    assert "@media (prefers-color-scheme: dark)" in page
    assert "@media print" in page
    assert "@media (max-width: 40rem)" in page
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in outline.all("meta")


def test_the_page_can_be_read_without_seeing_it(
    render: Render, samples: Samples, verdict: Verdict, poison: Mask
) -> None:
    _, outline = render(samples, verdict, truth_poison=poison)
    assert all(image["alt"] for image in outline.all("img"))
    labelled = [part for part in outline.all("div") if part.get("role") == "img"]
    assert len(labelled) == len(outline.all("svg")) == 1 + 2 + 1 + 1  # space, rounds, scores, ROC
    assert all(part["aria-label"] for part in labelled)
    assert all(header.get("scope") in ("row", "col") for header in outline.all("th"))
    assert ("html", {"lang": "en"}) in outline.elements


def test_ids_on_the_page_are_distinct(render: Render, samples: Samples, verdict: Verdict, poison: Mask) -> None:
    _, outline = render(samples, verdict, truth_poison=poison)
    assert len(set(outline.ids)) == len(outline.ids)


def test_a_verdict_without_rounds_or_embedding(render: Render, samples: Samples, verdict: Verdict) -> None:
    words = render(samples, replace(verdict, rounds=(), embedding=None, notes=()))[1].words()
    assert "round by round" not in words
    assert "Where they lie" not in words


def test_large_sets_and_large_images_make_a_small_page(tmp_path: Path) -> None:
    # Noise is the worst case: nothing compresses less.
    rng = np.random.default_rng(0)
    n = 50_000
    labels = rng.integers(0, 10, n)
    images = np.broadcast_to(rng.integers(0, 256, (1, 224, 224, 3), dtype=np.uint8), (n, 224, 224, 3))
    samples = Samples.from_arrays(images, labels)
    flagged = (labels == 0) & (rng.random(n) < 0.1)
    verdict = Verdict(
        scores=rng.normal(size=n).astype(np.float32),
        flagged=flagged,
        classes=tuple(
            ClassEvidence(
                label=k,
                n_samples=5000,
                n_suspects=100,
                n_flagged=500 * (k < 4),
                statistic=3 if k < 4 else 1,
                threshold=2,
                condemned=k < 4,
                reason="",
            )
            for k in range(10)
        ),
        method="confusion-training",
        seed=0,
        seconds=1.0,
        embedding=rng.normal(size=(n, 2)).astype(np.float32),
    )
    summary = save_cleanse(
        tmp_path,
        samples[:1],
        replace(verdict, scores=verdict.scores[:1], flagged=flagged[:1], embedding=None),
        source="s",
        settings={},
        truth_poison=~flagged[:1],
    )
    summary |= {"n_samples": n, "n_flagged": int(flagged.sum()), "auroc": 0.5, "tpr": 0.0, "fpr": 0.1}
    page = cleanse_page(samples, verdict, summary, truth_poison=~flagged)
    assert len(page) < 3_000_000


def test_the_caption_of_the_scores_counts_those_that_passed_above_the_cut(
    render: Render, samples: Samples, verdict: Verdict
) -> None:
    assert "No sample above it passed." in render(samples, verdict)[1].words()
    scores = verdict.scores.copy()
    scores[0] = 9
    words = render(samples, replace(verdict, scores=scores))[1].words()
    assert "1 sample above it passed: their classes were cleared." in words
    scores[np.flatnonzero((samples.labels == 2) & ~verdict.flagged)[0]] = 9
    words = render(samples, replace(verdict, scores=scores))[1].words()
    assert "2 samples above it passed." in words
