"""What a study asks of its dataset that this cannot serve, of its networks too."""

from __future__ import annotations

from hpo.data import describe, suitability
from hpo.definition import Choice, StudyDefinition, largest
from hpo.definition.networks import MlpSection
from hpo.definition.problems import KeyPath, Problem
from hpo.definition.ranges import values
from hpo.definition.sections import Section
from hpo.errors import UsageError
from hpo.models.stages import misfits

__all__ = ["unsuitable"]


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong, each with its place in the study; for `load_definition` and others.

    Raises:
        DataError: the package that brings the dataset is broken.
    """
    dataset = definition.dataset.name
    found = [*suitability.unsuitable(definition), *_lone_rows(definition)]
    try:
        shape = describe(dataset).shape
    except UsageError:  # told already, as a problem of its own
        return found
    found += misfits(definition.model, shape, dataset)
    for place, _ in enumerate(definition.variations):
        of_run = misfits(definition.runs[place].model, shape, dataset)
        found += [
            Problem(("variations", place), one.sentence) for one in of_run if one not in found
        ]
    return found


def _lone_rows(definition: StudyDefinition) -> list[Problem]:
    """Networks that would normalise a batch of one row, which has no spread."""
    found = []
    for place, run in enumerate(definition.runs):
        if min(values(run.training.batch_size)) > 1:
            continue
        own = run.training.batch_size != definition.training.batch_size
        for name, section in run.model.options.items():
            if _normalizes(section):
                own = own or section != definition.model.options.get(name)
                path: KeyPath = ("variations", place) if own else ("training", "batch_size")
                sentence = f"batch norm of `{name}` needs two rows; choose batches of 2 or more"
                found.append(Problem(path, sentence))
    return list(dict.fromkeys(found))


def _normalizes(section: Section) -> bool:
    """Whether one of its networks can have batch norm."""
    if isinstance(section, MlpSection):
        count = len(section.widths or ()) if section.layers is None else largest(section.layers)
        keys = ["input_batch_norm", *(["batch_norm"] if count else [])]
    else:
        keys = ["batch_norm"]
    drawn = [getattr(section, key, False) for key in keys]
    return any(one is True or (isinstance(one, Choice) and True in one.choices) for one in drawn)
