"""Secrets in files that environment variables name, as containers have them (`*_FILE`).

An environment variable can be read by whoever may inspect the container, and a command line by
everybody on the machine; a file has permissions.
"""

from __future__ import annotations

import os
from pathlib import Path

from hpo.errors import FileError

__all__ = ["DASHBOARD_TOKEN_FILE", "STORAGE_PASSWORD_FILE", "secret_in_file"]

STORAGE_PASSWORD_FILE = "HPO_STORAGE_PASSWORD_FILE"  # noqa: S105 (a name, not a secret)
"""Names the file with the password of a storage URL that has none."""

DASHBOARD_TOKEN_FILE = "HPO_DASHBOARD_TOKEN_FILE"  # noqa: S105 (a name, not a secret)
"""Names the file with the dashboard's token, where HPO_DASHBOARD_TOKEN is not set."""

_MOST_BYTES = 4096


def secret_in_file(variable: str) -> str | None:
    """The text of the file that an environment variable names, without line breaks at its end.

    Args:
        variable: the variable; where it is unset or empty there is no secret.

    Raises:
        FileError: the file cannot be read, or holds no secret. Neither what it holds nor its
            name is repeated: somebody may have put the secret where its file's name belongs.
    """
    name = os.environ.get(variable)
    if not name:
        return None
    try:
        with Path(name).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    except (OSError, ValueError) as error:  # ValueError: no path can have a NUL
        reason = getattr(error, "strerror", None) or "this is no path"
        raise _refused(variable, f"cannot be read ({reason})") from None
    if not secret or "\0" in secret or len(content) > _MOST_BYTES:
        raise _refused(variable, f"holds no secret of 1 to {_MOST_BYTES} bytes of text")
    return secret


def _refused(variable: str, problem: str) -> FileError:
    return FileError(f"{variable}: the file that it names {problem}; name another, or mend it")
