"""What is said on stderr while a command works."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rich.console import Console

__all__ = ["configure", "name_lines", "stderr_console"]

_console: Console | None = None
_name = ""


def stderr_console() -> Console:
    """The one console on stderr; log lines and progress share it, so that neither tears the other.

    `configure` makes it anew for each run of the command line.
    """
    global _console
    if _console is None:
        _console = Console(stderr=True, highlight=False)
    return _console


def configure(verbosity: int, scrub: Callable[[str], str]) -> None:
    """Send log lines to stderr: with the time on a terminal, plain elsewhere.

    Args:
        verbosity: -1 for warnings alone, 0 for what hpo does, 1 for details, too.
        scrub: takes secrets out of a line.
    """
    global _console, _name
    _console, _name = None, ""
    handler = _handler(stderr_console())
    handler.setFormatter(_Formatter(scrub))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, _Formatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO if verbosity > 0 else logging.WARNING)
    own = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}
    logging.getLogger("hpo").setLevel(own[verbosity])


def name_lines(name: str) -> None:
    """Put a worker's name in front of every line from now on, until `configure` is called."""
    global _name
    _name = name


def _handler(console: Console) -> logging.Handler:
    if not console.is_terminal:
        return logging.StreamHandler()
    from rich.logging import RichHandler

    return RichHandler(
        console=console,
        show_path=False,
        show_level=False,
        omit_repeated_times=False,
        log_time_format="%H:%M:%S",
    )


class _Formatter(logging.Formatter):
    """The message; its level where that matters; no secrets."""

    def __init__(self, scrub: Callable[[str], str]) -> None:
        super().__init__()
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        if _name:
            text = f"{_name}: {text}"
        return self._scrub(text)
