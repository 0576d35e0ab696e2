"""One factor at a time around the best trial of a search, and what each factor made.

The runs are those of a study with variations: the best trial's config first, then that config
with one parameter at a few other values of its range. They all begin with the same seed, so what
differs is the parameter, up to the luck of that seed.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hpo import space
from hpo.config import ModelConfig
from hpo.definition import Choice, FloatRange, IntRange, Range, StudyDefinition
from hpo.definition.metrics import DIRECTIONS
from hpo.definition.ranges import is_range
from hpo.definition.variations import factor
from hpo.errors import HpoError
from hpo.search.records import TrialRecord
from hpo.search.status import best_trial

__all__ = ["around", "spreads"]

_MOST = 4  # values of a range of numbers, its ends among them
_CLOSE = 0.01  # of a range: so near to the own value that it would show nothing
_CHOICES = ("model", "optimizer", "schedule")


def around(
    definition: StudyDefinition, trials: Sequence[TrialRecord], *, maximize: bool
) -> dict[str, Any]:
    """A study file's data: variations around the best complete trial.

    Another optimizer or schedule comes with the settings of the best trial that had it, or with
    the middle of its ranges. The test rows stay closed: what is around a winner was chosen by
    validation rows, and is compared by them.

    Raises:
        HpoError: there is no complete trial, or nothing was searched around it.
    """
    best = best_trial(list(trials), maximize=maximize)
    name = definition.name
    if best is None or best.config is None:
        message = (
            f"study `{name}` has no complete trial yet; run hpo optimize --study {name} first"
        )
        raise HpoError(message)
    if definition.variations or not best.params:
        raise HpoError(f"study `{name}` has no ranges, so there is nothing around its best trial")
    return _Around(definition, best, best.config.model, trials, maximize=maximize).data()


def spreads(definition: StudyDefinition, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """How much each parameter made of the value: one row a parameter, the largest spread first.

    A run that changes nothing counts for every parameter; one that changes several for none.

    Returns:
        `parameter`, `runs`, `failed` (those that have no value), `lowest`, `highest`, `spread`
        (highest - lowest), and `best_at`.
    """
    values: dict[str, list[tuple[float, str]]] = {}
    failed: Counter[str] = Counter()
    plain: list[tuple[float, str]] = []
    base = definition.model_dump(mode="json")
    for trial in trials:
        place = trial.params.get(space.VARIATION)
        if place is None:
            continue
        overrides = definition.variations[place]
        found = factor(base, overrides) if overrides else None
        if trial.state == "failed" and found:
            failed[found[0]] += 1
        elif trial.state != "complete" or trial.value is None:
            continue
        elif not overrides:
            plain.append((trial.value, "as it was"))
        elif found:
            values.setdefault(found[0], []).append((trial.value, found[1]))
    better = max if DIRECTIONS[definition.search.metric] == "maximize" else min
    rows = []
    for parameter in {**values, **failed}:
        runs = [*plain, *values.get(parameter, [])]
        if not runs:
            continue
        numbers = [value for value, _ in runs]
        rows.append(
            {
                "parameter": parameter,
                "runs": len(numbers),
                "failed": failed[parameter],
                "lowest": min(numbers),
                "highest": max(numbers),
                "spread": max(numbers) - min(numbers),
                "best_at": better(runs, key=lambda run: run[0])[1],
            }
        )
    return sorted(rows, key=lambda row: -row["spread"])


class _Around:
    """The variations around one trial."""

    def __init__(
        self,
        definition: StudyDefinition,
        best: TrialRecord,
        model: ModelConfig,
        trials: Sequence[TrialRecord],
        *,
        maximize: bool,
    ) -> None:
        self._definition = definition
        self._best = best
        self._sizes = list(model.sizes)
        family = self._options("model")[self._option("model", best.params)]
        self._count, self._each, self._fixed = family.repeated
        self._trials = trials
        self._maximize = maximize
        self._ranges = space.describe(definition)

    def data(self) -> dict[str, Any]:
        """The file's data, of constants."""
        whole = json.loads(self._definition.to_json())
        search = whole["search"]
        return {
            "dataset": whole["dataset"],
            **{section: self._one_of(section, self._best) for section in _CHOICES},
            "training": self._training(whole["training"]),
            "search": {"metric": search["metric"], "seed": search["seed"], "look_at_test": False},
            "retrain": whole["retrain"],
            "variations": [{}, *self._variations()],
        }

    def _variations(self) -> Iterator[dict[str, Any]]:
        for name, value in self._best.params.items():
            if name == "model":
                continue  # another family has other parameters throughout
            for other in _values(self._ranges[name], value):
                yield self._change(name, other)

    def _change(self, name: str, value: Any) -> dict[str, Any]:
        """The overrides by which one parameter has another value."""
        if name in _CHOICES:
            return {name: self._one_of(name, self._like(name, value), value)}
        section, _, key = name.partition(".")
        if section == "training":
            return {name: value}
        if section in self._options("model") and self._is_of_shape(key):
            return {f"model.{section}.{self._fixed}": self._changed(section, key, value)}
        home = next(one for one in _CHOICES if section in self._options(one))
        return {f"{home}.{name}": value}

    def _one_of(self, home: str, like: TrialRecord | None, chosen: str | None = None) -> Any:
        """An option with its settings as a trial had them, else in the middle of their ranges."""
        options = self._options(home)
        params = {} if like is None else like.params
        name = chosen or self._option(home, params)
        settings: dict[str, Any] = {}
        for key, field in type(options[name]).model_fields.items():
            leaf = getattr(options[name], key)
            if f"{name}.{key}" in params:
                settings[key] = params[f"{name}.{key}"]
            elif is_range(leaf):  # a network without layers draws no activation, and so on
                settings[key] = _middle(leaf)
            elif leaf != field.default:
                settings[key] = leaf
        if home == "model":
            drawn = (self._count, self._each)
            settings = {key: settings[key] for key in settings if key not in drawn}
            settings[self._fixed] = self._sizes
        return {name: settings}

    def _like(self, home: str, option: str) -> TrialRecord | None:
        """The best complete trial that had an option; None if none had."""
        had = [trial for trial in self._trials if trial.params.get(home) == option]
        return best_trial(had, maximize=self._maximize)

    def _training(self, training: dict[str, Any]) -> dict[str, Any]:
        drawn = {key: f"training.{key}" for key in training if f"training.{key}" in self._ranges}
        return {**training, **{key: self._best.params[name] for key, name in drawn.items()}}

    def _is_of_shape(self, key: str) -> bool:
        """Whether it says how many layers or stages there are, or how large one is."""
        return key == self._count or key.startswith(f"{self._each}_")

    def _changed(self, family: str, key: str, value: int) -> list[int]:
        """The widths or channels, with so many of them, or with another one."""
        sizes = self._sizes
        if key == self._count:
            each = getattr(self._options("model")[family], self._each)
            last = sizes[-1] if sizes else _middle(each)
            return [*sizes, *[last] * value][:value]
        place = int(key.removeprefix(f"{self._each}_"))
        return [*sizes[:place], value, *sizes[place + 1 :]]

    def _option(self, home: str, params: Mapping[str, Any]) -> str:
        """The name of the option that a trial drew, or of the only one there is."""
        name: str = params.get(home, next(iter(self._options(home))))
        return name

    def _options(self, home: str) -> Mapping[str, Any]:
        options: Mapping[str, Any] = getattr(self._definition, home).options
        return options


