"""`sluice up` and the class behind it: everything starts, survives, stops and is found again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local.environment import environment_beside
from deploy.local.errors import LocalStackError, PortTakenError
from deploy.local.local_server import children
from deploy.local.ports import free_port, require_free
from deploy.local.postgres_server import PostgresServer
from deploy.local.redis_server import RedisServer
from deploy.local.stack import PORT_COUNT, LocalStack, free_ports

DEADLINE_SECONDS = 60.0

#: What the issue promises for the first Ctrl-C.
STOP_SECONDS = 10.0

#: Without the settings of whoever runs the tests.
BARE = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}

SPLIT_PROCESSES = [
    *("webhook-http", "webhook-worker", "payments-http", "payments-worker"),
    *("enrollment-http", "enrollment-worker", "scheduler-http", "scheduler-worker"),
    *("simulator-http", "front-door"),
]


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """Run a PostgreSQL and a Redis; give the environment that names them."""
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    postgres = PostgresServer(directory / "postgres", free_port())
    redis = RedisServer(directory / "redis", free_port())
    with contextlib.ExitStack() as stack:
        for server in (postgres, redis):
            stack.callback(server.kill)
            server.start()
        postgres.create_database("given")
        yield {**BARE, "DATABASE_URL": postgres.url("given"), "REDIS_URL": redis.url()}
    shutil.rmtree(directory)


@dataclass
class Up:
    """A running `sluice up`."""

    process: subprocess.Popen[bytes]
    port: int
    output: Path

    def text(self) -> str:
        return self.output.read_text()

    def wait_until_running(self) -> None:
        wait_until(lambda: "API key" in self.text() or self.process.poll() is not None)
        assert self.process.poll() is None, self.text()

    def api_key(self) -> str:
        found = re.search(r"API key +(\S+)", self.text())
        assert found is not None
        return found[1]

    def child(self, *words: str) -> int | None:
        """Return the process number of the child whose command line has these words."""
        for pid in children(self.process.pid):
            listed = subprocess.run(
                ["ps", "-ww", "-o", "args=", "-p", str(pid)],
                capture_output=True,
                text=True,
                check=False,
            )
            if set(words) <= set(listed.stdout.split()):
                return pid
        return None

    def stop(self, *signals: signal.Signals) -> None:
        """Send signals one after the other and wait as long as promised."""
        for number in signals:
            self.process.send_signal(number)
        assert self.process.wait(STOP_SECONDS) == 0, self.text()


@contextlib.contextmanager
def up(directory: Path, *arguments: str, environment: Mapping[str, str] = BARE) -> Iterator[Up]:
    port = free_ports()
    output = directory / f"output-{port}"
    with (
        output.open("wb") as file,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.local", "up", "--port", str(port)),
                *("--data-dir", str(directory / "data"), *arguments),
            ],
            env=environment,
            stdout=file,
            stderr=file,
        ) as process,
    ):
        try:
            yield Up(process, port, output)
        finally:
            process.kill()


def run_sluice(
    *arguments: str, environment: Mapping[str, str] = BARE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"


def status_of(url: str, **headers: str) -> int | None:
    """Return the status of a GET, or None when nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:  # noqa: S310
            status = response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None
    assert isinstance(status, int)
    return status


def run_sql(url: str, statement: str) -> list[asyncpg.Record]:
    async def fetch() -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def words_in(url: str) -> list[str]:
    return [row["word"] for row in run_sql(url, "SELECT word FROM word")]


def assert_nothing_is_left(port: int) -> None:
    for number in range(port, port + PORT_COUNT):
        require_free(number)


@pytest.mark.parametrize("mode", [[], ["--split"]], ids=["unified", "split"])
def test_up_starts_everything_and_the_first_signal_stops_it(
    tmp_path: Path, mode: list[str]
) -> None:
    with up(tmp_path, *mode) as running:
        running.wait_until_running()

        url = f"http://127.0.0.1:{running.port}"
        assert f"Sluice is running at {url}" in running.text()
        for name in SPLIT_PROCESSES if mode else ["unified"]:
            found = re.search(rf"{name} +(http://\S+/metrics)", running.text())
            assert found is not None
            assert status_of(found[1]) == 200
        assert status_of(f"{url}/health") == 200
        for path in ("/api/payments", "/api/enrollments?customerId=x"):
            assert status_of(url + path) == 401
            key = {"Authorization": f"Bearer {running.api_key()}"}
            assert status_of(url + path, **key) == 200
        assert "@127.0.0.1" in running.text()
        secret = urlsplit(environment_beside(tmp_path / "data", {})["DATABASE_URL"]).password
        assert secret is not None
        assert secret not in running.text()

        # A second and third signal do no harm.
        running.stop(signal.SIGINT, signal.SIGINT, signal.SIGTERM)
        assert running.text().endswith("Stopped.\n")
    assert_nothing_is_left(running.port)


