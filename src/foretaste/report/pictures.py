"""Samples as pictures that an HTML page can hold."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LOSSLESS_SIDE, LARGEST_SIDE = 48, 96


def data_uri(image: NDArray[np.uint8], *, largest: int = LARGEST_SIDE) -> str:
    """Return an image ``uint8 (H, W, C)``, C = 1, 3 or 4 (with opacity), as a ``data:`` address.

    Up to 48 pixels a side it is kept exactly, for the page to enlarge pixel by pixel: a trigger may be a single one.
    Larger images shrink to at most ``largest`` pixels a side, which keeps the page small.
    """
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2] == 1 else image))
    kind = "png"
    options: dict[str, Any] = {"optimize": True}
    if max(picture.size) > LOSSLESS_SIDE:
        picture.thumbnail((largest, largest), Image.Resampling.LANCZOS)
        if picture.mode != "RGBA":
            kind, options = "jpeg", {"quality": 85, "subsampling": 0}
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
