"""Workers as processes on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from hpo.engines.base import Engine
from hpo.engines.local import LocalEngine
from hpo.engines.slots import PARENT, slots
from tests.engines.conformance import EngineTestCase
from tests.watching import until


class TestLocalEngine(EngineTestCase):
    def make(
        self,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> Engine:
        return LocalEngine(command, environment, say)

    def test_a_worker_knows_who_looks_after_it_and_hears_no_ctrl_c(self) -> None:
        code = (
            f"import os; print(os.environ[{PARENT!r}], os.getppid(), os.getsid(0) == os.getpid())"
        )
        engine = self.python(code)
        engine.start(slots(1, [], None, 1))
        self.ended(engine, 1)
        assert self.said == [("1", f"{os.getpid()} {os.getpid()} True")]

    def test_whatever_a_worker_has_started_is_killed_with_it(self) -> None:
        code = (
            "import subprocess, sys; "
            "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
            "print(child.pid, flush=True); child.wait()"
        )
        engine = self.engine(sys.executable, "-c", code)
        engine.start(slots(1, [], None, 1))
        until(lambda: bool(self.said))
        engine.kill()
        self.ended(engine, 1)
        grandchild = int(self.said[0][1])
        until(lambda: not exists(grandchild))


def exists(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 (it vanishes at any moment)
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