def test_up_stops_while_it_is_still_starting(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        wait_until(lambda: "Starting" in running.text())
        running.stop(signal.SIGTERM)
    assert_nothing_is_left(running.port)


def test_up_starts_again_whatever_is_killed(tmp_path: Path) -> None:
    with up(tmp_path, "--split") as running:
        running.wait_until_running()
        health = f"http://127.0.0.1:{running.port}/health"
        before = {
            words: running.child(*words)
            for words in [("worker", "payments"), ("serve", "webhook"), ("front-door",)]
        }
        servers = [running.child("-p", str(running.port + PORT_COUNT - 2))]
        servers += [running.child(f"127.0.0.1:{running.port + PORT_COUNT - 1}")]

        for pid in [*before.values(), *servers]:
            assert pid is not None, before
            os.kill(pid, signal.SIGKILL)

        wait_until(lambda: running.text().count("is started again") >= 5)
        wait_until(lambda: status_of(health) == 200)
        for words, pid in before.items():
            assert running.child(*words) not in {None, pid}
        assert "payments-worker has died; starting it again in 0.2 s" in running.text()
        running.stop(signal.SIGTERM)
    assert_nothing_is_left(running.port)


def test_a_run_after_a_killed_one_takes_over(tmp_path: Path) -> None:
    with up(tmp_path, "--split") as running:
        running.wait_until_running()
        key = running.api_key()
        running.process.kill()
        running.process.wait()

    with LocalStack(tmp_path / "data", running.port, split=True, environment=BARE) as stack:
        assert stack.api_key == key
        assert status_of(f"{stack.url}/health") == 200


def test_data_and_key_stay_the_same_between_runs(tmp_path: Path) -> None:
    def new_stack() -> LocalStack:
        return LocalStack(tmp_path / "data", free_ports(), split=False, environment=BARE)

    with new_stack() as first:
        run_sql(first.database_url, "CREATE TABLE word AS SELECT 'kept' AS word")
        beside = environment_beside(tmp_path / "data", BARE)
        assert beside == first.environment
        assert words_in(beside["DATABASE_URL"]) == ["kept"]
    with pytest.raises(LocalStackError, match="no Sluice is running"):
        environment_beside(tmp_path / "data", BARE)

    with new_stack() as second:
        assert second.api_key == first.api_key
        assert words_in(second.database_url) == ["kept"]


def test_each_process_of_a_stack_can_be_killed_and_started(
    tmp_path: Path, servers: dict[str, str]
) -> None:
    with LocalStack(tmp_path / "data", free_ports(), split=True, environment=servers) as stack:
        assert list(stack.processes) == SPLIT_PROCESSES
        for process in stack.processes.values():
            process.kill()
        assert status_of(f"{stack.url}/health") is None

        for process in stack.processes.values():
            process.start()
        for process in stack.processes.values():
            process.wait_until_ready(time.monotonic() + DEADLINE_SECONDS)

        assert status_of(f"{stack.url}/health") == 200


def test_given_servers_are_used(tmp_path: Path, servers: dict[str, str]) -> None:
    environment = servers | {"API_KEYS": "", "PUBLIC_URL": "https://pay.example.com"}
    with LocalStack(
        tmp_path / "data", free_ports(), split=False, environment=environment, api_key="sesame"
    ) as stack:
        assert (stack.postgres, stack.redis) == (None, None)
        assert stack.database_url == servers["DATABASE_URL"]
        assert stack.redis_url == servers["REDIS_URL"]
        assert stack.public_url == "https://pay.example.com"
        assert stack.environment["SSLCOMMERZ_BASE_URL"] == stack.url
        key = {"Authorization": "Bearer sesame"}
        assert status_of(f"{stack.url}/api/payments", **key) == 200


@pytest.mark.parametrize(
    ("mode", "offset"),
    [([], 0), (["--split"], 0), (["--split"], 3)],
    ids=["unified", "front door", "split"],
)
def test_a_taken_port_is_named(tmp_path: Path, mode: list[str], offset: int) -> None:
    port = free_ports()
    with socket.create_server(("127.0.0.1", port + offset)):
        refused = run_sluice("up", *mode, "--port", str(port), "--data-dir", str(tmp_path / "data"))

    assert refused.returncode == 2
    assert refused.stderr.startswith(f"sluice: port {port + offset} on 127.0.0.1 cannot be used")
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert_nothing_is_left(port)


def test_a_second_stack_on_the_same_data_is_refused(
    tmp_path: Path, servers: dict[str, str]
) -> None:
    with LocalStack(tmp_path / "data", free_ports(), split=False, environment=servers) as stack:
        refused = run_sluice(
            "up", "--port", str(free_ports()), "--data-dir", str(tmp_path / "data")
        )

        assert refused.returncode == 2
        assert "another run of Sluice is using" in refused.stderr
        assert status_of(f"{stack.url}/health") == 200
        assert environment_beside(tmp_path / "data", {}) != {}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param(
            {"DATABASE_URL": "postgresql://me:secret@127.0.0.1:1/x"},
            r"cannot use the database postgresql://me@127\.0\.0\.1:1/x: PostgreSQL did not answer",
            id="no database",
        ),
        pytest.param({"DATABASE_URL": "mysql://x"}, "cannot use the database", id="no PostgreSQL"),
        pytest.param(
            {"REDIS_URL": "redis://127.0.0.1:1/0"}, r"(?s)status 1.*127\.0\.0\.1:1", id="no Redis"
        ),
        pytest.param(
            {"API_RATE_LIMIT_PER_SECOND": "fast"},
            r"(?s)status 2.*API_RATE_LIMIT_PER_SECOND",
            id="a wrong setting",
        ),
        pytest.param({"API_KEYS": "secret"}, r"(?s)API_KEYS: entry 1 is not", id="a wrong key"),
        pytest.param(
            {"API_KEYS_FILE": "/nowhere"}, r"API_KEYS_FILE: .*No such file", id="no key file"
        ),
    ],
)
def test_what_is_wrong_with_the_environment_is_said(
    tmp_path: Path, servers: dict[str, str], changes: dict[str, str], complaint: str
) -> None:
    port = free_ports()

    refused = run_sluice(
        *("up", "--port", str(port), "--data-dir", str(tmp_path / "data")),
        environment=servers | changes,
    )

    assert refused.returncode == 2
    assert re.search(complaint, refused.stderr), refused.stderr
    assert "secret" not in refused.stderr
    assert "Traceback" not in refused.stderr
    assert_nothing_is_left(port)


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused = run_sluice(
        *("up", "--port", str(free_ports()), "--data-dir", str(tmp_path / "file" / "data"))
    )

    assert refused.returncode == 2
    assert "file/data cannot be written to" in refused.stderr
    assert "--data-dir" in refused.stderr


