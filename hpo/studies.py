"""Finding study files, by name or by path; and what a study may be called.

A name is looked up as `./studies/NAME.yaml` first, then among the studies that the package
ships. It never leaves these two folders; a path goes wherever the user points it. What stands in
`./studies` and cannot serve is an error, and never passed over for what the package ships.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from hpo.errors import FileError, NoStudyError, UsageError

__all__ = ["StudyFile", "available", "find", "is_path", "valid_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SUMMARY_BYTES = 4096


@dataclass(frozen=True, slots=True)
class StudyFile:
    """A study that can be asked for by name.

    Attributes:
        summary: the file's first comment line, without the mark and the file's own name.
    """

    name: str
    path: Path
    summary: str


def valid_name(name: str) -> str:
    """Return `name` if a study may be called so: it becomes a file's and a folder's name.

    Raises:
        UsageError: it could leave its folder, hide, or be taken for an option or a path.
    """
    if not _NAME.fullmatch(name) or ".." in name or name.endswith(".") or is_path(name):
        raise UsageError(
            f"{_short(name)} cannot be a study's name: use 1 to 100 letters (a to z), digits, "
            "`-`, `_` and `.`, begin with a letter or a digit, do not end in `.`, `.yaml` or "
            "`.yml`, and have no two `.` in a row"
        )
    return name


def find(name_or_path: str) -> Path:
    """The file of the study that `--study` asks for.

    Args:
        name_or_path: a name, or a path as `is_path` has it.

    Raises:
        NoStudyError: there is no such study; the message says which there are.
        UsageError: this cannot be a name, or is that of a link that a name does not follow.
    """
    if is_path(name_or_path):
        return _existing(name_or_path)
    valid_name(name_or_path)
    for folder in _folders():
        file = folder / f"{name_or_path}.yaml"
        if _lies_in(folder, file):
            return file
        if file.is_symlink():
            raise UsageError(_why_not_followed(file))
    raise NoStudyError(f"there is no study `{name_or_path}`{_those_there_are(name_or_path)}")


def is_path(name_or_path: str) -> bool:
    """Whether `--study` names a file: it has a `/` in it, or ends in `.yaml` or `.yml`."""
    return "/" in name_or_path or name_or_path.lower().endswith((".yaml", ".yml"))


def available() -> list[StudyFile]:
    """Every study that can be asked for by name, by name; those in `./studies` come first."""
    found: dict[str, StudyFile] = {}
    for folder in _folders():
        for file in _yaml_files(folder):
            if file.stem not in found and _is_name(file.stem) and _lies_in(folder, file):
                found[file.stem] = StudyFile(file.stem, file, _summary(file))
    return sorted(found.values(), key=lambda study: study.name)


def _folders() -> list[Path]:
    """Where names are looked up, nearest first."""
    package = Path(__file__).resolve().parent
    shipped = package / "_studies"
    if not shipped.is_dir() and (package.parent / "pyproject.toml").is_file():
        shipped = package.parent / "studies"  # an editable checkout
    return [folder for folder in (Path("studies"), shipped) if folder.is_dir()]


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.yaml"))
    except OSError as error:
        raise FileError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _existing(text: str) -> Path:
    path = Path(text)
    try:
        there = "\0" not in text and path.exists()
    except PermissionError:  # for whoever reads the file to say
        there = True
    except OSError:  # too long a name
        there = False
    if not there:
        raise NoStudyError(f"there is no file {_short(text)}{_those_there_are(path.stem)}")
    return path


def _lies_in(folder: Path, file: Path) -> bool:
    """Whether `file` is a file in `folder`, and not a link out of it."""
    try:
        there = S_ISREG(file.stat().st_mode)
        return there and file.resolve().is_relative_to(folder.resolve())
    except PermissionError:  # for whoever reads the file to say
        return True
    except (OSError, RuntimeError):  # nothing is there, or a loop of links
        return False


def _why_not_followed(link: Path) -> str:
    if link.is_file():
        return f"{link} is a link out of its folder; give its path"
    return f"{link} is a link to no file; mend it, or remove it"


def _is_name(text: str) -> bool:
    try:
        valid_name(text)
    except UsageError:
        return False
    return True


def _those_there_are(name: str) -> str:
    names = [study.name for study in available()]
    if not names:
        return "; there are none here"
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    guess = f"did you mean `{near[0]}`? " if near else ""
    return f"; {guess}there are {', '.join(names)}"


def _summary(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            head = stream.read(_SUMMARY_BYTES).decode("utf-8-sig", errors="replace")
    except OSError:
        return ""
    for line in head.splitlines():
        if line.startswith("#"):
            text = line.lstrip("#").strip().removeprefix(f"studies/{file.name}:").strip()
            return "".join(char for char in text if char.isprintable())
    return ""


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}...'"
