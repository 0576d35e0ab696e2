"""Finalists: the best trials of a study, scored again with fresh seeds to name a winner.

The best of many noisy values flatters, so the value that a trial won its place with says little;
the mean over seeds that the search never saw does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import itemgetter
from statistics import median
from typing import Any

from optuna.trial import FrozenTrial

from hpo import space
from hpo.config import TrialConfig
from hpo.definition import StudyDefinition
from hpo.definition.metrics import DIRECTIONS
from hpo.errors import TrainingError
from hpo.search import records
from hpo.training.fit import Ending, fit
from hpo.training.footprint import limits, member_bytes
from hpo.training.history import EpochRecord, History
from hpo.training.mishaps import Mishap
from hpo.training.population import Member, Population
from hpo.training.streams import derive_seed
from hpo.training.task import Split

__all__ = ["Finalist", "choose", "more_trials", "score_again", "which_seeds"]

_log = logging.getLogger(__name__)

_MOST_SEEDS = 3  # tell finalists apart well enough; the retrain's seeds then say how good it is
_RESCORING = 4  # tells these seeds and streams from all others of a study


@dataclass(frozen=True)
class Finalist:
    """A trial that is scored again.

    Attributes:
        number: of the trial.
        config: what it drew.
        curve: its learning curve in the search.
        values: the metric at each fresh seed's best epoch.
        best_epochs: these epochs.
    """

    number: int
    config: TrialConfig
    params: dict[str, object]
    curve: Sequence[Mapping[str, Any]] = ()
    values: tuple[float, ...] = ()
    best_epochs: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Of the values."""
        return sum(self.values) / len(self.values)

    @property
    def epochs(self) -> int:
        """How long the config should train: the median of the best epochs."""
        return max(1, round(median(self.best_epochs)))


def choose(
    trials: Sequence[FrozenTrial], definition: StudyDefinition, storage: str = ""
) -> list[Finalist]:
    """The best trials that trained to their end, best first, each config once.

    Args:
        storage: what a command has to be told of the database, with a space in front.

    Raises:
        TrainingError: no trial did.
    """
    maximize = DIRECTIONS[definition.search.metric] == "maximize"
    complete = [
        record
        for trial in trials
        if not records.is_twin(trial)
        and (record := records.read(trial, maximize=maximize)).state == "complete"
    ]
    complete.sort(key=lambda record: record.value or 0.0, reverse=maximize)
    # Of equal draws that trained side by side neither is the other's twin.
    chosen: dict[TrialConfig, Finalist] = {}
    for record in complete:
        if record.config is not None and record.config not in chosen:
            chosen[record.config] = Finalist(
                record.number, record.config, record.params, record.curve
            )
    if not chosen:
        raise TrainingError(_none_to_choose(trials, definition, storage))
    return list(chosen.values())[: definition.retrain.finalists]


def more_trials(definition: StudyDefinition, finished: int) -> int | None:
    """How many trials to ask for in total where none of the finished ones trained to its end.

    None where there are no more: each cell of a grid, and each variation, is trained once.
    """
    # A study that does not have what was asked for yet is to go on as it is.
    wanted = max(definition.search.trials, 2 * finished)
    if definition.search.sampler.name != "grid" and not definition.variations:
        return wanted
    most = space.cardinality(definition) or 0
    return min(wanted, most) if finished < most else None


def _none_to_choose(
    trials: Sequence[FrozenTrial], definition: StudyDefinition, storage: str
) -> str:
    name = definition.name
    finished = [
        trial
        for trial in trials
        if trial.state.is_finished() and records.SURPLUS not in trial.user_attrs
    ]
    more = more_trials(definition, len(finished))
    if more is None:
        each, others = "cell of the grid", "ranges"
        if definition.variations:
            each, others = "variation", "variations"
        return (
            f"every {each} of study `{name}` failed or was pruned; "
            f"start one with other {others} under another --name"
        )
    return (
        f"study `{name}` has no trial that trained to its end; "
        f"run hpo optimize --study {name} --trials {more}{storage} first"
    )


def score_again(
    finalists: Sequence[Finalist],
    definition: StudyDefinition,
    data: Split,
    stopping: Callable[[], bool],
    heard: Callable[[str], None],
) -> list[Finalist]:
    """Train every finalist with fresh seeds on the training rows and score the validation rows.

    Args:
        heard: is told, in a sentence, how it goes.

    Returns:
        The finalists with their values, best mean first.

    Raises:
        Stopped: `stopping` said so.
        TrainingError: all of them diverged, or could not be trained.
    """
    crew = _Rescoring(finalists, definition, data, heard)
    fit(crew, data.validation, stopping)
    scored = [finalist for finalist in crew.scored() if finalist.values]
    if not scored and crew.trouble is not None:
        raise TrainingError(
            f"no finalist could be trained with fresh seeds; the last one: {crew.trouble}"
        )
    if not scored:
        raise TrainingError(
            "every finalist diverged with fresh seeds; search on with other ranges"
        )
    sign = -1 if DIRECTIONS[definition.search.metric] == "maximize" else 1
    # A config that diverges with some seeds is behind all that do with fewer.
    return sorted(scored, key=lambda finalist: (-len(finalist.values), sign * finalist.mean))


