"""What a study asks of its dataset that this cannot serve, of its networks too."""

from __future__ import annotations

from hpo.data import describe, suitability
from hpo.definition import Choice, StudyDefinition
from hpo.definition.families import ConvolutionalSection
from hpo.definition.problems import Problem
from hpo.definition.ranges import values
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
    found += _lone_rows(definition)
    for place, _ in enumerate(definition.variations):
        of_run = misfits(definition.runs[place].model, shape, dataset)
        found += [
            Problem(("variations", place), one.sentence) for one in of_run if one not in found
        ]
    return found


def _lone_rows(definition: StudyDefinition) -> list[Problem]:
    """Convolutional networks that would normalise a batch of one row, which has no spread."""
    found = []
    for run in definition.runs:
        for name, section in run.model.options.items():
            drawn = getattr(section, "batch_norm", False)
            normed = drawn is True or (isinstance(drawn, Choice) and True in drawn.choices)
            convolves = isinstance(section, ConvolutionalSection)
            if convolves and normed and min(values(run.training.batch_size)) == 1:
                sentence = f"batch norm of `{name}` needs two rows; choose batches of 2 or more"
                found.append(Problem(("training", "batch_size"), sentence))
    return list(dict.fromkeys(found))
