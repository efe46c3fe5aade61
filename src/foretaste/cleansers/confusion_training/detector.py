"""The last view: detectors that learn to tell the suspects of each condemned label from all other samples."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foretaste.cleansers.confusion_training.run import Run, Stream
from foretaste.cleansers.confusion_training.views import LINEAR_SGD, LinearViews, portions
from foretaste.progress import OnProgress
from foretaste.samples import Mask
from foretaste.training import draws, fingerprint, optimise


def detect(
    run: Run, name: str, suspects: NDArray[np.bool_], compared: NDArray[np.bool_], on_progress: OnProgress
) -> NDArray[np.float32]:
    """Return the log odds that each sample carries each mark, ``float32 (M, N)``, from detectors trained without it.

    The views had to find a mark among everything that speaks for a label. Where its carriers are known it is learnt
    better, and with it those which the views missed.

    Args:
        run: the inspection.
        name: of the checkpoint.
        suspects: ``bool (M, N)``, the suspected carriers of each mark.
        compared: ``bool (M, N)``, the samples that its carriers are to be told from: of one class, say.
        on_progress: called as the work goes on.
    """
    method, compute = run.method, run.compute
    suspected: Mask = np.any(suspects, axis=0)
    judged: Mask = np.any(compared, axis=0)
    # Others of the same classes tell the mark from what the class looks like, the rest from what its carriers show.
    groups = [suspected, judged & ~suspected, ~judged]
    rows = [torch.from_numpy(np.flatnonzero(group)) for group in groups if group.any()]
    size = method.batch_size // len(rows)
    wanted = torch.from_numpy(suspects.T.copy()).to(compute.device)
    # The carriers of another mark teach nothing about this one: it may be the same.
    teaches = torch.from_numpy(suspects.T | ~suspected[:, None]).to(compute.device)
    others = torch.from_numpy(run.fold[:, None] != np.arange(method.folds)).to(compute.device)
    # The linear views are added up: a detector sees place and sharpness at once.
    detectors = LinearViews(run.samples.sample_shape, method.folds, len(suspects)).to(compute.device)
    detectors.whiten.load_state_dict(run.whiten)

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        generator = draws(run.seed, Stream.DETECTOR, step)
        drawn = [some[torch.randint(len(some), (size,), generator=generator)] for some in rows]
        chosen = compute.share(torch.cat(drawn))
        outputs = net(run.data.batch(chosen)[0]).sum(dim=1)
        chosen = chosen.to(compute.device)
        label, weight = wanted[chosen][:, None], (teaches[chosen][:, None] & others[chosen][:, :, None]).float()
        losses = nn.functional.binary_cross_entropy_with_logits(
            outputs, label.float().expand_as(outputs), reduction="none"
        )
        # Carriers and the rest count the same, however many there are of each.
        means = [(losses * weight * side).sum(0) / (weight * side).sum(0).clamp(min=1) for side in (label, ~label)]
        return (means[0] + means[1]).sum() / 2

    optimise(
        detectors,
        loss_of_step,
        steps=method.view_steps,
        sgd=LINEAR_SGD,
        compute=compute,
        phase="detectors",
        on_progress=on_progress,
        checkpoint=run.checkpoint(f"detectors-{name}"),
        key=fingerprint(run.key_of_round, suspects.tobytes()),
    )
    odds = np.zeros(suspects.shape, dtype=np.float32)
    with torch.inference_mode():
        for some in portions(np.flatnonzero(judged)):
            outputs = detectors(run.data.batch(some)[0]).sum(dim=1).float().cpu()
            odds[:, some.numpy()] = outputs[torch.arange(len(some)), torch.from_numpy(run.fold)[some]].T.numpy()
    return odds
