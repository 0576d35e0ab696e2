"""`hpo studies`: find, read and check study files."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import (
    DATA_PANEL,
    DEFAULT_STORAGE,
    Format,
    OutputFormat,
    Overrides,
    StorageUrl,
    storage_url,
)
from hpo.errors import DefinitionError, NoStudyError, UsageError

if TYPE_CHECKING:
    from hpo.definition import StudyDefinition

__all__ = ["register"]

_LIST = ["name", "from", "stored", "summary"]


class Shape(StrEnum):
    """How a study is shown."""

    YAML = "yaml"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(help="Find, read and check studies.", invoke_without_command=True)
    group.callback()(_show_help)
    group.command("list")(list_studies)
    for command in (show, validate, schema):
        group.command()(command)
    app.add_typer(group, name="studies", rich_help_panel=DATA_PANEL)


def list_studies(
    storage: StorageUrl = None,
    output: OutputFormat = Format.TABLE,
) -> None:
    """The studies that can be asked for by name.

    They come from ./studies, from hpo itself, and from the database; stored says whether the
    database holds the study.
    """
    from hpo import studies
    from hpo.cli import rendering

    stored = _stored(storage)
    rows: list[dict[str, Any]] = [
        {
            "name": study.name,
            "from": str(study.path),
            "stored": study.name in stored,
            "summary": study.summary,
        }
        for study in studies.available()
    ]
    known = {row["name"] for row in rows}
    rows += [
        {"name": name, "from": None, "stored": True, "summary": ""}
        for name in stored
        if name not in known
    ]
    if output is Format.JSON:
        rendering.write_json(rows)
    elif output is Format.CSV:
        rendering.write_csv(rows, _LIST)
    else:
        shown = [{**row, "from": row["from"] or "the database"} for row in rows]
        rendering.write_rows(shown, _LIST, "there is no study here")


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A study's name, or the path of its file.",
            show_default=False,
        ),
    ],
    storage: StorageUrl = None,
    output: Annotated[
        Shape,
        typer.Option(
            "--format", help="The text of the file, or the checked definition with every default."
        ),
    ] = Shape.YAML,
) -> None:
    """The study file, or the definition that the database holds where there is no file."""
    from hpo import studies
    from hpo.cli import rendering
    from hpo.cli.definitions import find_definition, stored_definition
    from hpo.definition.source import read_text

    url = storage_url(storage)
    try:
        path = studies.find(name)
    except NoStudyError:
        definition = stored_definition(name, url)
        if definition is None:
            raise
        text = _as_yaml(definition)
    else:
        definition = find_definition(name, url) if output is Shape.JSON else None
        text = read_text(path)
    if output is Shape.JSON and definition is not None:
        rendering.write_json(json.loads(definition.to_json()))
    else:
        rendering.write(text)


def validate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|PATH...",
            help="Names of studies, or paths of study files.",
            show_default=False,
        ),
    ],
    overrides: Overrides = None,
) -> None:
    """Check study files; every problem is named with its line.

    For each valid file a line with the size of its space is written.
    """
    from hpo.cli import rendering

    problems: list[str] = []
    for name in names:
        try:
            rendering.write(_verdict(name, overrides or []))
        except DefinitionError as error:
            problems += error.problems
        except UsageError as error:
            problems.append(str(error))
    if problems:
        raise DefinitionError(problems)


def schema() -> None:
    """The JSON schema of a study file, for editors that complete and check YAML by it."""
    from hpo.cli import rendering
    from hpo.definition import json_schema

    rendering.write_json(json_schema())


def _show_help(context: typer.Context) -> None:
    """Find, read and check studies."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _stored(storage: str | None) -> list[str]:
    """The studies of the database; none where nobody named one and the usual file is not there."""
    url = storage_url(storage)
    if url == DEFAULT_STORAGE and not Path(DEFAULT_STORAGE.removeprefix("sqlite:///")).exists():
        return []
    from hpo.search.storage import open_storage
    from hpo.search.study import names

    with open_storage(url, must_exist=True) as opened:
        return names(opened)


def _as_yaml(definition: StudyDefinition) -> str:
    import yaml

    data = json.loads(definition.to_json())
    name = data.pop("name")
    text = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=99)
    return f"# {name}: as the database holds it, with every default\n{text}"


def _verdict(name: str, overrides: list[str]) -> str:
    """One line about a valid study.

    Raises:
        DefinitionError, UsageError: it is not valid, or there is none.
    """
    from hpo import space, studies
    from hpo.cli.definitions import unsuitable
    from hpo.definition import load_definition

    path = studies.find(name)
    definition = load_definition(path, overrides, judge=unsuitable)
    if definition.variations:
        return f"{path}: valid, {len(definition.variations)} variations, each trained once"
    size = space.cardinality(definition)
    count = len(space.describe(definition))
    space_size = "a continuous space" if size is None else f"{size:,} combinations"
    return f"{path}: valid, {count} parameters, {space_size}"
