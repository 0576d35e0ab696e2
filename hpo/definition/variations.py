"""`variations:` of a study file: a list of runs, each what the rest of the file says but for some.

A variation is a mapping of overrides: `{training.batch_size: 16}`, `{training: {batch_size: 16}}`,
`{optimizer: {sgd: {lr: 0.001}}}`. What stands under `model`, `optimizer` or `schedule` is a choice
of one, so a mapping there takes the place of the whole section.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from pydantic_core import InitErrorDetails

from hpo.definition.families import ConvolutionalSection
from hpo.definition.leaves import detail
from hpo.definition.networks import MlpSection, ModelSection, OptimizerSection, ScheduleSection
from hpo.definition.problems import KeyPath, Problem, shown
from hpo.definition.sections import ChoiceOfOne

__all__ = [
    "describe_variation",
    "factor",
    "is_list",
    "problems_with_variations",
    "varied",
    "without_variations",
]

_SECTIONS: dict[str, type[ChoiceOfOne]] = {
    "model": ModelSection,
    "optimizer": OptimizerSection,
    "schedule": ScheduleSection,
}
_CHOICES = tuple(_SECTIONS)
_SHAPES = {one.repeated[2]: one.repeated for one in (MlpSection, ConvolutionalSection)}
_SHARED = {
    "dataset": "all of them train on the same rows",
    "search": "there is one set of rules for all of them",
    "retrain": "that comes after them",
    "name": "the study has the name",
    "variations": "there is one list of them",
    "training.device": "all of them train on the same device",
    "training.precision": "all of them are calculated alike",
}
_RANGE_WORDS = ("int", "float", "choice")
_MOST_KEYS = 16

_Data = dict[str, Any]
_Problems = Callable[[_Data], list[Problem]]


def problems_with_variations(data: _Data, check: _Problems) -> list[InitErrorDetails]:
    """What a study with variations cannot have, and one without; and what is wrong with them.

    Args:
        data: the study's, as it is read.
        check: what is wrong with a study that has no variations.
    """
    variations = data.get("variations")
    if not is_list(variations) or not variations:
        if _section(data, "search").get("look_at_test") is None:
            return []
        sentence = "this belongs to a study with `variations`; a search sees training rows only"
        return [detail(sentence, "search", "look_at_test")]
    return [*_of_the_study(data, len(variations)), *_of_variations(data, variations, check)]


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether data is a list, and not a word."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def without_variations(data: Mapping[str, Any]) -> _Data:
    """A study's data as that of one run, with the schedule that it has by default."""
    base = {key: value for key, value in data.items() if key != "variations"}
    base.setdefault("schedule", {"constant": {}})
    if isinstance(search := base.get("search"), Mapping):
        base["search"] = {key: value for key, value in search.items() if key != "look_at_test"}
    return base


