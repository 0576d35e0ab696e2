"""What every engine must do, tried with real processes; each engine's tests inherit it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from hpo.definition import load_definition
from hpo.engines.base import Ended, Engine
from hpo.engines.slots import slots
from hpo.engines.supervisor import Supervisor
from hpo.engines.survey import Survey
from hpo.search.status import read_standing, read_status, read_trials
from hpo.search.storage import Storage, open_storage
from hpo.search.study import create_or_resume
from tests.commands import SLOWLY, environment
from tests.watching import in_folder, until, write_slow_study

WORKER = [*SLOWLY, "0.2", "worker", "--study", "slow", "--population", "2"]


class EngineTestCase:
    """Inherit, and say how the engine is made."""

    def make(
        self,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> Engine:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _study(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(write_slow_study(tmp_path))
        monkeypatch.setenv("HPO_STATE", str(tmp_path / "state"))
        self.study = in_folder(tmp_path)
        self.url = f"sqlite:///{tmp_path}/hpo.db"
        self.said: list[tuple[str, str]] = []

    def submit(self, opened: Storage, trials: int) -> Survey:
        definition = load_definition(Path("studies/slow.yaml"))
        study = create_or_resume(opened, definition, "slow")
        opened.ledger.set_budget(study._study_id, trials)
        return Survey(lambda: read_standing(opened, study))

    def engine(self, *command: str) -> Engine:
        def say(name: str, line: str) -> None:
            self.said.append((name, line))

        found = environment(HPO_STORAGE=self.url)
        return self.make(lambda: command or WORKER, found, say)

    def python(self, code: str) -> Engine:
        return self.engine(sys.executable, "-c", code)

    # Workers of a study

    def test_the_budget_is_exact_although_workers_are_killed(self) -> None:
        """F1: no trial is lost, none counts twice, and nothing stays behind."""
        engine, killed = self.engine(), set[int]()
        with open_storage(self.url) as opened, self.submit(opened, 10) as survey:

            def kill_one() -> None:
                victims = self.study.pids() - killed
                if victims and len(killed) < 3 and self.study.finished() >= 2 * len(killed):
                    victim = min(victims)
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)

            supervisor = Supervisor(engine, survey, lambda: False, kill_one)
            supervisor.run(slots(2, [], None, 2))
            assert supervisor.given_up == []
            status = read_status(opened, "slow")
            trials, _ = read_trials(opened, "slow")
        assert len(killed) == 3
        assert status.budget == status.finished == status.complete == 10
        assert status.running == status.waiting == 0
        assert [trial.number for trial in trials] == list(range(10))
        assert engine.running() == 0
        until(lambda: not any(alive(pid) for pid in killed))

    def test_workers_that_are_stopped_hand_back_what_they_hold(self) -> None:
        engine = self.engine()
        with open_storage(self.url) as opened, self.submit(opened, 10) as survey:
            stop = [False]

            def watch() -> None:
                stop[0] = self.study.is_training() and len(self.study.pids()) == 2

            Supervisor(engine, survey, lambda: stop[0], watch).run(slots(2, [], None, 2))
            status = read_status(opened, "slow")
        assert status.running == 0
        assert status.waiting > 0
        assert self.study.pids() == set()

    # Any process

    def test_a_worker_that_ended_says_how_once(self) -> None:
        engine = self.python("import sys; print('first'); print(' last words '); sys.exit(3)")
        [slot] = slots(1, [], None, 1)
        engine.start([slot])
        assert engine.running() == 1
        assert self.ended(engine, 1) == [Ended(slot, 3, " last words")]
        assert engine.poll() == []
        assert engine.running() == 0
        assert self.said == [("1", "first"), ("1", " last words")]

    def test_a_slot_is_filled_again(self) -> None:
        engine = self.python("import sys; sys.exit(0)")
        [slot] = slots(1, [], None, 1)
        for _ in range(2):
            engine.start([slot])
            assert self.ended(engine, 1) == [Ended(slot, 0, "")]

    def test_each_worker_has_the_environment_of_its_slot(self) -> None:
        names = ("HPO_WORKER_NAME", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HPO_STORAGE")
        code = f"import os; print(*[repr(os.environ[n]) for n in {names}])"
        engine = self.python(code)
        engine.start([*slots(2, ["5", "MIG-3f1e"], None, 4)])
        self.ended(engine, 2)
        assert sorted(self.said) == [
            ("1", f"'1' '5' {self.threads(2)!r} {self.url!r}"),
            ("2", f"'2' 'MIG-3f1e' {self.threads(2)!r} {self.url!r}"),
        ]

    def threads(self, share: int) -> str:
        inherited = os.environ.get("OMP_NUM_THREADS", "")
        return str(min(share, int(inherited))) if inherited else str(share)

    def test_a_worker_that_does_not_listen_is_killed(self) -> None:
        code = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
            "print('here', flush=True); time.sleep(600)"
        )
        engine = self.python(code)
        engine.start(slots(2, [], None, 1))
        until(lambda: len(self.said) == 2)
        engine.stop()
        time.sleep(0.3)
        assert engine.poll() == []
        engine.kill()
        assert {ended.how for ended in self.ended(engine, 2)} == {"by SIGKILL"}

    def test_what_a_worker_says_is_passed_on_whatever_it_is(self) -> None:
        code = (
            "import sys; sys.stdout.buffer.write(b'\\xff\\n\\n' + b'x' * 100_000 + b'\\nend'); "
            "sys.stderr.write('!')"
        )
        engine = self.python(code)
        engine.start(slots(1, [], None, 1))
        self.ended(engine, 1)
        lines = [line for _, line in self.said]
        assert "\ufffd" in lines[0] + lines[1]
        assert "".join(lines).count("x") == 100_000
        assert "end" in lines[-1]

    def ended(self, engine: Engine, count: int) -> list[Ended]:
        found: list[Ended] = []

        def all_have() -> bool:
            found.extend(engine.poll())
            return len(found) == count

        until(all_have)
        return found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
