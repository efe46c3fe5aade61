"""The network that hides messages in images for the ISSBA attack, and how it is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from foretaste.attacks._base.attack import Weights
from foretaste.attacks._base.fitting import arrays, restore
from foretaste.attacks._base.pixels import portions
from foretaste.errors import ForetasteError
from foretaste.nets.unet import UNet, initialise, layer
from foretaste.progress import OnProgress
from foretaste.samples import Images, Samples
from foretaste.training import Adam, Batches, Compute, DeviceSet, draws, fingerprint, optimise

WIDTH = 16
"""Channels of the networks at full size."""
BATCH = 64
"""Images per step."""
SIDE = 8
"""Side of the small picture that a message is turned into before it is laid beside the image."""
FREE_CHANGE = 0.5
"""Mean square of the change in an image, as a share of the largest allowed, up to which it costs nothing.

Were every change to cost something, it would shrink as far as the decoder can still read it, and how far that is
differs from seed to seed: at 45 dB no other network notices it."""
FREE_LIKENESS = 0.5
"""Cosine of the changes by which two images carry the same message, up to which it costs nothing.

Without a bound nine tenths of the change are the same in every image; with none allowed at all, a compact network does
not learn what the images have in common."""
PENALTY = 5.0
"""Weight at the end of what exceeds them, beside the message's loss.

It is nothing in the first half of the training and rises in the second: from the start it would shrink the change to
nothing before the decoder has learnt to read a message in it."""
LEARNING_RATE = 2e-3
AT_ONCE = 2**18
"""Pixels that are written into at a time: 256 images of 32×32."""
MESSAGE = "message"
"""The name under which the message is kept beside the encoder's weights."""


class Encoder(nn.Module):
    """Hides messages in images.

    Args:
        n_channels: of the images.
        bits: of a message.
        strength: most that a value may change, in grey levels.
        generator: a CPU generator, the only source of randomness.
    """

    def __init__(self, n_channels: int, bits: int, strength: float, generator: torch.Generator) -> None:
        super().__init__()
        self.strength = strength
        self.spread = nn.Linear(bits, n_channels * SIDE * SIDE)
        initialise(self.spread, generator)
        self.body = UNet(2 * n_channels, n_channels, WIDTH, generator)

    def forward(self, images: Tensor, messages: Tensor) -> Tensor:
        """Return the images ``float32 (N, C, H, W)`` in [0, 255] with the messages ``(N, bits)`` of 0 and 1."""
        small = self.spread(2 * messages - 1).view(len(images), -1, SIDE, SIDE)
        beside = nn.functional.interpolate(small, size=images.shape[2:])
        change = torch.tanh(self.body(torch.cat([images / 127.5 - 1, beside], dim=1)))
        return (images + self.strength * change).clamp(0, 255)


class Hiding(nn.Module):
    """The loss of an encoder together with a decoder: messages can be read, and images look the same."""

    def __init__(self, encoder: Encoder, n_channels: int, bits: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.Sequential(
            layer(n_channels, WIDTH),
            layer(WIDTH, 2 * WIDTH, stride=2),
            layer(2 * WIDTH, 4 * WIDTH, stride=2),
            layer(4 * WIDTH, 4 * WIDTH),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(4 * WIDTH * 16, bits),
        )
        initialise(self.decoder, generator)

    def forward(self, images: Tensor, messages: Tensor, penalty: float) -> Tensor:
        """Return the loss of images ``(N, C, H, W)`` in [0, 255] that are to carry messages ``(N, bits)``.

        The last N // 2 messages are the first ones again. ``penalty`` weighs changes that are too large or too alike.
        """
        written = self.encoder(images, messages)
        read = nn.functional.binary_cross_entropy_with_logits(self.decoder(written / 127.5 - 1), messages)
        change = ((written - images) / self.encoder.strength).flatten(1)
        pairs = len(images) // 2
        likeness = nn.functional.cosine_similarity(change[:pairs], change[len(images) - pairs :])
        excess = (change.square().mean(dim=1) - FREE_CHANGE).relu().mean()
        # A batch of one image has no pairs, and no mean over them.
        excess = excess + (likeness - FREE_LIKENESS).relu().sum() / max(pairs, 1)
        loss: Tensor = read + penalty * excess
        return loss


def learn(
    samples: Samples,
    *,
    bits: int,
    strength: float,
    steps: int,
    seed: int,
    workdir: Path | None,
    on_progress: OnProgress,
) -> Weights:
    """Train an encoder on the images, and draw a message; the arguments are as for ``ISSBA``."""
    compute = Compute()
    data = DeviceSet(samples, compute.device)
    batches = Batches(len(samples), BATCH, seed)
    n_channels = samples.sample_shape[2]
    encoder = Encoder(n_channels, bits, strength, draws(seed, 10))

    def loss_of_step(net: nn.Module, step: int) -> Tensor:
        images, _ = data.batch(compute.share(batches(step)))
        # Each message in two images, to see that it is written in another way there.
        once = (len(images) - len(images) // 2, bits)
        messages = torch.randint(0, 2, once, generator=draws(seed, 12, step, compute.rank)).repeat(2, 1)[: len(images)]
        penalty = PENALTY * max(2 * step / steps - 1, 0)
        loss: Tensor = net(images.permute(0, 3, 1, 2).float(), messages.float().to(compute.device), penalty)
        return loss

    optimise(
        Hiding(encoder, n_channels, bits, draws(seed, 11)),
        loss_of_step,
        steps=steps,
        sgd=Adam(learning_rate=LEARNING_RATE),
        compute=compute,
        phase="train the encoder",
        on_progress=on_progress,
        checkpoint=None if workdir is None else workdir / "encoder.safetensors",
        key=fingerprint(samples, bits, strength, steps, seed),
    )
    message = torch.randint(0, 2, (bits,), generator=draws(seed, 13)).to(torch.uint8).numpy()
    return {**arrays(encoder), MESSAGE: message}


@torch.inference_mode()
def hide(weights: Weights, images: Images, strength: float) -> Images:
    """Return copies of ``uint8 (N, H, W, C)`` images, each with the message."""
    own = dict(weights)
    if MESSAGE not in own:
        raise ForetasteError("the attack's trained part holds no message")
    device = Compute().device
    message = torch.from_numpy(np.array(own.pop(MESSAGE))).float().to(device)
    encoder = Encoder(images.shape[3], len(message), strength, torch.Generator())
    restore(encoder, own)
    encoder.to(device)
    written = np.empty(images.shape, dtype=np.uint8)
    for part in portions(images, AT_ONCE):
        some = torch.from_numpy(np.array(images[part])).to(device).permute(0, 3, 1, 2).float()
        changed = encoder(some, message.expand(len(some), -1))
        # Towards the image, so that rounding cannot leave the bound.
        written[part] = (some + (changed - some).trunc()).byte().permute(0, 2, 3, 1).cpu().numpy()
    return written
