"""`sluice pause` and its siblings do over the API what operators want, and say what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from deploy.local.command import main
from services.payments.app import http_part
from shared.messaging import outbox
from tests.integration.payments.world import Payments, payments_settings
from tests.support.http_api import KEYS, serving
from tests.support.messages import payment_succeeded
from tests.support.scripted_server import answer, scripted_server, sends_and_closes


@dataclass
class Shell:
    """Someone at a terminal."""

    capsys: pytest.CaptureFixture[str]

    async def sluice(self, *words: str) -> tuple[int, str]:
        """Run a command; return its exit code and what it printed, complaints included."""
        # The service is in this process too, and its log is not what the command prints.
        with structlog.testing.capture_logs():
            code = await asyncio.to_thread(main, list(words))
        captured = self.capsys.readouterr()
        return code, captured.out + captured.err

    async def done(self, *words: str) -> str:
        code, printed = await self.sluice(*words)
        assert code == 0, printed
        return printed

    async def data(self, *words: str) -> Any:
        return json.loads(await self.done(*words, "--json"))


@pytest.fixture
def shell(
    payments: Payments, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """Give a shell whose environment names the service and an admin's key."""
    monkeypatch.setenv("SLUICE_URL", payments.api.url)
    monkeypatch.setenv("SLUICE_API_KEY", KEYS["admin"])
    return Shell(capsys)


@pytest.fixture
async def whole(
    shell: Shell, new_database: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Shell]:
    """Serve every route of the service, and give a shell whose environment names it."""
    async with (
        http_part(payments_settings(new_database, redis_url)) as part,
        serving(parts=[part]) as api,
    ):
        monkeypatch.setenv("SLUICE_URL", api.url)
        yield shell


async def recorded(payments: Payments) -> list[tuple[str, str, str]]:
    rows = await payments.rows("SELECT action, target, reason FROM operator_action ORDER BY id")
    return [(row["action"], row["target"], row["reason"]) for row in rows]


async def test_pausing_draining_and_resuming(payments: Payments, shell: Shell) -> None:
    paused = await shell.done("pause", "gateway:sslcommerz", "--reason", "bank is down")
    assert "paused: gateway:sslcommerz" in paused
    assert "bank is down" in paused
    payments.clock.advance(1)
    assert "no new payments" in await shell.done("drain", "--reason", "new database")
    payments.clock.advance(1)

    held = await shell.data("controls")
    assert [each["target"] for each in held["paused"]] == ["gateway:sslcommerz"]
    assert held["drain"]["reason"] == "new database"

    await shell.done("resume", "gateway:sslcommerz", "--reason", "over")
    payments.clock.advance(1)
    assert "nothing is paused" in await shell.done("resume", "new", "--reason", "over")
    assert await recorded(payments) == [
        ("pause", "gateway:sslcommerz", "bank is down"),
        ("drain", "new", "new database"),
        ("resume", "gateway:sslcommerz", "over"),
        ("resume", "new", "over"),
    ]
    assert "new database" in await shell.done("actions", "--action", "drain")
    assert len((await shell.data("actions", "--limit", "3"))["actions"]) == 3


async def test_limits_are_shown_set_and_dropped(shell: Shell) -> None:
    assert "maxConcurrentPayments" in await shell.done("limits")

    limits = await shell.data(
        *("limits", "--max-concurrent-payments", "3", "--reason", "too fast"),
        *("--gateway", "sslcommerz:concurrency=4,calls-per-second=2.5"),
    )
    assert limits["inForce"] == {
        "maxConcurrentPayments": 3,
        "batchSize": 50,
        "gateways": {"sslcommerz": {"concurrency": 4, "callsPerSecond": 2.5}},
    }

    limits = await shell.data("limits", "--reset", "--reason", "over")
    assert limits["operator"] is None


