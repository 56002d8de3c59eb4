"""The Dockerfile is what docs and manifests say of the image; its probe tells the truth."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy.local.ports import free_port
from shared.clock import system_clock
from shared.web.health import CHECK_TIMEOUT_SECONDS, health_routes
from tests.support.manifests import KUBERNETES
from tests.support.modules import REPOSITORY

DOCKER = REPOSITORY / "deploy" / "docker"


@cache
def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its words on one line."""
    text = "\n".join(
        line for line in (DOCKER / "Dockerfile").read_text().splitlines() if line[:1] != "#"
    )
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)
    ]


def of_last_stage(name: str) -> list[str]:
    start = max(number for number, (each, _) in enumerate(instructions()) if each == "FROM")
    return [rest for each, rest in instructions()[start:] if each == name]


def test_no_process_is_started_through_a_shell() -> None:
    for name, rest in instructions():
        if name in {"RUN", "ENTRYPOINT"}:
            assert json.loads(rest)
    assert json.loads(of_last_stage("ENTRYPOINT")[0]) == ["sluice"]
    assert of_last_stage("STOPSIGNAL") == ["SIGTERM"]


def test_the_user_is_the_one_of_the_pods() -> None:
    pods = (KUBERNETES / "defaults" / "pods.yaml").read_text()
    user, group = of_last_stage("USER")[0].split(":")

    assert f"runAsUser: {user}" in pods
    assert f"runAsGroup: {group}" in pods
    assert int(user) > 0


def test_dependencies_are_locked_with_hashes_and_never_compiled() -> None:
    installs = [
        rest for name, rest in instructions()
        if name == "RUN" and '"install"' in rest and '"--no-index"' not in rest
    ]  # fmt: skip

    assert len(installs) == 2
    for rest in installs:
        assert {"--require-hashes", "--no-deps", ":all:"} <= set(json.loads(rest))


def test_the_build_backend_is_the_one_of_the_checks() -> None:
    (pinned,) = re.findall(r"^setuptools==\S+", (DOCKER / "build.lock").read_text(), re.MULTILINE)
    development = (REPOSITORY / "requirements-dev.lock").read_text()

    assert f"{pinned} \\\n" in development


def test_the_final_stage_takes_nothing_from_the_build_but_what_runs() -> None:
    copied = [rest for rest in of_last_stage("COPY") if "--from=" in rest]

    assert copied == [
        "--from=dependencies /opt/dependencies /opt/dependencies",
        "--from=code /opt/sluice /opt/sluice",
    ]


def test_the_context_is_what_is_named_and_all_of_it_is_there() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and line[0] != "#"]

    assert rules[0] == "*"
    for rule in rules[1:-1]:
        assert rule[0] == "!"
        assert (REPOSITORY / rule[1:].removesuffix("/**")).exists(), rule


@contextmanager
def answering(status: int) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/livez" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def probe(port: int) -> int:
    (rest,) = of_last_stage("HEALTHCHECK")
    command = json.loads(rest.partition(" CMD ")[2])
    assert command[:-1] == ["python", "-I", "-S"]
    assert command[-1] == "/opt/sluice/healthcheck.py"
    script = str(DOCKER / Path(command[-1]).name)
    done = subprocess.run(
        [sys.executable, *command[1:-1], script], env={"PORT": str(port)}, check=False
    )
    return done.returncode


def test_the_probe_says_what_the_process_says() -> None:
    assert "/livez" in {route.path for route in health_routes([], system_clock)}
    for status, exit_code in ((200, 0), (503, 1)):
        with answering(status) as port:
            assert probe(port) == exit_code
    assert probe(free_port()) == 1


def test_the_probe_waits_longer_than_the_process_looks() -> None:
    (rest,) = of_last_stage("HEALTHCHECK")
    timeout = re.search(r"--timeout=(\d+)s", rest)

    assert timeout is not None
    assert int(timeout[1]) > CHECK_TIMEOUT_SECONDS


def test_where_podman_is_the_built_image_runs_as_it_shall() -> None:
    if shutil.which("podman") is None:
        pytest.skip("needs podman, and the image sluice:local; docs/deployment.md has what it did")
    built = subprocess.run(
        ["podman", "image", "exists", "sluice:local"], check=False, capture_output=True
    )
    if built.returncode != 0:
        pytest.skip("needs the image sluice:local")
    done = subprocess.run(
        ["podman", "image", "inspect", "sluice:local"], check=True, capture_output=True, text=True
    )
    (image,) = json.loads(done.stdout)
    config = image["Config"]

    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["sluice"]
    assert config["StopSignal"] == "SIGTERM"
