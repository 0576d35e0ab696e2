"""Dropout masks: the right share of zeros, unbiased, and bytes that are all alike."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hpo.training.dropout import InputNoise, LayerMasks

Source = tuple[float, torch.Generator]


def masks(probability: float, seed: int = 0) -> Source:
    return probability, torch.Generator().manual_seed(seed)


def filled(source: Source, *shape: int) -> Tensor:
    mask = torch.full(shape, math.nan)
    LayerMasks([(slice(0, shape[0]), *source)], mask).fill()
    return mask


def within(count: float, n: int, probability: float) -> bool:
    """Five standard deviations: a fixed seed never leaves them by chance."""
    return abs(count - n * probability) <= 5 * math.sqrt(n * probability * (1 - probability)) + 1


@pytest.mark.parametrize("probability", [0.0, 0.05, 0.1, 0.3, 0.5, 0.6, 0.9, 0.99])
def test_share_of_zeros_and_scale(probability: float) -> None:
    rate = round(probability * 256) / 256
    mask = filled(masks(probability), 1000, 320)
    zeros = int((mask == 0).sum())
    assert within(zeros, mask.numel(), rate)
    kept = mask[mask != 0]
    assert torch.equal(kept, torch.full_like(kept, 1 / (1 - rate)))
    spread = math.sqrt(rate / (1 - rate) / mask.numel())
    assert abs(float(mask.double().mean()) - 1) <= 5 * spread + 1e-6


def test_every_lane_of_the_random_words_is_uniform() -> None:
    """One byte in eight would be half as random if draws left the sign bit out."""
    for probability in (0.25, 0.5, 0.75):
        lanes = filled(masks(probability, seed=1), 8000, 8)
        for lane in range(8):
            assert within(int((lanes[:, lane] == 0).sum()), 8000, probability)


def test_every_level_is_drawn_equally_in_every_lane() -> None:
    """Thresholds k and k + 1 differ by the level k; same seed, same bytes."""
    for level in (0, 1, 127, 128, 254):
        low = filled(masks(level / 256, seed=2), 40000, 8) == 0
        high = filled(masks((level + 1) / 256, seed=2), 40000, 8) == 0
        assert not (low & ~high).any()
        exactly = high & ~low
        for lane in range(8):
            assert within(int(exactly[:, lane].sum()), 40000, 1 / 256)


@pytest.mark.parametrize("batch", [32, 30, 5])
def test_every_member_has_masks_of_its_own_on_its_rows(batch: int) -> None:
    mask = torch.full((60, batch), math.nan)
    own = [(slice(4, 15), 0.5), (slice(15, 16), 0.9), (slice(40, 60), 0.25)]
    layer = LayerMasks([(rows, *masks(drops, rows.start)) for rows, drops in own], mask)
    alone = [(rows, masks(drops, rows.start)) for rows, drops in own]
    for _ in range(3):
        layer.fill()
        for rows, source in alone:
            assert torch.equal(mask[rows], filled(source, rows.stop - rows.start, batch))
        assert (mask[:4] == 1).all()
        assert (mask[16:40] == 1).all()


def test_a_probability_near_one_keeps_somebody() -> None:
    mask = filled(masks(0.999), 256, 256)
    kept = mask[mask != 0]
    assert within(len(kept), mask.numel(), 1 / 256)
    assert (kept == 256).all()


def test_masks_follow_from_the_generator_alone() -> None:
    first, second = masks(0.4, seed=5), masks(0.4, seed=5)
    sizes = [(10, 10), (3, 7), (50, 20), (10, 10)]
    drawn = [filled(first, *size) for size in sizes]
    torch.rand(10)
    for size, expected in zip(sizes, drawn, strict=True):
        assert torch.equal(filled(second, *size), expected)
    assert not torch.equal(drawn[0], drawn[3])
    assert not torch.equal(filled(masks(0.4, seed=6), 10, 10), drawn[0])


def test_float64_masks() -> None:
    mask = torch.empty(10, 10, dtype=torch.float64)
    LayerMasks([(slice(0, 10), *masks(0.3))], mask).fill()
    rate = 77 / 256
    assert set(mask.flatten().tolist()) == {0.0, 1 / (1 - rate)}


@pytest.mark.parametrize(("inputs", "batch"), [(64, 1000), (3, 30), (1, 1)])
def test_noise_of_a_stream_follows_from_its_generator(inputs: int, batch: int) -> None:
    cpu = torch.device("cpu")
    first, same, other = (
        InputNoise(inputs, batch, torch.Generator().manual_seed(seed), cpu) for seed in (1, 1, 2)
    )
    drawn = [first.draw().clone() for _ in range(3)]
    assert all(one.shape == (inputs, batch) and one.dtype == torch.uint8 for one in drawn)
    assert all(torch.equal(one, same.draw()) for one in drawn)
    if inputs * batch > 8:
        assert not torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], other.draw())


def test_noise_has_every_byte_equally_often() -> None:
    drawn = InputNoise(256, 4096, torch.Generator().manual_seed(3), torch.device("cpu")).draw()
    for column in range(8):  # of a word
        counts = torch.bincount(drawn[:, column::8].flatten().long(), minlength=256)
        assert all(within(int(count), drawn.numel() // 8, 1 / 256) for count in counts)
