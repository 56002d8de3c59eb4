"""One of our own processes, started as a child: its start, readiness, end and log."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from deploy.local.errors import LocalStackError, last_lines
from deploy.local.local_server import POLL_SECONDS
from deploy.local.ports import LOOPBACK

#: Longer than a readiness check takes to give up on its databases (2 s each).
PROBE_SECONDS: Final = 5.0

#: The kernel ends a process at its next return from a system call, which a slow disk can delay.
KILL_SECONDS: Final = 10.0


class ProcessStartError(LocalStackError):
    """One of our processes ended while it was starting, or was not ready in time."""


class ChildProcess:
    """A subcommand of ours on its own port: deaf to our terminal, but stopping when we end.

    It can be started again after its end, on the same port and with the same environment.

    Args:
        name: For people, and for the name of its log.
        arguments: The subcommand and its arguments, without the address.
        host: Address to listen on.
        port: Port to listen on.
        environment: All of its environment.
        log: Where its output goes.
        inherited: Descriptors that it keeps open as long as it lives.
    """

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        host: str = LOOPBACK,
        port: int,
        environment: Mapping[str, str],
        log: Path,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.port = port
        self.log = log
        self._command = [
            *(sys.executable, "-m", "deploy.local", *arguments),
            *("--host", host, "--port", str(port), "--stop-at-end-of-input"),
        ]
        self.url = url_at(host, port)
        self._environment = environment
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int:
        """Return its process number; that of the last run when it has ended."""
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, minus the number of a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it and return at once; `wait_until_ready` follows."""
        assert not self.is_running, f"start() of {self.name}, which is running"
        self._reap()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                self._command,
                stdin=subprocess.PIPE,  # Never written to: our end closes it.
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # A Ctrl-C is for us; we stop it in order.
                pass_fds=self._inherited,
            )

    def is_ready(self) -> bool:
        """Ask it whether it can do its work."""
        address = self.url.removeprefix("http://")
        probe = http.client.HTTPConnection(address, timeout=PROBE_SECONDS)
        try:
            probe.request("GET", "/readyz")
            return probe.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False  # Not listening yet, or no more: the caller asks again.
        finally:
            probe.close()

    def wait_until_ready(self, deadline: float) -> None:
        """Wait until it can do its work.

        Args:
            deadline: On the monotonic clock.

        Raises:
            ProcessStartError: it ended or was not ready in time; quotes its log.
        """
        # Asked first: another process may have got the port a moment before.
        while not self.is_running or not self.is_ready():
            if not self.is_running:
                raise ProcessStartError(f"{self.name} {self.last_words()}")
            if time.monotonic() > deadline:
                raise ProcessStartError(f"{self.name} was not ready in time; {self.last_words()}")
            time.sleep(POLL_SECONDS)

    def last_words(self) -> str:
        """Tell how it ended, if it did, and what it wrote last."""
        state = "is running" if self.is_running else f"ended with status {self.exit_code}"
        lines = last_lines(self.log, from_byte=self._log_start)
        return f"{state}. The end of {self.log}:\n{lines}"

    def terminate(self) -> None:
        """Ask it to stop, and return at once."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once and for certain, as the machine's memory killer might."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(KILL_SECONDS)
            self._reap()

    def wait_or_kill(self, deadline: float) -> bool:
        """Wait for its end after `terminate`, and kill it at the deadline.

        Returns:
            Whether it ended by itself.
        """
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - time.monotonic()))
        is_ended = not self.is_running
        self.kill()
        return is_ended

    def _reap(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


def url_at(host: str, port: int) -> str:
    """Return the HTTP address at which this machine reaches what listens on a host."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - who listens everywhere listens here too
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
