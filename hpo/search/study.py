"""Studies and trials in Optuna's words: create, resume, sample, prune, take over.

How a trial is bound to its slot: the trial is created with the slot's id as a user attribute, in
one transaction, and only then written into the slot. A worker that dies between the two leaves a
trial that says which slot it belongs to, and the slot's next holder goes on with it.

How draws are seeded: every trial has a fresh sampler, seeded by the study's seed and the trial's
number. So a draw depends on these and on the history alone, not on which process makes it or on
how many draws that process made before; a resumed search draws what an unbroken one would have.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import optuna
import sqlalchemy as sa
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo import space
from hpo.definition import StudyDefinition, valid_name
from hpo.definition.metrics import DIRECTIONS
from hpo.definition.problems import nearest
from hpo.definition.schema import AshaSettings, MedianSettings, TpeSettings
from hpo.errors import UsageError
from hpo.search import records
from hpo.search.asha import AshaPruner
from hpo.search.history import history_of, last_history_of
from hpo.search.ledger import Slot, SlotRow
from hpo.search.records import SURPLUS
from hpo.search.storage import Storage

__all__ = [
    "DEFINITION",
    "SLOT",
    "as_asked",
    "build_pruner",
    "build_sampler",
    "check_exists",
    "create_or_resume",
    "direction",
    "exists",
    "find_finished_twin",
    "find_trial_of_slot",
    "is_judged",
    "load",
    "names",
    "resume_trial",
    "retire",
    "start_trial",
    "startup_trials",
    "surplus_trials",
    "trial_seed",
]

DEFINITION = "hpo:definition"
"""The study's user attribute that holds its definition as JSON."""

SLOT = "hpo:slot"
"""The trial's user attribute that holds the id of its slot."""

SamplerOf = Callable[[int], BaseSampler]
"""From a trial's number to the sampler that draws it, such as
`lambda number: build_sampler(definition, trial_seed(definition.search.seed, number))`."""

_ASKED = "hpo:asked-trials"
_MOST_DIFFERENCES = 8
_studies = models.StudyModel


def create_or_resume(
    storage: Storage, definition: StudyDefinition, name: str, *, asked: bool = False
) -> optuna.Study:
    """The study `name`, created if it does not exist; safe for several processes at once.

    A study can be resumed with other `search.trials`, sampler, pruner, device or retrain
    settings; those are stored in place of the old ones.

    Args:
        asked: whether a command asks for this `search.trials`. If not, a larger number that a
            command has asked for before takes its place.

    Raises:
        UsageError: the stored study differs in something that its trials depend on.
    """
    valid_name(name)
    with storage.guard(), storage.alone():
        try:
            study = optuna.create_study(
                storage=storage.optuna, study_name=name, direction=direction(definition)
            )
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=name, storage=storage.optuna)
            _check_same(study, definition, storage)
            definition = definition if asked else as_asked(study, definition)
        if asked and study.user_attrs.get(_ASKED) != definition.search.trials:
            study.set_user_attr(_ASKED, definition.search.trials)
        text = definition.to_json()
        if study.user_attrs.get(DEFINITION) != text:
            study.set_user_attr(DEFINITION, text)
        study.pruner = build_pruner(definition)
    return study


def as_asked(study: optuna.Study, definition: StudyDefinition) -> StudyDefinition:
    """The definition, with as many trials as a command has asked for, if those are more."""
    trials = max(definition.search.trials, study.user_attrs.get(_ASKED, 0))
    search = definition.search.model_copy(update={"trials": trials})
    return definition.model_copy(update={"search": search})


def load(storage: Storage, name: str) -> tuple[optuna.Study, StudyDefinition]:
    """A stored study and its definition.

    Raises:
        UsageError: there is none of this name, or it is not hpo's.
    """
    with storage.guard():
        try:
            study = optuna.load_study(study_name=name, storage=storage.optuna)
        except KeyError:
            study = None
        if study is None:
            raise UsageError(_no_such_study(storage, name))
        text = study.user_attrs.get(DEFINITION)
    if text is None:
        raise UsageError(f"{storage.address.shown}: study `{name}` was not made by hpo")
    definition = StudyDefinition.from_json(text)
    study.pruner = build_pruner(definition)
    return study, definition


def names(storage: Storage) -> list[str]:
    """The studies that the database holds, oldest first."""
    with storage.guard():
        return optuna.get_all_study_names(storage.optuna)


