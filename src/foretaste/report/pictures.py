"""Samples as pictures that an HTML page can hold."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LOSSLESS_SIDE, _LARGEST_SIDE = 48, 96


def data_uri(image: NDArray[np.uint8]) -> str:
    """Return an image ``uint8 (H, W, 1 or 3)`` as a ``data:`` address.

    Up to 48 pixels a side it is kept exactly, for the page to enlarge pixel by pixel: a trigger may be a single one.
    Larger images shrink to at most 96 pixels a side, which keeps the page small.
    """
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
    buffer = io.BytesIO()
    if max(picture.size) <= _LOSSLESS_SIDE:
        picture.save(buffer, format="PNG", optimize=True)
    else:
        picture.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
        picture.save(buffer, format="JPEG", quality=85, subsampling=0)
    kind = "png" if buffer.getvalue().startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
