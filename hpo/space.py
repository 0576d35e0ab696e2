"""From ranges and conditions to one concrete config.

A parameter's name is its path, without the words `model` and the optimizer's or schedule's
section: `mlp.layers`, `mlp.width_0`, `cnn.channels_0`, `optimizer`, `adamw.lr`, `schedule`,
`cosine.warmup`, `training.batch_size`; `model` is the family, where there are several. What is not
chosen is not drawn: only the chosen family's and optimizer's ranges, only as many widths as there
are layers. A name always has the same range, so a sampler never meets
two ranges under one name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from hpo.config import (
    CnnConfig,
    MlpConfig,
    ModelConfig,
    NumpyCnnConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrialConfig,
)
from hpo.definition import Choice, FloatRange, IntRange, Range, StudyDefinition
from hpo.definition.families import FamilySection
from hpo.definition.ranges import is_range, values
from hpo.definition.sections import ChoiceOfOne, Section

__all__ = [
    "BATCH_SIZE",
    "SCHEDULE",
    "VARIATION",
    "Suggester",
    "cardinality",
    "describe",
    "differences",
    "draw",
]

BATCH_SIZE = "training.batch_size"
"""The parameter that a stream fixes for all its members."""

SCHEDULE = "schedule"
"""The parameter that names a trial's schedule, where there are several."""

VARIATION = "variation"
"""The one parameter of a study with variations: which of them a trial is, from 0."""


class Suggester(Protocol):
    """Whatever can name a value out of a range: an `optuna.Trial`, or a stand-in for one."""

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        """A whole number from `low` to `high`."""
        ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from `low` to `high`."""
        ...

    def suggest_categorical(self, name: str, choices: Sequence[bool | int | float | str]) -> Any:
        """One of `choices`."""
        ...


def draw(definition: StudyDefinition, trial: Suggester) -> TrialConfig:
    """One config out of the definition's space; suggestions come in a fixed order."""
    if definition.variations:
        places = tuple(range(len(definition.variations)))
        return draw(definition.runs[trial.suggest_categorical(VARIATION, places)], trial)
    training = definition.training
    patience, stopping_metric = _stopping(definition)
    return TrialConfig(
        model=_draw_model(definition, trial),
        optimizer=OptimizerConfig(**_draw_one_of(trial, "optimizer", definition.optimizer)),
        schedule=ScheduleConfig(**_draw_one_of(trial, SCHEDULE, definition.schedule)),
        batch_size=_draw_leaf(trial, BATCH_SIZE, training.batch_size),
        epochs=training.epochs,
        label_smoothing=_draw_leaf(trial, "training.label_smoothing", training.label_smoothing),
        patience=patience,
        stopping_metric=stopping_metric,
        gradient_reset=training.gradient_reset,
        diagnostics=training.diagnostics,
    )


def describe(definition: StudyDefinition) -> dict[str, Range]:
    """Every parameter that some trial may have, with its range, in the order of drawing."""
    if definition.variations:
        return {VARIATION: Choice(tuple(range(len(definition.variations))))}
    return {name: leaf for name, leaf in _leaves(definition) if is_range(leaf)}


def differences(old: StudyDefinition, new: StudyDefinition) -> list[str]:
    """What keeps the trials of two definitions from being compared; one sentence each.

    That is every range and every constant that a trial's value depends on, the data, the metric
    and the seed (it decides which rows are held out). How long and how cleverly is searched,
    the device, and what comes after the search may change; but not to or from a grid, which is
    visited whole or not at all.
    """
    before, after = _all_that_counts(old), _all_that_counts(new)
    sentences = []
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name, "not there"), after.get(name, "not there")
        if was != now:
            sentences.append(f"{name}: was {was}, is {now}")
    return sentences


def cardinality(definition: StudyDefinition) -> int | None:
    """How many different draws the space has; None if one of its ranges is continuous."""
    if definition.variations:
        return len(definition.variations)
    sizes = [_size(leaf) for leaf in describe(definition).values()]
    if None in sizes:
        return None
    models = sum(_count_model(option) for option in definition.model.options.values())
    optimizers = sum(_count_section(option) for option in definition.optimizer.options.values())
    schedules = sum(_count_section(option) for option in definition.schedule.options.values())
    training = definition.training
    shared = _count(training.batch_size) * _count(training.label_smoothing)
    return models * optimizers * schedules * shared


# --- drawing


def _stopping(definition: StudyDefinition) -> tuple[int | None, str | None]:
    """The patience, and the metric that it waits for; None for the study's own, named or not."""
    stopping = definition.training.early_stopping
    if stopping is None:
        return None, None
    own = stopping.metric in (None, definition.search.metric)
    return stopping.patience, None if own else stopping.metric


def _draw_model(definition: StudyDefinition, trial: Suggester) -> ModelConfig:
    name = _draw_option(trial, "model", definition.model)
    section = _family(definition.model.options[name])
    sizes = _draw_sizes(section, name, trial)
    settings = {
        key: _draw_leaf(trial, f"{name}.{key}", getattr(section, key))
        for key in _settings_of(section, repeated=len(sizes))
    }
    if section.family == MlpConfig.family:
        return MlpConfig(widths=sizes, **settings)
    if section.family == CnnConfig.family:
        return CnnConfig(channels=sizes, **settings)
    return NumpyCnnConfig(channels=sizes, **settings)


def _draw_sizes(section: FamilySection, name: str, trial: Suggester) -> tuple[int, ...]:
    """The widths of the layers, or the channels of the stages."""
    fixed = _fixed(section)
    if fixed is not None:
        return fixed
    count, each, _ = section.repeated
    number = _draw_leaf(trial, f"{name}.{count}", getattr(section, count))
    leaf = getattr(section, each)
    return tuple(_draw_leaf(trial, f"{name}.{each}_{place}", leaf) for place in range(number))


