"""Poison under wrong labels of all kinds has no class of its own, and methods that look for one find about nothing."""

from typing import TYPE_CHECKING

import pytest

from foretaste.cleansers.activation_clustering import ActivationClustering
from foretaste.cleansers.spectral_signatures import SpectralSignatures
from foretaste.progress import silent

if TYPE_CHECKING:
    from tests.cleansers.conftest import Scene


@pytest.mark.parametrize("kind", [ActivationClustering, SpectralSignatures])
def test_activations_show_about_nothing_of_untargeted_poison(
    kind: type[ActivationClustering | SpectralSignatures], untargeted_scene: "Scene"
) -> None:
    one = untargeted_scene
    verdict = kind(**one.victim).inspect(one.samples, None, seed=0, workdir=one.workdir, on_progress=silent)
    found = verdict.compare(one.poison)
    print(kind.name, found)
    assert found.tpr < 0.1
