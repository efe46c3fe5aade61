import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from foretaste.attacks._base.attack import Trainable, Weights
from foretaste.attacks._base.fitting import fitted, identity, load_weights, save_weights, with_weights
from foretaste.attacks._base.targeted import Targeted
from foretaste.attacks.badnets import BadNets
from foretaste.attacks.blend import Blend
from foretaste.errors import ForetasteError, UsageError
from foretaste.progress import OnProgress, silent
from foretaste.samples import Images, Samples

runs_made: list[int] = []
"""The seeds of the trainings that took place."""


@dataclass(frozen=True, kw_only=True)
class Tint(Targeted):
    """Lighten images by what it "learns": their mean and the seed."""

    summary: ClassVar[str] = "for tests"
    unfitted: ClassVar[frozenset[str]] = frozenset({"rate"})

    more: int = 0
    table: Path | None = None
    weights: Weights | None = field(default=None, init=False, repr=False, compare=False)

    def check(self, samples: Samples) -> None:
        if self.more > 9:
            raise UsageError("more is too much")

    def fit(self, samples: Samples, *, seed: int, workdir: Path | None, on_progress: OnProgress) -> Weights:
        assert workdir is not None
        assert workdir.is_dir()
        if self.more < 0:
            raise UsageError("the pictures are too dark")
        runs_made.append(seed)
        return {"tint": np.array([samples.inputs.mean() + seed + self.more], dtype=np.float32)}

    def stamp(self, inputs: Images, rng: np.random.Generator) -> Images:
        return inputs


def pictures(value: int = 0) -> Samples:
    return Samples.from_arrays(np.full((20, 4, 4, 1), value, np.uint8), np.arange(20) % 2)


def tint(attack: Any) -> float:
    weights: Mapping[str, Any] = attack.weights
    return float(weights["tint"][0])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runs_made.clear()
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_trained_once_is_found_again(cache: Path) -> None:
    first, again, rarer = (fitted(Tint(rate=rate), pictures(5), 3) for rate in (0.01, 0.01, 0.001))
    assert runs_made == [3]
    assert tint(first) == tint(again) == tint(rarer) == 8
    assert first == Tint(rate=0.01)  # the trained part is no hyperparameter
    assert [path.suffix for path in (cache / "attacks").iterdir()] == [".safetensors"]


def test_other_samples_fields_seeds_and_files_are_trained_anew(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("a")
    fitted(Tint(table=table), pictures(), 0)
    for attack, samples, seed in [
        (Tint(table=table), pictures(1), 0),
        (Tint(table=table), pictures(), 1),
        (Tint(table=table, more=1), pictures(), 0),
    ]:
        runs_made.clear()
        fitted(attack, samples, seed)
        assert runs_made == [seed]
    table.write_text("b")
    runs_made.clear()
    fitted(Tint(table=table), pictures(), 0)
    assert runs_made == [0]
    # A folder stands for the files in it.
    folder = tmp_path / "folder"
    folder.mkdir()
    for text in "ab":
        (folder / "file").write_text(text)
        runs_made.clear()
        fitted(Tint(table=folder), pictures(), 0)
        assert runs_made == [0]


def test_attacks_without_a_trained_part_and_trained_ones_stay_as_they_are(cache: Path) -> None:
    attack = BadNets()
    assert fitted(attack, pictures(), 0) is attack
    complete = with_weights(Tint(), {"tint": np.zeros(1)})
    assert fitted(complete, pictures(), 0) is complete
    assert not isinstance(attack, Trainable)
    assert not cache.exists()


def test_a_damaged_cache_is_made_anew(cache: Path) -> None:
    fitted(Tint(), pictures(), 0)
    (kept,) = (cache / "attacks").iterdir()
    kept.write_bytes(kept.read_bytes()[:-2])
    assert tint(fitted(Tint(), pictures(), 0)) == 0
    assert runs_made == [0, 0]


@pytest.mark.parametrize(("attack", "seed", "reason"), [(Tint(more=10), 0, "too much"), (Tint(), -1, "seed")])
def test_what_cannot_apply_is_refused_and_leaves_nothing(cache: Path, attack: Tint, seed: int, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        fitted(attack, pictures(), seed, silent)
    assert runs_made == []
    assert not cache.exists()


def test_what_only_its_training_finds_out_leaves_nothing(cache: Path) -> None:
    with pytest.raises(UsageError, match="too dark"):
        fitted(Tint(more=-1), pictures(), 0)
    assert not list((cache / "attacks").iterdir())


def test_samples_that_differ_anywhere_are_others() -> None:
    # What runs are told apart by looks at a thousand images only.
    images = np.zeros((2500, 4, 4, 1), np.uint8)
    changed = images.copy()
    changed[1] = 200
    for some in (images, changed):
        fitted(Tint(), Samples.from_arrays(some, np.arange(2500) % 2), 0)
    assert runs_made == [0, 0]


def test_what_a_run_left_long_ago_is_gone_on_with(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(attack: Tint, samples: Samples, *, seed: int, workdir: Path, on_progress: OnProgress) -> Weights:
        (workdir / "half").write_text("way")
        raise KeyboardInterrupt

    def resumed(attack: Tint, samples: Samples, *, seed: int, workdir: Path, on_progress: OnProgress) -> Weights:
        return {"tint": np.array([(workdir / "half").exists()], dtype=np.float32)}

    monkeypatch.setattr(Tint, "fit", killed)
    for value in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            fitted(Tint(), pictures(value), 0)
    for work in (cache / "attacks").iterdir():
        os.utime(work, (0, 0))
    monkeypatch.setattr(Tint, "fit", resumed)
    assert tint(fitted(Tint(), pictures(1), 0)) == 1
    # That of the other samples is swept away.
    assert [path.suffix for path in (cache / "attacks").iterdir()] == [".safetensors"]


def test_whole_and_other_numbers_of_one_value_are_the_same() -> None:
    assert identity(BadNets(rate=1)) == identity(BadNets(rate=1.0)) != identity(BadNets(rate=0.5))
    assert len({identity(Blend(picture_seed=number)) for number in (2**53, 2**53 + 1, 10**400)}) == 3


def test_a_trained_part_goes_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "attack.safetensors"
    complete = fitted(Tint(), pictures(7), 0)
    save_weights(complete, path)
    assert tint(load_weights(Tint(), path)) == 7
    assert tint(load_weights(Tint(rate=0.5, more=0), path)) == 7
    with pytest.raises(ForetasteError, match="is not the trained part of Tint"):
        load_weights(Tint(more=1), path)
    with pytest.raises(ForetasteError, match="there is no file"):
        load_weights(Tint(), tmp_path / "nowhere")
    path.write_bytes(b"hello")
    with pytest.raises(ForetasteError, match="cannot read"):
        load_weights(Tint(), path)
