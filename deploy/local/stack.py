"""The whole system on one machine: servers, migrations and every process, started and stopped."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from deploy.local import environment as environments
from deploy.local import local_server, locks, ports
from deploy.local.errors import LocalStackError, PortTakenError
from deploy.local.postgres_server import PostgresServer
from deploy.local.processes import ChildProcess, url_at
from deploy.local.redis_server import RedisServer
from deploy.local.services import SERVICE_NAMES, WORKER_NAMES

#: A stack uses this many ports from its first one on: the address of all, up to nine processes,
#: PostgreSQL and Redis.
PORT_COUNT: Final = 12

#: Reserved by `free_ports` from here up to where `ports.free_port` begins.
BLOCKS_FIRST: Final = 10_000

#: Importing takes each process about a second of processor time, and there may be ten.
READY_SECONDS: Final = 60.0
MIGRATE_SECONDS: Final = 120.0

#: A stop takes 10 s at the most: the processes have this long, then they are killed, ...
STOP_SECONDS: Final = 7.0
#: ... and each server has this long for each of its signals, of which the first is enough.
SERVER_STOP_SECONDS: Final = 1.0

#: How long the processes of a run that was killed may take to notice it.
ORPHANS_SECONDS: Final = 15.0

FRONT_DOOR: Final = "front-door"
UNIFIED: Final = "unified"
SIMULATOR: Final = "simulator-http"


class LocalStack:
    """Sluice on this machine. Not for several threads at once; every method blocks.

    Nothing here restarts what dies: see `deploy.local.supervisor`.

    Args:
        data_directory: Where everything is kept between runs.
        port: Of the one address for all paths; the next ones are for processes and servers.
        split: One process per service and kind, instead of one for all.
        environment: All of the processes' environment. Where it names a database or a Redis,
            none is started here.
        host: Where the one address listens.
        api_key: The key for everything; by default that of the data directory.
        apart: Of a stack that is not split, processes of a split one that it has all the same,
            beside the one for all others.
    """

    def __init__(
        self,
        data_directory: Path,
        port: int,
        *,
        split: bool,
        environment: Mapping[str, str],
        host: str = ports.LOOPBACK,
        api_key: str | None = None,
        apart: Sequence[str] = (),
    ) -> None:
        self.data_directory = data_directory.absolute()
        self.port = port
        self.split = split
        self.host = host
        self.apart = tuple(apart)
        self.postgres: PostgresServer | None = None
        self.redis: RedisServer | None = None
        self.processes: dict[str, ChildProcess] = {}
        self._given = environments.given_in(environment)
        self._added: dict[str, str] = {}
        self._api_key = api_key
        self._locks: list[int] = []

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of the processes, for what is run beside them."""
        return self._given | self._added

    @property
    def api_key(self) -> str:
        """Return a key with every scope."""
        assert self._api_key is not None, "the key is there after start()"
        return self._api_key

    @property
    def public_url(self) -> str:
        """Return the address that customers and gateways are told."""
        return self.environment["PUBLIC_URL"]

    @property
    def url(self) -> str:
        """Return the one address for all paths, as this machine reaches it."""
        return url_at(self.host, self.port)

    @property
    def simulator_url(self) -> str:
        """Return the simulator's own address."""
        own = self._plan().get(SIMULATOR)
        return self.url if own is None else url_at(ports.LOOPBACK, own[1])

    @property
    def database_url(self) -> str:
        """Return the database's address, password included; if there are several, of payments."""
        url = environments.database_url_of("payments", self.environment)
        assert url is not None, "the address is there after start()"
        return url

    @property
    def redis_url(self) -> str:
        """Return the address of Redis."""
        return environments.redis_url_of(self.environment)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when every process is ready; on failure nothing is left.

        Raises:
            LocalStackError: the message says what to do about it.
        """
        assert not self._locks, "start() of a running stack"
        try:
            inherited = self._claim()
            for offset in range(len(self._plan()) + (1 if self.split else 0)):
                ports.require_free(self.port + offset)
            self._start_servers()
            self._complete_environment()
            self._migrate()
            self.processes = self._make_processes(inherited)
            for process in self.processes.values():
                process.start()
            deadline = time.monotonic() + READY_SECONDS
            for process in self.processes.values():
                process.wait_until_ready(deadline)
            environments.leave_note(self.data_directory, self._added)
        except BaseException:  # An interrupt must not leave anything behind either.
            self.stop()
            raise

    def stop(self) -> list[str]:
        """Stop everything within 10 s, whatever state it is in.

        Returns:
            The names of the processes that had to be killed.
        """
        deadline = time.monotonic() + STOP_SECONDS
        for process in self.processes.values():
            process.terminate()
        killed = [
            name for name, process in self.processes.items() if not process.wait_or_kill(deadline)
        ]
        for server in (self.redis, self.postgres):
            if server is not None:
                server.stop(SERVER_STOP_SECONDS)
        if self._locks:
            environments.remove_note(self.data_directory)
        while self._locks:
            locks.release(self._locks.pop())
        return killed

    def _claim(self) -> int:
        """Make the data directory ours; return the lock that our processes shall hold too."""
        try:
            (self.data_directory / "logs").mkdir(parents=True, exist_ok=True)
            probe = self.data_directory / ".probe"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise LocalStackError(
                f"the data directory {self.data_directory} cannot be written to "
                f"({error.strerror}): choose another with --data-dir"
            ) from error
        launcher_lock = self.data_directory / "launcher.lock"
        self._locks.append(locks.claim_directory(launcher_lock, self.data_directory))
        deadline = time.monotonic() + ORPHANS_SECONDS
        while (lock := locks.try_lock(self.data_directory / "processes.lock")) is None:
            if time.monotonic() > deadline:
                raise LocalStackError(
                    f"processes of an earlier run still use {self.data_directory}: end them first"
                )
            time.sleep(local_server.POLL_SECONDS)
        self._locks.append(lock)
        return lock

    def _start_servers(self) -> None:
        last = self.port + PORT_COUNT - 1
        if environments.needs_postgres(self._given):
            self.postgres = PostgresServer(self.data_directory / "postgres", _free_at(last - 1))
            self.postgres.start()
            self.postgres.create_database("sluice")
        if environments.needs_redis(self._given):
            self.redis = RedisServer(self.data_directory / "redis", _free_at(last))
            self.redis.start()

    def _complete_environment(self) -> None:
        if self._api_key is None:
            self._api_key = environments.development_key(self.data_directory)
        url = url_at(self.host, self.port)
        defaults = {
            "PUBLIC_URL": url,
            "SIMULATOR_NOTICE_URL": url,
            # Services reach the simulator directly, customers' browsers through the one address.
            **environments.gateways_at_simulator(self.simulator_url, self._given),
        }
        if self.postgres is not None:
            defaults["DATABASE_URL"] = self.postgres.url("sluice")
        if self.redis is not None:
            defaults["REDIS_URL"] = self.redis.url()
        self._added = {name: value for name, value in defaults.items() if name not in self._given}
        self._added["API_KEYS"] = environments.with_key(self._given, self._api_key)

    def _migrate(self) -> None:
        """Migrate in a process of its own: what it has to import is of no use here."""
        try:
            migrated = subprocess.run(
                [sys.executable, "-m", "deploy.local", "migrate"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=MIGRATE_SECONDS,
                start_new_session=True,  # A Ctrl-C is for us; an interrupt here kills it.
            )
        except subprocess.TimeoutExpired as error:
            raise LocalStackError(f"migrations took over {MIGRATE_SECONDS:g} s") from error
        if migrated.returncode != 0:
            reason = migrated.stderr.strip().removeprefix("sluice: ")
            raise LocalStackError(reason or f"migrations ended with {migrated.returncode}")

    def _plan(self) -> dict[str, tuple[list[str], int]]:
        """Return the arguments and port of each process, the front door excepted."""
        kinds = [("serve", "http"), ("worker", "worker")]
        parts = {
            f"{service}-{suffix}": [subcommand, service]
            for service in SERVICE_NAMES
            for subcommand, suffix in kinds
            if subcommand == "serve" or service in WORKER_NAMES
        }
        if self.split:
            return {
                name: (arguments, self.port + offset)
                for offset, (name, arguments) in enumerate(parts.items(), start=1)
            }
        others = [f"--without={name}" for name in self.apart]
        return {
            UNIFIED: (["unified", *others], self.port),
            **{
                name: (parts[name], self.port + offset)
                for offset, name in enumerate(self.apart, start=1)
            },
        }

    def _make_processes(self, lock: int) -> dict[str, ChildProcess]:
        plan = self._plan()
        hosts = dict.fromkeys(plan, ports.LOOPBACK)
        hosts[FRONT_DOOR if self.split else UNIFIED] = self.host
        if self.split:
            upstreams = [
                f"--process={name}={url_at(ports.LOOPBACK, port)}"
                for name, (_, port) in plan.items()
            ]
            plan[FRONT_DOOR] = (["front-door", *upstreams], self.port)
        return {
            name: ChildProcess(
                name,
                arguments,
                host=hosts[name],
                port=port,
                environment=self.environment,
                log=_new_log(self.data_directory / "logs" / f"{name}.log"),
                inherited=[lock],
            )
            for name, (arguments, port) in plan.items()
        }


def free_ports() -> int:
    """Return the first of `PORT_COUNT` free ports in a row, which no other caller gets meanwhile.

    For tests, many of which start stacks at the same time. The ports stay reserved as long as this
    process lives.
    """
    directory = Path(tempfile.gettempdir()) / f"sluice-ports-{os.geteuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    blocks = list(range(BLOCKS_FIRST, ports.FREE_PORT_FIRST, PORT_COUNT))
    random.shuffle(blocks)
    for first in blocks:
        lock = locks.try_lock(directory / str(first))
        if lock is None:
            continue
        try:
            for port in range(first, first + PORT_COUNT):
                ports.require_free(port)
        except PortTakenError:
            locks.release(lock)
        else:
            return first
    raise PortTakenError(f"no {PORT_COUNT} free ports in a row from {BLOCKS_FIRST} on")


def _free_at(port: int) -> int:
    """Return a port if it is free, else any free one: nobody has to know a server's port."""
    try:
        ports.require_free(port)
    except PortTakenError:
        return ports.free_port()
    return port


def _new_log(path: Path) -> Path:
    """Make room for a new log; that of the run before is kept."""
    if path.exists():
        path.replace(path.with_suffix(".log.old"))
    return path
