import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from foretaste import cleansers, plugins
from foretaste.cleansers.verdict import Round, Verdict
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import OnProgress
from foretaste.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Nod:
    """Flags the first ``count`` samples."""

    name: ClassVar[str] = "nod"
    summary: ClassVar[str] = "flags the first few"

    count: int = 1

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        places = np.arange(len(samples))
        return Verdict(
            scores=-places.astype(np.float32),
            flagged=places < self.count,
            classes=(),
            method=self.name,
            seed=seed,
            seconds=0.0,
        )


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleansers, "built_in", lambda: {"nod": Nod})


def some(n: int = 40, n_classes: int = 2, side: int = 8) -> Samples:
    labels = np.arange(n) % n_classes
    return Samples.from_arrays(np.zeros((n, side, side, 3), dtype=np.uint8), labels, ["stop", "yield", "turn"])


def test_cleanse_runs_the_method_with_its_hyperparameters() -> None:
    verdict = cleansers.cleanse(some(), some(10), method="nod", seed=5, count=3)
    assert (verdict.method, verdict.seed, int(verdict.flagged.sum())) == ("nod", 5, 3)


@pytest.mark.parametrize(
    ("samples", "clean", "more", "complaint"),
    [
        (some(), None, {"method": "nonesuch"}, "no cleanser 'nonesuch'; known: .*nod"),
        (some(), None, {"size": 3}, "no hyperparameter 'size'; it has: count"),
        (some(n_classes=1), None, {}, "at least two classes of 10 samples or more, and has 1"),
        (some(0), None, {}, "at least two classes of 10 samples or more, and has 0"),
        (some(), None, {"seed": 2**32}, r"the seed must be in \[0, 4294967295\], not 4294967296"),
        (some(), some(0), {}, "the clean set is empty"),
        (some(), some(side=9), {}, r"shape \(9, 9, 3\), those of the set to inspect \(8, 8, 3\)"),
        (
            some(),
            Samples.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), np.zeros(5, int), ["a"]),
            {},
            "the clean set: the set to inspect has no class a; it has stop, yield, turn",
        ),
    ],
)
def test_what_makes_no_sense_is_bad_usage(
    samples: Samples, clean: Samples | None, more: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        cleansers.cleanse(samples, clean, **({"method": "nod"} | more))


def test_another_package_can_add_a_cleanser(monkeypatch: pytest.MonkeyPatch) -> None:
    added = [
        EntryPoint("added", "foretaste.cleansers.scan:SCAn", cleansers.PLUGINS),
        EntryPoint("wrong", "foretaste.cleansers.verdict:Verdict", cleansers.PLUGINS),
        EntryPoint("broken", "no_such_module:Thing", cleansers.PLUGINS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: EntryPoints(added).select(**wanted))
    assert cleansers.names() == ["added", "broken", "nod", "wrong"]
    assert cleansers.find("added").__name__ == "SCAn"
    with pytest.raises(UsageError, match=r"foretaste\.cleansers\.verdict:Verdict is no cleanser"):
        cleansers.find("wrong")
    with pytest.raises(ForetasteError, match="broken from no_such_module:Thing cannot be loaded"):
        cleansers.find("broken")


def test_importing_the_registry_does_not_load_torch() -> None:
    code = "import sys, foretaste.cleansers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@dataclass(frozen=True, kw_only=True)
class Witness:
    """Keeps what it is given, and flags the first sample."""

    name: ClassVar[str] = "witness"
    summary: ClassVar[str] = "keeps what it is given"
    given: ClassVar[list[Samples | None]] = []

    def inspect(
        self, samples: Samples, clean: Samples | None, *, seed: int, workdir: Path | None, on_progress: OnProgress
    ) -> Verdict:
        self.given[:] = [samples, clean]
        n = len(samples)
        return Verdict(
            scores=np.arange(n, 0, -1, dtype=np.float32),
            flagged=np.arange(n) == 0,
            classes=(),
            method=self.name,
            seed=seed,
            seconds=0.0,
            rounds=(Round(name="one", losses=np.arange(n, dtype=np.float32), kept=np.ones(n, np.bool_), seconds=0.0),),
            embedding=np.ones((n, 2), dtype=np.float32),
        )


@pytest.fixture
def witness(monkeypatch: pytest.MonkeyPatch) -> list[Samples | None]:
    monkeypatch.setattr(cleansers, "built_in", lambda: {"witness": Witness})
    return Witness.given


def test_a_class_of_few_samples_is_not_judged_and_stops_nobody(witness: list[Samples | None]) -> None:
    labels = np.array([2] * 7 + [0, 1] * 12)
    samples = Samples.from_arrays(np.zeros((31, 8, 8, 3), np.uint8), labels, ["ant", "bee", "eel"])
    clean = samples[np.arange(5, 15)]
    verdict = cleansers.cleanse(samples, clean, method="witness")
    judged, trusted = witness
    assert judged is not None
    assert trusted is not None
    assert judged.ids.tolist() == samples.ids[7:].tolist()
    assert set(trusted.labels.tolist()) == {0, 1}
    assert verdict.flagged.tolist() == [False] * 7 + [True] + [False] * 23
    assert verdict.scores[:8].tolist() == [1.0] * 7 + [24.0]
    assert verdict.rounds[0].losses[:8].tolist() == [23.0] * 7 + [0.0]
    assert not verdict.rounds[0].kept[:7].any()
    assert verdict.embedding is not None
    assert verdict.embedding.shape == (31, 2)
    (eel,) = verdict.classes
    assert (eel.label, eel.n_samples, eel.condemned) == (2, 7, False)
    assert eel.reason == "not judged: 10 samples are needed to judge a class"
    assert verdict.notes == ("not judged, because they have fewer than 10 samples: eel (7)",)


def test_classes_of_the_clean_set_are_those_of_the_same_name(witness: list[Samples | None]) -> None:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    cleansers.cleanse(some(), Samples.from_arrays(images, np.array([0, 1, 1, 0]), ["yield", "stop"]), method="witness")
    clean = witness[1]
    assert clean is not None
    assert clean.classes == ("stop", "yield", "turn")
    assert clean.labels.tolist() == [1, 0, 0, 1]
    only = Samples.from_arrays(images, np.zeros(4, np.int64), ["yield"])
    verdict = cleansers.cleanse(some(), only, method="witness")
    clean = witness[1]
    assert clean is not None
    assert clean.labels.tolist() == [1, 1, 1, 1]
    assert verdict.notes == ("the clean set holds no stop",)


@pytest.mark.parametrize("grey", ["set", "clean"])
def test_grey_images_are_rgb_with_equal_channels_beside_rgb(grey: str, witness: list[Samples | None]) -> None:
    colour = some()
    plain = Samples.from_arrays(np.full((40, 8, 8, 1), 7, np.uint8), colour.labels, colour.classes)
    cleansers.cleanse(*((plain, colour) if grey == "set" else (colour, plain)), method="witness")
    assert [one is not None and one.sample_shape for one in witness] == [(8, 8, 3)] * 2
    converted = witness[0 if grey == "set" else 1]
    assert converted is not None
    assert (converted.inputs == 7).all()