def test_a_failed_start_leaves_the_directory_free(tmp_path: Path) -> None:
    port = free_ports()
    stack = LocalStack(tmp_path / "data", port, split=False, environment=BARE)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(PortTakenError):
        stack.start()

    stack.start()
    stack.stop()


def test_migrating_twice_changes_nothing(servers: dict[str, str]) -> None:
    first = run_sluice("migrate", environment=servers)
    tables = run_sql(servers["DATABASE_URL"], "SELECT oid, relname FROM pg_class ORDER BY oid")
    second = run_sluice("migrate", environment=servers)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert second.stdout.splitlines() == [
        f"{service}: up to date"
        for service in ("webhook", "payments", "enrollment", "scheduler", "simulator")
    ]
    assert tables == run_sql(
        servers["DATABASE_URL"], "SELECT oid, relname FROM pg_class ORDER BY oid"
    )


def test_one_service_is_migrated_alone(tmp_path: Path) -> None:
    postgres = PostgresServer(tmp_path / "postgres", free_port())
    postgres.start()
    try:
        postgres.create_database("empty")
        environment = BARE | {"WEBHOOK_DATABASE_URL": postgres.url("empty")}
        done = run_sluice("migrate", "webhook", environment=environment)
        tables = run_sql(
            postgres.url("empty"),
            "SELECT schemaname FROM pg_tables WHERE tablename LIKE 'inbound_event_p%'",
        )
        refused = run_sluice("migrate", environment=environment)
    finally:
        postgres.kill()

    assert done.returncode == 0, done.stderr
    assert "webhook: applied webhook/0001_create_inbound_event.sql" in done.stdout
    assert {row["schemaname"] for row in tables} == {"webhook"}
    assert refused.returncode == 2
    assert refused.stderr == "sluice: set DATABASE_URL or PAYMENTS_DATABASE_URL\n"


def test_a_worker_serves_health_on_its_port(servers: dict[str, str]) -> None:
    run_sluice("migrate", environment=servers)
    port = free_port()
    environment = servers | {"PORT": str(port), "SSLCOMMERZ_STORE_ID": "x"}
    environment |= {"SSLCOMMERZ_STORE_PASSWORD": "x", "SSLCOMMERZ_BASE_URL": "http://127.0.0.1:1"}
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.local", "worker", "payments"],
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as worker:
        try:
            for path in ("/readyz", "/livez", "/health", "/metrics"):
                wait_until(lambda path=path: status_of(f"http://127.0.0.1:{port}{path}") == 200)  # type: ignore[misc]
        finally:
            worker.terminate()
        assert worker.wait(STOP_SECONDS) == 0
