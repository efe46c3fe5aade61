"""Which feature values speak for a class: SHAP values of a classifier that is trained here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foretaste.attacks._base.surrogate import attackers_seed
from foretaste.nets import Net
from foretaste.progress import OnProgress, Progress
from foretaste.samples import Samples
from foretaste.training import Compute, TrainingPlan, draws, train

DRAWS = 50
"""Pairs of a background sample and a place on the way from it to the sample explained, per sample."""
CHUNK = 200
"""Samples explained at a time."""


def explain(
    samples: Samples, *, target: int, epochs: int, seed: int, workdir: Path | None, on_progress: OnProgress
) -> NDArray[np.float32]:
    """Train a classifier and return the SHAP values of its log-odds for the target class, ``float32 (N, D)``.

    They are estimated by expected gradients (Erion et al. 2021, arXiv:1906.10670): the gradient, at a random place
    between a random background sample and the sample, times the difference of the two, on average. All samples are
    background.
    """
    plan = TrainingPlan(epochs=epochs)
    device = Compute().device
    net = train(samples, plan=plan, seed=attackers_seed(seed), workdir=workdir, on_progress=on_progress).net
    net.to(device).requires_grad_(requires_grad=False)
    features = torch.from_numpy(np.array(samples.inputs)).to(device)
    shares = np.empty(features.shape, dtype=np.float32)
    for start in range(0, len(features), CHUNK):
        some = features[start : start + CHUNK]
        generator = draws(seed, 10, start)
        total = torch.zeros_like(some)
        for _ in range(DRAWS):
            background = features[torch.randint(len(features), (len(some),), generator=generator).to(device)]
            way = torch.rand((len(some), 1), generator=generator).to(device)
            total += (some - background) * slope(net, background + way * (some - background), target)
        shares[start : start + CHUNK] = (total / DRAWS).cpu().numpy()
        on_progress(Progress(phase="explain the classifier", done=start + len(some), total=len(features)))
    return shares


def slope(net: Net, features: Tensor, target: int) -> Tensor:
    """Return the gradient of the log-odds for the target class by each feature, ``(N, D)``."""
    features = features.clone().requires_grad_()
    log_chances = net(features).log_softmax(dim=1)
    others = torch.cat([log_chances[:, :target], log_chances[:, target + 1 :]], dim=1).logsumexp(dim=1)
    (gradient,) = torch.autograd.grad((log_chances[:, target] - others).sum(), features)
    return gradient
