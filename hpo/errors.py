"""Every error that hpo raises on purpose, each with the exit code of the command it ends.

    HpoError                 1   something failed
    +-- UsageError           2   the command line asks for what cannot be
    |   +-- DefinitionError  2   a study file is wrong; carries every problem found
    |   +-- NoStudyError     2   there is no study of this name
    +-- DataError            1   a dataset is missing, damaged or foreign
    +-- TrainingError        1   a search or a retrain cannot go on
    +-- StorageError        69   the database cannot be reached or used
    +-- FileError           74   a file or the disk refuses
    +-- Interrupted        130   stopped by a signal (130 SIGINT, 143 SIGTERM)

A message is one sentence for a person: what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "DataError",
    "DefinitionError",
    "FileError",
    "HpoError",
    "Interrupted",
    "NoStudyError",
    "StorageError",
    "TrainingError",
    "UsageError",
]


class HpoError(Exception):
    """The base of all errors for a person; `except HpoError` catches every one."""

    exit_code = 1


class UsageError(HpoError):
    """The command line, or a value in it, cannot be served."""

    exit_code = 2


class DefinitionError(UsageError):
    """A study file is wrong.

    Attributes:
        problems: one sentence each, with file and line where they are known.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class NoStudyError(UsageError):
    """There is no study of this name, or no file at this path."""


class DataError(HpoError):
    """A dataset is missing, damaged, or not what its name says."""


class TrainingError(HpoError):
    """A search or a retrain cannot go on."""


class StorageError(HpoError):
    """The database cannot be reached or used."""

    exit_code = 69


class FileError(HpoError):
    """A file or the disk refuses."""

    exit_code = 74


class Interrupted(HpoError):  # noqa: N818 - it is no fault
    """Stopped by a signal; what was in progress has been handed back.

    Args:
        signal_number: the signal; the exit code is 128 plus it, as shells have it.
    """

    def __init__(self, message: str, signal_number: int = 2) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
