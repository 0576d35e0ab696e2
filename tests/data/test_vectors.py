"""Numbers as tensors: inputs and targets standardised by the rows that are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hpo.data import LabelledRows, MeasuredRows
from hpo.data.tensors import ImageTensors, Normalization
from hpo.data.vectors import VectorTensors, on_device

CPU = torch.device("cpu")


def rows_of(count: int) -> MeasuredRows:
    rng = np.random.default_rng(1)
    inputs = rng.normal([5, -100, 3], [2, 0.1, 0], (count, 3)).astype(np.float32)
    return MeasuredRows(inputs, rng.normal([7, 0], [300, 1e-3], (count, 2)).astype(np.float32))


def test_both_are_standardised_by_the_rows_that_are_named() -> None:
    rows, index = rows_of(50), torch.arange(30)
    examples = VectorTensors(rows, CPU)
    levels = examples.normalization(index)
    inputs, targets = rows.inputs[:30].astype(float), rows.targets[:30].astype(float)
    assert levels.mean.tolist() == pytest.approx(inputs.mean(0).tolist())
    assert levels.std.tolist() == pytest.approx([*inputs.std(0)[:2], 1.0], rel=1e-5)
    assert levels.target_mean is not None
    assert levels.target_std is not None
    assert levels.target_mean.tolist() == pytest.approx(targets.mean(0).tolist())
    assert levels.target_std.tolist() == pytest.approx(targets.std(0).tolist())
    features, wanted = examples.batch(index, levels, torch.float64)
    assert features.dtype == torch.float64
    assert features.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1e-3)
    assert features.std(0, correction=0).tolist() == pytest.approx([1, 1, 0], abs=1e-3)
    assert wanted.std(0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-5)
    torch.testing.assert_close(levels.to_targets(wanted), examples.targets[:30])


def test_batches_are_all_rows_in_order_and_leave_the_rows_as_they_are() -> None:
    rows = rows_of(11)
    examples, index = VectorTensors(rows, CPU), torch.arange(11).flip(0)
    ones = torch.ones(3)
    levels = Normalization(ones, 2 * ones, ones[:2], 4 * ones[:2])
    parts = list(examples.batches(index, levels, torch.float32, 4))
    assert [len(targets) for _, targets in parts] == [4, 4, 3]
    features, targets = (torch.cat(part) for part in zip(*parts, strict=True))
    assert np.allclose(features, (rows.inputs[::-1] - 1) / 2)
    assert np.allclose(targets, (rows.targets[::-1] - 1) / 4)
    assert np.array_equal(rows_of(11).inputs, rows.inputs)


def test_arrays_as_people_bring_them() -> None:
    """Read-only ones stay where they are, without a warning; turned ones are read rightly."""
    rows = rows_of(6)
    rows.inputs.setflags(write=False)
    rows.targets.setflags(write=False)
    examples = VectorTensors(rows, CPU)
    assert examples.inputs.data_ptr() == rows.inputs.ctypes.data
    assert examples.targets.data_ptr() == rows.targets.ctypes.data
    examples = VectorTensors(MeasuredRows(rows.inputs[::-1], rows.targets[::-1, ::-1]), CPU)
    assert np.array_equal(examples.inputs.numpy(), rows.inputs[::-1])
    assert np.array_equal(examples.targets.numpy(), rows.targets[::-1, ::-1])


def test_each_kind_of_rows_gets_its_tensors() -> None:
    measured = on_device(rows_of(3), CPU)
    assert isinstance(measured, VectorTensors)
    assert (measured.features, measured.shape, len(measured)) == (3, (3,), 3)
    images = on_device(LabelledRows(np.zeros((4, 2, 5), np.uint8), np.zeros(4, np.int64)), CPU)
    assert isinstance(images, ImageTensors)
    assert (images.features, images.shape, len(images)) == (10, (1, 2, 5), 4)
