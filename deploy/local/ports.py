"""Finding and checking ports of this machine."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from typing import Final

from deploy.local.errors import PortTakenError

LOOPBACK: Final = "127.0.0.1"

#: Below the ports that Linux (32768 and up) and macOS (49152 and up) give to outgoing
#: connections: one of those could take the port while a server on it is restarted.
FREE_PORT_FIRST: Final = 20_000

FREE_PORT_LAST: Final = 32_000

#: With half of the range taken, 100 draws still fail only once in 10^30.
FREE_PORT_DRAWS_MAX: Final = 100


def free_port() -> int:
    """Return a TCP port on 127.0.0.1 on which nothing listens now."""
    for _ in range(FREE_PORT_DRAWS_MAX):
        port = FREE_PORT_FIRST + secrets.randbelow(FREE_PORT_LAST - FREE_PORT_FIRST + 1)
        try:
            require_free(port)
        except PortTakenError:
            continue
        return port
    raise PortTakenError(f"no free port found between {FREE_PORT_FIRST} and {FREE_PORT_LAST}")


def require_free(port: int, *, option: str = "--port") -> None:
    """Check, by binding to it, that a server could listen on a port of 127.0.0.1.

    Args:
        port: The wished port.
        option: How the person who reads the error can choose another one.

    Raises:
        PortTakenError: something listens there, or the port needs more rights than we have.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: a port is free although old connections to it are in TIME_WAIT.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
                raise
            raise PortTakenError(
                f"port {port} on {LOOPBACK} cannot be used: {os.strerror(error.errno)}. "
                f"Stop the program that has it, or choose another port with {option}."
            ) from error
