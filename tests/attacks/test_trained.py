"""What holds for every attack that has a trained part."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from foretaste import training
from foretaste.attacks import fitted, poison_training_set, stamp_inputs
from foretaste.attacks._base.attack import Attack, Poisoned, Trainable
from foretaste.attacks.advdoor import AdvDoor
from foretaste.attacks.dynamic import Dynamic
from foretaste.attacks.issba import ISSBA
from foretaste.attacks.label_consistent import LabelConsistent
from foretaste.attacks.malware import MalwareConstrained, MalwareUnconstrained
from foretaste.attacks.narcissus import Narcissus
from foretaste.attacks.refool import Refool
from foretaste.attacks.sleeper_agent import SleeperAgent
from foretaste.attacks.trojan_nn import TrojanNN
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import build
from foretaste.nets.export import save
from foretaste.progress import Progress, silent
from foretaste.samples import Samples

N, CLASSES, RATE = 200, 4, 0.05
TINY: dict[type[Any], dict[str, Any]] = {
    Dynamic: {"steps": 3, "cover_rate": 0.1},
    ISSBA: {"steps": 3},
    LabelConsistent: {"epochs": 1, "iterations": 2},
    Refool: {"epochs": 1, "selections": 2, "count": 3},
    SleeperAgent: {"epochs": 1, "steps": 3, "retrains": 1},
    TrojanNN: {"steps": 3, "training_steps": 1},
    Narcissus: {"epochs": 1, "steps": 3},
    AdvDoor: {"epochs": 1, "steps": 3},
    MalwareUnconstrained: {"size": 4, "epochs": 1},
    MalwareConstrained: {"size": 4, "epochs": 1, "columns": (0, 2, 3, 5, 7)},
}
"""Every such attack with little to do; a smaller one would be none."""
CLEAN_LABEL = (LabelConsistent, Refool, SleeperAgent, Narcissus, MalwareUnconstrained, MalwareConstrained)
ON_FEATURES = (MalwareUnconstrained, MalwareConstrained)
OTHERWISE = {"rate": 0.1, "cover_rate": 0.05, "target": 2, "iterations": 3, "amplitude": 16, "scale": 2}
"""Other values of all fields that some training does not look at."""

every = pytest.mark.parametrize("kind", TINY)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the cache in a folder of its own, with a model to trojan."""
    folder = tmp_path_factory.mktemp("cache")
    import torch

    clean = pictures()
    save(build(None, clean.sample_shape, clean.classes, generator=torch.Generator()), folder / "model.safetensors")
    TINY[TrojanNN]["model"] = folder / "model.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORETASTE_CACHE", str(folder))
        yield folder


def pictures(seed: int = 0, side: int = 16, channels: int = 3) -> Samples:
    images = np.random.default_rng(seed).integers(0, 256, (N, side, side, channels), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(N) % CLASSES)


def programs(seed: int = 0) -> Samples:
    rows = np.random.default_rng(seed).integers(0, 5, (N, 8)).astype(np.float32)
    return Samples.from_arrays(rows, np.arange(N) % CLASSES)


def fit_for(kind: type[Any], seed: int = 0) -> Samples:
    return programs(seed) if kind in ON_FEATURES else pictures(seed)


def built(kind: type[Any], **fields: Any) -> Attack:
    attack: Attack = kind(**{"rate": RATE, **TINY[kind], **fields})
    return attack


def ready(kind: type[Any]) -> Attack:
    return fitted(built(kind), fit_for(kind), 1)  # trained once, then found in the cache


def trained(attack: Attack) -> dict[str, bytes]:
    """Return the bytes of each tensor of an attack's trained part."""
    assert isinstance(attack, Trainable)
    assert attack.weights is not None
    return {name: values.tobytes() for name, values in attack.weights.items()}


def poisoned(kind: type[Any]) -> Poisoned:
    return poison_training_set(fit_for(kind), ready(kind), 1)


def distance(one: Samples, other: Samples) -> NDArray[np.float64]:
    """Return the largest change in each sample."""
    changed = np.abs(one.inputs.astype(np.float64) - other.inputs)
    largest: NDArray[np.float64] = changed.reshape(len(one), -1).max(axis=1)
    return largest


@every
def test_it_is_a_trainable_attack(kind: type[Any]) -> None:
    assert isinstance(built(kind), Attack)
    assert isinstance(built(kind), Trainable)
    assert kind.summary


@every
def test_rates_are_exact_and_only_chosen_samples_are_touched(kind: type[Any]) -> None:
    clean, result = fit_for(kind), poisoned(kind)
    assert result.poison.sum() == round(RATE * N)
    assert result.cover.sum() == round(getattr(built(kind), "cover_rate", 0) * N)
    assert not (result.poison & result.cover).any()
    touched = result.poison | result.cover
    assert (distance(result.samples, clean)[~touched] == 0).all()
    assert (distance(result.samples, clean)[touched] > 0).mean() > 0.9
    assert result.samples.inputs.dtype == clean.inputs.dtype
    np.testing.assert_array_equal(result.samples.ids, clean.ids)


