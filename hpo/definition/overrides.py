"""`--set training.epochs=3`: changes to a study file's data before it is checked."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.definition.problems import KeyPath, Problem, shown
from hpo.definition.source import Parsed, parse

__all__ = ["apply"]

_MAX_KEYS = 16


def apply(parsed: Parsed, overrides: Sequence[str]) -> None:
    """Set each `key.path=value` in `parsed.data`; the value is read as YAML, the last one wins.

    What is wrong is added to `parsed.problems`. Whether a key exists is the schema's to say.
    """
    for text in overrides:
        dotted, equals, value = text.partition("=")
        keys = tuple(key.strip() for key in dotted.split("."))
        if any(map(_is_surrogate, text)):
            label = shown(dotted) if any(map(_is_surrogate, dotted)) else dotted
            parsed.problems.append(Problem((), "this is not UTF-8 text", label))
            continue
        if not equals or not all(keys) or len(keys) > _MAX_KEYS:
            sentence = "write it as key.path=value, as in `--set training.epochs=3`"
            parsed.problems.append(Problem((), sentence, shown(dotted)))
            continue
        _apply_one(parsed, keys, value)


def _is_surrogate(char: str) -> bool:
    """Whether this stands for a byte of the command line that Python could not read."""
    return "\ud800" <= char <= "\udfff"


def _apply_one(parsed: Parsed, keys: KeyPath, value: str) -> None:
    label = ".".join(map(str, keys))
    inner = parse(value)
    for problem in inner.problems:
        where = ".".join(map(str, problem.path))
        sentence = f"{where}: {problem.sentence}" if where else problem.sentence
        parsed.problems.append(Problem((), sentence, label))
    if inner.broken or not isinstance(parsed.data, dict):
        return
    section = parsed.data
    for position, key in enumerate(keys[:-1]):
        below = section.get(str(key))
        if below is None:
            below = section[str(key)] = {}
            parsed.places[keys[: position + 1]] = label
        if not isinstance(below, dict):
            where = ".".join(map(str, keys[: position + 1]))
            sentence = f"`{where}` is {shown(below)}, so there is nothing below it to set"
            parsed.problems.append(Problem((), sentence, label))
            return
        section = below
    section[str(keys[-1])] = inner.data
    for path in [path for path in parsed.places if path[: len(keys)] == keys]:
        del parsed.places[path]
    parsed.places[keys] = label
