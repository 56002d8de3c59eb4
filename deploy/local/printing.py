"""What the subcommands write for a person."""

from __future__ import annotations

from typing import Final

from rich.console import Console

#: Wide enough for every table; a file or a pipe has no width of its own.
WIDTH_WITHOUT_TERMINAL: Final = 160


def console() -> Console:
    """Return the standard output as something that knows tables and colours."""
    target = Console(highlight=False)
    if not target.is_terminal:
        target.width = WIDTH_WITHOUT_TERMINAL
    return target


def plain(text: str) -> str:
    """Return text from outside without what could steer a terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
