"""A torch module as a classifier."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.classifiers.answers import read_answers
from foretaste.classifiers.batches import batch_size, check_images, in_batches
from foretaste.classifiers.classifier import Answers
from foretaste.errors import ForetasteError, UsageError
from foretaste.nets import Net
from foretaste.samples import Images
from foretaste.sanitising import described

SOURCE = "the torch module"
MOST_IMAGES = 1024
"""Images in a batch."""


class TorchModule:
    """Asks a module that takes raw images, on a GPU if there is one; safe to use from several threads.

    The module is copied as it is now and put into evaluation mode, so training it further changes nothing here.

    Args:
        module: takes ``uint8 (N, H, W, C)`` tensors and returns ``(N, K)`` scores or ``(N,)`` integer labels, as every
            ``foretaste.nets.Net`` for images does.

    Raises:
        UsageError: it is a net for feature vectors.
    """

    def __init__(self, module: nn.Module) -> None:
        if isinstance(module, Net) and len(module.sample_shape) != 3:
            raise UsageError(f"the net {module.name} takes feature vectors, and only images can be classified here")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = deepcopy(module).eval().to(self._device)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The K class names of a ``Net``, or None."""
        return self._module.classes if isinstance(self._module, Net) else None

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """``(H, W, C)`` of the images that a ``Net`` takes, or None."""
        return self._module.sample_shape if isinstance(self._module, Net) else None

    def classify(self, images: Images) -> Answers:
        """Answer for raw images ``uint8 (N, H, W, C)``, any N ≥ 0, in their order.

        Raises:
            UsageError: the images are of another shape.
            ForetasteError: the module fails, or answers with what is no answer.
        """
        check_images(images, self.sample_shape, SOURCE)
        return in_batches(images, batch_size(images, MOST_IMAGES), self._ask)

    @torch.inference_mode()
    def _ask(self, images: Images) -> Answers:
        try:
            output = self._module(torch.from_numpy(np.array(images)).to(self._device))
        except Exception as error:  # whatever somebody's module may raise
            raise ForetasteError(f"{SOURCE} fails on {len(images)} images: {described(error)}") from error
        if not isinstance(output, Tensor):
            raise ForetasteError(f"{SOURCE} answers with {type(output).__name__} where a tensor is needed")
        if output.is_floating_point():
            output = output.float()
        return read_answers(output.cpu().numpy(), len(images), SOURCE, self.classes)