async def test_profiles_are_written_chosen_and_deleted(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "flash.json"
    file.write_bytes(orjson.dumps({"limits": {"batchSize": 200}, "load": {"above": 9, "below": 3}}))
    assert "there are no profiles" in await shell.done("profiles")

    await shell.done("profiles", "set", "flash-sale", "--file", str(file), "--reason", "a sale")
    await shell.done("profiles", "activate", "flash-sale", "--reason", "now")
    assert "flash-sale (manual" in await shell.done("profiles", "list")
    await shell.done("profiles", "automatic", "--reason", "it can alone")
    await shell.done("profiles", "activate", "normal", "--reason", "over")
    await shell.done("profiles", "delete", "flash-sale", "--reason", "over")

    history = await shell.data("profiles", "history")
    assert [each["profile"] for each in history["switches"]] == [
        *("normal", "flash-sale", "flash-sale"),
    ]
    assert (await shell.data("profiles"))["profiles"] == []
    assert "operator" in await shell.done("profiles", "history")


async def test_one_payment_is_held_released_and_looked_up(payments: Payments, shell: Shell) -> None:
    payment = await payments.create()
    payments.gateway.charge(payment["gatewayReference"])

    held = await shell.done("hold", payment["id"], "--reason", "the customer called")
    released = await shell.done("release", payment["id"], "--reason", "all is well")
    looked_up = await shell.done("look-up", payment["id"], "--reason", "to be sure")

    assert held == f"{payment['id']} is on_hold, because: held_by_operator\n"
    assert f"{payment['id']} is unknown" in released
    assert looked_up == f"the gateway says: paid\n{payment['id']} is succeeded\n"
    code, refused = await shell.sluice("release", payment["id"], "--reason", "again")
    assert code == 1
    assert refused == (
        "sluice: a payment that is succeeded is not on hold (409 conflict)\n  state: succeeded\n"
    )


async def test_redis_is_purged(shell: Shell) -> None:
    printed = await shell.done("purge", "--reason", "spring")

    assert printed == "cleared 0 dead letters and 0 orphaned bodies\n"


async def test_dead_letters_are_shown_repeated_put_off_and_discarded(
    payments: Payments, whole: Shell
) -> None:
    assert "no message waits here" in await whole.done("dead-letters")
    async with payments.core.database.connection() as connection:
        for number in (1, 2, 3):
            await outbox.store_dead_letter(
                connection,
                queue="payments.high",
                sender="webhook",
                message_id=number,
                message_name="webhook.notice_received.v1",
                payload="{}",
                reason="a bug",
            )
    letters = (await whole.data("dead-letters", "list"))["deadLetters"]
    first, second, third = (each["id"] for each in letters)

    assert "a bug" in await whole.done("dead-letters", "show", first)
    moved = await whole.data(
        *("dead-letters", "move", first, "--retry-at", "2030-01-01T00:00:00Z", "--reason", "later"),
    )
    never = await whole.data(
        "dead-letters", "move", first, "--retry-at", "never", "--reason", "not at all"
    )
    retried = await whole.data("dead-letters", "retry", second, "--reason", "bug is mended")
    discarded = await whole.data("dead-letters", "discard", third, "--reason", "of no use")
    all_ = await whole.data("dead-letters", "retry", "--reason", "all of them")

    assert (moved["retryAt"], never["retryAt"]) == ("2030-01-01T00:00:00Z", None)
    assert retried["retryAt"] is not None
    assert discarded["state"] == "discarded"
    assert all_ == {"count": 2}
    assert len(await recorded(payments)) == 5


async def test_parked_messages_are_shown_and_sent_on(payments: Payments, whole: Shell) -> None:
    assert "no message is parked here" in await whole.done("parked-messages")
    async with payments.core.database.connection() as connection:
        for number in (1, 2, 3):
            await outbox.append(connection, [(payment_succeeded(f"pay_{number}"), None)])
        await connection.execute("UPDATE outbox SET parked_at = clock_timestamp(), sends = 20")
    listed = (await whole.data("parked-messages", "list"))["parkedMessages"]
    assert "payments.payment_succeeded.v1" in await whole.done("parked-messages")

    one = await whole.done("parked-messages", "resume", listed[0]["id"], "--reason", "try one")
    rest = await whole.data("parked-messages", "resume", "--reason", "all of them")

    assert one == "messages sent again: 1\n"
    assert rest == {"count": 2}
    assert [action for action, _, _ in await recorded(payments)] == ["resume", "resume"]


async def test_breakers_are_shown_and_forced(whole: Shell) -> None:
    assert "sslcommerz" in await whole.done("breaker")

    forced = await whole.data(
        "breaker", "sslcommerz", "--force", "open", "--reason", "they move their servers"
    )

    assert (forced["breaker"]["state"], forced["breaker"]["force"]) == ("open", "open")
    assert "open" in await whole.done("breaker", "sslcommerz")
    await whole.done("breaker", "sslcommerz", "--force", "automatic", "--reason", "they are back")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["pause", "all"], "--reason"),
        (["pause", "--reason", "r"], "TARGET"),
        (["limits", "--batch-size", "3"], "say why: --reason"),
        (["limits", "--batch-size", "x", "--reason", "r"], "invalid int value: 'x'"),
        (["limits", "--reset", "--batch-size", "3", "--reason", "r"], "--reset goes without"),
        (["limits", "--gateway", "stripe", "--reason", "r"], "'stripe' is not NAME:concurrency"),
        (["limits", "--gateway", "stripe:calls=3", "--reason", "r"], "is not NAME:concurrency"),
        (["breaker", "--force", "open", "--reason", "r"], "needs GATEWAY"),
        (["breaker", "stripe", "--force", "ajar"], "invalid choice: 'ajar'"),
        (["profiles", "activate", "x"], "--reason"),
        (["dead-letters", "--service", "x"], "invalid choice: 'x'"),
    ],
)
def test_wrong_arguments_are_named(
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLUICE_API_KEY", "k")
    with pytest.raises(SystemExit, match="2"):
        main(words)

    assert complaint in capsys.readouterr().err


async def test_without_a_key_and_with_a_wrong_one_it_is_refused(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, refused = await shell.sluice("controls", "--api-key", KEYS["writer"])
    assert (code, "lacks the scope 'admin' (403 forbidden)" in refused) == (1, True)
    assert KEYS["writer"] not in refused

    monkeypatch.delenv("SLUICE_API_KEY")
    code, refused = await shell.sluice("controls")
    assert (code, refused) == (2, "sluice: give an API key: SLUICE_API_KEY, or --api-key\n")


async def test_a_wrong_value_is_named_as_the_service_names_it(shell: Shell) -> None:
    code, refused = await shell.sluice("pause", "gateway:paypal", "--reason", "r")

    assert code == 1
    assert "(400 invalid_input)\n  target: must be one of gateway:sslcommerz" in refused


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "nowhere"])
async def test_an_address_without_sluice_is_told(shell: Shell, url: str) -> None:
    code, refused = await shell.sluice("controls", "--url", url)

    assert code == 2
    assert url in refused


