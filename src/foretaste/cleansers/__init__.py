"""Cleansers find the poison in a training set before a model learns from it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foretaste import plugins
from foretaste.cleansers.verdict import ClassEvidence, Cleanser, Verdict
from foretaste.errors import UsageError
from foretaste.progress import OnProgress, silent
from foretaste.samples import Mask, Samples, alike, listed, renumbered

__all__ = ["CLEANSERS", "Cleanser", "Verdict", "apply", "cleanse", "find", "names"]

CLEANSERS: dict[str, type[Cleanser]]
"""The built-in cleansers by name; loaded when first used, because they need torch (PEP 562)."""

PLUGINS = "foretaste.cleansers"
"""The entry-point group through which other packages add cleansers."""

FEWEST = 10
"""A class with fewer samples than this cannot be told from its own poison."""

LARGEST_SEED = 2**32 - 1
"""The largest seed that all libraries underneath take."""


def __getattr__(name: str) -> Any:
    if name == "CLEANSERS":
        return built_in()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def built_in() -> dict[str, type[Cleanser]]:
    """Load the built-in cleansers and return them by name: the one dictionary that ``CLEANSERS`` is."""
    from foretaste.cleansers.activation_clustering import ActivationClustering
    from foretaste.cleansers.agpd import AGPD
    from foretaste.cleansers.asset import ASSET
    from foretaste.cleansers.beatrix import Beatrix
    from foretaste.cleansers.confusion_training import ConfusionTraining
    from foretaste.cleansers.confusion_training_paper import ConfusionTrainingPaper
    from foretaste.cleansers.flare import FLARE
    from foretaste.cleansers.frequency import Frequency
    from foretaste.cleansers.pixel_spectral_signatures import PixelSpectralSignatures
    from foretaste.cleansers.psbd import PSBD
    from foretaste.cleansers.residual_trees import ResidualTrees
    from foretaste.cleansers.scan import SCAn
    from foretaste.cleansers.sentinet import SentiNet
    from foretaste.cleansers.spectral_signatures import SpectralSignatures
    from foretaste.cleansers.spectre import SPECTRE
    from foretaste.cleansers.strip import STRIP

    return {
        "confusion-training": ConfusionTraining,
        "confusion-training-paper": ConfusionTrainingPaper,
        "activation-clustering": ActivationClustering,
        "agpd": AGPD,
        "asset": ASSET,
        "beatrix": Beatrix,
        "flare": FLARE,
        "frequency": Frequency,
        "pixel-spectral-signatures": PixelSpectralSignatures,
        "psbd": PSBD,
        "residual-trees": ResidualTrees,
        "scan": SCAn,
        "sentinet": SentiNet,
        "spectral-signatures": SpectralSignatures,
        "spectre": SPECTRE,
        "strip": STRIP,
    }


def names() -> list[str]:
    """Return the names of all cleansers, built-in and from other packages, sorted."""
    return plugins.names(built_in(), PLUGINS)


def find(name: str) -> type[Cleanser]:
    """Return the cleanser of this name; a built-in one goes before another package's.

    Raises:
        UsageError: there is none; the message lists those there are.
        ForetasteError: another package's cleanser cannot be loaded.
    """
    return plugins.find(name, built_in(), PLUGINS, "cleanser", "inspect")


def cleanse(
    samples: Samples,
    clean: Samples | None = None,
    *,
    method: str = "confusion-training",
    seed: int = 0,
    workdir: Path | None = None,
    on_progress: OnProgress = silent,
    **hyperparameters: Any,
) -> Verdict:
    """Find the poison in a training set.

    Args:
        samples: the set to inspect; classes of fewer than 10 samples are not judged, and the verdict says so.
        clean: trusted samples of the same classes, by name, and shape, or None; some classes may be missing.
        method: the name of a cleanser.
        seed: where all random numbers come from, in [0, 2³² − 1]; same seed, same machine kind, same verdict, bit for
            bit.
        workdir: an existing folder for checkpoints, so that a run started again with the same arguments goes on.
        on_progress: called as the work goes on.
        **hyperparameters: fields of the cleanser that are not to have their default.

    Raises:
        UsageError: there is no such cleanser or hyperparameter, a value is out of range, or the samples do not fit.
    """
    cleanser = plugins.build(method, find(method), hyperparameters)
    return apply(cleanser, samples, clean, seed=seed, workdir=workdir, on_progress=on_progress)


def apply(
    cleanser: Cleanser,
    samples: Samples,
    clean: Samples | None,
    *,
    seed: int = 0,
    workdir: Path | None = None,
    on_progress: OnProgress = silent,
) -> Verdict:
    """Find the poison in a training set with a cleanser that is built already; the arguments are those of ``cleanse``.

    Raises:
        UsageError: the samples do not fit.
    """
    samples, clean, judged = prepare(samples, clean, seed)
    verdict = cleanser.inspect(
        samples if judged.all() else samples[judged], clean, seed=seed, workdir=workdir, on_progress=on_progress
    )
    if clean is not None and (lacking := np.setdiff1d(samples.labels[judged], clean.labels).tolist()):
        names = listed([samples.classes[label] for label in lacking])
        verdict = replace(verdict, notes=(*verdict.notes, f"the clean set holds no {names}"))
    return verdict if judged.all() else spread(verdict, samples, judged)


def prepare(samples: Samples, clean: Samples | None, seed: int) -> tuple[Samples, Samples | None, Mask]:
    """Return the set and the clean set in one form, and ``bool (N,)``, which samples' classes can be judged.

    Classes of the clean set are those of the same names in the set. Grey images are made RGB if those of the other set
    are. A class that has samples, but fewer than ``FEWEST``, is not judged.

    Raises:
        UsageError: fewer than two classes can be judged, the clean set is empty, of another kind or of other classes
            alone, or the seed is out of range.
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UsageError(f"the seed must be in [0, {LARGEST_SEED}], not {seed}")
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    if np.count_nonzero(counts >= FEWEST) < 2:
        raise UsageError(
            f"the set to inspect needs at least two classes of {FEWEST} samples or more, "
            f"and has {np.count_nonzero(counts >= FEWEST)}"
        )
    judged = (counts >= FEWEST)[samples.labels]
    if clean is None:
        return samples, None, judged
    if len(clean) == 0:
        raise UsageError("the clean set is empty; leave it out, or give some samples that you trust")
    clean = renumbered(clean, samples.classes, "the clean set", "the set to inspect")
    samples, clean = alike(samples, clean)
    if clean.sample_shape != samples.sample_shape:
        raise UsageError(
            f"the clean set's samples have shape {clean.sample_shape}, "
            f"those of the set to inspect {samples.sample_shape}"
        )
    clean = clean[(counts >= FEWEST)[clean.labels]]
    if len(clean) == 0:
        raise UsageError(f"the clean set holds no class of which the set to inspect has {FEWEST} samples or more")
    return samples, clean, judged


