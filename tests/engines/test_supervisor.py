"""The rules for workers that die, on an engine whose workers end as the test says."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from hpo.engines.base import Ended
from hpo.engines.slots import Slot, slots
from hpo.engines.supervisor import MOST_DEATHS, Look, Supervisor
from hpo.errors import FileError, HpoError, StorageError, TrainingError, UsageError

RUNS = None  # until it is stopped


@dataclass
class Scripted:
    """An engine whose slots' workers end with the given codes, one after the other."""

    codes: dict[str, list[int | None]]
    started: list[str] = field(default_factory=list)
    stopped: int = 0
    killed: int = 0
    _running: dict[Slot, int | None] = field(default_factory=dict)

    def start(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            assert slot not in self._running
            self.started.append(slot.name)
            self._running[slot] = self.codes[slot.name].pop(0)

    def poll(self) -> list[Ended]:
        ended = {slot: code for slot, code in self._running.items() if code is not RUNS}
        for slot in ended:
            del self._running[slot]
        return [Ended(slot, code, f"hpo: {code} it is") for slot, code in ended.items()]

    def running(self) -> int:
        return len(self._running)

    def stop(self) -> None:
        self.stopped += 1
        self._running = dict.fromkeys(self._running, 143)

    def kill(self) -> None:
        self.killed += 1
        self._running.clear()


@dataclass
class Study:
    """How the study stands."""

    done: int = 0
    is_met: bool = False
    halted: str | None = None


def supervise(engine: Scripted, study: Look | None = None) -> Supervisor:
    supervisor = Supervisor(engine, study or Study(), lambda: False)
    supervisor.run(slots(len(engine.codes), [], None, 1))
    return supervisor


def test_a_worker_that_hangs_when_all_trials_are_there_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Scripted({"1": [0], "2": [RUNS]})
    supervisor = Supervisor(engine, Study(is_met=True), lambda: False, linger=0.5)
    supervisor.run(slots(2, [], None, 1))
    assert (engine.stopped, engine.killed) == (1, 1)
    assert supervisor.given_up == []
    assert "workers that have not left: 1" in caplog.text


def test_it_returns_when_every_worker_has_left() -> None:
    engine = Scripted({"1": [0], "2": [0]})
    assert supervise(engine).given_up == []
    assert engine.started == ["1", "2"]


@pytest.mark.parametrize("code", [-9, -11, 1, 137, 143])
def test_a_worker_that_dies_is_replaced(code: int, caplog: pytest.LogCaptureFixture) -> None:
    engine = Scripted({"1": [code, 0], "2": [0]})
    assert supervise(engine).given_up == []
    assert engine.started == ["1", "2", "1"]
    assert "worker 1 ended" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_one_that_dies_again_and_again_is_given_up_and_the_others_go_on() -> None:
    dies: list[int | None] = [-9] * MOST_DEATHS
    engine = Scripted({"1": dies, "2": [1, 1, 0]})
    [last] = supervise(engine).given_up
    assert (last.slot.name, last.how, last.words) == ("1", "by SIGKILL", "hpo: -9 it is")
    assert engine.started.count("1") == MOST_DEATHS
    assert engine.codes["2"] == []


def test_a_trial_that_finished_meanwhile_pays_for_a_death() -> None:
    class Progress:
        """A study with one more finished trial at every death."""

        is_met = False
        halted = None

        @property
        def done(self) -> int:
            return len(engine.started)

    codes: list[int | None] = [*[1] * (MOST_DEATHS + 2), 0]
    engine = Scripted({"1": codes})
    assert supervise(engine, Progress()).given_up == []
    assert engine.codes["1"] == []


def test_nobody_is_replaced_once_the_study_has_all_its_trials() -> None:
    engine = Scripted({"1": [-9], "2": [2]})
    supervise(engine, Study(is_met=True))
    assert engine.started == ["1", "2"]


@pytest.mark.parametrize(("code", "kind"), [(2, UsageError), (69, StorageError), (74, FileError)])
def test_what_cannot_be_done_is_not_tried_again(code: int, kind: type[HpoError]) -> None:
    engine = Scripted({"1": [code], "2": [RUNS]})
    with pytest.raises(kind, match=f"^{code} it is$"):
        supervise(engine)
    assert engine.started == ["1", "2"]
    assert engine.stopped == 1
    assert engine.running() == 0


def test_a_study_of_which_too_much_fails_ends_the_search_for_all() -> None:
    engine = Scripted({"1": [1], "2": [RUNS]})
    with pytest.raises(TrainingError, match="most of it fails"):
        supervise(engine, Study(halted="most of it fails"))
    assert engine.started == ["1", "2"]
    assert engine.stopped == 1
    assert engine.running() == 0


def test_all_are_stopped_once_and_none_is_replaced_when_asked() -> None:
    engine = Scripted({"1": [RUNS], "2": [-9, RUNS]})
    asked = iter([False, False, True])
    supervisor = Supervisor(engine, Study(), lambda: next(asked))
    supervisor.run(slots(2, [], None, 1))
    assert engine.started == ["1", "2"]
    assert engine.stopped == 1
    assert engine.running() == 0


def test_what_fails_here_leaves_no_worker_behind() -> None:
    def fail() -> None:
        raise RuntimeError

    engine = Scripted({"1": [RUNS]})
    with pytest.raises(RuntimeError):
        Supervisor(engine, Study(), lambda: False, fail).run(slots(1, [], None, 1))
    assert engine.killed == 1
