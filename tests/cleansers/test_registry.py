import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from foretaste import cleansers, plugins
from foretaste.cleansers.verdict import Verdict
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
        (some(n_classes=1), None, {}, "at least two classes, not 1"),
        (some(0), None, {}, "at least two classes, not 0"),
        (some(25, n_classes=3), None, {}, "class yield has 8 samples"),
        (some(), some(0), {}, "the clean set is empty"),
        (some(), some(side=9), {}, r"shape \(9, 9, 3\), those of the set to inspect \(8, 8, 3\)"),
        (
            some(),
            Samples.from_arrays(np.zeros((5, 8, 8, 3), np.uint8), np.zeros(5, int), ["a"]),
            {},
            "clean set's classes",
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
        EntryPoint("added", "foretaste.cleansers.verdict:Verdict", cleansers.PLUGINS),
        EntryPoint("broken", "no_such_module:Thing", cleansers.PLUGINS),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda **wanted: EntryPoints(added).select(**wanted))
    assert cleansers.names() == ["added", "broken", "nod"]
    assert cleansers.find("added").__name__ == "Verdict"
    with pytest.raises(ForetasteError, match="broken from no_such_module:Thing cannot be loaded"):
        cleansers.find("broken")


def test_importing_the_registry_does_not_load_torch() -> None:
    code = "import sys, foretaste.cleansers; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
