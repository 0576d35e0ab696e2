"""The networks of a retrain, put down on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hpo.errors import FileError
from hpo.results.states import SavedStates


def network(seed: int, width: int) -> dict[str, torch.Tensor]:
    """A weight that is not contiguous, a bias, and a whole number without a dimension."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, 3, generator=generator).t()
    return {"weight": weight, "bias": torch.randn(3, generator=generator), "n": torch.tensor(seed)}


def test_networks_come_back_bit_for_bit_in_their_order(tmp_path: Path) -> None:
    networks = [network(seed, width) for seed, width in enumerate((5, 500, 1))]
    states = SavedStates(tmp_path, tmp_path / "study")
    assert list(states) == []
    for number, one in enumerate(networks):
        states.append(one)
        assert len(states) == len(list(states)) == number + 1
    files = [load_file(states.path(number)) for number in range(len(states))]
    for found in (list(states), files):
        for one, wanted in zip(found, networks, strict=True):
            assert one.keys() == wanted.keys()
            assert all(torch.equal(one[name], wanted[name]) for name in wanted)


def test_a_full_disk_names_the_artifact(tmp_path: Path) -> None:
    (tmp_path / "0.safetensors").symlink_to("/dev/full")
    states = SavedStates(tmp_path, tmp_path / "results" / "study")
    with pytest.raises(FileError, match=r"results/study: No space left .*; make room, or name"):
        states.append(network(0, 2))
    assert len(states) == 0
