"""Pages that commands draw: where they go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo.files import disk_errors, write_whole

__all__ = ["PageFile", "write_page"]

_REMEDY = "name another file with --out"

PageFile = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="The page, or a folder for it; named after the study if left out. An older page is "
        "replaced.",
        show_default=False,
    ),
]


def write_page(out: Path | None, name: str, page: str) -> Path:
    """Write a page, and say where it lies.

    Args:
        out: a file, or a folder that is there; the working folder if None.
        name: of the file in a folder.

    Raises:
        FileError: the disk refuses; no half page is left.
    """
    path = Path() if out is None else out
    with disk_errors(path, _REMEDY):
        if path.is_dir():
            path /= name
    with disk_errors(path, _REMEDY):
        write_whole(path, page.encode())
    return path
