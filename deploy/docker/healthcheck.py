"""Asks the process in this container whether it lives: exit code 0 when it says so.

Docker runs it four times a minute in every container, so it imports next to nothing.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Final

#: More than the process takes to find out (2 s), less than Docker waits (5 s).
TIMEOUT_SECONDS: Final = 4.0


def is_alive(port: int) -> bool:
    """Ask `/livez` at a port of this container."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.sendall(b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n")
            status_line = connection.makefile("rb").readline()
    except OSError:
        return False
    return status_line.split(b" ")[1:2] == [b"200"]


if __name__ == "__main__":
    sys.exit(0 if is_alive(int(os.environ["PORT"])) else 1)
