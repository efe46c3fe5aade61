from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from foretaste import training
from foretaste.errors import ForetasteError, UsageError
from foretaste.io.signs import draw_signs
from foretaste.nets import build
from foretaste.progress import OnProgress, Progress, silent
from foretaste.samples import Samples
from foretaste.training import SGD, Batches, TrainingPlan, augment, draws, fingerprint, noisy, patchwork, predict, train

if TYPE_CHECKING:
    from tests.conftest import Launch

QUICK = TrainingPlan(epochs=2, batch_size=32, width=4)


def blobs(n: int = 200, n_classes: int = 3, seed: int = 0) -> Samples:
    """Return images whose class is their brightness."""
    labels = np.arange(n) % n_classes
    noise = np.random.default_rng(seed).integers(0, 60, (n, 16, 16, 3))
    return Samples.from_arrays((noise + 80 * labels[:, None, None, None]).astype(np.uint8), labels)


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_signs_are_learnt() -> None:
    trained = train(draw_signs(1600), test=draw_signs(400, seed=1), plan=TrainingPlan(epochs=8), seed=0)
    assert trained.metrics["test_accuracy"] >= 0.85
    assert not trained.net.training
    metrics = json.loads(json.dumps(trained.metrics, allow_nan=False))
    assert {"net", "seed", "epochs", "n_samples", "n_test", "train_accuracy", "seconds"} <= set(metrics)


def test_feature_vectors_are_learnt() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 3
    rows = rng.normal(size=(600, 5)) * [1, 100, 1e-3, 1, 1] + np.outer(labels, [2, 200, 2e-3, 0, 0])
    trained = train(Samples.from_arrays(rows[:400], labels[:400]), test=Samples.from_arrays(rows[400:], labels[400:]))
    assert trained.metrics["net"] == "mlp"
    assert trained.metrics["test_accuracy"] >= 0.9


