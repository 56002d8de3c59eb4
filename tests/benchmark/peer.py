"""The peer and the tuned peer: what is in `../shared/bench`, run from a cached copy of it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import urlsplit

from tests.benchmark.errors import SetupError
from tests.benchmark.load_generator import Maker
from tests.benchmark.servers import Servers
from tests.benchmark.side import OLD_ROWS, Announced, Side

REPOSITORY: Final = Path(__file__).resolve().parents[2]
SOURCE_VARIABLE: Final = "SLUICE_BENCH_PEER"
DEFAULT_SOURCE: Final = REPOSITORY.parent / "shared" / "bench"
DATABASE: Final = "peer"
INSTALL_SECONDS_MAX: Final = 600
NEEDED_PROGRAMS: Final = ("node", "npm", "cc")
NEEDED_FILES: Final = ("gateway.js", "lib/lg.c", "lib/makers.py", "peer/api.js", "peer/schema.sql")

INSERT_OLD_PAYMENTS: Final = """
INSERT INTO payments
       (event_id, payment_id, user_id, course_id, amount, currency, payload, status,
        created_at, validated_at)
SELECT 'evt_old_' || n, 'pay_old_' || n, 'usr_old_' || n, 'crs_' || n % 50, 4999, 'USD',
       jsonb_build_object('id', 'evt_old_' || n, 'type', 'payment.succeeded',
                          'data', jsonb_build_object('payment_id', 'pay_old_' || n,
                                                     'note', repeat('x', 400))),
       'VALID', now() - n * interval '30 seconds', now() - n * interval '30 seconds'
  FROM generate_series(1, $1::int) AS n
"""
INSERT_OLD_ENROLLMENTS: Final = """
INSERT INTO enrollments (payment_id, event_id, user_id, course_id, created_at)
SELECT payment_id, event_id, user_id, course_id, created_at FROM payments
"""
COUNT_ENROLLMENTS: Final = "SELECT count(*) FROM enrollments"
SELECT_ENROLLED_AT: Final = """
SELECT event_id, extract(epoch FROM created_at)::float8 AS enrolled_at
  FROM enrollments WHERE event_id NOT LIKE 'evt\\_old\\_%'
