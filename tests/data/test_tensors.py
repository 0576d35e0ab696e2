"""Rows as tensors: exact statistics, nothing copied on the CPU, nothing changed by a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.data import LabelledRows, load_train
from hpo.data.augment import build_augmentations
from hpo.data.tensors import ImageTensors, Normalization

from .conftest import Tiny

CPU = torch.device("cpu")


def rows_of(shape: tuple[int, ...], seed: int = 0) -> LabelledRows:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    return LabelledRows(images, rng.integers(0, 5, shape[0]))


@pytest.mark.parametrize("shape", [(9000, 4, 3), (500, 3, 5, 6), (200, 1, 4, 4)])
def test_normalization_is_that_of_the_chosen_rows(shape: tuple[int, ...]) -> None:
    rows = rows_of(shape)
    # The other rows would shift both numbers far.
    rows.images[::2] //= 5
    examples = ImageTensors(rows, CPU)
    index = torch.arange(1, shape[0], 2)
    channels = 1 if len(shape) == 3 else shape[1]
    found = examples.normalization(index)
    chosen = rows.images[1::2].reshape(len(index), channels, -1).astype(np.float64)
    mean, std = chosen.mean((0, 2)), chosen.std((0, 2))
    np.testing.assert_allclose(found.mean.numpy(), mean, rtol=1e-7)
    np.testing.assert_allclose(found.std.numpy(), std, rtol=1e-7)
    assert found.mean.shape == found.std.shape == (channels,)
    everything = examples.normalization(torch.arange(shape[0]))
    assert float(everything.mean[0]) < float(found.mean[0]) - 20


def test_a_channel_that_never_changes_is_divided_by_one() -> None:
    images = np.full((10, 2, 3, 3), 77, np.uint8)
    images[:, 1] = np.arange(9).reshape(3, 3)
    examples = ImageTensors(LabelledRows(images, np.zeros(10, np.int64)), CPU)
    found = examples.normalization(torch.arange(10))
    assert found.mean[0] == 77
    assert found.std[0] == 1
    features, _ = examples.batch(torch.arange(10), found, torch.float32)
    assert not features[:, :9].any()


def test_a_batch_is_normalised_flat_and_in_the_order_asked_for() -> None:
    rows = rows_of((20, 3, 4, 5))
    examples = ImageTensors(rows, CPU)
    normalization = examples.normalization(torch.arange(20))
    index = torch.tensor([7, 0, 7, 19])
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        features, labels = examples.batch(index, normalization, dtype)
        assert features.dtype == dtype
        assert features.shape == (4, 60)
        expected = rows.images[index.numpy()].astype(np.float64)
        expected -= normalization.mean.numpy()[:, None, None]
        expected /= normalization.std.numpy()[:, None, None]
        rough = 0.01 if dtype == torch.bfloat16 else 1e-6
        np.testing.assert_allclose(
            features.double().numpy(), expected.reshape(4, -1), rtol=rough, atol=rough
        )
        assert labels.tolist() == rows.labels[[7, 0, 7, 19]].tolist()
    assert examples.features == 60
    assert len(examples) == 20


def test_batches_cover_the_rows_in_order() -> None:
    examples = ImageTensors(rows_of((23, 4, 4)), CPU)
    normalization = examples.normalization(torch.arange(23))
    index = torch.arange(22, -1, -1)
    whole, labels = examples.batch(index, normalization, torch.float32)
    parts = list(examples.batches(index, normalization, torch.float32, 5))
    assert [len(part) for part, _ in parts] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat([part for part, _ in parts]), whole)
    assert torch.equal(torch.cat([part for _, part in parts]), labels)


def test_nothing_writes_to_the_dataset() -> None:
    rows = rows_of((30, 3, 8, 8))
    examples = ImageTensors(rows, CPU)
    before = rows.images.copy()
    steps: list[tuple[str, dict[str, Any]]] = [
        ("horizontal_flip", {}),
        ("random_crop", {"padding": 2}),
        ("rotation", {"degrees": 20}),
        ("color_jitter", {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.2}),
    ]
    normalization = examples.normalization(torch.arange(30))
    for chosen in ([], *([step] for step in steps), steps):
        augmentations = build_augmentations(chosen)
        generator = torch.Generator().manual_seed(0)
        examples.batch(torch.arange(30), normalization, torch.float32, augmentations, generator)
        assert np.array_equal(rows.images, before)


def test_images_stay_where_they_are_on_the_cpu() -> None:
    rows = rows_of((30, 8, 8))
    examples = ImageTensors(rows, CPU)
    assert examples.images.shape == (30, 1, 8, 8)
    assert examples.images.data_ptr() == rows.images.ctypes.data
    assert examples.labels.data_ptr() == rows.labels.ctypes.data


def test_mapped_files_stay_mapped(tiny: Tiny, tmp_path: Path) -> None:
    tiny.write(tmp_path)
    rows = tiny.dataset().load_train(tmp_path)
    assert isinstance(rows.images, np.memmap)
    assert ImageTensors(rows, CPU).images.data_ptr() == rows.images.ctypes.data


def test_arrays_as_people_bring_them() -> None:
    """Read-only ones stay where they are, without a warning; turned ones are read rightly."""
    rows = rows_of((6, 4, 4))
    rows.images.setflags(write=False)
    rows.labels.setflags(write=False)
    assert ImageTensors(rows, CPU).images.data_ptr() == rows.images.ctypes.data
    turned = LabelledRows(rows.images[::-1], rows.labels[::-1])
    examples = ImageTensors(turned, CPU)
    assert np.array_equal(examples.images[:, 0].numpy(), rows.images[::-1])
    assert np.array_equal(examples.labels.numpy(), rows.labels[::-1])


def test_digits_have_mean_zero_and_spread_one() -> None:
    rows = load_train("digits")
    examples = ImageTensors(rows, CPU)
    index = torch.arange(len(rows))
    features, labels = examples.batch(index, examples.normalization(index), torch.float64)
    assert float(features.mean()) == pytest.approx(0, abs=1e-6)
    assert float(features.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert torch.equal(labels, torch.from_numpy(rows.labels))


def test_a_normalization_from_elsewhere_is_used_as_it_is() -> None:
    rows = rows_of((5, 2, 2))
    ones = Normalization(torch.tensor([10.0]), torch.tensor([2.0]))
    features, _ = ImageTensors(rows, CPU).batch(torch.arange(5), ones, torch.float32)
    expected = (rows.images.reshape(5, 4).astype(np.float32) - 10) / 2
    assert np.array_equal(features.numpy(), expected)
