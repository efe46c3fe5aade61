from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from foretaste.classifiers.torch_module import TorchModule
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import Net, build
from foretaste.samples import Images


class Says(nn.Module):
    """Answers with whatever a function makes of the images."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(images)


def test_training_on_changes_nothing(net: Net, images: Images) -> None:
    module = Says(lambda images: None)
    before = TorchModule(net)
    expected = before.classify(images)
    was = net.head.weight.detach().clone()
    try:
        net.train()
        with torch.no_grad():
            net.head.weight.mul_(-1)
        np.testing.assert_array_equal(before.classify(images).labels, expected.labels)
        assert net.training
    finally:
        net.eval()
        with torch.no_grad():
            net.head.weight.copy_(was)
    assert TorchModule(module).sample_shape is None


def test_labels_and_half_precision(images: Images) -> None:
    assert TorchModule(Says(lambda x: x[:, 0, 0, 0] % 3)).classify(images).scores is None
    scores = TorchModule(Says(lambda x: x[:, 0, 0].to(torch.bfloat16))).classify(images).scores
    assert scores is not None
    np.testing.assert_array_equal(scores, images[:, 0, 0])


def test_what_does_not_fit_is_one_sentence(net: Net, images: Images) -> None:
    with pytest.raises(UsageError, match=r"the torch module takes images of 16×16×3 .*, not 16×16×1"):
        TorchModule(net).classify(images[..., :1])
    with pytest.raises(UsageError, match="feature vectors"):
        TorchModule(build(None, (7,), ("a", "b"), generator=torch.Generator()))
    for answer, complaint in (
        (lambda x: None, "NoneType where a tensor is needed"),
        (lambda x: x @ x[0, 0], "fails on 20 images: RuntimeError"),
        (lambda x: x.float(), "which is neither"),
    ):
        with pytest.raises(ForetasteError, match=complaint):
            TorchModule(Says(answer)).classify(images)
