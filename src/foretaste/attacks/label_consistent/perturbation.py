"""The classifier whose weaknesses hide images for the label-consistent attack."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from foretaste.attacks._base.attack import Weights
from foretaste.attacks._base.fitting import arrays
from foretaste.attacks._base.surrogate import attackers_seed
from foretaste.nets import build
from foretaste.progress import OnProgress
from foretaste.samples import Samples
from foretaste.training import Batches, Compute, DeviceSet, TrainingPlan, augment, draws, fingerprint, optimise


def learn(
    samples: Samples, *, epsilon: float, epochs: int, seed: int, workdir: Path | None, on_progress: OnProgress
) -> Weights:
    """Train a classifier that withstands small perturbations, so that what does fool it fools other classifiers too.

    Each batch is perturbed first, by one step of gradient ascent from a random start (Wong et al. 2020,
    arXiv:2001.03994).

    Args:
        samples: the clean training set.
        epsilon: most that a perturbation changes a value, in grey levels.
        epochs: passes over the set.
        seed: where all random numbers come from.
        workdir: a folder for checkpoints, or None.
        on_progress: called as the work goes on.
    """
    compute, plan, seed = Compute(), TrainingPlan(epochs=epochs), attackers_seed(seed)
    data, batches = DeviceSet(samples, compute.device), Batches(len(samples), plan.batch_size, seed)
    classifier = build(None, samples.sample_shape, samples.classes, generator=draws(seed, 0))
    classifier.preprocess.measure(samples.inputs)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        images, labels = data.batch(compute.share(batches(step)))
        generator = draws(seed, 2, step, compute.rank)
        images = augment(images, generator, shift=plan.shift, flip=plan.flip).float()
        start = (2 * torch.rand(images.shape, generator=generator).to(images.device) - 1) * epsilon
        start.requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(net(images + start), labels), start)
        delta = (start.detach() + 1.25 * epsilon * slope.sign()).clamp(-epsilon, epsilon)
        return nn.functional.cross_entropy(net((images + delta).clamp(0, 255)), labels)

    optimise(
        classifier,
        loss_of_step,
        steps=epochs * batches.per_epoch,
        sgd=plan.sgd(),
        compute=compute,
        phase="train a classifier",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "classifier.safetensors",
        key=fingerprint(samples, epsilon, plan, seed),
    )
    return arrays(classifier)