def which_seeds(some: Sequence[int], count: int) -> str:
    """Seeds that follow each other, of so many in all, for a person who counts from one."""
    if len(some) == 1:
        return f"seed {some[0] + 1} of {count}"
    return f"seeds {some[0] + 1} to {some[-1] + 1} of {count}"


class _Rescoring:
    """The crew of `training.fit`: every finalist with every seed, streams for each seed.

    Attributes:
        trouble: why a finalist could not be trained; None as long as all could.
    """

    def __init__(
        self,
        finalists: Sequence[Finalist],
        definition: StudyDefinition,
        data: Split,
        heard: Callable[[str], None],
    ) -> None:
        self.trouble: str | None = None
        self._finalists = finalists
        self._data = data
        self._heard = heard
        self._memory = limits(data.task.examples.device).memory
        self._most = len(finalists) * _MOST_SEEDS  # fewer once memory was short
        self._seeds = min(definition.retrain.seeds, _MOST_SEEDS)
        self._study_seed = definition.search.seed
        self._metric = definition.search.metric
        self._waiting = [
            (place, seed) for place in range(len(finalists)) for seed in range(self._seeds)
        ]
        self._members: dict[Member, tuple[int, int]] = {}
        self._histories: dict[tuple[int, int], History] = {}

    def admit(self, running: Sequence[Member]) -> Iterable[tuple[Population, list[Member]]]:
        """One config after the other, as many seeds at a time as the memory bears."""
        if running:
            return
        task = self._data.task
        place = self._waiting[0][0] if self._waiting else 0
        config = self._finalists[place].config
        folds = len(self._data.folds)
        size = folds * member_bytes(config, task.shape, task.outputs)
        fitting = self._memory // size
        room = max(1, min(fitting, self._most))
        group = [entry for entry in self._waiting if entry[0] == place][:room]
        self._waiting = [entry for entry in self._waiting if entry not in group]
        if not group:
            return
        order_seed = derive_seed(self._study_seed, _RESCORING)
        streams = [self._data.streams(config.batch_size, order_seed, seed) for _, seed in group]
        population = Population(task, *chain.from_iterable(streams))
        members = []
        for turn, (_, seed) in enumerate(group):
            number = self._finalists[place].number
            member_seed = derive_seed(self._study_seed, _RESCORING, number, seed)
            key = place * self._seeds + seed
            member = Member(key, config, member_seed, self._metric, turn * folds, folds)
            self._members[member] = (place, seed)
            members.append(member)
        self._heard(
            f"finalist {place + 1} of {len(self._finalists)}: trial "
            f"{self._finalists[place].number}, fresh "
            f"{which_seeds([seed for _, seed in group], self._seeds)}"
        )
        yield population, members

    def report(self, member: Member, record: EpochRecord) -> None:
        """Nothing is written: the member's own history is kept."""

    def prunes(self, member: Member) -> bool:
        """No finalist is pruned."""
        del member
        return False

    def ended(self, population: Population, member: Member, ending: Ending) -> None:
        """Only its history is kept: a member of a large network holds a lot of memory."""
        del population, ending
        self._histories[self._members.pop(member)] = member.history

    def failed(self, members: Sequence[Member], mishap: Mishap) -> None:
        """Fewer at a time, or each alone; who fails alone is left out, as if it had diverged."""
        lost = [self._members.pop(member) for member in members]
        if len(lost) > 1:
            self._most = len(lost) // 2 if mishap.memory else 1
            self._waiting = sorted(lost + self._waiting)
            return
        place, seed = lost[0]
        number = self._finalists[place].number
        self.trouble = f"trial {number}: {mishap.reason}"
        _log.warning(
            "trial %d could not be trained with fresh seed %d of %d: %s",
            *(number, seed + 1, self._seeds, mishap.reason),
        )

    def rested(self, populations: Sequence[Population]) -> None:
        """Nothing is put by: what is lost is done again."""

    def left(self, populations: Sequence[Population]) -> None:
        """Nothing is put by."""

    def scored(self) -> list[Finalist]:
        """Every finalist with what its seeds came to; those that failed leave no value."""
        results = []
        for place, finalist in enumerate(self._finalists):
            bests = [
                (history.value(best), best.epoch)
                for (of, _), history in sorted(self._histories.items(), key=itemgetter(0))
                if of == place
                and (best := history.best) is not None
                and not history.records[-1].diverged
            ]
            results.append(
                replace(
                    finalist,
                    values=tuple(value for value, _ in bests),
                    best_epochs=tuple(epoch for _, epoch in bests),
                )
            )
        return results
