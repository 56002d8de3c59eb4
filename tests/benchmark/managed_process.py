"""A child process with a log file, started and stopped by the benchmark."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.benchmark.errors import BenchmarkError

READY_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 20.0
POLL_SECONDS: Final = 0.02
LOG_LINES_SHOWN: Final = 20


class ManagedProcess:
    """One running command; its output goes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        name: str,
        log: Path,
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        """Start the command in `directory` with `environment` on top of ours."""
        self.name = name
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A terminal's Ctrl-C must reach the benchmark alone, which then stops
                # everything in order.
                start_new_session=True,
            )

    @property
    def process_id(self) -> int:
        """The id of the process that was started, the root of its tree."""
        return self._process.pid

    def wait_until_ready(self, port: int, path: str) -> None:
        """Wait until `GET path` on the loopback `port` answers 200."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            self.raise_if_ended()
            if _answers(port, path):
                return
            time.sleep(POLL_SECONDS)
        raise BenchmarkError(f"{self.name} was not ready in {READY_SECONDS_MAX} s\n{self._tail()}")

    def raise_if_ended(self) -> None:
        """Raise with the end of the log when the process is no longer there."""
        code = self._process.poll()
        if code is not None:
            raise BenchmarkError(f"{self.name} ended with {code}\n{self._tail()}")

    def stop(self) -> None:
        """End the process with SIGTERM, and its whole group with SIGKILL when it lingers."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(STOP_SECONDS_MAX)

    def _tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
        return "\n".join([f"--- {self._log}", *lines])


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False  # not listening yet, or closing: the caller asks again
    finally:
        connection.close()
