"""What is wrong in a study file: where, and one sentence about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["KeyPath", "Place", "Problem", "nearest", "render", "shown"]

KeyPath = tuple[str | int, ...]
"""The keys (and list positions) that lead to a value from the top of the file."""

Place = int | str
"""Where a value comes from: a line of the file (0: the file itself), or the path of a `--set`."""

_MOST = 100
_PLAIN_KEY = re.compile(r"[\w.-]{1,60}", re.ASCII)
_RANGE_WORDS = ("int", "float", "choice")


@dataclass(frozen=True, slots=True)
class Problem:
    """One sentence about the value at `path`; the sentence has no full stop."""

    path: KeyPath
    sentence: str
    place: Place | None = None


def render(problems: Iterable[Problem], places: Mapping[KeyPath, Place], source: str) -> list[str]:
    """The problems as lines for a person: those of the file by line, then those of `--set`."""
    placed = [(_place(problem, places), problem) for problem in problems]
    placed.sort(key=lambda pair: (isinstance(pair[0], str), pair[0] or 0))
    lines = list(dict.fromkeys(_line(problem, place, source) for place, problem in placed))
    if len(lines) > _MOST:
        lines[_MOST:] = [f"{source}: and {len(lines) - _MOST} problems more"]
    return lines


def nearest(key: str, known: Sequence[str]) -> str | None:
    """The known key that a mistyped one was probably meant to be."""
    matches = difflib.get_close_matches(key[:60].lower(), known, n=1, cutoff=0.6)
    return matches[0] if matches else None


def shown(value: object) -> str:
    """A value as a message shows it: short, on one line, with nothing a terminal obeys."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = repr(value[:200]) if isinstance(value, str) else _number(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object) -> str:
    if isinstance(value, int) and abs(value) >= 10**30:  # Python refuses to print the longest
        return "a number beyond all bounds"
    return repr(value)


def _place(problem: Problem, places: Mapping[KeyPath, Place]) -> Place | None:
    """The place of the value, or of the nearest thing around it that has one."""
    if problem.place is not None:
        return problem.place
    for end in range(len(problem.path), -1, -1):
        if problem.path[:end] in places:
            return places[problem.path[:end]]
    return None


def _line(problem: Problem, place: Place | None, source: str) -> str:
    key = _dotted(_without_range(problem.path))
    if isinstance(place, str):
        where = f"--set {place}" if key in ("", place) else f"--set {place}: {key}"
    else:
        where = f"{source}:{place}" if place else source
        where = f"{where}: {key}" if key else where
    return f"{where}: {problem.sentence}"


def _without_range(path: KeyPath) -> KeyPath:
    """`mlp.dropout` for `mlp.dropout.float[1]`: a range is a value, its bounds are no keys."""
    for position, key in enumerate(path):
        if position and key in _RANGE_WORDS and position >= len(path) - 2:
            return path[:position]
    return path


def _dotted(path: KeyPath) -> str:
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            plain = key if _PLAIN_KEY.fullmatch(key) else shown(key)
            text += f".{plain}" if text else plain
    return text
