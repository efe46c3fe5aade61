"""Attacks with a trained part: trained once, cached by content, kept beside the poison it made."""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialised

from foretaste.attacks._base.attack import Attack, Trainable, Weights
from foretaste.errors import ForetasteError, UsageError
from foretaste.io.atomic import atomic_bytes
from foretaste.io.cache import cache_dir, sweep
from foretaste.progress import OnProgress, silent
from foretaste.samples import Samples
from foretaste.sanitising import reason

if TYPE_CHECKING:
    from torch import nn

LAYOUT = 7
"""Raised when an attack trains differently than before, so that what is cached is not used any more."""

SomeAttack = TypeVar("SomeAttack", bound=Attack)


def fitted(attack: SomeAttack, samples: Samples, seed: int, on_progress: OnProgress = silent) -> SomeAttack:
    """Return the attack with its trained part, from the cache if it was trained before; other attacks as they are.

    What is trained is kept in the cache folder under a name that follows from the samples, the fields that the training
    looks at and the seed. A run that was killed goes on where it was.

    Args:
        attack: any attack; one that has its trained part already is returned as it is.
        samples: the clean training set.
        seed: where all random numbers come from, at least 0; same seed, same bytes on a CPU.
        on_progress: called as the work goes on.

    Raises:
        UsageError: the attack cannot apply to these samples, or the seed is negative.
        ForetasteError: the training failed, or the cache cannot be written.
    """
    trainable: object = attack
    if not isinstance(trainable, Trainable) or trainable.weights is not None:
        return attack
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, not {seed}")
    trainable.check(samples)
    from foretaste.training import content, fingerprint

    folder = cache_dir() / "attacks"
    key = fingerprint(samples, content(samples), identity(attack), files(attack), seed, LAYOUT)
    kept = folder / f"{key}.safetensors"
    if kept.exists():
        try:
            return load_weights(attack, kept)
        except ForetasteError:  # damaged: train it anew
            kept.unlink()
    work = folder / f"{key}.work"
    try:
        work.mkdir(parents=True, exist_ok=True)
        os.utime(work)  # what a killed run left long ago is gone on with, not swept away
        sweep(folder)
    except OSError as error:
        raise ForetasteError(f"cannot write {work}: {error.strerror}") from error
    try:
        weights = trainable.fit(samples, seed=seed, workdir=work, on_progress=on_progress)
    except UsageError:
        shutil.rmtree(work, ignore_errors=True)
        raise
    complete = with_weights(attack, weights)
    save_weights(complete, kept)
    shutil.rmtree(work, ignore_errors=True)
    return complete


def with_weights(attack: SomeAttack, weights: Weights) -> SomeAttack:
    """Return a copy of a trainable attack that has this trained part."""
    complete = copy.copy(attack)
    object.__setattr__(complete, "weights", dict(weights))  # the dataclass is frozen to everybody else
    return complete


def save_weights(attack: Attack, path: Path) -> None:
    """Write an attack's trained part as safetensors.

    Raises:
        ForetasteError: the file cannot be written.
    """
    assert isinstance(attack, Trainable)
    assert attack.weights is not None
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in attack.weights.items()}
    atomic_bytes(path, serialised(tensors, {"attack": identity(attack)}))


def load_weights(attack: SomeAttack, path: Path) -> SomeAttack:
    """Return the attack with the trained part that ``save_weights`` wrote.

    Raises:
        ForetasteError: the file is missing, damaged, or of an attack with other fields.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("attack") != identity(attack):
                raise ForetasteError(f"{path} is not the trained part of {identity(attack)}")
            weights: Mapping[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ForetasteError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise ForetasteError(f"cannot read {path}: {reason(error)}") from error
    return with_weights(attack, weights)


def identity(attack: Attack) -> str:
    """Return the attack's kind and the fields that its trained part depends on as text; 1 and 1.0 are the same.

    Whole numbers that a float cannot hold stay as they are.
    """
    unfitted = attack.unfitted if isinstance(attack, Trainable) else frozenset()
    values = {
        name: float(value) if type(value) is int and abs(value) <= 2**53 else value
        for name, value in settings(attack).items()
        if name not in unfitted
    }
    return f"{type(attack).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"


def files(attack: Attack) -> list[str]:
    """Return a digest of every file that a field of the attack names, by itself or by its folder."""
    named = [value for value in settings(attack).values() if isinstance(value, Path)]
    found = [path for value in named for path in (sorted(value.rglob("*")) if value.is_dir() else [value])]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.is_file()]


def settings(attack: Any) -> dict[str, Any]:
    """Return the hyperparameters of an attack, which is a dataclass, by name."""
    return {field.name: getattr(attack, field.name) for field in fields(attack) if field.init}


def arrays(net: nn.Module) -> Weights:
    """Return a net's parameters and buffers as arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in net.state_dict().items()}


def restore(net: nn.Module, weights: Weights) -> None:
    """Give a net the parameters and buffers that ``arrays`` returned, and put it in evaluation mode.

    Raises:
        ForetasteError: they are those of another net.
    """
    import torch

    try:
        net.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in weights.items()})
    except RuntimeError as error:
        raise ForetasteError("the attack's trained part does not fit these samples") from error
    net.eval()