def _values(leaf: Range, own: Any) -> list[Any]:
    """A few values of a range, low to high, without the own one."""
    if isinstance(leaf, Choice):
        return [value for value in leaf.choices if value != own]
    found = [_at(leaf, part / (_MOST - 1)) for part in range(_MOST)]
    scale = math.log if leaf.log else float
    near = _CLOSE * (scale(leaf.high) - scale(leaf.low))
    return [value for value in dict.fromkeys(found) if abs(scale(value) - scale(own)) > near]


def _middle(leaf: Any) -> Any:
    if isinstance(leaf, Choice):
        return leaf.choices[0]
    return _at(leaf, 0.5) if isinstance(leaf, IntRange | FloatRange) else leaf


def _at(leaf: IntRange | FloatRange, share: float) -> int | float:
    """The value at a share of the way from low to high, on the range's scale and steps."""
    low, high = leaf.low, leaf.high
    if isinstance(leaf, FloatRange) and leaf.step is not None:
        steps = leaf.values()
        return steps[round(share * (len(steps) - 1))]
    value = low * (high / low) ** share if leaf.log else low + (high - low) * share
    if isinstance(leaf, IntRange):
        step = 1 if leaf.log else leaf.step
        return min(high, max(low, low + round((value - low) / step) * step))
    if share in (0, 1) or low == high:
        return low if share == 0 else high
    # Three digits of the value, and of where in the range it lies, say enough.
    finest = min(high - low, abs(value) or 1.0)
    return min(high, max(low, round(value, 2 - math.floor(math.log10(finest)))))
