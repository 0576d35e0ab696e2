"""The cost of a trial besides its training: ask to tell with ten reports, hpo and stock Optuna.

Three do the same work in turn, each on a database of its own that holds the same trials:

- `optuna`: `create_study(storage=url)` with every default: TPE, which models jointly what all
  trials have and the rest one by one, and the median pruner.
- `optuna, grouped`: the same with `TPESampler(multivariate=True, group=True)`, which models
  conditional parameters jointly as hpo does, and `SuccessiveHalvingPruner`, the like of ASHA.
- `hpo`: what a worker does, through `SearchCrew`: claim a slot, create the trial, bind it, draw,
  look for a twin, note its origin, report, ask the pruner, note the outcome, tell, finish.

A pruner's answer is asked for and ignored, so that every trial makes ten reports. SQLite and
PostgreSQL write to the same disk. `--sizes 100,1000` and `--databases sqlite` do less.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pytest
import sqlalchemy as sa
import torch
from optuna.storages import RDBStorage

from benchmarks import histories
from benchmarks.silence import Silent
from benchmarks.spread import median_and_range, ratios
from hpo import space
from hpo.data.rows import LabelledRows
from hpo.data.tensors import ImageTensors
from hpo.definition import StudyDefinition, load_definition
from hpo.holder import holder_name
from hpo.search import study as studies
from hpo.search.storage import Storage, open_storage
from hpo.search.worker import WorkerOptions, build_crew
from hpo.training.fit import Ending
from hpo.training.history import EpochRecord
from hpo.training.task import Fold, Split, Task

_SIZES = (100, 1_000, 5_000, 10_000)
_WARM_UP = 2
_TRIALS = 10
_ROUNDS = 3
_ROWS = 1_000


@dataclass
class Contestant:
    """One way of running a trial, on a study of its own.

    Attributes:
        fill: adds finished trials, from this number on.
        run: a trial from ask to tell.
    """

    name: str
    fill: Callable[[int, list[histories.PastTrial]], None]
    run: Callable[[], None]
    size: int = 0


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks control_plane")
    parser.add_argument("--sizes", default=",".join(map(str, _SIZES)))
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--trials", type=int, default=_TRIALS)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--only", default="", help="contestants whose name begins so")
    options = parser.parse_args(arguments)
    definition = load_definition(Path("studies/fashion_mnist.yaml"))
    print(
        "| database | trials in the study | optuna, ms | optuna, grouped, ms | hpo, ms "
        "| optuna / hpo (min to max) | grouped / hpo (min to max) |"
    )
    print("|---|---|---|---|---|---|---|")
    for database in options.databases.split(","):
        with _contestants(database, definition) as contestants:
            chosen = [one for one in contestants if one.name.startswith(options.only)]
            for size in map(int, options.sizes.split(",")):
                _print(database, size, _measure(definition, chosen, size, options))
    print(
        f"\nMedian of n = {options.rounds * options.trials} trials in {options.rounds} rounds; "
        "in brackets the least and the largest median of a round, or ratio of two. "
        f"{_WARM_UP} trials before each round are not counted."
    )


def _measure(
    definition: StudyDefinition,
    contestants: list[Contestant],
    size: int,
    options: argparse.Namespace,
) -> dict[str, list[list[float]]]:
    """Milliseconds a trial, by contestant and round."""
    for one in contestants:
        one.fill(one.size, histories.past_trials(definition, one.size, size))
        one.size = size
    found: dict[str, list[list[float]]] = {one.name: [] for one in contestants}
    for _ in range(options.rounds):
        for one in contestants:
            for _ in range(_WARM_UP):
                one.run()
            found[one.name].append([_milliseconds(one.run) for _ in range(options.trials)])
            one.size += _WARM_UP + options.trials
    return found


def _milliseconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def _print(database: str, size: int, found: dict[str, list[list[float]]]) -> None:
    medians = {name: [statistics.median(one) for one in rounds] for name, rounds in found.items()}
    cells = [database, f"{size:,}"]
    for name in ("optuna", "optuna, grouped", "hpo"):
        if name not in found:
            cells.append("")
            continue
        middle = statistics.median([value for one in found[name] for value in one])
        cells.append(f"{middle:.0f} ({min(medians[name]):.0f} to {max(medians[name]):.0f})")
    for name in ("optuna", "optuna, grouped"):
        if name not in found or "hpo" not in found:
            continue
        cells.append(median_and_range(ratios(medians[name], medians["hpo"]), digits=1))
    print(f"| {' | '.join(cells)} |", flush=True)


@contextlib.contextmanager
def _contestants(database: str, definition: StudyDefinition) -> Iterator[list[Contestant]]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as environment:
        state = stack.enter_context(tempfile.TemporaryDirectory(prefix="hpo-state-"))
        environment.setenv("HPO_STATE", state)
        url = stack.enter_context(_sqlite() if database == "sqlite" else _postgres())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            grouped = optuna.samplers.TPESampler(multivariate=True, group=True)
        halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        storage = stack.enter_context(open_storage(url("hpo")))
        yield [
            _stock("optuna", url("stock"), definition, None, None),
            _stock("optuna, grouped", url("grouped"), definition, grouped, halving),
            _hpo(storage, definition),
        ]


def _stock(
    name: str,
    url: str,
    definition: StudyDefinition,
    sampler: optuna.samplers.BaseSampler | None,
    pruner: optuna.pruners.BasePruner | None,
) -> Contestant:
    study = optuna.create_study(
        storage=sa.make_url(url).set(drivername=_driver(url)).render_as_string(False),
        study_name="stock",
        direction="maximize",
        sampler=sampler,
        pruner=pruner,
    )
    backend = study._storage._backend  # type: ignore[attr-defined]
    assert isinstance(backend, RDBStorage)

    def run() -> None:
        trial = study.ask()
        values = histories.curve_of(space.draw(definition, trial))
        for epoch, value in enumerate(values, start=1):
            trial.report(value, epoch)
            trial.should_prune()
        study.tell(trial, values[-1])

    def fill(first: int, trials: list[histories.PastTrial]) -> None:
        histories.write(backend.engine, study._study_id, first, trials, of_hpo=False)

    return Contestant(name, fill, run)


def _hpo(storage: Storage, definition: StudyDefinition) -> Contestant:
    study = studies.create_or_resume(storage, definition, "ours")
    study_id, holder = study._study_id, holder_name()
    crew = build_crew(
        *(storage, study, definition, _data(), WorkerOptions(1, 600.0), holder),
        watcher=Silent(),
        lost=frozenset,
        stopping=lambda: False,
    )

    def run() -> None:
        [(population, [member])] = crew.admit([])
        values = histories.curve_of(member.config)
        for epoch, value in enumerate(values, start=1):
            record = EpochRecord(epoch, 0.5, 0.5, {"accuracy": value}, 1.0)
            member.history.add(record)
            crew.report(member, record)
            crew.prunes(member)
        crew.ended(population, member, Ending.FINISHED)

    def fill(first: int, trials: list[histories.PastTrial]) -> None:
        # Slots of trials that are done first, then some for those that will be measured.
        last = first + len(trials)
        with storage.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM hpo_slots WHERE NOT done"))
        histories.write_slots(storage.engine, study_id, first, last)
        histories.write(storage.engine, study_id, first, trials, of_hpo=True)
        storage.ledger.set_budget(study_id, last + 1_000)

    return Contestant("hpo", fill, run)


def _data() -> Split:
    """Rows that nobody trains on; a worker asks for their shape only."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (_ROWS, 28, 28), dtype=np.uint8)
    examples = ImageTensors(LabelledRows(images, rng.integers(0, 10, _ROWS)), torch.device("cpu"))
    rows = torch.arange(_ROWS)
    normalization = examples.normalization(rows)
    return Split(Task(examples, 10, normalization), (Fold(rows, rows, normalization),))


def _driver(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"


@contextlib.contextmanager
def _sqlite() -> Iterator[Callable[[str], str]]:
    with tempfile.TemporaryDirectory(prefix="hpo-control-plane-") as folder:
        yield lambda name: f"sqlite:///{folder}/{name}.db"


@contextlib.contextmanager
def _postgres() -> Iterator[Callable[[str], str]]:
    """A server of the benchmark's own, as the tests start it."""
    from tests import databases

    server_of = databases.postgres_server.__wrapped__  # type: ignore[attr-defined]
    serving = contextlib.contextmanager(server_of)()
    with serving as server:
        engine = sa.create_engine(
            sa.make_url(server.url()).set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )

        def create(name: str) -> str:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            return str(server.url(name))

        yield create
