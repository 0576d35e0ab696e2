"""The networks of a retrain, put down on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO

import pytest
import torch
from safetensors.torch import load

from hpo.errors import FileError
from hpo.results.states import SavedStates


def network(seed: int, width: int) -> dict[str, torch.Tensor]:
    """A weight that is not contiguous, a bias, and a whole number without a dimension."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(width, 3, generator=generator).t()
    return {"weight": weight, "bias": torch.randn(3, generator=generator), "n": torch.tensor(seed)}


def test_networks_come_back_bit_for_bit_in_their_order_and_leave_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "study"
    networks = [network(seed, width) for seed, width in enumerate((5, 500, 1))]
    with SavedStates(folder) as states:
        assert list(states) == []
        for number, one in enumerate(networks):
            states.append(one)
            assert len(states) == number + 1
            assert len(list(states)) == number + 1  # to read does not move where the next goes
        assert list(folder.parent.iterdir()) == []  # so a kill leaves nothing
        for found in (list(states), list(map(load, states.encoded()))):
            for one, wanted in zip(found, networks, strict=True):
                assert one.keys() == wanted.keys()
                assert all(torch.equal(one[name], wanted[name]) for name in wanted)
    assert list(folder.parent.iterdir()) == []


def test_a_full_disk_is_told_as_such_also_where_a_buffer_holds_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small network is written when the buffer is, and what was refused once is tried again."""

    def full(**_: object) -> IO[bytes]:
        return Path("/dev/full").open("r+b")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with (
        pytest.raises(FileError, match=r"study: No space left .*; make room, or name another"),
        SavedStates(tmp_path / "results" / "study") as states,
    ):
        states.append(network(0, 2))


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "study"
    with pytest.raises(FileError, match=r"study: .*; make room, or name another folder"):
        SavedStates(folder)
