"""Augmentation of whole batches on the device, each image with draws of its own.

All members of a stream read the same augmented batch, so its cost is shared by the population.
Draws come from a generator on the CPU, so every device sees the same ones. Images are float
`[batch, channels, height, width]` in 0..255. torchvision's transforms draw once a batch, so only
their definitions are followed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["AUGMENTATIONS", "Augmentation", "build_augmentations"]

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""`(images, generator)` to images of the same shape."""

_WHITE = 255.0
_LUMA = (0.299, 0.587, 0.114)


def build_augmentations(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Augmentation]:
    """The augmentations of a definition, in its order, as `(name, settings)`."""
    return [AUGMENTATIONS[name](**settings) for name, settings in steps]


def horizontal_flip(probability: float = 0.5) -> Augmentation:
    """Mirror left and right with that probability."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        flipped = _uniform(images, generator) < probability
        return torch.where(flipped, images.flip(-1), images)

    return augment


def random_crop(padding: int = 4) -> Augmentation:
    """Shift by up to `padding` pixels each way; what comes in from outside is zero."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        padded = functional.pad(images, [padding] * 4)
        shifts = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
        top, left = shifts.to(images.device)
        rows = top + torch.arange(height, device=images.device)
        columns = left + torch.arange(width, device=images.device)
        wide = width + 2 * padding
        places = (rows[:, :, None] * wide + columns[:, None, :]).view(count, 1, -1)
        places = places.expand(-1, channels, -1)
        return padded.flatten(2).gather(2, places).view_as(images)

    return augment


def rotation(degrees: float = 10.0) -> Augmentation:
    """Turn about the centre by up to `degrees` either way, bilinear, zero outside."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        height, width = images.shape[-2:]
        angle = _symmetric(images, generator, math.radians(degrees)).flatten()
        cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # Normalised coordinates stretch the shorter side, so the sines carry the aspect.
        across = torch.stack([cosine, -sine * height / width, zero], 1)
        down = torch.stack([sine * width / height, cosine, zero], 1)
        matrix = torch.stack([across, down], 1)
        grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, align_corners=False)

    return augment


def color_jitter(
    brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
) -> Augmentation:
    """Scale brightness, contrast and saturation by 1 +- their setting, turn the hue by +- its own.

    Saturation and hue leave images without three channels as they are.
    """

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        black = torch.zeros((), device=images.device)
        images = _blend(images, black, 1 + _symmetric(images, generator, brightness))
        middle = _gray(images).mean((-3, -2, -1), keepdim=True)
        images = _blend(images, middle, 1 + _symmetric(images, generator, contrast))
        vividness = 1 + _symmetric(images, generator, saturation)
        turn = _symmetric(images, generator, hue)
        if images.shape[1] == 3:
            images = _blend(images, _gray(images), vividness)
            if hue:
                images = _turn_hue(images, turn)
        return images

    return augment


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "horizontal_flip": horizontal_flip,
    "random_crop": random_crop,
    "rotation": rotation,
    "color_jitter": color_jitter,
}


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """A number in [0, 1) for each image, ready to broadcast."""
    return torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device)


def _symmetric(images: Tensor, generator: torch.Generator, limit: float) -> Tensor:
    """A number in [-limit, limit) for each image."""
    return (2 * _uniform(images, generator) - 1) * limit


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(images), images, factor.clamp(min=0)).clamp_(0, _WHITE)


def _gray(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    luma = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    return (images * luma).sum(1, keepdim=True)


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Add `turn` (1 is the whole circle) to the hue of HSV, and go back to RGB.

    Both ways by the formula f(n) = v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6, for
    n = 5, 3, 1 (red, green, blue).
    """
    value, largest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    safe = chroma.clamp(min=1e-6)
    red, green, blue = torch.split(images, 1, 1)
    sixths = torch.where(
        largest == 0,
        (green - blue) / safe,
        torch.where(largest == 1, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths = sixths + 6 * turn
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = (offsets + sixths) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
