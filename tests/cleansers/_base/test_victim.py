from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from foretaste.cleansers._base import victim as module
from foretaste.cleansers._base.victim import Activations, OnVictim, Victim
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import build
from foretaste.progress import Progress
from foretaste.samples import Samples
from foretaste.training import predict

N = 30


def pictures(seed: int = 0) -> Samples:
    images = np.random.default_rng(seed).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(N) % 3)


def rows() -> Samples:
    return Samples.from_arrays(np.random.default_rng(0).normal(size=(N, 6)).astype(np.float32), np.arange(N) % 3)


def untrained(name: str, samples: Samples, cache: Path | None = None) -> Victim:
    net = build(name, samples.sample_shape, samples.classes, generator=torch.Generator().manual_seed(1), width=8)
    return Victim(net=net, key=name, cache=cache)


def fields(activations: Activations) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    one = activations
    return [one.logits, one.features, *one.stages, *one.gradients, one.likelihoods]


@pytest.mark.parametrize(
    ("name", "n_stages", "n_normalisations"),
    [("compact-resnet", 4, 12), ("convnet", 3, 6), ("vgg11", 5, 8), ("vit", 4, 0), ("mlp", 2, 2)],
)
def test_any_net_can_be_looked_into(
    name: str, n_stages: int, n_normalisations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = rows() if name == "mlp" else pictures()
    victim = untrained(name, samples)
    monkeypatch.setattr(module, "AT_ONCE", 8)  # so that the last batch is a smaller one
    seen = victim.activations(samples)
    assert len(seen.stages) == len(seen.gradients) == n_stages
    assert seen.likelihoods.shape == (N, n_normalisations)
    assert np.allclose(seen.logits, predict(victim.net, samples.inputs), atol=1e-4)
    with torch.no_grad():
        features = victim.net.eval().features(torch.from_numpy(samples.inputs)).numpy()
    assert np.allclose(seen.features, features, atol=1e-4)
    for stage in range(n_stages):
        output = torch.cat(list(victim.outputs(samples.inputs, stage)))
        assert np.allclose(seen.stages[stage], output.mean(dim=2), atol=1e-5)


def test_gradients_are_of_the_own_labels_logit() -> None:
    samples = rows()
    victim = untrained("mlp", samples)
    seen = victim.activations(samples)
    # The last stage's output is what the head sees, so the derivative is the label's row of the head.
    assert np.allclose(seen.gradients[-1], victim.net.head.weight.detach().numpy()[samples.labels], atol=1e-6)
    # The one before goes through a linear layer, a normalisation and a rectifier.
    linear, normalised = victim.net.body[3], victim.net.body[4]
    assert isinstance(linear, nn.Linear)
    assert isinstance(normalised, nn.BatchNorm1d)
    assert normalised.running_var is not None
    slope = (normalised.weight / (normalised.running_var + normalised.eps).sqrt()).detach().numpy()
    through = (seen.stages[1] > 0) * seen.gradients[1] * slope
    assert np.allclose(seen.gradients[0], through @ linear.weight.detach().numpy(), atol=1e-5)


def test_likelihoods_are_those_of_the_least_likely_value() -> None:
    samples = rows()
    victim = untrained("mlp", samples)
    first = victim.net.normalisations[0]
    first.get_buffer("running_mean").fill_(0.5)
    first.get_buffer("running_var").fill_(4.0)
    seen = victim.activations(samples)
    with torch.no_grad():
        values = victim.net.body[0](victim.net.preprocess(torch.from_numpy(samples.inputs))).numpy()
    assert np.allclose(seen.likelihoods[:, 0], norm.logpdf(values, 0.5, 2.0).min(axis=1), atol=1e-4)


def test_the_net_is_left_as_it_was() -> None:
    samples = pictures()
    victim = untrained("convnet", samples)
    before = {name: tensor.clone() for name, tensor in victim.net.state_dict().items()}
    victim.activations(samples)
    assert victim.net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in victim.net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in victim.net.modules())


def test_activations_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = pictures()
    victim = untrained("convnet", samples, tmp_path)
    first = victim.activations(samples)
    assert isinstance(first.features.base, np.memmap)
    other = victim.activations(pictures(seed=1))
    assert not np.array_equal(first.features, other.features)
    monkeypatch.setattr(module, "measured", lambda *_: iter(()))
    again = victim.activations(samples)
    assert all(np.array_equal(one, two) for one, two in zip(fields(first), fields(again), strict=True))


def test_a_victim_is_trained_once_and_then_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, reports = pictures(), list[Progress]()
    method = OnVictim(net="convnet", width=4, epochs=1)
    first = method.victim(samples, 0, tmp_path, reports.append)
    assert {report.phase for report in reports} == {"train"}
    alone = method.victim(samples, 0, None)
    assert np.array_equal(first.predict(samples.inputs), alone.predict(samples.inputs))
    other = OnVictim(net="convnet", width=4, epochs=2).victim(samples, 0, tmp_path)
    assert other.key != first.key != method.victim(samples, 1, tmp_path).key

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "train", fail)
    again = method.victim(samples, 0, tmp_path)
    assert again.key == first.key
    assert np.array_equal(first.predict(samples.inputs), again.predict(samples.inputs))
    [kept] = [path for path in (tmp_path / "cache").iterdir() if first.key in path.name]
    kept.write_bytes(b"damaged")
    with pytest.raises(AssertionError, match="trained again"):
        method.victim(samples, 0, tmp_path)


def test_a_cache_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(ForetasteError, match="cannot write"):
        OnVictim(net="convnet", width=4, epochs=1).victim(pictures(), 0, tmp_path)


@pytest.mark.parametrize("fields", [{"epochs": 0}, {"width": 0}])
def test_what_cannot_be_is_bad_usage(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        OnVictim(**fields)


def test_an_unknown_net_is_bad_usage() -> None:
    with pytest.raises(UsageError, match="no net 'nonesuch'"):
        OnVictim(net="nonesuch").victim(pictures(), 0, None)
