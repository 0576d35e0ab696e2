"""What a study asks of its dataset that this cannot serve, of its networks too."""

from __future__ import annotations

from hpo.data import describe, suitability
from hpo.definition import StudyDefinition
from hpo.definition.problems import Problem
from hpo.errors import UsageError
from hpo.models.stages import misfits

__all__ = ["unsuitable"]


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong, each with its place in the study; for `load_definition` and others.

    A dataset that nobody knows is told by whoever looks for its rows.

    Raises:
        DataError: the package that brings the dataset is broken.
    """
    dataset = definition.dataset.name
    try:
        shape = describe(dataset).shape
    except UsageError:
        return []
    found = [*suitability.unsuitable(definition), *misfits(definition.model, shape, dataset)]
    for place, _ in enumerate(definition.variations):
        of_run = misfits(definition.runs[place].model, shape, dataset)
        found += [
            Problem(("variations", place), one.sentence) for one in of_run if one not in found
        ]
    return found
