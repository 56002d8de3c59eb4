"""What the subcommands for operators print: JSON for machines, tables for a person."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from rich.table import Table
from rich.text import Text

from deploy.local.printing import console, plain


def show(arguments: argparse.Namespace, data: Any, render: Callable[[Any], None]) -> None:
    """Print an answer as JSON if that was asked for, else as `render` does."""
    if arguments.json:
        print(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())
    else:
        render(data)


def say(text: str) -> None:
    """Print a line; nothing in it steers the terminal."""
    console().print(Text(plain(text)))


def tabulate(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str) -> None:
    """Print rows as a table, or `empty` when there are none."""
    if not rows:
        say(empty)
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(Text("-" if cell is None else plain(str(cell))) for cell in row))
    console().print(table)


def compact(value: object) -> str:
    """Write an object on one line; nothing is a dash."""
    return "-" if value in (None, {}, []) else orjson.dumps(value).decode()