def test_the_same_seed_gives_the_same_weights_bit_for_bit() -> None:
    state = torch.random.get_rng_state()
    one, two, other = (train(blobs(), plan=QUICK, seed=seed).net for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


class KilledError(Exception):
    """Stands for a signal."""


def killed_after(count: int) -> OnProgress:
    def listen(progress: Progress) -> None:
        if progress.done >= count:
            raise KilledError

    return listen


@pytest.fixture
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a checkpoint and report after every step."""
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "REPORT_SECONDS", 0.0)


@pytest.mark.usefixtures("_eager")
def test_a_killed_run_goes_on_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = train(blobs(), plan=QUICK).net
    for kill in (3, 9):  # the second time, from the first one's checkpoint
        with pytest.raises(KilledError):
            train(blobs(), plan=QUICK, workdir=tmp_path, on_progress=killed_after(kill))
    reports: list[Progress] = []
    resumed = train(blobs(), plan=QUICK, workdir=tmp_path, on_progress=reports.append).net
    assert (reports[0].done, reports[-1].done, reports[-1].total) == (9, 12, 12)
    assert same(whole, resumed)
    assert not list(tmp_path.glob("*.partial"))

    reports.clear()
    assert same(whole, train(blobs(), plan=QUICK, workdir=tmp_path, on_progress=reports.append).net)
    assert [report.done for report in reports] == [12]


@pytest.mark.usefixtures("_eager")
def test_a_killed_run_with_adam_goes_on_and_ends_in_the_same_weights(tmp_path: Path) -> None:
    def run(checkpoint: Path | None, kill: int | None = None) -> nn.Module:
        net, compute = nn.Linear(3, 1), training.Compute()
        nn.init.ones_(net.weight)
        nn.init.zeros_(net.bias)

        def loss(net: nn.Module, step: int) -> torch.Tensor:
            inputs = torch.randn((4, 3), generator=training.draws(0, step)).to(compute.device)
            output: torch.Tensor = net(inputs)
            return output.square().mean()

        training.optimise(
            net,
            loss,
            steps=10,
            sgd=training.Adam(learning_rate=0.1),
            compute=compute,
            phase="test",
            checkpoint=checkpoint,
            on_progress=silent if kill is None else killed_after(kill),
        )
        return net.cpu()

    whole = run(None)
    with pytest.raises(KilledError):
        run(tmp_path / "a.safetensors", 6)
    assert same(whole, run(tmp_path / "a.safetensors"))
    assert not same(whole, nn.Linear(3, 1))


@pytest.mark.usefixtures("_eager")
def test_a_checkpoint_of_another_run_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    train(blobs(), plan=QUICK, workdir=tmp_path)
    for samples, plan, seed in [
        (blobs(seed=1), QUICK, 0),
        (blobs(), TrainingPlan(epochs=1, width=4), 0),
        (blobs(), QUICK, 1),
    ]:
        assert same(
            train(samples, plan=plan, seed=seed).net, train(samples, plan=plan, seed=seed, workdir=tmp_path).net
        )
    file = tmp_path / "train.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    assert same(train(blobs(), plan=QUICK).net, train(blobs(), plan=QUICK, workdir=tmp_path).net)


def test_a_fingerprint_depends_on_labels_pixels_and_settings() -> None:
    samples = blobs()
    others = [fingerprint(blobs(seed=1), 0), fingerprint(samples[:150], 0), fingerprint(samples, 1)]
    others.append(fingerprint(samples.with_labels(samples.labels[::-1].copy()), 0))
    assert fingerprint(samples, 0) == fingerprint(blobs(), 0)
    assert len({fingerprint(samples, 0), *others}) == 5


def test_every_epoch_sees_every_sample_once() -> None:
    batches = Batches(96, 32, seed=0)
    epochs = [torch.cat([batches(step) for step in range(start, start + 3)]) for start in (0, 3)]
    assert all(sorted(epoch.tolist()) == list(range(96)) for epoch in epochs)
    assert not torch.equal(*epochs)
    assert [len(batch) for batch in (Batches(5, 32, 0)(0), Batches(100, 32, 0)(5))] == [5, 32]


def test_draws_depend_on_the_whole_place() -> None:
    numbers = [torch.rand(1, generator=draws(*place)).item() for place in [(0, 1), (0, 1), (1, 0), (0, 1, 0), (0, 2)]]
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 4


def test_a_patchwork_is_of_four_pieces_each_at_its_place() -> None:
    # What a value says: which image it is of, and where it was there.
    places = torch.arange(20)[:, None] * 6 + torch.arange(5)[None, :].repeat_interleave(6)
    images = torch.stack([places, places * 0]).permute(1, 2, 0).to(torch.uint8).repeat(6, 1, 1, 1)
    images[..., 1] = torch.arange(6, dtype=torch.uint8)[:, None, None]
    smallest = []
    for step in range(200):
        made, sources, shares = patchwork(images, draws(0, step))
        assert torch.equal(made[..., 0], images[..., 0])
        assert sum(shares) == pytest.approx(1)
        smallest.append(min(shares))
        for number, image in enumerate(made[..., 1]):
            counts = torch.zeros(6)
            for source, share in zip(sources, shares, strict=True):
                counts[source[number]] += share
            assert torch.allclose(torch.bincount(image.flatten(), minlength=6) / image.numel(), counts)
            corners = image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]
            assert [int(corner) for corner in corners] == [int(source[number]) for source in sources]
    assert min(smallest) < 0.03
    assert 0.2 < max(smallest) <= 0.25


def test_noise_is_normal_and_stays_within_the_values() -> None:
    grey = torch.full((40, 32, 32, 3), 128, dtype=torch.uint8)
    added = noisy(grey, draws(0), 20).float() - 128
    # Of 122,880 values, within five standard errors of each estimate.
    assert abs(float(added.mean())) < 5 * 20 / len(added.flatten()) ** 0.5
    assert float(added.std()) == pytest.approx(20, abs=5 * 20 / (2 * len(added.flatten())) ** 0.5)
    assert bool((grey == 128).all())
    white = noisy(torch.full((4, 8, 8, 1), 255, dtype=torch.uint8), draws(0), 20)
    assert 0.4 < float((white == 255).float().mean()) < 0.65
    assert int(white.min()) > 255 - 5 * 20
    assert torch.equal(noisy(grey, draws(0), 20), noisy(grey, draws(0), 20))


def test_augmentation_shifts_and_mirrors() -> None:
    images = torch.arange(6 * 5 * 3, dtype=torch.uint8).reshape(1, 6, 5, 3).repeat(300, 1, 1, 1)
    padded = np.pad(images[0].numpy(), ((1, 1), (1, 1), (0, 0)), mode="edge")
    shifted = {padded[y : y + 6, x : x + 5].tobytes() for y in range(3) for x in range(3)}
    got = {image.numpy().tobytes() for image in augment(images, draws(0), shift=1, flip=False)}
    assert got == shifted
    both = {image.numpy().tobytes() for image in augment(images, draws(0), shift=0, flip=True)}
    assert both == {images[0].numpy().tobytes(), images[0].flip(1).numpy().tobytes()}


def test_the_rate_rises_and_falls() -> None:
    rates = [SGD(learning_rate=1.0).rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[20] == pytest.approx(1)
    assert rates[-1] == pytest.approx(1 / 80)
    assert SGD(learning_rate=0.3, schedule="constant").rate(7, 10) == 0.3
    assert all(0 < SGD(learning_rate=1.0).rate(step, steps) <= 1 for steps in (1, 2, 3, 7) for step in range(steps))


@pytest.mark.parametrize(("nesterov", "moved"), [(True, 0.1 * (1.9 + 2.71)), (False, 0.1 * (1 + 1.9))])
def test_momentum_is_nesterovs_or_plain(nesterov: bool, moved: float) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.0, nesterov=nesterov).optimizer([weight])
    for _ in range(2):
        weight.grad = torch.ones(1)  # the velocity is 1 and then 1.9; Nesterov's steps add 1 to 0.9 of it
        optimizer.step()
    assert weight.item() == pytest.approx(-moved)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"shift": -1},
        {"width": 0},
    ],
)
def test_a_plan_out_of_range_is_bad_usage(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        TrainingPlan(**wrong)  # type: ignore[arg-type]


def test_samples_that_cannot_be_trained_on_are_bad_usage() -> None:
    with pytest.raises(UsageError, match="at least two classes"):
        train(blobs(n_classes=1))
    with pytest.raises(UsageError, match="test set"):
        train(blobs(), test=blobs(n_classes=2))


def test_a_set_smaller_than_a_batch_trains() -> None:
    assert train(blobs(7), plan=QUICK).metrics["n_samples"] == 7


def test_a_diverging_run_says_so() -> None:
    with pytest.raises(ForetasteError, match="the loss is not a finite number"):
        train(blobs(), plan=TrainingPlan(epochs=20, learning_rate=1e20, width=4))


def test_predict_takes_memory_mapped_inputs_and_leaves_the_net_as_it_was(tmp_path: Path) -> None:
    samples = blobs(50)
    np.save(tmp_path / "x.npy", samples.inputs)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    net = build(None, samples.sample_shape, samples.classes, generator=draws(0), width=4)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    logits = predict(net, mapped, batch_size=7)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, predict(net, samples.inputs), atol=1e-5)
    assert predict(net, samples.inputs[:0]).shape == (0, 3)
    assert net.training
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in before.items())


def test_a_memory_mapped_set_trains_to_the_same_weights(tmp_path: Path) -> None:
    samples = blobs()
    np.save(tmp_path / "x.npy", samples.inputs)
    mapped = Samples(samples.labels, samples.classes, samples.ids, images=np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert same(train(samples, plan=QUICK).net, train(mapped, plan=QUICK).net)


def test_two_processes_train_one_net(launch: Launch, tmp_path: Path) -> None:
    samples = blobs()
    np.savez(tmp_path / "set.npz", x=samples.inputs, y=samples.labels)
    run = launch("train", str(tmp_path / "set.npz"), "--epochs=15", "--json", "--out", str(tmp_path / "out"))
    assert run.returncode == 0, run.stderr
    metrics = json.loads(run.stdout)
    assert metrics["train_accuracy"] >= 0.9
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())
