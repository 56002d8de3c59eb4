"""A server that this program starts, ends and freezes; its directory is guarded by locks."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from deploy.local.errors import (
    ServerStartError,
    ServerStopError,
    last_lines,
)
from deploy.local.locks import claim_directory, release, try_lock
from deploy.local.ports import require_free

#: Short beside the 0.2 s in which the servers stop, long enough to cost no processor time.
POLL_SECONDS: Final = 0.02

#: PostgreSQL's recovery and Redis's reading of its log take seconds; a minute means trouble.
START_SECONDS: Final = 60.0

#: A clean stop writes at most 128 MB (PostgreSQL) or one second's commands (Redis); a kill or a
#: pause takes effect at the next return from the kernel, which a slow disk can delay.
STOP_SECONDS: Final = 10.0


class Account(NamedTuple):
    """Whom a process belongs to, in the words of `subprocess`; all None means to our own user."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


OURSELVES: Final = Account(None, None, None)


class Launch(NamedTuple):
    """How to start a server's first process."""

    command: Sequence[str]
    environment: Mapping[str, str]
    account: Account


class LocalServer(ABC):
    """A server with a data directory on 127.0.0.1: our child, but deaf to our terminal.

    Not for several threads at once. All methods block, all within time limits.

    Args:
        directory: Where the data is kept between runs. Beside it go its locks.
        port: TCP port.
    """

    name: ClassVar[str]

    #: What asks the server to end, politely first.
    stop_signals: ClassVar[Sequence[signal.Signals]]

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory.absolute()
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._claim: int | None = None
        self._is_paused = False

    @property
    @abstractmethod
    def log(self) -> Path:
        """What the server writes about itself."""

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """Where the server writes the number of its first process."""

    @abstractmethod
    def _prepare(self) -> Launch:
        """Make what the server needs; called when nothing else uses the directory or the port."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Ask the server whether it serves."""

    @property
    def is_running(self) -> bool:
        """Whether the server that `start` started is alive, paused or not."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout_seconds: float = START_SECONDS) -> None:
        """Start the server and return when it serves, within `timeout_seconds` of its launch.

        A server that an earlier, killed run has left on the directory is stopped first.

        Raises:
            DirectoryInUseError: a living run has the directory.
            PortTakenError: something else listens on the port.
            ServerStartError: the server ended or was not ready in time; quotes its log.
            UnreachableError: the server or we cannot reach its files.
        """
        assert not self.is_running, "start() of a running server"
        self._process = None
        self._is_paused = False
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        if self._claim is None:
            self._claim = claim_directory(self._path_beside("launcher.lock"), self.directory)
        try:
            server_lock = self._lock_ended_server(*self.stop_signals, signal.SIGKILL)
            try:
                require_free(self.port)
                log_start = self._launch(self._prepare(), server_lock)
            finally:
                os.close(server_lock)
            self._wait_until_ready(timeout_seconds, log_start)
        except BaseException:  # An interrupt must not leave a server behind either.
            self.kill()
            raise

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> None:
        """End the server cleanly, or at least surely: each signal has `timeout_seconds`.

        Does nothing when it is not running.
        """
        self.resume()
        if self._process is not None:
            for number in self.stop_signals:
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout_seconds)
                    break
        self.kill()

    def kill(self) -> None:
        """End all processes of the server at once, as the machine's memory killer might.

        Raises:
            ServerStopError: the kernel does not end one of them.
        """
        if self._process is not None:
            if not self._is_paused:
                self.pause()  # So that no child is born that we do not see.
            self._signal_all(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # The next line tells.
                self._process.wait(STOP_SECONDS)
            # Its orphans notice its end by themselves; SIGCONT does nothing to them, we only wait.
            release(self._lock_ended_server(signal.SIGCONT))
            self._process = None
            self._is_paused = False
        if self._claim is not None:
            release(self._claim)
            self._claim = None

    def pause(self) -> None:
        """Freeze all processes of the server: connections stay open and nothing answers."""
        assert self._process is not None, "pause() of a server that was not started"
        self._process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + STOP_SECONDS
        # Only when it has really stopped is no child unseen. Should it end instead, waitpid takes
        # its exit status from Popen, which copes with that.
        while self.is_running and os.waitpid(self._process.pid, os.WUNTRACED | os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                raise ServerStopError(f"{self.name} cannot be paused: the kernel is busy for it")
            time.sleep(POLL_SECONDS)
        self._signal_all(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Undo `pause`; does nothing when the server is not paused."""
        if self._is_paused:
            self._signal_all(signal.SIGCONT)
            self._is_paused = False

    def restart(self) -> None:
        """Stop the server and start it again on the same port."""
        self.stop()
        self.start()

    def _launch(self, launch: Launch, server_lock: int) -> int:
        """Start the first process; return where in the log its story begins."""
        with self.log.open("ab") as log:
            log_start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 - our own program and arguments
                launch.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=launch.environment,
                start_new_session=True,  # A Ctrl-C is for us; we stop the server in order.
                pass_fds=[server_lock],
                user=launch.account.user,
                group=launch.account.group,
                extra_groups=launch.account.extra_groups,
            )
        return log_start

    def _wait_until_ready(self, timeout_seconds: float, log_start: int) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout_seconds
        # The process is asked first: another server may have got the port a moment before ours.
        while (status := self._process.poll()) is not None or not self._is_ready():
            if status is not None or time.monotonic() > deadline:
                story = "was not ready in time" if status is None else f"ended with status {status}"
                raise ServerStartError(
                    f"{self.name} on port {self.port} {story}. The end of {self.log}:\n"
                    f"{last_lines(self.log, from_byte=log_start)}"
                )
            time.sleep(POLL_SECONDS)

    def _lock_ended_server(self, *signals: signal.Signals) -> int:
        lock = self._path_beside("server.lock")
        return lock_ended_server(lock, self.pid_file, signals, seconds_each=STOP_SECONDS)

    def _path_beside(self, suffix: str) -> Path:
        return self.directory.with_name(f"{self.directory.name}.{suffix}")

    def _signal_all(self, number: signal.Signals) -> None:
        if self._process is None or not self.is_running:
            return  # Its number, once given back, may be another process's.
        for pid in (*children(self._process.pid), self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def lock_ended_server(
    lock: Path, pid_file: Path, signals: Sequence[signal.Signals], *, seconds_each: float
) -> int:
    """Take the lock that a server's processes hold, ending a server that was left behind.

    A server outlives us when we are killed. It is stopped and not reused: its options may be
    those of another version of this code or name another port, it is no child of ours, so that
    we could not notice its end, and a clean stop and start costs half a second.

    Args:
        lock: Locked by every process of the server, which inherit it from their starter.
        pid_file: Written by the server. Trusted only while the lock is held, which proves that
            the server, and so the process named there, is alive.
        signals: Tried in this order, from polite to certain.
        seconds_each: How long each signal is given.

    Raises:
        ServerStopError: the lock is still held after the last signal.
    """
    for number in signals:
        deadline = time.monotonic() + seconds_each
        signalled: int | None = None
        while (descriptor := try_lock(lock)) is None and time.monotonic() < deadline:
            # Read each time: a server whose starter died early may not have written it yet.
            pid = _read_pid(pid_file)
            if pid is not None and pid != signalled:
                _signal_orphan(pid, number)
                signalled = pid
            time.sleep(POLL_SECONDS)
        if descriptor is not None:
            return descriptor
    raise ServerStopError(f"processes of an ended server still hold {lock}; see {pid_file}")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that have not ended."""
    if Path("/proc/self/stat").exists():
        table = [_process_and_parent(entry) for entry in Path("/proc").glob("[0-9]*")]
    else:
        listed = subprocess.check_output(["/bin/ps", "-A", "-o", "pid=,ppid="], text=True)
        numbers = [int(number) for number in listed.split()]
        table = list(zip(numbers[::2], numbers[1::2], strict=True))
    return [child for child, parent in table if parent == pid]


def _process_and_parent(entry: Path) -> tuple[int, int]:
    try:
        # The name, in brackets, can contain anything; after it come the state and the parent.
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return int(entry.name), 0  # It has ended since it was listed.
    return int(entry.name), int(fields[1])


def _read_pid(pid_file: Path) -> int | None:
    """Return the process number on the first line, or None when there is none (yet)."""
    try:
        first_line = pid_file.read_text().partition("\n")[0].strip()
    except FileNotFoundError:
        return None
    # Never 0 or less: to a signal those mean whole groups of processes.
    return int(first_line) if first_line.isdecimal() and int(first_line) > 0 else None


def _signal_orphan(pid: int, number: signal.Signals) -> None:
    # What has just ended needs no signal; the caller sees so by the lock.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    for paused in (pid, *children(pid)):  # A fault test may have been killed during a pause.
        with contextlib.suppress(ProcessLookupError):
            os.kill(paused, signal.SIGCONT)
