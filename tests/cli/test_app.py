from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import hpo as package
from hpo import studies
from hpo.cli.app import app
from hpo.errors import DefinitionError, HpoError, Interrupted, StorageError
from tests.commands import HPO

from .conftest import Run, hpo


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and group, by its words."""

    def walk(words: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield words, command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{words} {name}", inner)

    yield from walk("hpo", typer.main.get_command(app))


# --- help


def test_every_command_of_the_design_is_there() -> None:
    words = {name.removeprefix("hpo ") for name, _ in commands()}
    assert words >= {
        "optimize",
        "retrain-best",
        "status",
        "trials",
        "best",
        "studies list",
        "studies show",
        "studies validate",
        "studies schema",
        "data list",
        "data fetch",
        "doctor",
    }


def test_every_command_and_every_option_has_help() -> None:
    for words, command in commands():
        assert command.help, words
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{words}: {parameter.name}"


@pytest.mark.parametrize("words", [words for words, _ in commands()])
def test_help_is_data_and_succeeds(run: Run, words: str) -> None:
    for flag in ("--help", "-h"):
        done = run(*words.split()[1:], flag)
        assert (done.code, done.err) == (0, "")
        assert f"Usage: {words}" in done.out


@pytest.mark.parametrize("group", [[], ["studies"], ["data"]])
def test_a_group_alone_shows_its_help(run: Run, group: list[str]) -> None:
    done = run(*group)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip() == run(*group, "--help").out.strip()


def test_the_help_follows_the_work(run: Run) -> None:
    out = run("--help").out
    places = [out.index(word) for word in ("optimize", " status ", " studies ", " doctor ")]
    assert places == sorted(places)


def test_version(run: Run) -> None:
    assert run("--version").out == f"hpo {package.__version__}\n"


def test_the_shell_completes_commands() -> None:
    done = hpo(_HPO_COMPLETE="complete_bash", COMP_WORDS="hpo st", COMP_CWORD="1")
    assert done.out.split() == ["status", "studies"]


# --- what is imported


HEAVY = {"torch", "optuna", "sklearn", "numpy", "sqlalchemy", "scipy", "yaml", "hpo.definition"}


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import hpo.cli", {"pydantic"}),
        ("from hpo.cli import main; main(['--help'])", {"pydantic"}),
        ("from hpo.cli import main; main(['--version'])", {"pydantic"}),
        # Below a command Typer imports pydantic itself, for its own conversions.
        ("from hpo.cli import main; main(['optimize', '--help'])", set()),
        ("from hpo.cli import main; main(['studies'])", set()),
    ],
)
def test_help_imports_nothing_heavy(code: str, heavy: set[str]) -> None:
    said = f"{code}; import sys; print(*sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", said], capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(done.stderr.split())
    assert "hpo.cli" in imported
    assert not (HEAVY | heavy) & imported


# --- usage


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["optimise"], "Did you mean 'optimize'"),
        (["--nope"], "No such option"),
        (["trials"], "Missing option"),
        (["status", "--format", "xml"], "--format"),
        (["status", "extra"], "extra"),
        (["status", "--study"], "--study"),
        (["-v", "-q", "status"], "exclude each other"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(run: Run, arguments: list[str], said: str) -> None:
    for debug in ([], ["--debug"]):
        done = run(*arguments, *debug)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
        assert done.err.startswith("hpo: ")
        assert done.err.count("\n") == 1
        assert "--help shows how it is used" in done.err


def test_global_options_may_stand_anywhere(run: Run) -> None:
    for arguments in (["--debug", "status"], ["status", "--debug"]):
        assert "Traceback" in run(*arguments).err
    assert "Traceback" not in run("status", "--", "--debug").err


# --- errors


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `hpo studies list` meet an error in the rooms below."""

    def raise_it() -> None:
        raise error

    monkeypatch.setattr(studies, "available", raise_it)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (HpoError("it is so; do this"), 1, "hpo: it is so; do this\n"),
        (StorageError("it is away"), 69, "hpo: it is away\n"),
        (Interrupted("stopped", 15), 143, "hpo: stopped\n"),
        (
            DefinitionError(["a.yaml:1: x", "a.yaml:2: y"]),
            2,
            "hpo: a.yaml:1: x\nhpo: a.yaml:2: y\n",
        ),
        (
            ValueError("first line\nsecond line"),
            1,
            "hpo: ValueError: first line; run again with --debug for the traceback\n",
        ),
        (
            AssertionError(),
            1,
            "hpo: AssertionError; run again with --debug for the traceback\n",
        ),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_ends_in_one_sentence_and_its_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    fail_with(monkeypatch, error)
    done = run("studies", "list")
    assert (done.code, done.out, done.err) == (code, "", said)


def test_debug_shows_the_traceback_and_then_the_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, ValueError("first line"))
    done = run("studies", "list", "--debug")
    assert done.code == 1
    assert done.err.startswith("Traceback")
    assert "in raise_it" in done.err
    assert done.err.splitlines()[-1].startswith("hpo: ValueError: first line")


def with_closed(stream: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A command that was started without a stdout (`1`) or a stderr (`2`)."""
    command = f'exec "$0" -m hpo "$@" {stream}>&-'
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable, *arguments],
        check=False,
        capture_output=True,
        timeout=60,
    )


def test_a_closed_stderr_changes_no_exit_code_and_puts_no_error_on_stdout() -> None:
    done = with_closed("2", "status")
    assert (done.returncode, done.stdout) == (69, b"")


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["data", "list"], ["studies", "list", "--format", "json"]],
    ids=" ".join,
)
def test_a_closed_stdout_is_no_failure(arguments: list[str]) -> None:
    done = with_closed("1", *arguments)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_leaves_the_exit_code_of_an_error() -> None:
    done = with_closed("1", "status")
    assert done.returncode == 69
    assert done.stderr.startswith(b"hpo: sqlite:///hpo.db: there is no such file")


def test_help_into_a_closed_pipe_is_quiet() -> None:
    shell = '"$0" -m hpo optimize --help | true'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""


# --- log lines


def test_quiet_says_less_and_verbose_more(run: Run) -> None:
    assert "digits: was here already" in run("data", "fetch", "digits").err
    assert run("-q", "data", "fetch", "digits").err == ""
    assert "digits: was here already" in run("data", "fetch", "digits", "-v").err


@pytest.mark.parametrize(
    "command", [("optimize", "--study", "digits", "--dry-run"), ("data", "list")]
)
def test_a_full_disk_behind_stdout_is_one_sentence(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*HPO, *command], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 74
    assert done.stderr.decode().startswith("hpo: stdout: No space left on device; make room")


def test_a_reader_who_has_gone_is_no_error_whatever_wrote(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*HPO, "optimize", "--study", "digits", "--dry-run"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