def _draw_one_of(trial: Suggester, name: str, choice: ChoiceOfOne) -> dict[str, Any]:
    """The chosen option's name and its settings, as keyword arguments."""
    chosen = _draw_option(trial, name, choice)
    section = choice.options[chosen]
    settings = {
        key: _draw_leaf(trial, f"{chosen}.{key}", getattr(section, key))
        for key in type(section).model_fields
    }
    return {"name": chosen, **settings}


def _draw_option(trial: Suggester, name: str, choice: ChoiceOfOne) -> str:
    """The option's name; a choice of one is no parameter."""
    options = tuple(choice.options)
    return options[0] if len(options) == 1 else str(trial.suggest_categorical(name, options))


def _draw_leaf(trial: Suggester, name: str, leaf: Any) -> Any:
    if isinstance(leaf, IntRange):
        return trial.suggest_int(name, leaf.low, leaf.high, step=leaf.step, log=leaf.log)
    if isinstance(leaf, FloatRange):
        return trial.suggest_float(name, leaf.low, leaf.high, step=leaf.step, log=leaf.log)
    if isinstance(leaf, Choice):
        return trial.suggest_categorical(name, leaf.choices)
    return leaf


def _settings_of(section: FamilySection, repeated: int) -> list[str]:
    """The keys besides the shape; without hidden layers some would change nothing."""
    idle = () if repeated else section.of_repeated
    return [key for key in type(section).model_fields if key not in (*section.repeated, *idle)]


def _fixed(section: FamilySection) -> tuple[int, ...] | None:
    """The sizes that a study lists in place of drawing them."""
    fixed: tuple[int, ...] | None = getattr(section, section.repeated[-1])
    return fixed


def _family(section: Section) -> FamilySection:
    assert isinstance(section, FamilySection)
    return section


# --- describing


def _leaves(definition: StudyDefinition) -> Iterator[tuple[str, Any]]:
    """Every leaf that a draw may meet, constant or range, by the parameter's name."""
    yield from _option_leaves("model", definition.model)
    yield from _option_leaves("optimizer", definition.optimizer)
    yield from _option_leaves("schedule", definition.schedule)
    yield BATCH_SIZE, definition.training.batch_size
    yield "training.label_smoothing", definition.training.label_smoothing


def _option_leaves(name: str, choice: ChoiceOfOne) -> Iterator[tuple[str, Any]]:
    options = choice.options
    yield name, Choice(tuple(options)) if len(options) > 1 else next(iter(options))
    for option, section in options.items():
        if isinstance(section, FamilySection):
            yield from _family_leaves(option, section)
        else:
            for key in type(section).model_fields:
                yield f"{option}.{key}", getattr(section, key)


def _family_leaves(name: str, section: FamilySection) -> Iterator[tuple[str, Any]]:
    count, each, key = section.repeated
    fixed = _fixed(section)
    if fixed is not None:
        yield f"{name}.{key}", fixed
        most = len(fixed)
    else:
        number = getattr(section, count)
        yield f"{name}.{count}", number
        most = max(values(number))
        leaf = getattr(section, each)
        yield from ((f"{name}.{each}_{place}", leaf) for place in range(most))
    for setting in _settings_of(section, most):
        yield f"{name}.{setting}", getattr(section, setting)


def _all_that_counts(definition: StudyDefinition) -> dict[str, str]:
    """Every leaf as text, with the rest that decides a trial's value."""
    patience, stopping_metric = _stopping(definition)
    on = "" if stopping_metric is None else f" on {stopping_metric}"
    rest: dict[str, Any] = {
        "training.epochs": definition.training.epochs,
        "training.early_stopping": "off" if patience is None else f"patience {patience}{on}",
        "training.gradient_reset": definition.training.gradient_reset,
        "dataset.name": definition.dataset.name,
        "dataset.validation": definition.dataset.divided,
        "dataset.augment": _augmentations(definition),
        "search.metric": definition.search.metric,
        "search.seed": definition.search.seed,
        "search.sampler": "grid" if definition.search.sampler.name == "grid" else "not a grid",
    }
    if definition.variations:
        rest["search.look_at_test"] = definition.looks_at_test
    for place, overrides in enumerate(definition.variations):
        rest[f"variations[{place}]"] = json.dumps(overrides, sort_keys=True)
    return {name: _text(value) for name, value in (*_leaves(definition), *rest.items())}


def _augmentations(definition: StudyDefinition) -> str:
    steps = [
        f"{step.name} ({', '.join(f'{key} {value}' for key, value in step.settings)})"
        for step in definition.dataset.augment
    ]
    return ", ".join(steps) or "none"


def _text(leaf: Any) -> str:
    return str(leaf).lower() if isinstance(leaf, bool) else str(leaf)


# --- counting


def _count_model(section: Section) -> int:
    section = _family(section)
    fixed = _fixed(section)
    if fixed is not None:
        return _count_keys(section, _settings_of(section, len(fixed)))
    count, each, _ = section.repeated
    return sum(
        _count(getattr(section, each)) ** number
        * _count_keys(section, _settings_of(section, number))
        for number in values(getattr(section, count))
    )


def _count_section(section: Section) -> int:
    return _count_keys(section, list(type(section).model_fields))


def _count_keys(section: Section, keys: list[str]) -> int:
    return math.prod(_count(getattr(section, key)) for key in keys)


def _count(leaf: Any) -> int:
    """The size of a leaf that is known to be finite."""
    return (_size(leaf) or 0) if is_range(leaf) else 1


def _size(leaf: Range) -> int | None:
    if isinstance(leaf, IntRange):
        return len(leaf)
    if isinstance(leaf, Choice):
        return len(leaf.choices)
    return leaf.count()
