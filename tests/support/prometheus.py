"""A real Prometheus that reads the processes of a stack, and its answers."""

from __future__ import annotations

import math
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.local.ports import free_port
from deploy.local.services import SERVICE_NAMES
from deploy.local.stack import LocalStack
from tests.support.polling import eventually_blocking

REQUEST_SECONDS: Final = 20.0
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """One process, with the labels that a pod monitor gives its metrics."""

    address: str
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """One series' value at one moment."""

    labels: Mapping[str, str]
    value: float

    @property
    def has_data(self) -> bool:
        """Whether it is a number."""
        return not math.isnan(self.value)


@dataclass(frozen=True, slots=True)
class Series:
    """One series' values over a time."""

    labels: Mapping[str, str]
    values: tuple[float, ...]

    @property
    def has_data(self) -> bool:
        """Whether any of the values is a number."""
        return not all(math.isnan(value) for value in self.values)


class QueryError(Exception):
    """Prometheus refused a query."""


def targets_of(stack: LocalStack, *, namespace: str = "sluice") -> list[Target]:
    """Return the processes of a split stack as the cluster names them; the front door has none."""
    found = []
    for name, process in stack.processes.items():
        service, _, component = name.rpartition("-")
        if service in SERVICE_NAMES:
            labels = {
                "job": service,
                "app_kubernetes_io_component": component,
                "namespace": namespace,
                "pod": name,
            }
            found.append(Target(process.url.removeprefix("http://"), labels))
    return found


class Prometheus:
    """A running server, for a test to ask. Every method blocks."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def get(self, path: str, parameters: Mapping[str, str] | None = None) -> Any:
        """Return the data of an answer.

        Raises:
            QueryError: with what Prometheus says of the query.
        """
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters or {})}"
        try:
            with urllib.request.urlopen(url, timeout=REQUEST_SECONDS) as response:  # noqa: S310 - our own server
                return orjson.loads(response.read())["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{error.code} {error.read().decode()}") from error

    def query(self, expression: str) -> list[Sample]:
        """Return what an expression is now; a scalar is one sample without labels."""
        data = self.get("/api/v1/query", {"query": expression})
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(found["metric"], float(found["value"][1])) for found in data["result"]]

    def query_range(self, expression: str, *, seconds: float, step: float = 1.0) -> list[Series]:
        """Return what an expression was in the last `seconds`."""
        now = time.time()
        data = self.get(
            "/api/v1/query_range",
            {"query": expression, "start": f"{now - seconds}", "end": f"{now}", "step": f"{step}"},
        )
        return [
            Series(found["metric"], tuple(float(value) for _, value in found["values"]))
            for found in data["result"]
        ]

    def wait_until_up(self, count: int) -> None:
        """Wait until so many targets have answered."""
        eventually_blocking(
            lambda: len(self.query("up == 1")) >= count, timeout_seconds=READY_SECONDS
        )

    def is_ready(self) -> bool:
        """Return whether it takes queries."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=REQUEST_SECONDS) as answer:  # noqa: S310 - our own server
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def log_tail(self) -> str:
        """Return the end of what it has logged."""
        return self._log.read_text(encoding="utf-8")[-2_000:]


@contextmanager
def prometheus(
    directory: Path,
    targets: Sequence[Target],
    *,
    rule_files: Sequence[Path] = (),
    alertmanager: str | None = None,
    scrape_seconds: int = 2,
) -> Iterator[Prometheus]:
    """Run a Prometheus on a new directory; the caller has checked that the program is there.

    Args:
        directory: For its data, configuration and log.
        targets: What it reads, each with its labels; `job` is one of them.
        rule_files: Evaluated as often as the targets are read.
        alertmanager: Host and port of the one that alerts go to.
        scrape_seconds: How often it reads.
    """
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "prometheus.yaml"
    # JSON is YAML too.
    configuration.write_bytes(
        orjson.dumps(_configuration(targets, rule_files, alertmanager, scrape_seconds))
    )
    log = directory / "prometheus.log"
    address = f"127.0.0.1:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Prometheus(f"http://{address}", log)
    try:
        eventually_blocking(
            lambda: process.poll() is not None or server.is_ready(), timeout_seconds=READY_SECONDS
        )
        assert process.poll() is None, server.log_tail()
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _configuration(
    targets: Sequence[Target],
    rule_files: Sequence[Path],
    alertmanager: str | None,
    scrape_seconds: int,
) -> dict[str, Any]:
    """Return the configuration: one set of targets, whose own labels say which job they are of."""
    configuration: dict[str, Any] = {
        "global": {
            "scrape_interval": f"{scrape_seconds}s",
            "evaluation_interval": f"{scrape_seconds}s",
        },
        "scrape_configs": [
            {
                "job_name": "sluice",
                "scrape_timeout": f"{scrape_seconds}s",
                "static_configs": [
                    {"targets": [target.address], "labels": dict(target.labels)}
                    for target in targets
                ],
            }
        ],
    }
    if rule_files:
        configuration["rule_files"] = [str(path.absolute()) for path in rule_files]
    if alertmanager is not None:
        configuration["alerting"] = {
            "alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]
        }
    return configuration
