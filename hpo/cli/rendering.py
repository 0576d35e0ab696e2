"""Results on stdout: tables for people, JSON and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hpo.cli.options import BROKEN_PIPE

__all__ = [
    "flatten",
    "metric",
    "shown",
    "write",
    "write_csv",
    "write_json",
    "write_params",
    "write_record",
    "write_rows",
]

Row = Mapping[str, Any]

_UNLIMITED: Final = 100_000
_SMALL: Final = 0.1


def write(text: str) -> None:
    """Put text on stdout, with a line break at its end."""
    try:
        sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(BROKEN_PIPE) from None


def write_json(data: object, indent: int | None = 2) -> None:
    """JSON; what is not a finite number becomes null.

    Args:
        indent: spaces; None for all on one line.
    """
    write(json.dumps(_plain(data), indent=indent, ensure_ascii=False, allow_nan=False))


def write_csv(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """One line a row under a line of names; an absent value is an empty field."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_field(row.get(column)) for column in columns])
    write(stream.getvalue())


def flatten(rows: Sequence[Row], key: str, prefix: str) -> tuple[Sequence[Row], list[str]]:
    """Spread the mapping under `key` over columns `prefix.NAME`; returns rows and new columns."""
    names = sorted({name for row in rows for name in row[key] or {}})
    flat = [
        {**row, **{f"{prefix}.{name}": value for name, value in (row[key] or {}).items()}}
        for row in rows
    ]
    return flat, [f"{prefix}.{name}" for name in names]


def write_rows(rows: Sequence[Row], columns: Sequence[str], nothing: str) -> None:
    """A table for people that fits their terminal, without any number cut.

    Where even the numbers do not fit side by side, each row becomes a block of lines. A file or
    a pipe gets aligned columns without a frame, as wide as they need to be.

    Args:
        nothing: the sentence that stands for a table without rows.
    """
    if not rows:
        write(nothing)
        return
    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = all(_is_number(row.get(column)) for row in rows)
        table.add_column(
            Text(column.replace("_", "\n" if sys.stdout.isatty() else " ")),
            justify="right" if numeric else "left",
            no_wrap=numeric,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(shown(row.get(column))) for column in columns))
    # Rich clamps what it measures to the width that it is given.
    unlimited = console.options.update(max_width=_UNLIMITED)
    if Measurement.get(console, unlimited, table).minimum > console.width:
        for number, row in enumerate(rows):
            if number:
                write("")
            write_record(row, columns)
        return
    _print(console, table)


def write_record(record: Row, keys: Sequence[str]) -> None:
    """One thing for people: a line a key."""
    console = _console()
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key in keys:
        table.add_row(Text(key.replace("_", " ")), Text(shown(record.get(key))))
    _print(console, table)


def write_params(params: Mapping[str, Any]) -> None:
    """What a trial drew, for people: an indented line a parameter."""
    for key, value in params.items():
        write(f"  {key}: {value:.6g}" if isinstance(value, float) else f"  {key}: {value}")


def metric(value: float, like: float | None = None) -> str:
    """A metric's value: four digits after the point, or four that count where it is small.

    Args:
        like: has the digits that this value gets too; itself if left out.
    """
    size = abs(value if like is None else like)
    small = 0 < size < _SMALL
    return f"{value:.{min(12, 3 - math.floor(math.log10(size))) if small else 4}f}"


def shown(value: object) -> str:
    """A value as a table shows it, on one line and with nothing in it that a terminal obeys."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={shown(inner)}" for key, inner in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(shown(inner) for inner in value) or "-"
    return "".join(char if char.isprintable() else " " for char in str(value))


def _console() -> Console:
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, color_system=None, width=_UNLIMITED)


def _print(console: Console, table: Table) -> None:
    with console.capture() as capture:
        console.print(table)
    lines = capture.get().splitlines()
    write("\n".join(line.rstrip() for line in lines))


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _field(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(_plain(value)) if isinstance(value, Mapping | list | tuple) else value


def _plain(data: object) -> object:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return str(data) if isinstance(data, Path) else data
