"""From `--study`, `--set` and their shorthands to a checked definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import optuna

    from hpo.definition import StudyDefinition
    from hpo.definition.problems import Problem

__all__ = [
    "asks_for_trials",
    "find_definition",
    "planned",
    "shorthands",
    "stored_definition",
    "unsuitable",
]


def shorthands(trials: int | None, seed: int | None) -> list[str]:
    """`--trials` and `--seed` as what they stand for."""
    from hpo.errors import UsageError

    if trials is not None and trials < 1:
        raise UsageError(f"--trials: {trials} is not a number of trials; ask for 1 or more")
    changes = {"search.trials": trials, "search.seed": seed}
    return [f"{key}={value}" for key, value in changes.items() if value is not None]


def asks_for_trials(changes: Sequence[str]) -> bool:
    """Whether overrides, `--trials` among them, say how many trials a study is to have."""
    from hpo.definition.source import parse

    asked = False
    for text in changes:
        dotted, _, value = text.partition("=")
        path = [key.strip() for key in dotted.split(".")]
        if path == ["search"]:  # the whole section: what was set before it is gone
            section = parse(value).data
            asked = isinstance(section, dict) and "trials" in section
        asked = asked or path == ["search", "trials"]
    return asked


def find_definition(
    study: str, url: str, changes: Sequence[str] = (), name: str | None = None
) -> StudyDefinition:
    """Of the study's file; of the database, where only that holds the study.

    Raises:
        DefinitionError, UsageError: it is not valid, or there is none.
        StorageError: there is no file, and the database cannot be used.
        FileError: the file or the database cannot be read.
    """
    from hpo import grid, studies
    from hpo.definition import change_definition, load_definition
    from hpo.errors import NoStudyError

    try:
        path = studies.find(study)
    except NoStudyError:
        stored = stored_definition(study, url)
        if stored is None:
            raise
        return grid.sized(change_definition(stored, changes, name=name, judge=unsuitable))
    return grid.sized(load_definition(path, changes, name=name, judge=unsuitable))


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong with a definition that is valid in itself, each with its place."""
    from hpo import grid
    from hpo.models import suitability

    return [*suitability.unsuitable(definition), *grid.unsuitable(definition)]


def stored_definition(study: str, url: str) -> StudyDefinition | None:
    """What the database holds, as it is; None where it holds no such study, or is not there yet.

    Raises:
        StorageError, FileError: the database cannot be used.
    """
    from hpo import studies

    if studies.is_path(study):
        return None
    return _look_up(study, url, lambda _, definition: definition)


def planned(definition: StudyDefinition, url: str) -> StudyDefinition:
    """What a command that does not say how many trials would search; the database stays as it is.

    Raises:
        StorageError, FileError: the database cannot be used.
        UsageError: its study of this name is not hpo's.
    """
    from hpo.search.study import as_asked

    asked = _look_up(definition.name, url, lambda study, _: as_asked(study, definition))
    return asked or definition


def _look_up(
    name: str,
    url: str,
    read: Callable[[optuna.Study, StudyDefinition], StudyDefinition],
) -> StudyDefinition | None:
    """What `read` makes of a stored study; None where there is none, or no database yet."""
    from hpo.search.status import count_studies
    from hpo.search.storage import open_storage
    from hpo.search.study import load, names
    from hpo.search.url import parse

    file = parse(url).path
    if (file is not None and not _is_there(file)) or not count_studies(url):
        return None
    with open_storage(url, must_exist=True) as opened:
        return read(*load(opened, name)) if name in names(opened) else None


def _is_there(file: Path) -> bool:
    """Whether a database's file is there; a disk that does not tell is an error."""
    from hpo.files import disk_errors

    with disk_errors(file, "name another database with --storage"):
        return file.exists()