def exists(storage: Storage, study_id: int, name: str) -> bool:
    """Whether the database still has the study; SQLite uses the number of a deleted one again."""
    query = sa.select(_studies.study_id).where(
        _studies.study_id == study_id, _studies.study_name == name
    )
    return bool(storage.rows(query))


def check_exists(storage: Storage, study_id: int, name: str) -> None:
    """Refuse to go on with a study that was deleted.

    Raises:
        UsageError: it was.
    """
    if not exists(storage, study_id, name):
        raise UsageError(f"{storage.address.shown}: study `{name}` was deleted meanwhile")


def direction(definition: StudyDefinition) -> Literal["maximize", "minimize"]:
    """Which way is better, as the metric has it."""
    return DIRECTIONS[definition.search.metric]


def trial_seed(seed: int, number: int) -> int:
    """The seed of a trial's draw: 32 bits out of NumPy's SeedSequence over seed and number.

    Neighbouring seeds and numbers give unrelated streams, which `seed + number` would not.
    """
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def build_sampler(
    definition: StudyDefinition, seed: int, fixed: Mapping[str, Any] | None = None
) -> BaseSampler:
    """The definition's sampler.

    TPE models the parameters of a condition jointly: Optuna's default models only what every
    trial has, and draws the rest one by one. CMA-ES is not offered: it unpickles what the
    database holds.

    Args:
        seed: of this sampler's draws, see `trial_seed`.
        fixed: parameters that are not drawn, such as the batch size of a stream.
    """
    from hpo.search.tpe import WindowedTpe  # with SciPy, which those who only look do not need

    settings = definition.search.sampler.settings
    sampler: BaseSampler
    if isinstance(settings, TpeSettings):
        sampler = WindowedTpe(seed=seed, startup_trials=settings.startup_trials)
    else:
        sampler = RandomSampler(seed=seed)
    if not fixed:
        return sampler
    with warnings.catch_warnings():
        # It is used on purpose and tested; any other warning goes through.
        warnings.filterwarnings(
            "ignore", "PartialFixedSampler is experimental", ExperimentalWarning
        )
        return PartialFixedSampler(dict(fixed), sampler)


def startup_trials(definition: StudyDefinition) -> int:
    """How many of a study's first trials are drawn at random, before the sampler has learnt."""
    settings = definition.search.sampler.settings
    return settings.startup_trials if isinstance(settings, TpeSettings) else 0


def build_pruner(definition: StudyDefinition) -> BasePruner:
    """The definition's pruner; a report's step is the number of epochs that are done, from 1."""
    settings = definition.search.pruner.settings
    if isinstance(settings, AshaSettings):
        return AshaPruner(settings.min_epochs, settings.reduction, definition.training.epochs)
    if isinstance(settings, MedianSettings):
        # Optuna spares the steps below its number, and the first epoch is step 1.
        return MedianPruner(
            n_startup_trials=settings.startup_trials, n_warmup_steps=settings.warmup_epochs + 1
        )
    return NopPruner()


def is_judged(study: optuna.Study, epoch: int) -> bool:
    """Whether the study's pruner may end a trial after an epoch; to ask it costs several reads."""
    pruner = study.pruner
    if isinstance(pruner, NopPruner):
        return False
    return not isinstance(pruner, AshaPruner) or pruner.judges(epoch)


def start_trial(study: optuna.Study, slot_id: int, sampler: SamplerOf) -> optuna.Trial:
    """Create the trial of a slot; the slot's id is in it from its first moment.

    Nothing is drawn yet: that happens at the first `suggest_*`, with the history of then.
    """
    template = create_trial(state=TrialState.RUNNING, user_attrs={SLOT: slot_id})
    trial_id = study._storage.create_new_trial(study._study_id, template_trial=template)
    return _open(study, trial_id, sampler)


def resume_trial(study: optuna.Study, trial_id: int, sampler: SamplerOf) -> optuna.Trial:
    """Open a RUNNING trial that another process started, to go on with it as itself.

    What was drawn stays; a worker that died while drawing leaves the rest to be drawn now.
    """
    # Optuna's cache refuses to write parameters of a trial that it never read (KeyError).
    study.get_trials(deepcopy=False)
    return _open(study, trial_id, sampler)


