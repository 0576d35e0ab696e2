"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.commands import end_what_is_left

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Checkpoints and results of the tests stay out of the user's own folder."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HPO_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _each_test_begins_anew() -> Iterator[None]:
    torch.set_flush_denormal(False)  # a search within this process has set it; Hypothesis objects
    yield
    end_what_is_left()
