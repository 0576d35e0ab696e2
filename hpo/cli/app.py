"""The app: its global options, its commands, and how an error ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import hpo
from hpo.cli import (
    curves,
    dashboard,
    data,
    doctor,
    inspect,
    plot,
    retrain,
    search,
    studies,
    workers,
)
from hpo.cli.options import BROKEN_PIPE, PANELS
from hpo.cli.secrets import Scrubber
from hpo.errors import DefinitionError, FileError, HpoError

__all__ = ["app", "main"]

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130
# Global options that may also stand behind the command: people append them to its last call.
_ANYWHERE = frozenset({"--debug", "-v", "--verbose", "-q", "--quiet"})
# What Typer raises for a command line that it cannot read; it has no public name in Typer.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


class _ByPanel(TyperGroup):
    """Lists commands panel by panel; Typer itself puts all groups behind all commands."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        panels = {
            name: getattr(command, "rich_help_panel", None)
            for name, command in self.commands.items()
        }
        return sorted(panels, key=lambda name: PANELS.index(str(panels[name])))


app = typer.Typer(
    name="hpo",
    cls=_ByPanel,
    help="Search the hyperparameters of neural networks, and retrain the winner.",
    epilog="To begin: hpo optimize --study digits, then hpo retrain-best --study digits.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, and return its exit code.

    An error is one line on stderr; passwords are taken out of whatever is printed.

    Args:
        arguments: without the program's name; those of this process if left out.
    """
    _open_closed_streams()
    arguments = _globals_first(sys.argv[1:] if arguments is None else arguments)
    scrub = Scrubber(arguments)
    command = typer.main.get_command(app)
    try:
        code = command(arguments, prog_name="hpo", standalone_mode=False, obj=scrub)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except SystemExit as leaving:
        # Typer's answer to a reader who has gone, whatever it was that wrote.
        if isinstance(leaving.__context__, BrokenPipeError):
            return _leave_quietly()
        return _code(leaving.code)
    except BrokenPipeError:
        return _leave_quietly()
    except OSError as error:
        return _fail(_of_stdout(error) or error, scrub, debug="--debug" in arguments)
    except Exception as error:  # noqa: BLE001 (the last door: whatever it is, say it plainly)
        return _fail(error, scrub, debug="--debug" in arguments)
    return _code(code)


def _open_closed_streams() -> None:
    """Let what is written to a stdout or stderr that was closed (`>&-`) go nowhere.

    Python has None in their place, which has nothing to write with; and an error that is printed
    to None goes to stdout.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            # Open until the process ends, as the stream that it stands for would be.
            stream = open(nowhere, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hpo {hpo.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    debug: Annotated[  # noqa: ARG001 (`main` looks for it, also where no command is found)
        bool,
        typer.Option("--debug", help="Show the traceback of an error; may stand anywhere."),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more on stderr; may stand anywhere.")
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", help="Say only what goes wrong; may stand anywhere."),
    ] = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet exclude each other")
    from hpo.cli import logs

    scrub = context.obj if isinstance(context.obj, Scrubber) else Scrubber([])
    logs.configure(int(verbose) - int(quiet), scrub)


# --- how a run ends


def _fail(error: Exception, scrub: Scrubber, *, debug: bool) -> int:
    """Say what went wrong on stderr, and return the exit code."""
    if debug and not isinstance(error, _CommandLineError):
        _say(scrub("".join(traceback.format_exception(error)).rstrip()))
    if isinstance(error, HpoError):
        problems = error.problems if isinstance(error, DefinitionError) else [str(error)]
        for problem in problems:
            _say(f"hpo: {scrub(problem)}")
        return error.exit_code
    if isinstance(error, _CommandLineError):
        _say(f"hpo: {scrub(_usage_problem(error))}")
        return _USAGE
    lines = str(error).strip().splitlines()
    sentence = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    _say(f"hpo: {scrub(sentence)}; run again with --debug for the traceback")
    return _FAILED


def _usage_problem(error: Exception) -> str:
    """One line out of Typer's message, with where to read on."""
    message = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "hpo")
    return f"{message.rstrip('.')}; {command} --help shows how it is used"


def _code(given: object) -> int:
    return given if isinstance(given, int) else 0


def _say(text: str) -> None:
    # Nobody may be listening any more.
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def _of_stdout(error: OSError) -> FileError | None:
    """A disk's refusal to take what was printed: the only error without a file's name."""
    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return None
    # What is still buffered would raise again when Python flushes it at its end.
    _leave_quietly()
    return FileError(f"stdout: {error.strerror}; make room where it is sent to")


def _leave_quietly() -> int:
    """End as a program does whose reader has gone (`hpo trials | head -1`)."""
    # What is still buffered would raise again when Python flushes it at its end.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


def _globals_first(arguments: Sequence[str]) -> list[str]:
    """The command line with the options that may stand anywhere moved to its front."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved = [word for word in arguments[:end] if word in _ANYWHERE]
    rest = [word for word in arguments[:end] if word not in _ANYWHERE]
    return [*moved, *rest, *arguments[end:]]


def _reflow(group: typer.Typer) -> None:
    """Let the help break a paragraph of a docstring where the terminal ends, not the source."""
    for command in group.registered_commands:
        paragraphs = (getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _reflow(inner.typer_instance)


for _module in (
    *(search, workers, retrain, inspect, curves, plot),
    *(dashboard, studies, data, doctor),
):
    _module.register(app)
_reflow(app)
