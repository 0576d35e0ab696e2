"""The server has done its work, and the answer is lost: nothing is done twice, nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from hpo.search.ledger import Counts
from hpo.search.outages import Patience
from hpo.search.storage import Storage, open_storage
from hpo.search.study import start_trial
from tests.faults.proxy import Proxy, proxy

ME = "me:1:x"
LEASE = 600.0


@dataclass
class Far:
    """A database behind a wire that can be cut, and the same one seen directly."""

    wire: Proxy
    storage: Storage
    near: Storage
    study: optuna.Study

    @property
    def study_id(self) -> int:
        return self.study._study_id

    def cut_at(self, text: bytes) -> None:
        self.wire.swallow_answer_to(text)

    def start(self, slot: int = 7) -> optuna.Trial:
        return start_trial(self.study, slot, lambda number: RandomSampler(seed=number))

    def seen(self) -> list[optuna.trial.FrozenTrial]:
        return self.near.optuna.get_all_trials(self.study_id)


@pytest.fixture
def far(postgres_server: Any) -> Iterator[Far]:
    name = postgres_server.create_database()
    url = sa.make_url(postgres_server.tcp_url(name))
    with proxy(postgres_server.port) as wire:
        distant = url.set(port=wire.port).render_as_string(hide_password=False)
        with (
            open_storage(distant, patience=Patience(60.0)) as storage,
            open_storage(url.render_as_string(hide_password=False)) as near,
        ):
            study = optuna.create_study(storage=storage.optuna, study_name="a")
            storage.ledger.set_budget(study._study_id, 3)
            yield Far(wire, storage, near, study)


@pytest.mark.parametrize("at", [b"INSERT INTO trials", b"COMMIT"])
def test_a_trial_is_created_once(far: Far, at: bytes) -> None:
    far.cut_at(at)
    trial = far.start()
    assert far.wire.cuts == 1
    [seen] = far.seen()
    assert (seen._trial_id, seen.number, seen.state) == (trial._trial_id, 0, TrialState.RUNNING)
    assert seen.user_attrs == {"hpo:slot": 7}
    # And it can be worked with, in spite of what Optuna's cache missed.
    trial.suggest_float("x", 0, 1)
    trial.report(0.5, 1)
    far.study.tell(trial, 0.5)
    assert far.start(8).number == 1


def test_a_trial_of_stock_ask_is_created_once(far: Far) -> None:
    far.cut_at(b"COMMIT")
    assert far.study.ask().number == 0
    assert far.wire.cuts == 1
    assert len(far.seen()) == 1


@pytest.mark.parametrize(
    ("state", "value"),
    [(TrialState.COMPLETE, 0.1 + 0.2), (TrialState.PRUNED, None), (TrialState.FAIL, None)],
)
def test_a_trial_is_told_once(far: Far, state: TrialState, value: float | None) -> None:
    trial = far.start()
    far.cut_at(b"COMMIT")
    far.study.tell(trial, value, state=state)
    assert far.wire.cuts == 1
    [seen] = far.seen()
    assert (seen.state, seen.value) == (state, value)
    with pytest.raises(UpdateFinishedTrialError):
        far.storage.optuna.set_trial_state_values(trial._trial_id, state, [0.5])


def test_a_trial_that_another_told_is_not_called_told(far: Far) -> None:
    """The first try did not get through, and before the second another worker told the trial."""
    trial = far.start()
    tries: list[int] = []

    @sa.event.listens_for(far.storage.engine, "before_cursor_execute")
    def cut(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE trials") and not tries:
            tries.append(1)
            far.near.optuna.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.9])
            connection.connection.driver_connection.close()

    with pytest.raises(UpdateFinishedTrialError):
        far.storage.optuna.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [0.5])
    assert tries
    assert far.seen()[0].value == 0.9


def test_what_a_trial_carries_is_set_once(far: Far) -> None:
    trial = far.start()
    optuna_storage, key = far.storage.optuna, trial._trial_id
    for text, write in (
        (b"INSERT INTO trial_params", lambda: trial.suggest_float("x", 0, 1)),
        (b"INSERT INTO trial_intermediate_values", lambda: trial.report(0.25, 3)),
        (b"INSERT INTO trial_user_attributes", lambda: trial.set_user_attr("a", [1])),
        (
            b"INSERT INTO trial_system_attributes",
            lambda: optuna_storage.set_trial_system_attr(key, "b", "c"),
        ),
        (b"COMMIT", lambda: far.study.set_user_attr("d", "e")),
    ):
        far.cut_at(text)
        before = far.wire.cuts
        write()
        assert far.wire.cuts == before + 1, text
    [seen] = far.seen()
    assert seen.params == trial.params
    assert seen.distributions == {"x": FloatDistribution(0, 1)}
    assert seen.intermediate_values == {3: 0.25}
    assert seen.user_attrs == {"hpo:slot": 7, "a": [1]}
    assert seen.system_attrs == {"b": "c"}
    assert far.near.optuna.get_study_user_attrs(far.study_id) == {"d": "e"}


def test_reading_goes_on(far: Far) -> None:
    far.start()
    for text, read in (
        (b"SELECT trials.trial_id", lambda: far.study.get_trials(deepcopy=False)),
        (b"SELECT hpo_slots", lambda: far.storage.ledger.slots(far.study_id)),
        (b"SELECT studies", lambda: optuna.get_all_study_names(far.storage.optuna)),
    ):
        far.cut_at(text)
        before = far.wire.cuts
        assert len(read()) > 0
        assert far.wire.cuts == before + 1, text


def test_a_slot_is_claimed_once(far: Far) -> None:
    ledger = far.storage.ledger
    far.cut_at(b"UPDATE hpo_slots")
    [slot] = ledger.claim(far.study_id, ME, 1, LEASE)
    assert far.wire.cuts == 1
    assert (slot.number, slot.taken_over) == (0, False)
    assert far.near.ledger.counts(far.study_id) == Counts(3, 0, 1, 2)
    assert ledger.believed(ME) == {slot.id}
    # Who it was taken from is not forgotten either.
    far.near.ledger.claim(far.study_id, "elsewhere:1:1-abc-1-x", 2, 0.0)
    far.cut_at(b"UPDATE hpo_slots")
    taken = ledger.claim(far.study_id, ME, 2, LEASE)
    assert far.wire.cuts == 2
    assert [(one.number, one.taken_over) for one in taken] == [(1, True), (2, True)]


def test_a_slot_is_bound_released_and_finished_once(far: Far) -> None:
    ledger = far.storage.ledger
    first, second, third = ledger.claim(far.study_id, ME, 3, LEASE)
    far.cut_at(b"UPDATE hpo_slots")
    first = ledger.assign(first, 77)
    far.cut_at(b"UPDATE hpo_slots")
    ledger.finish(first)
    far.cut_at(b"UPDATE hpo_slots")
    ledger.release(ME, [second])
    assert far.wire.cuts == 3
    assert far.near.ledger.counts(far.study_id) == Counts(3, 1, 1, 1)
    assert far.near.ledger.slots(far.study_id)[0].trial_id == 77
    assert ledger.believed(ME) == {third.id}
    far.cut_at(b"INSERT INTO hpo_slots")
    assert ledger.set_budget(far.study_id, 5) == 5
    assert far.near.ledger.counts(far.study_id).budget == 5