def find_trial_of_slot(study: optuna.Study, slot: Slot | int) -> FrozenTrial | None:
    """The trial that belongs to a claimed slot, in whatever state; None if it has none yet.

    It may have finished already: then its last holder died just before the slot was marked
    done, and the slot only needs that.
    """
    if isinstance(slot, Slot) and slot.trial_id is not None:
        return study._storage.get_trial(slot.trial_id)
    slot_id = slot.id if isinstance(slot, Slot) else slot
    history = history_of(study)
    found = [trial for trial in history.unfinished if _slot_of(trial) == slot_id]
    finished = history.index(_SlotsOfFinished).first.get(slot_id)
    return min((*found, *filter(None, [finished])), key=lambda t: t.number, default=None)


def find_finished_twin(
    study: optuna.Study, params: Mapping[str, Any], number: int
) -> FrozenTrial | None:
    """The first complete or pruned trial with exactly these parameters that was trained itself.

    Args:
        number: of the trial that has just drawn them. A history that was read for its draw has it
            in it and will do; not every sampler reads one.
    """
    history = last_history_of(study)
    if number >= len(history.trials):
        history = history_of(study)
    return history.index(_Trained).first.get(frozenset(params.items()))


def surplus_trials(study: optuna.Study, slots: Iterable[SlotRow]) -> list[FrozenTrial]:
    """RUNNING trials that no slot knows and none will: to be retired.

    One is left by a worker that froze for longer than its lease between claiming a slot and
    creating the trial, and was replaced meanwhile.
    """
    rows = {row.id: row for row in slots}
    surplus = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        slot_id = trial.user_attrs.get(SLOT)
        if not isinstance(slot_id, int):
            continue  # whoever asked Optuna for it trains it; hpo's own have one from the start
        row = rows.get(slot_id)
        if row is None or row.trial_id not in (None, trial._trial_id):
            surplus.append(trial)
    return surplus


def retire(study: optuna.Study, trial_id: int, reason: str) -> None:
    """End a trial that is surplus; it fails, and no result counts it."""
    study._storage.set_trial_user_attr(trial_id, SURPLUS, reason)
    study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


class _SlotsOfFinished:
    """The first finished trial of each slot; one that is surplus belongs to none."""

    def __init__(self) -> None:
        self.first: dict[Any, FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        slot_id = _slot_of(trial)  # None for all that have none: nobody asks for that
        if trial.number < self.first.setdefault(slot_id, trial).number:
            self.first[slot_id] = trial


class _Trained:
    """The first trial of each set of parameters; failed ones are worth another try."""

    def __init__(self) -> None:
        self.first: dict[frozenset[tuple[str, Any]], FrozenTrial] = {}

    def add(self, trial: FrozenTrial) -> None:
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and not records.is_twin(trial):
            key = frozenset(trial.params.items())
            if trial.number < self.first.setdefault(key, trial).number:
                self.first[key] = trial


def _slot_of(trial: FrozenTrial) -> Any:
    return None if SURPLUS in trial.user_attrs else trial.user_attrs.get(SLOT)


def _open(study: optuna.Study, trial_id: int, sampler: SamplerOf) -> optuna.Trial:
    # A trial draws lazily through its study's sampler, so trials that run side by side need a
    # study object each. The copy shares the storage.
    view = copy.copy(study)
    trial = optuna.Trial(view, trial_id)
    view.sampler = sampler(trial.number)
    return trial


def _check_same(study: optuna.Study, definition: StudyDefinition, storage: Storage) -> None:
    text = study.user_attrs.get(DEFINITION)
    if text is None:
        # Its creator died before the definition was stored, unless there are trials.
        if study.direction.name.lower() == direction(definition) and not study.get_trials(
            deepcopy=False
        ):
            return
        raise UsageError(
            f"{storage.address.shown}: study `{study.study_name}` was not made by hpo; "
            "start a new one with --name"
        )
    found = space.differences(StudyDefinition.from_json(text), definition)
    if not found:
        return
    listed = "; ".join(found[:_MOST_DIFFERENCES])
    more = len(found) - _MOST_DIFFERENCES
    listed += f"; and {more} more" if more > 0 else ""
    raise UsageError(
        f"{storage.address.shown}: study `{study.study_name}` was started with another "
        f"definition ({listed}); go back to that one, or start a new study with --name"
    )


def _no_such_study(storage: Storage, name: str) -> str:
    known = optuna.get_all_study_names(storage.optuna)
    if not known:
        return f"{storage.address.shown}: there is no study yet; hpo optimize starts one"
    near = nearest(name, known)
    hint = f"did you mean `{near}`? " if near else ""
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return f"{storage.address.shown}: there is no study `{name[:100]}`; {hint}it holds {listed}"
