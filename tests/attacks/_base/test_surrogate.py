"""The attacker's classifiers."""

import numpy as np
import torch

from foretaste.attacks._base.surrogate import attackers_seed, surrogate
from foretaste.attacks.label_consistent.perturbation import learn
from foretaste.nets import Net
from foretaste.progress import silent
from foretaste.samples import Samples
from foretaste.training import TrainingPlan, train


def draw() -> Samples:
    images = np.random.default_rng(5).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(40) % 4, ["a", "b", "c", "d"])


def outputs(net: Net) -> bytes:
    with torch.no_grad():
        logits: torch.Tensor = net(torch.from_numpy(np.array(draw().inputs)))
    return logits.numpy().tobytes()


def test_they_are_neither_the_victim_nor_each_other() -> None:
    nets = [train(draw(), plan=TrainingPlan(epochs=1), seed=seed).net for seed in (0, 1)]
    for seed in (0, 1):
        for number in (0, 1):
            nets.append(surrogate(draw(), number, 2, epochs=1, seed=seed, workdir=None, on_progress=silent))
    assert len({outputs(net) for net in nets}) == len(nets)


def test_the_classifier_of_the_label_consistent_attack_does_not_start_as_the_victim() -> None:
    from foretaste.attacks._base.fitting import restore
    from foretaste.nets import build

    def learnt(seed: int) -> bytes:
        weights = learn(draw(), epsilon=0, epochs=1, seed=seed, workdir=None, on_progress=silent)
        net = build(None, (16, 16, 3), draw().classes, generator=torch.Generator())
        restore(net, weights)
        return outputs(net)

    assert learnt(0) == learnt(0)
    assert learnt(0) != outputs(train(draw(), plan=TrainingPlan(epochs=1), seed=0).net)


def test_each_has_a_seed_of_its_own() -> None:
    seeds = [attackers_seed(seed, number) for seed in range(20) for number in range(20)]
    assert len({*seeds, *range(20)}) == len(seeds) + 20
