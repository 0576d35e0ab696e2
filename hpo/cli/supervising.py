"""`hpo optimize` with several workers: where they run, and looking after them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import TrainingError, UsageError

if TYPE_CHECKING:
    import optuna

    from hpo.cli.progress import SearchProgress
    from hpo.cli.signals import Stop
    from hpo.definition import StudyDefinition
    from hpo.engines.slots import Slot
    from hpo.search.storage import Storage

__all__ = ["Crew", "WorkerCommand", "describe", "read_crew", "run_crew"]

_log = logging.getLogger(__name__)
_MOST_WORKERS = 1024
_WARNING = "warning: "


@dataclass(frozen=True)
class Crew:
    """The workers that a command asks for.

    Attributes:
        workers: how many; None for as many as the machine bears.
        gpus: those that they share, as `CUDA_VISIBLE_DEVICES` names them; empty for none.
        per_gpu: the most on one GPU; None for as many as it takes.
    """

    workers: int | None
    gpus: list[str]
    per_gpu: int | None

    def slots(self, trials: int) -> list[Slot]:
        """Places for them.

        Args:
            trials: which are left to do.
        """
        from hpo.engines.slots import auto_workers, slots
        from hpo.training.machine import usable_cores, usable_memory

        cores = usable_cores()
        workers = self.workers or auto_workers(
            self.gpus, self.per_gpu, cores=cores, memory=usable_memory(), trials=trials
        )
        return slots(workers, self.gpus, self.per_gpu, cores)


@dataclass(frozen=True)
class WorkerCommand:
    """The command line of a worker, without the database's URL: that may hold a password."""

    study: str
    population: str
    lease: float

    def __call__(self, seconds_left: float | None) -> list[str]:
        """The words of it, for a worker that starts now."""
        # As this process was started: `python -m` looks for modules in the working folder
        # first, where a file of the user's may have the name of a library.
        safe = [] if sys.path[:1] == [str(Path.cwd())] else ["-P"]
        words = [sys.executable, *safe, "-m", "hpo", "worker", *_verbosity()]
        words += ["--study", self.study]
        words += ["--population", self.population, "--lease", f"{self.lease:g}"]
        if seconds_left is not None:
            words += ["--timeout", f"{max(seconds_left, 0.1):.1f}"]
        return words


def read_crew(
    workers: str | None, gpus: str | None, per_gpu: int | None, definition: StudyDefinition
) -> Crew | None:
    """What `--workers`, `--gpus` and `--workers-per-gpu` ask for; None for this process alone.

    Raises:
        UsageError: a value is out of bounds, or does not go with the others or the study.
    """
    if workers is None and gpus is None and per_gpu is None:
        return None
    if workers not in (None, "auto") and not _is_number(workers, _MOST_WORKERS):
        message = f"--workers: {workers} is neither auto nor a number of 1 to {_MOST_WORKERS}"
        raise UsageError(message)
    if per_gpu is not None and not 1 <= per_gpu <= _MOST_WORKERS:
        message = f"--workers-per-gpu: {per_gpu} is not a number of 1 to {_MOST_WORKERS}"
        raise UsageError(message)
    if gpus is None and per_gpu is None and workers == "1":
        return None
    chosen = _gpus(gpus, definition.training.device)
    if per_gpu is not None and not chosen:
        raise UsageError("--workers-per-gpu: no GPU is used here; leave it out, or see --gpus")
    wanted = int(workers) if workers not in (None, "auto") else None
    crew = Crew(wanted, chosen, per_gpu)
    crew.slots(definition.search.trials)  # for what it refuses
    return crew


def describe(slots: Sequence[Slot]) -> str:
    """Such as `2 on GPU 0, GPU 1, 4 threads each`."""
    threads = slots[0].threads
    gpus = list(dict.fromkeys(f"GPU {slot.gpu}" for slot in slots if slot.gpu is not None))
    on = ", ".join(gpus) or "the CPU"
    return f"{len(slots)} on {on}, {threads} {'thread' if threads == 1 else 'threads'} each"


def run_crew(
    crew: Crew,
    command: WorkerCommand,
    url: str,
    opened: Storage,
    study: optuna.Study,
    stop: Stop,
    progress: SearchProgress,
) -> bool:
    """Train the study's trials in workers of their own; returns whether its budget is met.

    Raises:
        TrainingError: the workers have died again and again, or too many trials fail.
        UsageError, StorageError, FileError: a worker has ended with such an error.
    """
    from hpo.engines.local import LocalEngine
    from hpo.engines.supervisor import Supervisor
    from hpo.engines.survey import Survey
    from hpo.search.status import read_standing

    def line() -> list[str]:
        return command(stop.seconds_left())

    def show() -> None:
        now = survey.standing
        progress.show(now.done, now.running, now.best)

    engine = LocalEngine(line, {**os.environ, "HPO_STORAGE": url}, _pass_on)
    stop.at_once = engine.kill
    with Survey(lambda: read_standing(opened, study)) as survey:
        supervisor = Supervisor(engine, survey, stop, show)
        slots = crew.slots(survey.standing.budget - survey.standing.done)
        _log.info("workers: %s", describe(slots))
        supervisor.run(slots)
    if stop():
        return False
    met = read_standing(opened, study).is_met
    if supervisor.given_up and not met:
        last = supervisor.given_up[-1]
        words = last.words.removeprefix("hpo: ") or "it said nothing"
        raise TrainingError(
            f"worker {last.slot.name} ended {last.how} again and again while no trial finished "
            f"(its last words: {words}); the same command goes on"
        )
    return met


def _gpus(asked: str | None, device: str) -> list[str]:
    from hpo.engines.slots import choose_gpus
    from hpo.training.devices import visible_gpus

    if asked is None and device == "cpu":
        return []
    visible = visible_gpus()
    chosen = visible if asked is None else choose_gpus(asked, visible)
    if chosen and device == "cpu":
        raise UsageError(
            "--gpus: the study trains on the CPU (training.device); "
            "use --gpus none, or --set training.device=auto"
        )
    if not chosen and device.startswith("cuda"):
        raise UsageError(
            f"--gpus: the study trains on {device} (training.device), and its workers have no "
            "GPU; name one, or use --set training.device=auto"
        )
    if device not in ("auto", "cpu", "cuda", "cuda:0"):
        raise UsageError(
            f"training.device: {device} is one GPU, and each worker sees only its own; "
            "use --set training.device=auto, and --gpus to choose"
        )
    return chosen


def _is_number(text: str | None, most: int) -> bool:
    return text is not None and text.isascii() and text.isdecimal() and 1 <= int(text) <= most


def _verbosity() -> list[str]:
    """The option with which a worker says as much as this process."""
    level = logging.getLogger("hpo").getEffectiveLevel()
    return {logging.DEBUG: ["--verbose"], logging.WARNING: ["--quiet"]}.get(level, [])


def _pass_on(name: str, line: str) -> None:
    """Put a worker's line into this process's log, with its name in front."""
    # Whatever a worker says that is to be quiet goes wrong, also if it is a library's word.
    quiet = not _log.isEnabledFor(logging.INFO)
    level = logging.WARNING if quiet or line.startswith(_WARNING) else logging.INFO
    _log.log(level, "worker %s: %s", name, line.removeprefix(_WARNING))
