"""What one field of a study may hold: a constant, or a range of such.

`Number`, `Word`, `Pattern` and `Flag` stand in a field's annotation and read `0.1`,
`{float: [0.0, 0.6]}`, `{int: [1, 4], log: true}` or `{choice: [64, 128]}`, with every bound
and every choice held to the field's own limits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from hpo.definition.problems import nearest, shown
from hpo.definition.ranges import Choice, FloatRange, IntRange, Range, is_range
from hpo.definition.words import resolve

__all__ = ["Flag", "Leaf", "Number", "Pattern", "Word", "detail", "invalid"]

_MAX_STEPS = 1_000_000


class _Wrong(Exception):  # noqa: N818 - becomes a pydantic error where its place is known
    """A sentence about one value."""


def detail(sentence: str, *path: str | int, value: object = None) -> InitErrorDetails:
    """An error in pydantic's form; `path` leads on from the value that is being read."""
    error = PydanticCustomError("study", "{sentence}", {"sentence": sentence})
    return InitErrorDetails(type=error, loc=path, input=value)


def invalid(details: list[InitErrorDetails]) -> ValidationError:
    """An error to raise in a validator, with everything that is wrong."""
    return ValidationError.from_exception_data("leaf", details)


class Leaf:
    """What one field may hold; the base of `Number`, `Word` and `Flag`.

    Attributes:
        ranged: whether it may be a range; a constant otherwise.
        range_kind: `int` or `float` where the field's values lie on a line.
    """

    ranged: bool = True
    range_kind: str | None = None

    def constant(self, value: object) -> Any:
        """The value in the field's own type; `_Wrong` if it is not allowed."""
        raise NotImplementedError

    def constant_schema(self) -> dict[str, Any]:
        """The JSON schema of a constant."""
        raise NotImplementedError

    def read(self, raw: object) -> Any:
        """A constant or a range from plain data; `ValidationError` with all that is wrong."""
        if is_range(raw):
            raw = raw.to_data()
        if isinstance(raw, Mapping) and self.ranged:
            return _RangeReader(self, raw).read()
        try:
            return self.constant(raw)
        except _Wrong as wrong:
            raise invalid([detail(str(wrong), value=raw)]) from None

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Read with `read`, write with `to_data`."""
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(_to_data),
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The constant, or any range that the field may have."""
        constant = self.constant_schema()
        if not self.ranged:
            return constant
        forms = [constant, _choice_schema(constant)]
        if self.range_kind is not None:
            forms.append(_range_schema(self.range_kind, constant))
        return {"anyOf": forms}


@dataclass(frozen=True)
class Number(Leaf):
    """A number from `low` to `high`.

    Args:
        why: what the field is, to end the sentence about a value out of bounds.
        open_low, open_high: the bound itself is not allowed.
    """

    why: str
    low: float = 0.0
    high: float | None = None
    open_low: bool = False
    open_high: bool = False
    whole: bool = False
    ranged: bool = True

    @property
    def range_kind(self) -> str:  # type: ignore[override]
        """The word that begins a range of such numbers."""
        return "int" if self.whole else "float"

    def constant(self, value: object) -> int | float:
        """The number, as an int where the field is whole and as a float elsewhere."""
        number: int | float = _number(value, whole=self.whole)
        if number < self.low or (self.open_low and number == self.low):
            relation = "not above" if self.open_low else "below"
            raise _Wrong(f"{shown(number)} is {relation} {_plain(self.low)}; {self.why}")
        if self.high is not None and (
            number > self.high or (self.open_high and number == self.high)
        ):
            relation = "not below" if self.open_high and number == self.high else "above"
            raise _Wrong(f"{shown(number)} is {relation} {_plain(self.high)}; {self.why}")
        return number

    def constant_schema(self) -> dict[str, Any]:
        """A number with its bounds."""
        low = "exclusiveMinimum" if self.open_low else "minimum"
        high = "exclusiveMaximum" if self.open_high else "maximum"
        schema = {"type": "integer" if self.whole else "number", low: self.low}
        return schema if self.high is None else {**schema, high: self.high}


