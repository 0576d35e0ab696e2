"""What every section of a study file has in common: strict keys, and errors in plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, core_schema

from hpo.definition.leaves import detail, invalid
from hpo.definition.problems import nearest, shown

__all__ = ["ChoiceOfOne", "ExactlyOne", "Section"]


class Section(BaseModel):
    """A mapping with known keys, which never changes once it is read.

    Attributes:
        not_yet: keys that are planned but not there, each with what to write instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    not_yet: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="wrap")
    @classmethod
    def _in_plain_sentences(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if data is None:  # `adam:` with nothing below it
            data = {}
        details: list[InitErrorDetails] = []
        if isinstance(data, dict | str):
            data = cls.prepared(data)
        if isinstance(data, dict):
            details += cls.key_problems(data)
        try:
            section = handler(data)
        except ValidationError as error:
            details += [cls._plain(line) for line in error.errors(include_url=False)]
        if details:
            raise invalid(details)
        return section

    @classmethod
    def keys(cls) -> list[str]:
        """The keys that a file may have here."""
        return list(cls.model_fields)

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """The data in its long form, where a section has a short one."""
        return data

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:  # noqa: ARG003
        """What is wrong with the keys together, whatever their values are."""
        return []

    @classmethod
    def _plain(cls, line: ErrorDetails) -> InitErrorDetails:
        """Pydantic's error in our words; ours, from further down, stay as they are."""
        path, value = line["loc"], line["input"]
        if line["type"] == "study":
            sentence = line["msg"]
        elif line["type"] == "extra_forbidden":
            sentence = cls._unknown(str(path[-1]))
        elif line["type"] == "missing":
            sentence = "this key is missing"
        elif line["type"] in ("model_type", "model_attributes_type", "dict_type"):
            sentence = f"{shown(value)} stands where a mapping is wanted, with {_listed(cls)}"
        elif line["type"] in ("tuple_type", "list_type"):
            sentence = f"{shown(value)} stands where a list is wanted"
        elif line["type"] == "too_long":
            sentence = f"a list of at most {line['ctx']['max_length']} entries is wanted"
        elif line["type"] == "too_short":
            sentence = "an empty list stands here; at least one entry is wanted"
        else:
            sentence = line["msg"][:1].lower() + line["msg"][1:]
        return detail(sentence, *path, value=value)

    @classmethod
    def _unknown(cls, key: str) -> str:
        if key in cls.not_yet:
            return cls.not_yet[key]
        known = cls.keys()
        near = nearest(key, known)
        below = None if near else next(_paths_to(cls, key), None)
        if near or below:
            return f"unknown key; did you mean `{near or below}`?"
        return f"unknown key; there are {_listed(cls)}" if known else "unknown key; there is none"

    def leaves(self, *above: str) -> Iterator[tuple[tuple[str, ...], object]]:
        """Every value below that is no section, with the keys that lead to it."""
        for name, value in self._below().items():
            if isinstance(value, Section):
                yield from value.leaves(*above, name)
            else:
                yield (*above, name), value

    def _below(self) -> Mapping[str, object]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class ChoiceOfOne(Section):
    """A mapping of which one key is chosen; several keys make the choice a parameter."""

    noun: ClassVar[str] = "option"

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """At least one key; nothing below it where its section needs nothing."""
        found = handler.resolve_ref_schema(handler(schema))
        found["minProperties"] = 1
        for name, section in cls._sections():
            if not _stands_empty(section):
                forms = found["properties"][name]["anyOf"]
                found["properties"][name] = next(form for form in forms if "$ref" in form)
        return found

    @classmethod
    def _sections(cls) -> Iterator[tuple[str, type[Section]]]:
        """The keys, each with what stands below it."""
        for name, info in cls.model_fields.items():
            for part in get_args(info.annotation):
                if isinstance(part, type) and issubclass(part, Section):
                    yield name, part

    @property
    def options(self) -> dict[str, Section]:
        """The keys that are given, in the order of the schema whatever that of the file."""
        pairs = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: section for name, section in pairs if section is not None}

    def _below(self) -> Mapping[str, object]:
        return self.options

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """`constant:` with nothing below it is `constant: {}`."""
        if isinstance(data, str):
            return data
        return {key: {} if value is None else value for key, value in data.items()}

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """At least one has to be there."""
        return [] if data else [detail(f"give at least one {cls.noun}: {_listed(cls)}")]


class ExactlyOne(ChoiceOfOne):
    """A mapping with one key, or the key alone as a word: `tpe` for `{tpe: {}}`."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """One key, or the word alone."""
        mapping = super().__get_pydantic_json_schema__(schema, handler)
        return {"anyOf": [{"enum": cls.keys()}, {**mapping, "maxProperties": 1}]}

    @property
    def name(self) -> str:
        """The key that is given."""
        return next(iter(self.options))

    @property
    def settings(self) -> Section:
        """What stands below the key."""
        return next(iter(self.options.values()))

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """The mapping for a word."""
        return super().prepared({data: {}} if isinstance(data, str) else data)

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """One and no more."""
        if len(data) > 1:
            return [detail(f"give one {cls.noun} and no more, not {', '.join(map(shown, data))}")]
        return super().key_problems(data)


def _stands_empty(section: type[Section]) -> bool:
    """Whether it may have nothing in it, as `constant:` has."""
    try:
        section.model_validate({})
    except ValidationError:
        return False
    return True


def _listed(section: type[Section]) -> str:
    return ", ".join(section.keys())


def _paths_to(section: type[Section], key: str, prefix: str = "") -> Iterator[str]:
    """Where a key stands that was looked for one or more levels too high."""
    for name, info in section.model_fields.items():
        for part in (info.annotation, *get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, Section):
                if key in part.model_fields:
                    yield f"{prefix}{name}.{key}"
                yield from _paths_to(part, key, f"{prefix}{name}.")
