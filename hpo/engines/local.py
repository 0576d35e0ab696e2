"""Workers as processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from hpo.engines.base import Ended
from hpo.engines.slots import PARENT, Slot

__all__ = ["LocalEngine"]

_LONGEST_LINE = 16_384  # bytes; a longer one comes in pieces


class LocalEngine:
    """Starts workers as processes of their own, and passes on what they say.

    Each is in a session of its own, so that Ctrl-C in the terminal reaches only this process,
    which tells its workers. A worker is told this process's id and leaves when it dies.

    Args:
        command: gives the command line of a worker that starts now.
        environment: of the workers, before `Slot.environment`; secrets belong here.
        say: is given a worker's name and a line of its stderr or stdout, from other threads.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        environment: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> None:
        self._command = command
        self._environment = {**environment, PARENT: str(os.getpid())}
        self._say = say
        self._workers: dict[Slot, _Worker] = {}

    def start(self, slots: Sequence[Slot]) -> None:
        """Start a worker in each slot."""
        for slot in slots:
            process = subprocess.Popen(
                self._command(),
                env=slot.environment(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._workers[slot] = _Worker(slot, process, self._say)

    def poll(self) -> list[Ended]:
        """The workers that have ended since the last call."""
        ended = [worker for worker in self._workers.values() if worker.has_ended()]
        for worker in ended:
            del self._workers[worker.slot]
        return [worker.ending() for worker in ended]

    def running(self) -> int:
        """How many have not ended."""
        return len(self._workers)

    def stop(self) -> None:
        """Send every worker one SIGTERM."""
        for worker in list(self._workers.values()):
            worker.process.terminate()

    def kill(self) -> None:
        """Send every worker, and whatever it has started, SIGKILL."""
        for worker in list(self._workers.values()):
            worker.kill()


class _Worker:
    """A process, and the thread that reads what it says."""

    def __init__(
        self, slot: Slot, process: subprocess.Popen[bytes], say: Callable[[str, str], None]
    ) -> None:
        self.slot = slot
        self.process = process
        self._words = ""
        self._say = say
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def ending(self) -> Ended:
        # What it said last is still in the pipe; a process that it left behind may hold that open.
        self._reader.join(timeout=1.0)
        return Ended(self.slot, self.process.returncode, self._words)

    def kill(self) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while line := pipe.readline(_LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._words = text
                    self._say(self.slot.name, text)
