"""From a file and its `--set`s to a checked definition."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpo.definition import overrides as _overrides
from hpo.definition.problems import KeyPath, Problem, render, shown
from hpo.definition.schema import StudyDefinition, problems_in
from hpo.definition.source import REFUSED, Parsed, parse, read_text
from hpo.errors import DefinitionError, UsageError
from hpo.studies import valid_name

__all__ = ["change_definition", "json_schema", "load_definition"]


Judge = Callable[[StudyDefinition], Iterable[Problem]]


def load_definition(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    judge: Judge | None = None,
) -> StudyDefinition:
    """Read and check a study file.

    Args:
        overrides: `key.path=value` each, as `--set` takes them.
        name: the study's name; the file's, without its ending, if it is not given.
        judge: tells what else is wrong with a definition that is valid in itself, for rooms above
            that know more, such as the dataset; so that it is told with its line.

    Raises:
        DefinitionError: something is wrong; `problems` has all of it, one line each, by line.
        FileError: the file cannot be read.
        UsageError: `name` cannot be a name.
    """
    parsed = parse(read_text(path))
    name = _name_from(path, parsed) if name is None else valid_name(name)
    return _finish(parsed, overrides, name, str(path), judge)


def change_definition(
    definition: StudyDefinition,
    overrides: Sequence[str] = (),
    *,
    name: str | None = None,
    judge: Judge | None = None,
) -> StudyDefinition:
    """A definition that has no file, such as a stored one, with overrides and another name.

    Raises:
        DefinitionError, UsageError: as `load_definition` has them.
    """
    data = json.loads(definition.to_json())
    own_name = data.pop("name")
    name = own_name if name is None else valid_name(name)
    return _finish(Parsed(data), overrides, name, f"study {own_name}", judge)


def json_schema() -> dict[str, Any]:
    """The JSON schema of a study file, for editors that complete and check YAML by it."""
    schema = StudyDefinition.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "hpo study"
    del schema["properties"]["name"]
    schema["required"].remove("name")
    # Their readers take a key with nothing below it as one that is left out.
    for section in (schema, schema["$defs"]["DatasetSection"]):
        for key, form in section["properties"].items():
            if key not in section["required"]:
                section["properties"][key] = _or_null(form)
    return schema


def _finish(
    parsed: Parsed, overrides: Sequence[str], name: str, source: str, judge: Judge | None
) -> StudyDefinition:
    if not parsed.broken:
        _overrides.apply(parsed, overrides)
    problems = list(parsed.problems)
    definition = None
    if not parsed.broken:
        definition, found = _check(parsed, name)
        problems += found
    if definition is not None and judge is not None:
        problems += judge(definition)
    if problems or definition is None:
        raise DefinitionError(render(problems, parsed.places, source))
    return definition


def _or_null(form: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a value that may be null, too."""
    null = {"type": "null"}
    if null in form.get("anyOf", []):
        return form
    about = {key: value for key, value in form.items() if key in ("default", "title")}
    value = {key: form[key] for key in form if key not in about}
    return {**about, "anyOf": [value, null]}


def _name_from(path: Path, parsed: Parsed) -> str:
    """The name that the file gives; if it gives none, that is one more problem."""
    try:
        return valid_name(path.stem)
    except UsageError as error:
        problem = Problem((), f"{error}; rename the file, or give a name with `--name`", 0)
        parsed.problems.append(problem)
        return "unnamed"


def _check(parsed: Parsed, name: str) -> tuple[StudyDefinition | None, list[Problem]]:
    data = parsed.data
    if data is REFUSED:
        return None, []
    if data is None or data == {}:
        return None, [Problem((), "the file is empty; a study needs at least a dataset", None)]
    if not isinstance(data, dict):
        return None, [Problem((), f"a study is a mapping of sections, not {shown(data)}")]
    problems = []
    if "name" in data:
        problems.append(Problem(("name",), StudyDefinition.not_yet["name"]))
    try:
        return StudyDefinition.model_validate({**data, "name": name}), problems
    except ValidationError as error:
        found = [problem for problem in problems_in(error) if not _is_refused(data, problem.path)]
        return None, problems + found


def _is_refused(data: object, path: KeyPath) -> bool:
    """Whether the value, or one around it, was refused already: one sentence is enough."""
    for key in path:
        if data is REFUSED:
            return True
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return False
    return data is REFUSED