@dataclass(frozen=True)
class Word(Leaf):
    """One of a few words; `aliases` are other spellings of them."""

    why: str
    allowed: tuple[str, ...]
    aliases: tuple[tuple[str, str], ...] = ()
    ranged: bool = True

    def constant(self, value: object) -> str:
        """The word, in its first spelling."""
        if isinstance(value, str):
            word = dict(self.aliases).get(value, value)
            if word in self.allowed:
                return word
        known = [*self.allowed, *(alias for alias, _ in self.aliases)]
        near = nearest(value, known) if isinstance(value, str) else None
        guess = f"did you mean `{near}`? " if near else ""
        raise _Wrong(f"{shown(value)} is not {self.why}; {guess}known: {', '.join(self.allowed)}")

    def constant_schema(self) -> dict[str, Any]:
        """The words and their other spellings."""
        return {"enum": [*self.allowed, *(alias for alias, _ in self.aliases)]}


@dataclass(frozen=True)
class Flag(Leaf):
    """True or false."""

    ranged: bool = True

    def constant(self, value: object) -> bool:
        """The boolean itself."""
        if isinstance(value, bool):
            return value
        raise _Wrong(f"{shown(value)} is neither true nor false")

    def constant_schema(self) -> dict[str, Any]:
        """A boolean."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Pattern(Leaf):
    """A constant word of a certain form, as a whole match of `regex`."""

    why: str
    regex: str
    ranged: bool = False

    def constant(self, value: object) -> str:
        """The word itself."""
        if isinstance(value, str) and re.fullmatch(self.regex, value):
            return value
        raise _Wrong(f"{shown(value)} is not {self.why}")

    def constant_schema(self) -> dict[str, Any]:
        """A string of that form."""
        return {"type": "string", "pattern": f"^({self.regex})$"}


class _RangeReader:
    """Reads one mapping as a range for one field, and collects what is wrong with it."""

    def __init__(self, leaf: Leaf, raw: Mapping[str, object]) -> None:
        self._leaf = leaf
        self._raw = raw
        self._details: list[InitErrorDetails] = []

    def read(self) -> Range:
        kinds = [kind for kind in ("int", "float", "choice") if kind in self._raw]
        result: Range | None = None
        if len(kinds) != 1:
            self._wrong(f"a range is written {self._forms()}" + (", one of them" if kinds else ""))
        elif kinds[0] == "choice":
            self._refuse_unknown("choice")
            result = self._choice()
        elif kinds[0] != self._leaf.range_kind:
            self._wrong(f"`{kinds[0]}` does not fit here: a range is written {self._forms()}")
        else:
            self._refuse_unknown(kinds[0], "log", "step")
            result = self._interval(kinds[0])
        if self._details or result is None:
            raise invalid(self._details)
        return result

    def _choice(self) -> Range | None:
        raw = self._raw["choice"]
        if not isinstance(raw, Sequence) or isinstance(raw, str) or not raw:
            self._wrong(f"a choice is a list of values, as in {{choice: [{self._example()}]}}")
            return None
        values: list[Any] = []
        for position, item in enumerate(raw):
            value = self._constant(item, "choice", position)
            if value is not None and value in values:
                self._wrong(f"{shown(value)} is given twice", "choice", position)
            values.append(value)
        return Choice(tuple(values))

    def _interval(self, kind: str) -> Range | None:
        raw = self._raw[kind]
        if not isinstance(raw, Sequence) or isinstance(raw, str) or len(raw) != 2:
            self._wrong(f"a range has two bounds, as in {{{kind}: [low, high]}}", kind)
            return None
        low, high = (self._constant(raw[position], kind, position) for position in (0, 1))
        log, step = self._log(), self._step(kind)
        if low is None or high is None or self._details:
            return None
        if low > high:
            self._wrong(f"the range's low, {shown(low)}, is above its high, {shown(high)}")
            return None
        if log and low <= 0:
            self._wrong(f"a `log` range begins above 0, not at {shown(low)}", kind, 0)
            return None
        if log and step is not None:
            self._wrong("`log` and `step` exclude each other", "step")
            return None
        if step is not None and not self._whole_steps(low, high, step, kind):
            return None
        if kind == "int":
            return IntRange(low, high, log, 1 if step is None else int(step))
        return FloatRange(low, high, log, step)

    def _whole_steps(self, low: float, high: float, step: float, kind: str) -> bool:
        """Whether `high` is reached; Optuna would lower it with no more than a warning."""
        span = Decimal(str(high)) - Decimal(str(low))
        if span > _MAX_STEPS * Decimal(str(step)):
            self._wrong(
                f"a step of {shown(step)} makes over a million values; leave it out", "step"
            )
            return False
        if span % Decimal(str(step)) == 0:
            return True
        last = Decimal(str(high)) - span % Decimal(str(step))
        self._wrong(
            f"steps of {shown(step)} from {shown(low)} miss {shown(high)}; the last is {last}: "
            f"write {{{kind}: [{shown(low)}, {last}], step: {shown(step)}}}",
            "step",
        )
        return False

    def _log(self) -> bool:
        log = self._raw.get("log", False)
        if not isinstance(log, bool):
            self._wrong(f"`log` is true or false, not {shown(log)}", "log")
        return log is True

    def _step(self, kind: str) -> float | None:
        if "step" not in self._raw:
            return None
        try:
            step: float = _number(self._raw["step"], whole=kind == "int")
        except _Wrong as wrong:
            self._wrong(f"`step`: {wrong}", "step")
            return None
        if step > 0:
            return step
        self._wrong(f"a step is above 0, not {shown(step)}", "step")
        return None

    def _constant(self, value: object, *path: str | int) -> Any:
        try:
            return self._leaf.constant(value)
        except _Wrong as wrong:
            self._wrong(str(wrong), *path)
            return None

    def _refuse_unknown(self, *known: str) -> None:
        for key in self._raw:
            if key not in known:
                near = nearest(str(key), known)
                guess = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
                self._wrong(f"unknown key {shown(key)} in a range; {guess}", str(key))

    def _forms(self) -> str:
        kind = self._leaf.range_kind
        return (f"{{{kind}: [low, high]}} or " if kind else "") + "{choice: [...]}"

    def _example(self) -> str:
        return {"int": "64, 128", "float": "0.1, 0.2"}.get(self._leaf.range_kind or "", "a, b")

    def _wrong(self, sentence: str, *path: str | int) -> None:
        self._details.append(detail(sentence, *path, value=self._raw))


def _number(value: object, *, whole: bool) -> Any:
    kind = "a whole number" if whole else "a number"
    if value is None:
        raise _Wrong(f"a value is missing here; {kind} is wanted")
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = "; write it without quotes" if _looks_numeric(value) else ""
        raise _Wrong(f"{shown(value)} is not {kind}{hint}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Wrong(f"{shown(value)} is not a finite number")
    if not whole:
        try:
            return float(value)
        except OverflowError:
            raise _Wrong(f"{shown(value)} is not a finite number") from None
    if value != int(value):
        raise _Wrong(f"{shown(value)} is not a whole number")
    return int(value)


def _looks_numeric(value: object) -> bool:
    """Whether a word in quotes would be a number without them."""
    number = resolve(value[:40].strip()) if isinstance(value, str) else None
    return type(number) is int or (isinstance(number, float) and math.isfinite(number))


def _plain(bound: float) -> str:
    """A bound as one writes it: `1`, not `1.0`."""
    return str(int(bound)) if bound == int(bound) else str(bound)


def _to_data(value: object) -> object:
    return value.to_data() if is_range(value) else value


def _choice_schema(item: dict[str, Any]) -> dict[str, Any]:
    choices = {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}
    return _object_schema({"choice": choices}, "choice")


def _range_schema(kind: str, bound: dict[str, Any]) -> dict[str, Any]:
    bounds = {"type": "array", "items": bound, "minItems": 2, "maxItems": 2}
    step = {"type": bound["type"], "exclusiveMinimum": 0}
    return _object_schema({kind: bounds, "log": {"type": "boolean"}, "step": step}, kind)


def _object_schema(properties: dict[str, Any], required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [required],
        "additionalProperties": False,
    }