async def test_an_answer_that_is_lost_is_asked_for_again_with_the_same_key(shell: Shell) -> None:
    done = answer(b'{"success": true, "data": {"deadLetters": 1, "orphanedBodies": 2}}')
    async with scripted_server() as server:
        server.then(sends_and_closes(b""), sends_and_closes(done))

        printed = await shell.done("purge", "--reason", "r", "--url", server.url)

    assert printed == "cleared 1 dead letters and 2 orphaned bodies\n"
    keys = {
        line
        for request in server.requests
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"idempotency-key: ")
    }
    assert (len(server.requests), len(keys)) == (2, 1)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(answer(b"<html>"), id="a page"),
        pytest.param(answer(b"[]"), id="a list"),
        pytest.param(answer(b"{}", status="302 Found"), id="a redirect"),
        pytest.param(b"SSH-2.0\r\n", id="another protocol"),
    ],
)
async def test_what_does_not_answer_as_sluice_is_not_taken_for_it(
    shell: Shell, sent: bytes
) -> None:
    async with scripted_server() as server:
        server.then(sends_and_closes(sent), sends_and_closes(sent))

        code, printed = await shell.sluice("purge", "--reason", "r", "--url", server.url)

    assert code == 2
    assert printed.startswith(f"sluice: {server.url}")


async def test_nothing_in_an_answer_steers_the_terminal(payments: Payments, shell: Shell) -> None:
    payment = await payments.create()
    await payments.rows(
        "UPDATE payment SET reason = E'\\x1b[2Jcleared' WHERE id = $1", payment["id"]
    )

    _, printed = await shell.sluice("hold", payment["id"], "--reason", "r")
    _, told = await shell.sluice("actions")

    assert "\x1b" not in printed + told
