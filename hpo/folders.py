"""Folders that the user chooses by an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from hpo.errors import FileError

__all__ = ["chosen_folder"]


def chosen_folder(variable: str) -> Path | None:
    """The folder that `variable` names, as an absolute path; None where it is empty or not set.

    It may not exist. `~` and `~ann` at its beginning are homes.

    Raises:
        FileError: the home is that of a user whom this machine does not know.
    """
    chosen = os.environ.get(variable)
    if not chosen:
        return None
    try:
        return Path(chosen).expanduser().absolute()
    except RuntimeError:
        raise FileError(
            f"{variable}: there is no home folder for {chosen!a}; write the whole path"
        ) from None
