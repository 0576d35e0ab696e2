"""What a study asks of its dataset that this cannot serve, by the dataset's description alone."""

from __future__ import annotations

from hpo.data.catalog import describe
from hpo.data.info import DatasetInfo
from hpo.data.splits import divide
from hpo.definition import StudyDefinition, largest
from hpo.definition.metrics import CLASSIFICATION, REGRESSION
from hpo.definition.problems import KeyPath, Problem
from hpo.errors import UsageError

__all__ = ["unsuitable"]


def unsuitable(definition: StudyDefinition) -> list[Problem]:
    """What is wrong, each with its place in the study; for `load_definition` and others.

    Raises:
        DataError: the package that brings the dataset is broken.
    """
    try:
        about = describe(definition.dataset.name)
    except UsageError as error:
        return [Problem(("dataset", "name"), str(error))]
    problems = _misfit_metrics(definition, about)
    if definition.dataset.augment and len(about.shape) == 1:
        count = about.shape[0]
        sentence = (
            f"{about.name} has no images to augment, a row of it is {count} "
            f"number{'s' if count > 1 else ''}; leave `augment` out"
        )
        problems.append(Problem(("dataset", "augment"), sentence))
    for place, run in enumerate(definition.runs):
        if about.targets and run.training.label_smoothing != 0:
            sentence = f"{about.name} has no labels to smooth; leave `label_smoothing` out"
            problems.append(Problem(_path(definition, place, "label_smoothing"), sentence))
    return [*dict.fromkeys(problems), *_too_few_rows(definition, about)]


def _too_few_rows(definition: StudyDefinition, about: DatasetInfo) -> list[Problem]:
    """What the rows of the training part are not enough for."""
    dataset = definition.dataset
    try:
        parts = divide(dataset, about.n_train, definition.search.seed)
    except UsageError as error:
        key = "validation" if dataset.folds is None else "folds"
        return [Problem(("dataset", key), str(error))]
    problems = []
    rows = min(len(training) for training, _ in parts)
    for place, run in enumerate(definition.runs):
        if (batch := largest(run.training.batch_size)) > rows:
            sentence = (
                f"a batch of {batch} is larger than the {rows} training rows of {about.name}; "
                "choose a smaller batch"
            )
            problems.append(Problem(_path(definition, place, "batch_size"), sentence))
    if min(len(validation) for _, validation in parts) < 2:
        sentence = "r2 compares with the spread of the validation rows, and one row has none"
        problems += [
            Problem(path, f"{sentence}; hold more out")
            for path, metric in _asked_metrics(definition)
            if metric == "r2"
        ]
    return problems


def _misfit_metrics(definition: StudyDefinition, about: DatasetInfo) -> list[Problem]:
    """The metrics that the dataset's rows do not have."""
    fitting = REGRESSION if about.targets else CLASSIFICATION
    what = "targets" if about.targets else "classes"
    return [
        Problem(
            path,
            f"{metric} does not fit {about.name}, which has {what}; "
            f"write one of {', '.join(fitting)}",
        )
        for path, metric in _asked_metrics(definition)
        if metric not in fitting
    ]


def _asked_metrics(definition: StudyDefinition) -> list[tuple[KeyPath, str]]:
    """The metrics that a study names, to search or to stop by, each with its place."""
    asked: list[tuple[KeyPath, str]] = [(("search", "metric"), definition.search.metric)]
    for place, run in enumerate(definition.runs):
        stopping = run.training.early_stopping
        if stopping is not None and stopping.metric is not None:
            path = _path(definition, place, "early_stopping", "metric")
            asked.append((path, stopping.metric))
    return list(dict.fromkeys(asked))


def _path(definition: StudyDefinition, place: int, key: str, *below: str) -> KeyPath:
    """Where a run has a key of `training` from: its variation, or what all runs share."""
    own = getattr(definition.runs[place].training, key)
    if own != getattr(definition.training, key):
        return ("variations", place)
    return ("training", key, *below)
