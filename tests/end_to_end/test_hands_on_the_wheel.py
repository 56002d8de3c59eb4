"""Operators do everything they can, by command and by API, while payments flow; nothing is lost.

`SLUICE_TEST_PAYMENTS=1000` makes it 1,000 payments; they come at 15 a second.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis

from deploy.local.command import main
from deploy.local.operations.service import Service, ServiceRefusedError
from deploy.local.stack import LocalStack, free_ports
from shared.messaging.envelope import Outgoing, encode_batch
from tests.support.polling import eventually_blocking
from tests.support.queues import key_of
from tests.support.supervised_stack import BARE

COUNT = int(os.environ.get("SLUICE_TEST_PAYMENTS", "200"))
RATE = 15
RUN_SECONDS = 300.0

PROMPT: dict[str, Any] = {
    "gateway": "campay",
    "amount": 7_500,
    "currency": "XAF",
    "method": {"type": "prompt", "phone": "237670000000"},
    "customer": {"id": "held-customer"},
    "product": {"id": "course-1"},
}

EVERY_ACTION = {
    *("pause", "resume", "drain", "set_limits", "reset_limits", "purge"),
    *("set_profile", "activate_profile", "automatic_profiles", "delete_profile"),
    *("force_breaker", "look_up", "hold", "release", "retry", "move", "discard"),
}


@pytest.fixture
def stack() -> Iterator[LocalStack]:
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)  # As root, PostgreSQL runs as another user.
    environment = BARE | {"API_RATE_LIMIT_PER_SECOND": "10000"}
    with LocalStack(directory / "data", free_ports(), split=True, environment=environment) as stack:
        yield stack
    shutil.rmtree(directory)


@pytest.fixture
def shell(
    stack: LocalStack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    monkeypatch.setenv("SLUICE_URL", stack.url)
    monkeypatch.setenv("SLUICE_API_KEY", stack.api_key)
    return Shell(capsys)


@dataclass
class Shell:
    """Someone at a terminal, who gives the same reason for everything."""

    capsys: pytest.CaptureFixture[str]

    def sluice(self, *words: str) -> Any:
        """Run a command that must do what is asked, and return what it says in JSON."""
        code = main([*words, "--json"])
        printed = self.capsys.readouterr()
        assert code == 0, printed.err
        return orjson.loads(printed.out)

    def does(self, *words: str) -> Any:
        return self.sluice(*words, "--reason", "exercise")


def flowing(stack: LocalStack, count: int) -> subprocess.Popen[bytes]:
    """Start payments through all gateways; customers pay at once, and repeat what is refused."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "deploy.local", "load", "--json", "--profile", "smooth"),
            *("--transactions", str(count), "--rate", str(RATE), "--timeout", "150"),
            *("--url", stack.url, "--key", stack.api_key),
        ],
        env=BARE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_everything_is_done_while_payments_flow_and_the_audit_is_clean(
    stack: LocalStack, shell: Shell, tmp_path: Path
) -> None:
    service = Service(stack.url, stack.api_key)
    load = flowing(stack, COUNT)
    eventually_blocking(lambda: service.get("/api/payments")["payments"])

    pauses_and_holds(shell, service)
    limits_profiles_and_breakers(shell, tmp_path)
    redis_and_dead_letters(stack, shell)
    drains(shell, service)

    printed, complaints = load.communicate(timeout=RUN_SECONDS)
    assert load.returncode == 0, complaints.decode()
    figures = orjson.loads(printed)
    assert figures["ledgers"]["match"] == COUNT
    done = [each["action"] for each in shell.sluice("actions", "--limit", "200")["actions"]]
    assert set(done) == EVERY_ACTION
    eventually_blocking(lambda: shell.sluice("controls")["inHand"]["isEmpty"], timeout_seconds=60)
    assert main(["audit", "--data-dir", str(stack.data_directory)]) == 0