def varied(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> _Data:
    """A run's data; `overrides` must be such as `problems_with_variations` lets pass."""
    run: _Data = copy.deepcopy(dict(base))
    for path, value, _ in _settings(overrides):
        section = run
        for key in path[:-1]:
            below = section.get(key)
            section[key] = section = below if isinstance(below, dict) else {}
        section[path[-1]] = copy.deepcopy(value)
    return run


def describe_variation(overrides: Mapping[str, Any]) -> str:
    """A variation in words, such as `training.batch_size 16`; without overrides `baseline`."""
    words = []
    for path, value, _ in _settings(overrides):
        inner = _in_words(value)
        inner = inner[1:-1] if isinstance(value, Mapping) else inner
        words.append(f"{'.'.join(path)} {inner}".rstrip())
    return ", ".join(words) or "baseline"


def factor(study: Mapping[str, Any], overrides: Mapping[str, Any]) -> tuple[str, str] | None:
    """The one parameter that a variation changes, and to what; None if it changes several.

    A section with the study's own option changes the settings in which the two differ; with
    another one it changes the option, whatever that brings along.

    Args:
        study: its data, with every default; its options are one each.

    Returns:
        The parameter's name as a search has it (`adam.lr`, `mlp.width_1`), and its value in words.
    """
    settings = [(path, value) for path, value, _ in _settings(overrides)]
    if len(settings) != 1:
        return None
    path, value = settings[0]
    home, options = path[0], study[path[0]]
    if home in _CHOICES and len(path) < 3:
        section = _whole(home, value if len(path) == 1 else {path[1]: value})
        if list(section) != list(options):
            return home, ", ".join(section)
        [option] = section
        before = _as_the_other(options[option], section[option])
        after = _as_the_other(section[option], options[option])
        keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        if len(keys) != 1:
            return None
        path, value, options = (home, option, *keys), after.get(keys[0]), {option: before}
    if path[-1] in _SHAPES and isinstance(value, list):
        count, each, key = _SHAPES[path[-1]]
        own = options[path[1]].get(key) or []
        pairs = enumerate(zip(own, value, strict=False))
        changed = [place for place, (was, is_now) in pairs if was != is_now]
        if len(own) != len(value):
            return f"{path[1]}.{count}", str(len(value))
        if len(changed) == 1:
            return f"{path[1]}.{each}_{changed[0]}", str(value[changed[0]])
    name = path[1:] if path[0] in _CHOICES else path
    return ".".join(name), _in_words(value)


def _whole(home: str, section: Any) -> _Data:
    """A variation's section with every default; without it the schedule is constant."""
    read = _SECTIONS[home].model_validate({"constant": {}} if section is None else section)
    return read.model_dump(mode="json")


def _as_the_other(settings: _Data, other: _Data) -> _Data:
    """A family's settings with a size for each layer, or stage, where the other has it so."""
    for count, each, fixed in _SHAPES.values():
        if fixed in other and fixed not in settings and count in settings:
            sizes = [settings[each]] * settings[count]
            rest = {key: settings[key] for key in settings if key not in (count, each)}
            return {**rest, fixed: sizes}
    return settings


def _of_the_study(data: _Data, count: int) -> Iterator[InitErrorDetails]:
    """What a study with so many variations cannot have beside them."""
    search, folds = _section(data, "search"), _section(data, "dataset").get("folds")
    if (trials := search.get("trials", count)) != count:
        sentence = (
            f"a study with variations trains each once, so it has {count} trials and not "
            f"{shown(trials)}; leave this out"
        )
        yield detail(sentence, "search", "trials")
    if search.get("pruner", "none") not in ("none", {"none": {}}, {"none": None}):
        sentence = "every variation is trained to its end; leave the pruner out"
        yield detail(sentence, "search", "pruner")
    if folds is not None and search.get("look_at_test") is True:
        sentence = "with `dataset.folds` a run is a network for each, so none is tested"
        yield detail(sentence, "search", "look_at_test")


def _of_variations(
    data: _Data, variations: Sequence[Any], check: _Problems
) -> Iterator[InitErrorDetails]:
    """What is wrong with each; what is wrong with the rest of the file is told once."""
    base = without_variations(data)
    draws = list(_draws(base))
    yield from (detail(sentence, *path) for path, sentence in draws)
    before = {(problem.path, problem.sentence) for problem in check(base)} | set(draws)
    for number, overrides in enumerate(variations):
        if not isinstance(overrides, Mapping):
            continue  # the schema's to say
        found = list(_refused(base, overrides))
        if not found:
            run = varied(base, overrides)
            problems = [(problem.path, problem.sentence) for problem in check(run)]
            found = [
                _as_written(path, sentence, overrides)
                for path, sentence in dict.fromkeys([*problems, *_draws(run)])
                if (path, sentence) not in before
            ]
        yield from (detail(sentence, "variations", number, *path) for path, sentence in found)


def _section(data: _Data, name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}


def _settings(
    overrides: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, ...], Any, tuple[str, ...]]]:
    """What is set: the path of the key, its value, and the keys as they are written."""
    for key, value in overrides.items():
        path = tuple(part.strip() for part in key.split("."))
        if path == ("training",) and isinstance(value, Mapping):
            for inner, own in value.items():
                yield (*path, *inner.split(".")), own, (key, inner)
        else:
            yield path, value, (key,)


def _refused(base: _Data, overrides: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    """What cannot be overridden: where, as it is written, and why."""
    before: list[tuple[str, ...]] = []
    for path, _, written in _settings(overrides):
        twice = next((one for one in before if path[: len(one)] == one[: len(path)]), None)
        before.append(path)
        if twice is not None:
            shorter = ".".join(path[: len(twice)])
            yield written, f"`{shorter}` is set twice in this variation"
            continue
        if not all(path) or len(path) > _MOST_KEYS:
            yield written, "write a key with its sections, as in {training.batch_size: 16}"
            continue
        shared = next((key for key in (path[0], ".".join(path[:2])) if key in _SHARED), None)
        if shared is not None:
            yield written, f"a variation cannot change `{shared}`; {_SHARED[shared]}"
            continue
        below: Any = base
        for position, key in enumerate(path[:-1]):
            below = below.get(key)
            if below is None:
                break
            if not isinstance(below, Mapping):
                where = ".".join(path[: position + 1])
                yield written, f"`{where}` is {shown(below)}, so there is nothing below it to set"
                break


def _draws(run: _Data) -> Iterator[tuple[KeyPath, str]]:
    """Whatever would make a search of a run: ranges, and choices of one out of several."""
    for name in _CHOICES:
        options = run.get(name)
        if isinstance(options, Mapping) and len(options) > 1:
            listed = ", ".join(map(str, options))
            sentence = (
                f"{listed} are a choice, and a study with variations draws nothing; give one; "
                f"in a variation `{{{name}: {{...}}}}` puts another in its place"
            )
            yield (name,), sentence
    for name in (*_CHOICES, "training"):
        for path in _ranges(run.get(name), (name,)):
            yield path, "this is a range, and a study with variations draws nothing; give a value"


def _ranges(data: object, path: KeyPath) -> Iterator[KeyPath]:
    if isinstance(data, Mapping):
        if any(word in data for word in _RANGE_WORDS):
            yield path
            return
        for key, value in data.items():
            yield from _ranges(value, (*path, key))


def _as_written(path: KeyPath, sentence: str, overrides: Mapping[str, Any]) -> tuple[KeyPath, str]:
    """Where a run's problem stands in its variation; else the variation, and the key in words."""
    for own, _, written in _settings(overrides):
        if path[: len(own)] == own:
            return (*written, *path[len(own) :]), sentence
    return (), f"{'.'.join(map(str, path))}: {sentence}" if path else sentence


def _in_words(value: object) -> str:
    if isinstance(value, Mapping):
        if not value:
            return ""
        inner = ", ".join(f"{key} {_in_words(one)}".rstrip() for key, one in value.items())
        return f"({inner})"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_in_words, value))}]"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else shown(value).strip("'")
