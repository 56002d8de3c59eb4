"""A real Alertmanager, and whom it tells."""

from __future__ import annotations

import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.local.ports import LOOPBACK, free_port
from tests.support.polling import eventually_blocking

#: As the Debian package calls them.
BINARY: Final = "prometheus-alertmanager"
TOOL: Final = "amtool"

REQUEST_SECONDS: Final = 5.0
READY_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """One alert as the receiver was told of it."""

    path: str
    status: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Receiver:
    """Takes what an Alertmanager posts, at any path."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._told: list[Told] = []
        self._lock = threading.Lock()

    def take(self, path: str, body: Mapping[str, Any]) -> None:
        """Note every alert of a notification."""
        with self._lock:
            for alert in body["alerts"]:
                self._told.append(
                    Told(path, alert["status"], alert["labels"], alert["annotations"])
                )

    def told(self, name: str, status: str = "firing") -> list[Told]:
        """Return what was told of an alert so far."""
        with self._lock:
            return [
                told
                for told in self._told
                if told.labels["alertname"] == name and told.status == status
            ]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Listen for notifications."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taking.take(self.path, orjson.loads(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
            """Say nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    taking = Receiver(f"http://{LOOPBACK}:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def alertmanager(directory: Path, configuration: str) -> Iterator[str]:
    """Run one and yield its host and port; the caller has checked that the program is there."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "alertmanager.yaml"
    path.write_text(configuration, encoding="utf-8")
    log = directory / "alertmanager.log"
    address = f"{LOOPBACK}:{free_port()}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                BINARY,
                f"--config.file={path}",
                f"--storage.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually_blocking(
            lambda: process.poll() is not None or _is_ready(address), timeout_seconds=READY_SECONDS
        )
        assert process.poll() is None, log.read_text(encoding="utf-8")[-2_000:]
        yield address
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=REQUEST_SECONDS) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
