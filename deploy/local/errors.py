"""What can go wrong when the local stack is started or stopped.

LocalStackError
├── PortTakenError          choose another port
├── DirectoryInUseError     another run of Sluice uses the data
├── UnreachableError        the server's user cannot get to its files
├── ServerStartError        the server ended or did not answer; quotes its log
├── ServerStopError         a server's processes outlived every signal
├── NotInitialisedError     there is no database yet
└── CreateDatabaseError     the running server refused
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Enough for PostgreSQL's longest complaint (address in use, hint included) with its context.
LOG_LINES_MAX: Final = 20

#: Read from the end of a log at most: 20 lines, even long ones.
LOG_BYTES_MAX: Final = 16 * 1024


class LocalStackError(Exception):
    """Base of the errors that the command line shows as one message, without a traceback."""


class PortTakenError(LocalStackError):
    """A server cannot listen on its port."""


class DirectoryInUseError(LocalStackError):
    """Another living run of Sluice has claimed the data directory."""


class UnreachableError(LocalStackError):
    """The user that a server has to run as cannot reach the server's files."""


class ServerStartError(LocalStackError):
    """A server ended while it was starting, or did not become ready in time."""


class ServerStopError(LocalStackError):
    """Processes of a server are still there after the last signal."""


class NotInitialisedError(LocalStackError):
    """A data directory was asked about before its first start."""


class CreateDatabaseError(LocalStackError):
    """The server could not be reached, or would not create a database."""


def last_lines(log: Path, *, from_byte: int = 0) -> str:
    """Return the end of what was written to a log after `from_byte`, for an error message."""
    if not log.exists():
        return "(it wrote no log)"
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(from_byte, size - LOG_BYTES_MAX))
        text = file.read().decode(errors="replace")
    return "\n".join(text.splitlines()[-LOG_LINES_MAX:]) or "(its log is empty)"
