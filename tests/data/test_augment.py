"""Augmentation, image by image, against plain definitions and torchvision's functions."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from hpo.data.augment import AUGMENTATIONS, build_augmentations

SHAPES = [(1, 8, 8), (3, 9, 6), (1, 5, 12), (3, 7, 7)]
STEPS: list[tuple[str, dict[str, Any]]] = [
    ("horizontal_flip", {"probability": 0.5}),
    ("random_crop", {"padding": 2}),
    ("rotation", {"degrees": 25.0}),
    ("color_jitter", {"brightness": 0.4, "contrast": 0.3, "saturation": 0.5, "hue": 0.2}),
]


def images_of(count: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, *shape), generator=generator).float()


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def apply(name: str, images: Tensor, **settings: Any) -> Tensor:
    (augment,) = build_augmentations([(name, settings)])
    return augment(images, seeded())


def drawn(count: int, how_many: int) -> list[Tensor]:
    """The numbers in -1..1 that an augmentation draws first from `seeded()`."""
    generator = seeded()
    return [2 * torch.rand(count, generator=generator) - 1 for _ in range(how_many)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "settings"), STEPS)
def test_shapes_stay_and_draws_come_from_the_generator(
    name: str, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    images = images_of(40, shape)
    kept = images.clone()
    first = apply(name, images, **settings)
    assert torch.equal(images, kept)
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255
    torch.rand(5)
    assert torch.equal(apply(name, images, **settings), first)
    (augment,) = build_augmentations([(name, settings)])
    assert not torch.equal(augment(images, seeded(4)), first)
    # The same image forty times: each has draws of its own.
    same = images[:1].expand(40, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in augment(same, seeded())}) > 1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "settings"), STEPS)
def test_bytes_are_augmented_as_their_numbers_are(
    name: str, settings: dict[str, Any], shape: tuple[int, ...]
) -> None:
    images = images_of(40, shape)
    moves = name in ("horizontal_flip", "random_crop")
    result = apply(name, images.byte(), **settings)
    assert result.dtype == (torch.uint8 if moves else torch.float32)
    assert torch.equal(result.float(), apply(name, images, **settings))


@pytest.mark.parametrize(("name", "settings"), STEPS[2:])
def test_a_batch_too_large_for_the_cache_is_augmented_as_a_small_one(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = images_of(64, (3, 9, 6))
    expected = apply(name, images, **settings)
    for numbers in (1, 7 * images[0].numel()):  # image by image; parts of 7, the last of 1
        monkeypatch.setattr("hpo.data.augment._NEAR", numbers)
        kept = images.clone()
        result = apply(name, images, **settings)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-3)
        assert torch.equal(images, kept)


def test_all_are_tested() -> None:
    assert {name for name, _ in STEPS} == set(AUGMENTATIONS)


def test_steps_are_applied_in_order() -> None:
    images = images_of(10, (3, 8, 8))
    generator = seeded()
    expected = images
    for augment in build_augmentations(STEPS):
        expected = augment(expected, generator)
    other = seeded()
    found = images
    for step in STEPS:
        (augment,) = build_augmentations([step])
        found = augment(found, other)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_a_flip_is_an_exact_mirror_of_the_right_share(probability: float) -> None:
    images = images_of(3000, (3, 4, 6))
    result = apply("horizontal_flip", images, probability=probability)
    same = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(-1)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    spread = 5 * math.sqrt(probability * (1 - probability) / 3000)
    assert abs(float(mirrored.float().mean()) - probability) <= spread


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_a_crop_is_a_window_of_the_padded_image(shape: tuple[int, ...], padding: int) -> None:
    count = 1500
    images = images_of(count, shape) + 1  # nowhere zero, so that windows differ
    result = apply("random_crop", images, padding=padding)
    padded = functional.pad(images, [padding] * 4)
    _, height, width = shape
    times = torch.zeros(2 * padding + 1, 2 * padding + 1)
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            window = padded[:, :, top : top + height, left : left + width]
            times[top, left] = (window == result).flatten(1).all(1).sum()
    assert times.sum() == count  # every image is exactly one of its windows
    share = 1 / times.numel()
    assert ((times / count - share).abs() <= 5 * math.sqrt(share * (1 - share) / count)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [10.0, 45.0, 180.0])
def test_a_rotation_is_torchvisions(shape: tuple[int, ...], degrees: float) -> None:
    images = images_of(24, shape)
    result = apply("rotation", images, degrees=degrees)
    (unit,) = drawn(24, 1)
    assert float(unit.min()) < -0.5
    assert float(unit.max()) > 0.5
    for image, turned, share in zip(images, result, unit.tolist(), strict=True):
        expected = reference.rotate(image, share * degrees, InterpolationMode.BILINEAR)
        torch.testing.assert_close(turned, expected, rtol=0, atol=0.02)


def test_no_rotation_changes_nothing() -> None:
    images = images_of(4, (1, 6, 9))
    torch.testing.assert_close(apply("rotation", images, degrees=0.0), images, rtol=0, atol=1e-3)


JITTERS = [
    {"brightness": 0.6},
    {"contrast": 0.7},
    {"saturation": 0.8},
    {"hue": 0.5},
    {"hue": 0.1},
    {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},
    {"brightness": 3.0},
]


@pytest.mark.parametrize("settings", JITTERS, ids=str)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_color_jitter_is_torchvisions(settings: dict[str, float], channels: int) -> None:
    count = 30
    images = images_of(count, (channels, 6, 5))
    images[0] = images[0, :1]  # a gray image has no hue
    images[1] = 0
    result = apply("color_jitter", images, **settings) / 255
    limits = [settings.get(name, 0.0) for name in ("brightness", "contrast", "saturation", "hue")]
    parts = [unit * limit for unit, limit in zip(drawn(count, 4), limits, strict=True)]
    for index in range(count):
        brightness, contrast, saturation, hue = (float(part[index]) for part in parts)
        expected = torch_jitter(images[index] / 255, brightness, contrast, saturation, hue)
        torch.testing.assert_close(result[index], expected, rtol=0, atol=5e-4)


def torch_jitter(
    image: Tensor, brightness: float, contrast: float, saturation: float, hue: float
) -> Tensor:
    scale = [max(0.0, 1 + part) for part in (brightness, contrast, saturation)]
    if image.shape[0] == 2:  # torchvision has no such images; their middle is that of all numbers
        image = (image * scale[0]).clamp(0, 1)
        return (image.mean() + scale[1] * (image - image.mean())).clamp(0, 1)
    image = reference.adjust_brightness(image, scale[0])
    image = reference.adjust_contrast(image, scale[1])
    if image.shape[0] == 3:
        image = reference.adjust_saturation(image, scale[2])
        image = reference.adjust_hue(image, hue)
    return image


def test_hue_alone_keeps_the_largest_and_the_smallest_channel() -> None:
    """The definition of hue: it moves colours round the circle, not out or in."""
    images = images_of(200, (3, 4, 4))
    result = apply("color_jitter", images, hue=0.5)
    for extreme in (torch.amax, torch.amin):
        torch.testing.assert_close(extreme(result, 1), extreme(images, 1), rtol=0, atol=1e-3)
    assert (result - images).abs().mean() > 10