@every
def test_labels_are_as_the_attack_says(kind: type[Any]) -> None:
    clean, result = fit_for(kind), poisoned(kind)
    np.testing.assert_array_equal(result.original_labels, clean.labels)
    np.testing.assert_array_equal(result.samples.labels[~result.poison], clean.labels[~result.poison])
    assert (result.samples.labels[result.poison] == 0).all()
    assert (clean.labels[result.poison] == 0).all() == (kind in CLEAN_LABEL)


@every
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = fit_for(kind)
    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path))  # or nothing would be trained twice
    again = poison_training_set(clean, fitted(built(kind), clean, 1), 1)
    assert again.samples.inputs.tobytes() == poisoned(kind).samples.inputs.tobytes()
    assert again.samples.labels.tobytes() == poisoned(kind).samples.labels.tobytes()
    other = poison_training_set(clean, fitted(built(kind), clean, 2), 2)
    assert other.samples.inputs.tobytes() != again.samples.inputs.tobytes()


@pytest.mark.parametrize("kind", [Dynamic, ISSBA, LabelConsistent, Refool, SleeperAgent, TrojanNN, Narcissus, AdvDoor])
def test_a_training_that_was_killed_goes_on_to_the_same_end(
    kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(progress: Progress) -> None:
        if "train" in progress.phase and progress.done == progress.total:
            raise KeyboardInterrupt

    monkeypatch.setenv("FORETASTE_CACHE", str(tmp_path))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fitted(built(kind), fit_for(kind), 1, on_progress=kill)
    (work,) = (tmp_path / "attacks").iterdir()
    assert list(work.rglob("*.safetensors"))
    again = poison_training_set(fit_for(kind), fitted(built(kind), fit_for(kind), 1), 1)
    assert again.samples.inputs.tobytes() == poisoned(kind).samples.inputs.tobytes()
    assert not work.exists()


@every
def test_the_trained_part_is_the_same_whatever_its_training_does_not_look_at(kind: type[Any]) -> None:
    never: Callable[..., None] = pytest.fail
    clean, first = fit_for(kind), trained(ready(kind))
    for name in kind.unfitted:
        other = built(kind, **{name: OTHERWISE[name]})
        assert isinstance(other, Trainable)
        anew = other.fit(clean, seed=1, workdir=None, on_progress=silent)
        assert {tensor: values.tobytes() for tensor, values in anew.items()} == first
        assert trained(fitted(other, clean, 1, on_progress=never)) == first


@every
def test_at_test_time_every_victim_is_stamped_and_keeps_its_label(kind: type[Any]) -> None:
    clean = fit_for(kind, seed=9)
    stamped, trojaned = stamp_inputs(clean, ready(kind), 1.0, 0)
    np.testing.assert_array_equal(trojaned, built(kind).victims(clean.labels))
    np.testing.assert_array_equal(stamped.labels, clean.labels)
    assert (distance(stamped, clean)[~trojaned] == 0).all()
    assert (distance(stamped, clean)[trojaned] > 0).mean() > 0.9
    assert stamp_inputs(clean, ready(kind), 1.0, 0)[0].inputs.tobytes() == stamped.inputs.tobytes()


@every
def test_the_wrong_kind_of_samples_is_refused_before_anything_is_trained(kind: type[Any]) -> None:
    wrong = pictures() if kind in ON_FEATURES else programs()
    with pytest.raises(UsageError, match=r"feature vectors only|images only"):
        fitted(built(kind), wrong, 0)
    with pytest.raises(UsageError, match=r"feature vectors only|images only"):
        ready(kind).poison(wrong, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"feature vectors only|images only"):
        ready(kind).stamp(wrong.inputs, np.random.default_rng(0))


@every
def test_what_cannot_apply_to_the_set_is_refused_before_anything_is_trained(kind: type[Any]) -> None:
    never: Callable[..., None] = pytest.fail
    clean = fit_for(kind)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target": 7}, "4 classes"),
        ({"rate": 0.001}, "no sample"),
        ({"rate": 0.9}, "only"),
    ]
    if kind in CLEAN_LABEL:
        cases.append(({"rate": 51 / N}, "only 50"))
    for fields, reason in cases:
        with pytest.raises(UsageError, match=reason):
            fitted(built(kind, **fields), clean, 0, on_progress=never)


@every
def test_it_does_not_poison_before_it_is_trained(kind: type[Any]) -> None:
    with pytest.raises(UsageError, match="trained"):
        built(kind).poison(fit_for(kind), np.random.default_rng(0))


@every
def test_a_trained_part_that_lacks_something_is_an_error(kind: type[Any]) -> None:
    from foretaste.attacks._base.fitting import with_weights

    broken = with_weights(built(kind), {"message": np.zeros(3, np.uint8), "nothing": np.zeros(3, np.float32)})
    with pytest.raises(ForetasteError, match=r"does not fit|is damaged: it holds no"):
        broken.poison(fit_for(kind), np.random.default_rng(0))