"""


@dataclass(frozen=True, slots=True)
class PeerFiles:
    """The cached copy: installed, compiled, ready to run."""

    directory: Path

    @property
    def generator(self) -> Path:
        """The compiled load generator, which both sides are measured with."""
        return self.directory / "lg"

    @property
    def home(self) -> Path:
        """Where the peer's programs and node_modules are."""
        return self.directory / "peer"

    def maker(self, name: str) -> Maker:
        """Load a function of the peer's `lib/makers.py`."""
        path = self.directory / "lib" / "makers.py"
        specification = importlib.util.spec_from_file_location("peer_makers", path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        maker: Maker = getattr(module, name)
        return maker

    def versions(self) -> dict[str, str]:
        """What npm installed, by package, and Node itself."""
        wanted = json.loads((self.home / "package.json").read_text())["dependencies"]
        installed = {
            name: json.loads((self.home / "node_modules" / name / "package.json").read_text())
            for name in wanted
        }
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        versions = {name: str(package["version"]) for name, package in installed.items()}
        return {"node": node.stdout.strip(), **versions}


def prepare_files() -> PeerFiles:
    """Return the working copy of the peer, made at the first call and whenever it changed.

    Raises:
        SetupError: the peer, node, npm or a C compiler is missing.
    """
    source = Path(os.environ.get(SOURCE_VARIABLE) or DEFAULT_SOURCE)
    missing_files = [name for name in NEEDED_FILES if not (source / name).is_file()]
    if missing_files:
        raise SetupError(
            f"the peer is not in {source} (no {', '.join(missing_files)}).\n"
            "It is no part of this repository. Put its folder beside the clone as"
            f" ../shared/bench, or name another place:\n  {SOURCE_VARIABLE}=/path/to/bench"
        )
    missing_programs = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if missing_programs:
        raise SetupError(
            f"the peer needs {', '.join(missing_programs)}, which this machine does not have.\n"
            "Install Node 20 or newer with npm, and a C compiler for the load generator."
        )
    contents = {
        str(path.relative_to(source)): path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file() and "node_modules" not in path.parts
    }
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "sluice-benchmark" / digest.hexdigest()[:16]
    if not directory.is_dir():
        _build(contents, directory)
    return PeerFiles(directory)


class Peer(Side):
    """Express, BullMQ and PostgreSQL as a competent developer would write them."""

    name: ClassVar[str] = "peer"
    _receiver: ClassVar[str] = "api.js"
    _worker_environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, servers: Servers, directory: Path, files: PeerFiles) -> None:
        super().__init__(servers, directory)
        self._files = files
        self._maker = files.maker("payment_event")

    @property
    def url(self) -> str:
        """Where webhooks are posted."""
        return f"http://127.0.0.1:{self.port}/webhook"

    @property
    def maker(self) -> Maker:
        """The peer's own maker of webhooks."""
        return self._maker

    def prepare(self, announced: Sequence[Announced]) -> None:
        """Make the database anew; the peer makes a payment from each webhook by itself."""
        self._open_database = self._servers.empty_database(DATABASE)
        self.database.execute((self._files.home / "schema.sql").read_text())
        self.database.execute(INSERT_OLD_PAYMENTS, OLD_ROWS)
        self.database.execute(INSERT_OLD_ENROLLMENTS)
        self.database.settle()

    def start_receiver(self) -> None:
        """Start the API process."""
        receiver = self._start("receiver", ["node", self._receiver], self._environment())
        self._product.append(receiver)
        receiver.wait_until_ready(self.port, "/health")

    def start_workers(self) -> None:
        """Start the worker process."""
        environment = {**self._environment(), **self._worker_environment}
        self._product.append(self._start("worker", ["node", "worker.js"], environment))

    def enrolled_count(self) -> int:
        """Count the enrollments made since `prepare`."""
        count = self.database.value(COUNT_ENROLLMENTS)
        assert isinstance(count, int)
        return count - OLD_ROWS

    def enrolled_at(self) -> Mapping[str, float]:
        """Return when each event was enrolled."""
        rows = self.database.rows(SELECT_ENROLLED_AT)
        return {row["event_id"]: row["enrolled_at"] for row in rows}

    def _gateway_command(self) -> Sequence[str]:
        return ["node", str(self._files.directory / "gateway.js")]

    def _working_directory(self) -> Path:
        return self._files.home

    def _environment(self) -> dict[str, str]:
        postgres = urlsplit(self._servers.postgres_url(DATABASE))
        return {
            "NODE_ENV": "production",
            "PEER_NODE_HOME": str(self._files.home),
            "PORT": str(self.port),
            "PGHOST": postgres.hostname or "127.0.0.1",
            "PGPORT": str(postgres.port),
            "PGUSER": postgres.username or "",
            "PGPASSWORD": postgres.password or "",
            "PGDATABASE": DATABASE,
            "REDIS_PORT": str(self._servers.redis_port),
            "GW_URL": f"http://127.0.0.1:{self.gateway_port}",
        }


class TunedPeer(Peer):
    """The strongest we could build on the same architecture (see the peer's README)."""

    name: ClassVar[str] = "tuned peer"
    _receiver: ClassVar[str] = "api_fastify.js"
    _worker_environment: ClassVar[Mapping[str, str]] = {"TX": "single", "CONC": "100"}


def _build(contents: Mapping[str, bytes], directory: Path) -> None:
    """Copy, install and compile beside the final place, then move it there in one step."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix="new-") as temporary:
        new = Path(temporary) / "peer-files"
        for name, content in contents.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            (new / name).write_bytes(content)
        _run(["npm", "install", "--no-audit", "--no-fund"], new / "peer")
        _run(["cc", "-O2", "-o", str(new / "lg"), str(new / "lib" / "lg.c")], new)
        new.rename(directory)


def _run(command: Sequence[str], directory: Path) -> None:
    finished = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS_MAX,
        check=False,
    )
    if finished.returncode != 0:
        raise SetupError(f"{' '.join(command)} failed:\n{finished.stdout}{finished.stderr}")
