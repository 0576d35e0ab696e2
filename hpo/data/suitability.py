"""What a study asks of its dataset that this cannot serve, by the dataset's description alone."""

from __future__ import annotations

from hpo.data.catalog import describe
from hpo.definition import StudyDefinition
from hpo.definition.problems import Problem
from hpo.errors import UsageError

__all__ = ["unsuitable"]


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong, each with its place in the study; for `load_definition` and others.

    A dataset that nobody knows is told by whoever looks for its rows.

    Raises:
        DataError: the package that brings the dataset is broken.
    """
    dataset = definition.dataset
    if not dataset.augment:
        return []
    try:
        shape = describe(dataset.name).shape
    except UsageError:
        return []
    if len(shape) > 1:
        return []
    sentence = (
        f"{dataset.name} has no images to augment, a row of it is {shape[0]} numbers; "
        "leave `augment` out"
    )
    return [Problem(("dataset", "augment"), sentence)]
