"""What looks into a model lets no more through it at a time than fits into memory, however large the images are."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.classifiers import batches
from foretaste.inspectors import Subject, subject_of
from foretaste.inspectors.inversion import Inverted, invert
from foretaste.inspectors.mm_bd import MMBD
from foretaste.nets import build
from foretaste.progress import silent
from foretaste.samples import Samples

SIDE, K = 16, 12


@pytest.fixture
def clean() -> Samples:
    images = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), dtype=np.uint8)
    return Samples.from_arrays(images, np.arange(40) % K, [str(label) for label in range(K)])


@pytest.fixture
def subject(clean: Samples) -> Subject:
    net = build("convnet", clean.sample_shape, clean.classes, generator=torch.Generator().manual_seed(0), width=4)
    net.preprocess.measure(clean.inputs)
    return subject_of(net, clean)


def inverted(subject: Subject, clean: Samples, targets: list[int]) -> list[Inverted]:
    assert subject.weights is not None
    settings: dict[str, Any] = {"steps": 5, "images": 16, "learning_rate": 0.3, "success": 0.95, "cost": 0.01}
    return invert(subject.weights, clean, targets, seed=0, phase="invert", on_progress=silent, **settings)


def test_no_more_images_go_through_the_model_than_there_is_room_for(
    subject: Subject, clean: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))

    assert subject.weights is not None
    subject.weights.register_forward_pre_hook(note)
    monkeypatch.setattr(batches, "MOST_PIXELS", 5 * SIDE * SIDE)
    margins = MMBD(starts=2, steps=3).margins(subject, 0, silent)
    assert (margins > 1e-6).any()
    assert sizes == 2 * [5, 5, 5, 5, 5, 5, 2, 2, 2]
    sizes.clear()
    assert [one.target for one in inverted(subject, clean, [2, 5])] == [2, 5]
    assert sizes == 2 * 5 * [5, 5, 5, 1]


def test_a_step_in_parts_is_that_of_the_whole_batch(
    subject: Subject, clean: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    [whole] = inverted(subject, clean, [2])
    monkeypatch.setattr(batches, "MOST_PIXELS", 5 * SIDE * SIDE)
    [parts] = inverted(subject, clean, [2])
    np.testing.assert_allclose(parts.mask, whole.mask, atol=1e-2)
    np.testing.assert_allclose(parts.pattern, whole.pattern, atol=1)
