"""Studies to show, and dashboards that show them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from hpo.search.storage import Storage, open_storage
from hpo.web.dashboard import Pages

_SPACE = {"lr": FloatDistribution(1e-4, 1.0, log=True), "layers": IntDistribution(1, 4)}


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An empty database that hpo has set up."""
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    open_storage(url).close()
    return url


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    """The database as a worker has it open."""
    with open_storage(url) as opened:
        yield opened


@pytest.fixture
def pages(url: str) -> Iterator[Pages]:
    """The database as the dashboard has it open."""
    with contextlib.closing(Pages(url)) as opened:
        yield opened


def fill(storage: Storage, name: str, finished: int) -> optuna.Study:
    """A study with so many finished trials, the last of which is the best."""
    study = optuna.create_study(storage=storage.optuna, study_name=name, direction="maximize")
    for number in range(finished):
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE,
                value=(number + 1) / 8,
                params={"lr": 10 ** -(1 + number % 3), "layers": 1 + number % 4},
                distributions=_SPACE,
                user_attrs={"hpo:curve": [{"epoch": 1, "loss": 2.5}]},
                intermediate_values={1: 0.25, 2: 0.5},
            )
        )
    return study