def pauses_and_holds(shell: Shell, service: Service) -> None:
    """Pause a priority, a gateway and all; what comes meanwhile waits, and may be held."""
    for target in ("priority:normal", "gateway:stripe"):
        assert shell.does("pause", target)["paused"][0]["target"] == target
        assert shell.does("resume", target)["paused"] == []
    shell.does("pause", "all")

    def refused() -> str:
        try:
            service.send("POST", "/api/payments", PROMPT)
        except ServiceRefusedError as error:
            return str(error)
        return ""  # The pause is on its way: it may take two seconds.

    complaint = eventually_blocking(refused)
    assert "paused:all" in complaint
    payment_id = complaint.partition("paymentId: ")[2].split()[0]
    assert shell.does("hold", payment_id)["state"] == "on_hold"
    shell.does("resume", "all")
    assert shell.does("release", payment_id)["state"] == "unknown"
    eventually_blocking(
        lambda: service.get(f"/api/payments/{payment_id}")["state"] == "succeeded",
        timeout_seconds=60,
    )
    assert shell.does("look-up", payment_id)["outcome"] == "paid"


def limits_profiles_and_breakers(shell: Shell, tmp_path: Path) -> None:
    """Steer by hand and by profile, and open a breaker that is closed."""
    limits = shell.does(
        *("limits", "--max-concurrent-payments", "4", "--batch-size", "20"),
        *("--gateway", "stripe:concurrency=5,calls-per-second=20"),
    )
    assert limits["inForce"]["maxConcurrentPayments"] == 4
    assert shell.does("limits", "--reset")["operator"] is None
    file = tmp_path / "rush.json"
    file.write_bytes(orjson.dumps({"limits": {"maxConcurrentPayments": 30}, "rank": 5}))
    shell.does("profiles", "set", "rush", "--file", str(file))
    assert shell.does("profiles", "activate", "rush")["inForce"]["name"] == "rush"
    shell.does("profiles", "automatic")
    shell.does("profiles", "activate", "normal")
    assert shell.does("profiles", "delete", "rush")["profiles"] == []
    assert shell.does("breaker", "fapshi", "--force", "open")["breaker"]["state"] == "open"
    shell.does("breaker", "fapshi", "--force", "automatic")


def redis_and_dead_letters(stack: LocalStack, shell: Shell) -> None:
    """Clear what lies in Redis, and see to messages that nobody can handle."""
    assert stack.redis is not None
    queue = "payments.normal"
    poison = [Outgoing(10**15 + n, queue, "webhook.nonsense.v1", "{}", None) for n in range(3)]
    with redis.Redis.from_url(stack.redis.url()) as client:
        client.hset(f"{key_of(queue)}.msgs", "orphan", b"{}")
        message_id, body = encode_batch(queue, "webhook", poison)
        client.hset(f"{key_of(queue)}.msgs", message_id, body)
        client.rpush(key_of(queue), message_id)
    assert shell.does("purge")["orphanedBodies"] >= 1

    def letters() -> list[Any]:
        found: list[Any] = shell.sluice("dead-letters")["deadLetters"]
        return found if len(found) == len(poison) else []

    first, second, third = (each["id"] for each in eventually_blocking(letters))
    shell.does("dead-letters", "move", first, "--retry-at", "2100-01-01T00:00:00Z")
    shell.does("dead-letters", "retry", second)
    eventually_blocking(lambda: shell.sluice("dead-letters", "show", second)["tries"] == 1)
    for each in (first, second, third):
        assert shell.does("dead-letters", "discard", each)["state"] == "discarded"


def drains(shell: Shell, service: Service) -> None:
    """Let nothing new in, on every process, and open again."""
    shell.does("drain")

    def refused() -> bool:
        try:
            service.send("POST", "/api/payments", PROMPT)
        except ServiceRefusedError as error:
            return "not_accepting" in str(error)
        return False

    eventually_blocking(refused)
    assert shell.does("resume", "new")["drain"] is None