def spread(verdict: Verdict, samples: Samples, judged: Mask) -> Verdict:
    """Return a verdict on the judged samples as one on all: the others have the lowest score, and are not flagged."""
    rows = np.flatnonzero(judged)

    def filled(values: NDArray[Any], rest: Any) -> NDArray[Any]:
        whole = np.full((len(samples), *values.shape[1:]), rest, dtype=values.dtype)
        whole[rows] = values
        return whole

    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    left = [label for label, count in enumerate(counts.tolist()) if 0 < count < FEWEST]
    evidence = {one.label: one for one in verdict.classes} | {
        label: ClassEvidence(
            label=label,
            n_samples=int(counts[label]),
            n_suspects=0,
            n_flagged=0,
            statistic=0.0,
            threshold=1.0,
            condemned=False,
            reason=f"not judged: {FEWEST} samples are needed to judge a class",
        )
        for label in left
    }
    names = listed([f"{samples.classes[label]} ({counts[label]})" for label in left])
    note = f"not judged, because they have fewer than {FEWEST} samples: {names}"
    return replace(
        verdict,
        scores=filled(verdict.scores, verdict.scores.min()),
        flagged=filled(verdict.flagged, False),
        classes=tuple(evidence[label] for label in sorted(evidence)),
        notes=(*verdict.notes, note),
        rounds=tuple(
            replace(one, losses=filled(one.losses, one.losses.max()), kept=filled(one.kept, False))
            for one in verdict.rounds
        ),
        embedding=None if verdict.embedding is None else filled(verdict.embedding, 0.0),
    )
