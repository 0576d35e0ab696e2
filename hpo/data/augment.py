"""Augmentation of whole batches on the device, each image with draws of its own.

All members of a stream read the same augmented batch, so its cost is shared by the population.
Draws come from a generator on the CPU, so every device sees the same ones. Images are bytes, or
float in 0..255, `[batch, channels, height, width]`: what only moves pixels keeps bytes, as a
quarter of the memory is moved, what computes gives float. torchvision's transforms draw once a
batch, so only their definitions are followed here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["AUGMENTATIONS", "Augmentation", "build_augmentations"]

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""`(images, generator)` to images of the same shape, in memory of their own or the same."""

_WHITE = 255.0

_NEAR = 2**18
"""Numbers of which a CPU keeps some copies in its cache, 1 MB each."""

_LUMA = (0.299, 0.587, 0.114)


def build_augmentations(steps: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Augmentation]:
    """The augmentations of a definition, in its order, as `(name, settings)`."""
    return [AUGMENTATIONS[name](**settings) for name, settings in steps]


def horizontal_flip(probability: float = 0.5) -> Augmentation:
    """Mirror left and right with that probability."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        # Whole images are selected, from the old ones and then the mirrored ones; choosing pixel
        # by pixel takes twice as long. How many they are costs no wait on the CPU only.
        count = len(images)
        chosen = torch.rand(count, generator=generator) < probability
        which = _sent(chosen.nonzero().flatten(), images.device)
        places = torch.where(chosen, count - 1 + chosen.cumsum(0), torch.arange(count))
        mirrored = images.index_select(0, which).flip(-1)
        return torch.cat([images, mirrored]).index_select(0, _sent(places, images.device))

    return augment


def random_crop(padding: int = 4) -> Augmentation:
    """Shift by up to `padding` pixels each way; what comes in from outside is zero."""

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        padded = functional.pad(images, [padding] * 4)
        shifts = torch.randint(2 * padding + 1, (2, count, 1, 1), generator=generator)
        top, left = _sent(shifts, images.device)
        # Line by line, each as one piece of the flat images: gathering pixels takes four times
        # as long.
        planes = torch.arange(count * channels, device=images.device).view(count, channels, 1)
        lines = planes * padded.shape[2] + top + torch.arange(height, device=images.device)
        starts = (lines * padded.shape[3] + left).flatten()
        return padded.flatten().unfold(0, width, 1).index_select(0, starts).view(images.shape)

    return augment


def rotation(degrees: float = 10.0) -> Augmentation:
    """Turn about the centre by up to `degrees` either way, bilinear, zero outside."""

    def turn(images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        count, _, height, width = images.shape
        angle = draws[0].flatten()
        cosine, sine = angle.cos(), angle.sin()
        # Normalised coordinates stretch the shorter side, so the sines carry the aspect.
        across = torch.stack([cosine, -sine * (height / width)], 1)
        down = torch.stack([sine * (width / height), cosine], 1)
        # Both coordinates of every pixel, each a plane of its own: one product writes them, and
        # grid_sample reads planes as fast as pairs.
        planes = torch.cat([across, down]) @ _places(height, width, images.device)
        grid = planes.view(2, count, height, width).permute(1, 2, 3, 0)
        return functional.grid_sample(images.float(), grid, align_corners=False)

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        draws = [_symmetric(images, generator, math.radians(degrees))]
        # One pass gains nothing from the cache, only from buffers that need no new pages.
        return _in_parts(turn, images, draws, most=8 * _NEAR)

    return augment


def color_jitter(
    brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0
) -> Augmentation:
    """Scale brightness, contrast and saturation by 1 +- their setting, turn the hue by +- its own.

    Saturation and hue leave images without three channels as they are.
    """

    def change(images: Tensor, draws: Sequence[Tensor]) -> Tensor:
        images = images.float()
        coloured = images.shape[1] == 3
        light, sharpness, vividness, turn = draws
        if brightness:
            images = _blend(images, None, light)
        if contrast:
            images = _blend(images, _middle(images), sharpness)
        if saturation and coloured:
            images = _blend(images, _gray(images), vividness)
        return _turn_hue(images, turn) if hue and coloured else images

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        # Numbers are drawn for all four, whichever are used.
        limits = (brightness, contrast, saturation, hue)
        draws = [_symmetric(images, generator, limit) for limit in limits]
        return _in_parts(change, images, draws, most=_NEAR)

    return augment


AUGMENTATIONS: dict[str, Callable[..., Augmentation]] = {
    "horizontal_flip": horizontal_flip,
    "random_crop": random_crop,
    "rotation": rotation,
    "color_jitter": color_jitter,
}


def _sent(draws: Tensor, device: torch.device) -> Tensor:
    """Draws on the device; out of pinned memory a GPU takes them while nobody waits."""
    if device.type != "cuda":
        return draws
    return draws.pin_memory().to(device, non_blocking=True)


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    """A number in [0, 1) for each image, ready to broadcast."""
    return _sent(torch.rand(len(images), 1, 1, 1, generator=generator), images.device)


def _symmetric(images: Tensor, generator: torch.Generator, limit: float) -> Tensor:
    """A number in [-limit, limit) for each image."""
    return (2 * _uniform(images, generator) - 1) * limit


def _in_parts(
    change: Callable[[Tensor, Sequence[Tensor]], Tensor],
    images: Tensor,
    draws: Sequence[Tensor],
    most: int,
) -> Tensor:
    """What `change` makes of images and their draws, as float.

    On a CPU more than `most` numbers are done some images at a time: temporary tensors stay in
    its cache, and take no new pages from the system.
    """
    if images.device.type != "cpu" or images.numel() <= most:
        return change(images, draws)
    changed = torch.empty(images.shape, device=images.device)
    rows = max(1, _NEAR // images[0].numel())
    for start in range(0, len(images), rows):
        part = slice(start, start + rows)
        changed[part] = change(images[part], [draw[part] for draw in draws])
    return changed


@functools.lru_cache(maxsize=8)
def _places(height: int, width: int, device: torch.device) -> Tensor:
    """The middles of all pixels in -1..1, row by row: `[2, height * width]`, across and down."""
    across = (2 * torch.arange(width, device=device) + 1 - width) / width
    down = (2 * torch.arange(height, device=device) + 1 - height) / height
    return torch.stack([across.repeat(height), down.repeat_interleave(width)])


def _blend(images: Tensor, other: Tensor | None, change: Tensor) -> Tensor:
    """`other`, or black, and `images`, of which there is 1 + `change`, in 0..255."""
    share = (1 + change).clamp_(min=0)
    blended = images * share
    if other is not None:
        blended += other * (1 - share)
    return blended.clamp_(0, _WHITE)


def _middle(images: Tensor) -> Tensor:
    """The mean of the gray of each image, `[batch, 1, 1, 1]`."""
    means = images.mean((2, 3), keepdim=True)
    return _gray(means) if images.shape[1] == 3 else means.mean(1, keepdim=True)


def _gray(images: Tensor) -> Tensor:
    red, green, blue = torch.split(images, 1, 1)
    return (red * _LUMA[0]).add_(green, alpha=_LUMA[1]).add_(blue, alpha=_LUMA[2])


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Add `turn` (1 is the whole circle) to the hue of HSV, and go back to RGB.

    In sixths of the circle, the hue is 2 + (green + blue - red - largest) / chroma where green is
    at least blue, and minus this where it is not: over either half of the circle one channel
    after the other moves by the chroma while the rest stay. Back, red is the smallest and
    clamp(abs(hue - 3) - 1, 0, 1) of the chroma, green that of 2 - abs(hue - 2), blue that of
    2 - abs(hue - 4).
    """
    red, green, blue = torch.split(images, 1, 1)
    largest = torch.maximum(red, green).maximum(blue)
    smallest = torch.minimum(red, green).minimum(blue)
    chroma = largest - smallest
    hue = (green + blue).sub_(red).sub_(largest).div_(chroma.clamp(min=1e-6)).add_(2)
    hue = hue.copysign_(green - blue).add_(6 * turn)
    hue.sub_((hue / 6).floor_(), alpha=6)
    turned = torch.empty_like(images)
    for channel, (middle, sign, shift) in enumerate(((3, 1, -1), (2, -1, 2), (4, -1, 2))):
        share = (hue - middle).abs_().mul_(sign).add_(shift).clamp_(0, 1)
        torch.addcmul(smallest, share, chroma, out=turned[:, channel : channel + 1])
    return turned
