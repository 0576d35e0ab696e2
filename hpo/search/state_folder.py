"""Where workers keep their own: checkpoints, and results that the database has yet to hear of.

One folder a database, named after the random id that the database carries: a database that was
deleted and made anew, or that another path leads to, is told from it. A copy of the file is not:
`repair` minds that.
"""

from __future__ import annotations

from pathlib import Path

from hpo.folders import chosen_folder

__all__ = ["state_folder"]


def state_folder(database_id: str) -> Path:
    """`HPO_STATE`, or `hpo` in the user's state folder, and in it one for the database.

    It may not exist yet. Workers on one machine share it; it may be on a volume that several
    machines share.

    Raises:
        FileError: `HPO_STATE` names the home of nobody.
    """
    chosen = chosen_folder("HPO_STATE")
    if chosen is not None:
        return chosen / database_id
    from platformdirs import user_state_path

    return user_state_path("hpo", appauthor=False).absolute() / database_id
