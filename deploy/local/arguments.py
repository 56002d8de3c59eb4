"""Arguments that several subcommands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Final

HOST_DEFAULT: Final = "127.0.0.1"
PORT_DEFAULT: Final = 8080
PORT_MAX: Final = 65_535
DATA_DIRECTORY_DEFAULT: Final = ".sluice"


def add_data_directory(parser: argparse.ArgumentParser) -> None:
    """Declare where the local stack keeps its data, as `data_directory`."""
    parser.add_argument(
        "--data-dir",
        dest="data_directory",
        type=Path,
        default=DATA_DIRECTORY_DEFAULT,
        metavar="DIRECTORY",
        help=f"where the local stack keeps its data ({DATA_DIRECTORY_DEFAULT})",
    )


def add_address(parser: argparse.ArgumentParser) -> None:
    """Declare where one process listens; containers say so with HOST and PORT."""
    parser.add_argument(
        "--host",
        default=os.environ.get("HOST", HOST_DEFAULT),
        help=f"address to listen on (HOST, else {HOST_DEFAULT})",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=os.environ.get("PORT", str(PORT_DEFAULT)),
        help=f"port to listen on (PORT, else {PORT_DEFAULT})",
    )
    # For the local stack: a starter that is killed must not leave its processes behind.
    parser.add_argument("--stop-at-end-of-input", action="store_true", help=argparse.SUPPRESS)


def port_number(text: str) -> int:
    """Read a TCP port.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 1 and {PORT_MAX}")
    return int(text)
