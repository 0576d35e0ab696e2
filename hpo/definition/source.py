"""A study file's text -> plain data, with the line of every key; nothing in it can run or grow.

YAML is read as events, and the data is built from them here, without recursion. So there is
no tag that constructs anything, no alias that multiplies, no depth that exhausts the stack, and
a key given twice is seen. What words without quotes stand for is in `words.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)

from hpo.definition.problems import KeyPath, Place, Problem, shown
from hpo.definition.words import resolve
from hpo.errors import DefinitionError, FileError

__all__ = ["MAX_BYTES", "REFUSED", "Parsed", "parse", "read_text"]

MAX_BYTES: Final = 1024 * 1024
_MAX_DEPTH = 32
_MAX_NODES = 5000
_MAX_WORD = 1000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Refused:
    """Stands where a value was refused, so that the rest can still be checked."""

    def __repr__(self) -> str:
        return "a refused value"


REFUSED: Final = _Refused()


@dataclass(slots=True)
class Parsed:
    """What a text says.

    Attributes:
        places: the line (from 1) of every key and list entry.
        broken: reading stopped before the end, so `data` is not all of it.
    """

    data: object = None
    places: dict[KeyPath, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: bool = False


def read_text(path: Path) -> str:
    """A study file's text.

    Raises:
        DefinitionError: it is missing, not a file, too large, or not UTF-8.
        FileError: the system does not let it be read.
    """
    try:
        if not S_ISREG(path.stat().st_mode):
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise DefinitionError([f"{path}: this is {kind}; a study is a YAML file"])
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise DefinitionError([f"{path}: there is no such file"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileError(f"{path}: the file cannot be read ({reason})") from error
    if len(raw) > MAX_BYTES:
        raise DefinitionError([f"{path}: the file is larger than 1 MiB; a study is a few lines"])
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DefinitionError([f"{path}:{line}: this is not UTF-8 text"]) from None


def parse(text: str) -> Parsed:
    """Read YAML as data; what is refused is listed in `problems` and stands as `REFUSED`."""
    builder = _Builder()
    try:
        for event in _events(text):
            builder.take(event)
    except _Stop:
        builder.parsed.broken = True
    except yaml.YAMLError as error:
        builder.parsed.broken = True
        builder.parsed.problems.append(_syntax_problem(error, text))
    return builder.parsed


class _Stop(Exception):  # noqa: N818 - not an error: the problem is already noted
    """Reading on would serve nobody."""


@dataclass(slots=True)
class _Open:
    """A mapping or list that has not ended yet.

    Attributes:
        places: where its lines are noted; below a key given twice that is a place of its own, so
            that the section which counts keeps its lines.
        key: the mapping's key awaiting its value.
        twice: that key was given before, so the value is passed over.
    """

    container: dict[str, object] | list[object]
    path: KeyPath
    places: dict[KeyPath, Place]
    key: str | None = None
    twice: bool = False


class _Builder:
    """Puts events together; the innermost open collection is last in `stack`."""

    def __init__(self) -> None:
        self.parsed = Parsed()
        self._stack: list[_Open] = []
        self._documents = 0
        self._nodes = 0
        self._aliases = 0

    def take(self, event: Event) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop((), line, "a second document begins here; a study is one document")
        elif isinstance(event, CollectionEndEvent):
            self._stack.pop()
        elif isinstance(event, NodeEvent):
            self._take_node(event, line)

    def _take_node(self, event: Any, line: int) -> None:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            self._stop((), line, f"the file has more than {_MAX_NODES} values")
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.container, dict) and top.key is None:
            self._take_key(top, event, line)
            return
        path = self._next_path(top)
        self._places_below(top).setdefault(path, line)
        if isinstance(event, AliasEvent):
            self._put(top, self._refuse_alias(path, event, line))
        elif isinstance(event, ScalarEvent):
            self._put(top, self._scalar(path, event, line))
        else:
            self._open_collection(top, path, event, line)

    def _take_key(self, top: _Open, event: Any, line: int) -> None:
        if not isinstance(event, ScalarEvent) or len(event.value) > _MAX_WORD:
            self._stop(top.path, line, "a key is a short word; this one is not")
        key = event.value
        assert isinstance(top.container, dict)
        path = (*top.path, key)
        top.key, top.twice = key, key in top.container
        if top.twice:
            first = top.places[path]
            self._note(path, line, f"this key is given twice; the first is in line {first}")
        else:
            top.places[path] = line
        if event.tag not in (None, "!"):
            self._refuse_tag(path, event, line)

    def _open_collection(self, top: _Open | None, path: KeyPath, event: Any, line: int) -> None:
        if len(self._stack) >= _MAX_DEPTH:
            self._stop(path[:4], line, f"this is nested more than {_MAX_DEPTH} levels deep")
        container: dict[str, object] | list[object]
        container = {} if isinstance(event, MappingStartEvent) else []
        if event.tag not in (None, "!"):
            self._refuse_tag(path, event, line)
            self._put(top, REFUSED)
        else:
            self._put(top, container)
        self._stack.append(_Open(container, path, self._places_below(top)))

    def _scalar(self, path: KeyPath, event: Any, line: int) -> object:
        if event.tag not in (None, "!"):
            self._refuse_tag(path, event, line)
            return REFUSED
        if len(event.value) > _MAX_WORD:
            self._note(path, line, f"this value has more than {_MAX_WORD} characters")
            return REFUSED
        return resolve(event.value) if not event.style else event.value

    def _refuse_tag(self, path: KeyPath, event: Any, line: int) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._note(path, line, f"the tag {shown(tag)} is refused; a study is plain data")

    def _refuse_alias(self, path: KeyPath, event: Any, line: int) -> object:
        self._aliases += 1
        if self._aliases == 1:  # a bomb has many; one sentence says it all
            name = shown(f"*{event.anchor}")
            self._note(path, line, f"the alias {name} is refused; write the value out")
        return REFUSED

    def _put(self, top: _Open | None, value: object) -> None:
        if top is None:
            self.parsed.data = value
        elif isinstance(top.container, list):
            top.container.append(value)
        else:
            if top.key is not None and not top.twice:
                top.container[top.key] = value
            top.key = None

    def _places_below(self, top: _Open | None) -> dict[KeyPath, Place]:
        if top is None:
            return self.parsed.places
        return {} if top.twice else top.places

    def _next_path(self, top: _Open | None) -> KeyPath:
        if top is None:
            return ()
        return (
            *top.path,
            len(top.container) if isinstance(top.container, list) else top.key or "",
        )

    def _note(self, path: KeyPath, line: int, sentence: str) -> None:
        self.parsed.problems.append(Problem(path, sentence, line))

    def _stop(self, path: KeyPath, line: int, sentence: str) -> None:
        self._note(path, line, sentence)
        raise _Stop


def _events(text: str) -> Iterator[Event]:
    yield from yaml.parse(text, Loader=_LOADER)


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    """The parser's complaint as one sentence with its line."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
    if mark is not None:
        return Problem((), f"this is not YAML: {reason}", mark.line + 1)
    return Problem((), f"this is not YAML: {reason}", _line_of_refused_character(error, text))


def _line_of_refused_character(error: yaml.YAMLError, text: str) -> int | None:
    """Where the character is; its position is of no use, some readers count bytes."""
    character = getattr(error, "character", None)
    if not isinstance(character, int):
        return None
    before, found, _ = text.partition(chr(character))
    return before.count("\n") + 1 if found else None
