"""From `--study`, `--set` and their shorthands to a checked definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpo.cli.options import study_name

if TYPE_CHECKING:
    from hpo.definition import StudyDefinition
    from hpo.definition.problems import Problem

__all__ = ["find_definition", "shorthands", "unsuitable"]


def shorthands(trials: int | None, seed: int | None) -> list[str]:
    """`--trials` and `--seed` as what they stand for."""
    from hpo.errors import UsageError

    if trials is not None and trials < 1:
        raise UsageError(f"--trials: {trials} is not a number of trials; ask for 1 or more")
    changes = {"search.trials": trials, "search.seed": seed}
    return [f"{key}={value}" for key, value in changes.items() if value is not None]


def find_definition(study: str, url: str, changes: list[str], name: str | None) -> StudyDefinition:
    """Of the study's file; of the database, where only that holds the study."""
    from hpo import grid, studies
    from hpo.definition import change_definition, load_definition
    from hpo.errors import HpoError, UsageError

    try:
        path = studies.find(study)
    except UsageError:
        try:
            stored = _stored_definition(study, url)
        except HpoError:
            stored = None
        if stored is None:
            raise
        return grid.sized(change_definition(stored, changes, name=name, judge=unsuitable))
    return grid.sized(load_definition(path, changes, name=name, judge=unsuitable))


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong with a definition that is valid in itself, each with its place."""
    from hpo import grid
    from hpo.models import suitability

    return [*suitability.unsuitable(definition), *grid.unsuitable(definition)]


def _stored_definition(study: str, url: str) -> StudyDefinition:
    from hpo.search.storage import open_storage
    from hpo.search.study import load

    with open_storage(url, must_exist=True) as opened:
        return load(opened, study_name(study))[1]
