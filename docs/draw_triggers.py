"""Draw the pictures of the page on attacks, by name: ``python docs/draw_triggers.py badnets sig``.

Without a name, those of all attacks that have no trained part. Each shows, from left to right: a clean image; the same
image as poison; the change, four times as strong, around grey; and the image with the trigger of test time.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from foretaste.attacks import ATTACKS, Attack, Trainable, TrojanNN, fitted, poison_training_set
from foretaste.io import draw_signs
from foretaste.nets import export
from foretaste.samples import Images, Samples
from foretaste.training import train

FOLDER = Path(__file__).parent / "triggers"
SCALE, GAP = 4, 8
"""Pixels per pixel, and between panels."""


def main(names: list[str]) -> None:
    """Draw one file for each attack of these names."""
    signs = draw_signs(800)
    FOLDER.mkdir(exist_ok=True)
    for name in names or [name for name, kind in ATTACKS.items() if not isinstance(kind(), Trainable)]:
        attack = ready(name, signs)
        poisoned = poison_training_set(signs, attack, seed=0)
        row = np.flatnonzero(poisoned.poison)[:1]
        clean, planted = signs.inputs[row], poisoned.samples.inputs[row]
        contrast = np.clip(128 + 4 * (planted.astype(int) - clean), 0, 255).astype(np.uint8)
        stamped = attack.stamp(clean, np.random.default_rng(0))
        strip([clean[0], planted[0], contrast[0], stamped[0]]).save(FOLDER / f"{name}.png", optimize=True)


def ready(name: str, signs: Samples) -> Attack:
    """Return the attack of this name with its defaults and with its trained part."""
    if ATTACKS[name] is not TrojanNN:
        return fitted(ATTACKS[name](), signs, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.safetensors"
        export.save(train(signs, seed=0).net, model)
        return fitted(TrojanNN(model=model), signs, seed=0)


def strip(panels: list[Images]) -> Image.Image:
    """Put the panels side by side, enlarged without smoothing, on nothing."""
    large = [np.kron(panel, np.ones((SCALE, SCALE, 1), dtype=np.uint8)) for panel in panels]
    height, width = large[0].shape[:2]
    canvas = Image.new("RGBA", (len(large) * (width + GAP) - GAP, height))
    for number, panel in enumerate(large):
        canvas.paste(Image.fromarray(panel), (number * (width + GAP), 0))
    return canvas


if __name__ == "__main__":
    main(sys.argv[1:])
