"""Operators list, retry, put off and discard dead letters, and resume parked messages, by API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from shared.contracts.payments import PaymentSucceeded
from shared.contracts.subscriptions import SUBSCRIPTIONS, queues_of, receipts_queue
from shared.errors import NotFoundError
from shared.messaging import dead_letters, outbox, relay
from shared.messaging.consumption import consume
from shared.messaging.envelope import Outgoing
from shared.process import Core
from shared.web.dead_letter_routes import dead_letter_routes
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import action_routes
from shared.web.parked_message_routes import parked_message_routes
from tests.support.http_api import Api, serving
from tests.support.messages import notice_received, payment_succeeded
from tests.support.polling import eventually
from tests.support.queues import items_on

LETTERS = "/api/payments/dead-letters"
PARKED = "/api/payments/parked-messages"
REASON = {"reason": "the bug is mended"}


@dataclass
class World:
    core: Core
    api: Api

    async def bury(self, number: int, *, queue: str = "payments.high") -> str:
        message = payment_succeeded(f"pay_{number}")
        async with self.core.database.connection() as connection:
            await outbox.store_dead_letter(
                connection,
                queue=queue,
                sender="webhook",
                message_id=number,
                message_name=message.name,
                payload=message.encode(),
                reason="KeyError: a bug",
            )
            found = await connection.fetchval(
                "SELECT id FROM dead_letter WHERE message_id = $1", number
            )
        return f"dlt_{found}"

    async def park(self, number: int) -> str:
        async with self.core.database.connection() as connection:
            (sent,) = await outbox.append(connection, [(payment_succeeded(f"pay_{number}"), None)])
            await connection.execute(
                "UPDATE outbox SET parked_at = clock_timestamp(), sends = 20 WHERE id = $1", sent.id
            )
        return f"msg_{sent.id}"

    async def actions(self) -> list[Any]:
        reply = await self.api.call("GET", "/api/operations/actions")
        found: list[Any] = reply.data["actions"]
        return found

    async def retry_due(self) -> list[str]:
        """Handle what is due and return the payments that were in it."""
        handled: list[str] = []

        async def handle(deliveries: Any) -> None:
            handled.extend(delivery.message.payment_id for delivery in deliveries)

        await dead_letters.retry_due(
            self.core.database, self.core.clock, {PaymentSucceeded: handle}
        )
        return sorted(handled)


@pytest.fixture
async def world(payments_core: Core) -> AsyncIterator[World]:
    keys = IdempotencyKeys(payments_core.database, payments_core.clock)
    routes = [
        *dead_letter_routes(payments_core, keys, "/api/payments"),
        *parked_message_routes(payments_core, keys, "/api/payments"),
        *action_routes(payments_core.database, "/api/operations/actions"),
    ]
    async with serving(routes) as api:
        yield World(payments_core, api)


async def test_dead_letters_are_listed_newest_first_page_by_page(world: World) -> None:
    ids = [await world.bury(number) for number in (1, 2, 3)]

    first = (await world.api.call("GET", f"{LETTERS}?limit=2")).data
    rest = (await world.api.call("GET", f"{LETTERS}?cursor={first['nextCursor']}")).data

    assert [each["id"] for each in first["deadLetters"]] == [ids[2], ids[1]]
    assert [each["id"] for each in rest["deadLetters"]] == [ids[0]]
    assert rest["nextCursor"] is None
    shown = (await world.api.call("GET", f"{LETTERS}/{ids[0]}")).data
    assert shown == rest["deadLetters"][0]
    assert shown["payload"]["paymentId"] == "pay_1"
    assert (shown["state"], shown["reason"], shown["tries"]) == ("waiting", "KeyError: a bug", 0)


async def test_dead_letters_are_filtered(world: World) -> None:
    await world.bury(1)
    other = await world.bury(2, queue="payments.normal")

    found = (await world.api.call("GET", f"{LETTERS}?queue=payments.normal")).data["deadLetters"]
    none = (await world.api.call("GET", f"{LETTERS}?messageName=x")).data["deadLetters"]

    assert [each["id"] for each in found] == [other]
    assert none == []


async def test_a_retry_is_handled_and_recorded_with_who_and_why(world: World) -> None:
    letter_id = await world.bury(1)

    reply = await world.api.call("POST", f"{LETTERS}/{letter_id}/retry", REASON)

    assert reply.status == 200
    assert reply.data["retryAt"] is not None
    assert await world.retry_due() == ["pay_1"]
    assert (await world.api.call("GET", f"{LETTERS}/{letter_id}")).data["state"] == "handled"
    (action,) = await world.actions()
    assert action["actor"] == "admin"
    assert (action["action"], action["target"]) == ("retry", f"dead_letter:{letter_id}")
    assert action["reason"] == REASON["reason"]
    assert (action["before"]["retryAt"], action["after"]["retryAt"]) == (
        None,
        reply.data["retryAt"],
    )


async def test_a_repeated_request_acts_and_is_recorded_once(world: World) -> None:
    letter_id = await world.bury(1)

    for _ in range(2):
        reply = await world.api.call(
            "POST", f"{LETTERS}/{letter_id}/retry", REASON, idempotency_key="k1"
        )
        assert reply.status == 200

    assert len(await world.actions()) == 1


async def test_the_due_time_can_be_set_and_taken_back(world: World) -> None:
    letter_id = await world.bury(1)
    later = "2099-01-01T00:00:00Z"

    moved = await world.api.call("PATCH", f"{LETTERS}/{letter_id}", {"retryAt": later, **REASON})
    assert moved.data["retryAt"] == later
    assert await world.retry_due() == []

    kept = await world.api.call("PATCH", f"{LETTERS}/{letter_id}", {"retryAt": None, **REASON})
    assert kept.data["retryAt"] is None


async def test_a_discarded_letter_is_never_handled_and_stays_readable(world: World) -> None:
    letter_id = await world.bury(1)
    await world.api.call("POST", f"{LETTERS}/{letter_id}/retry", REASON)

    gone = await world.api.call("DELETE", f"{LETTERS}/{letter_id}?reason=not+ours")

    assert gone.data["state"] == "discarded"
    assert await world.retry_due() == []
    assert (await world.api.call("GET", LETTERS)).data["deadLetters"] == []
    listed = (await world.api.call("GET", f"{LETTERS}?state=discarded")).data["deadLetters"]
    assert [each["id"] for each in listed] == [letter_id]
    again = await world.api.call("POST", f"{LETTERS}/{letter_id}/retry", REASON)
    assert (again.status, again.error["details"]) == (409, {"state": "discarded"})


async def test_a_letter_that_is_being_handled_is_left_alone(world: World) -> None:
    letter_id = await world.bury(1)
    async with world.core.database.connection() as connection:
        await dead_letters.move_letter(
            connection, int(letter_id.removeprefix("dlt_")), world.core.clock()
        )
        await dead_letters.claim_due(connection, world.core.clock(), 10)

    refused = await world.api.call("DELETE", f"{LETTERS}/{letter_id}?reason=not+ours")

    assert refused.status == 409
    assert (await world.api.call("GET", f"{LETTERS}/{letter_id}")).data["isInHand"] is True


async def test_all_that_match_are_retried_at_once(world: World) -> None:
    for number in (1, 2):
        await world.bury(number)
    await world.bury(3, queue="payments.normal")

    reply = await world.api.call(
        "POST", f"{LETTERS}/retry", {"queue": "payments.high", **REASON}, idempotency_key="k"
    )

    assert reply.data == {"count": 2}
    assert await world.retry_due() == ["pay_1", "pay_2"]
    (action,) = await world.actions()
    assert (action["target"], action["after"]) == ("dead_letters", {"count": 2})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", f"{LETTERS}?cursor=17", None, 400, "cursor"),
        ("GET", f"{LETTERS}?state=lost", None, 400, "state"),
        ("GET", f"{LETTERS}/dlt_0", None, 404, None),
        ("GET", f"{LETTERS}/dlt_999", None, 404, None),
        ("GET", f"{LETTERS}/dlt_%00", None, 404, None),
        ("GET", f"{LETTERS}/dlt_{'9' * 40}", None, 404, None),
        ("POST", f"{LETTERS}/dlt_999/retry", REASON, 404, None),
        ("POST", f"{LETTERS}/dlt_1/retry", {}, 400, "reason"),
        ("POST", f"{LETTERS}/dlt_1/retry", {"reason": " "}, 400, "reason"),
        ("POST", f"{LETTERS}/retry", {"queue": "", **REASON}, 400, "queue"),
        ("PATCH", f"{LETTERS}/dlt_1", REASON, 400, "retryAt"),
        ("PATCH", f"{LETTERS}/dlt_1", {"retryAt": "2026-01-01T00:00:00", **REASON}, 400, "retryAt"),
        (
            "PATCH",
            f"{LETTERS}/dlt_1",
            {"retryAt": "9999-12-31T23:59:59-14:00", **REASON},
            400,
            "retryAt",
        ),
        ("DELETE", f"{LETTERS}/dlt_1", None, 400, "reason"),
        ("GET", f"{PARKED}?cursor=dlt_1", None, 400, "cursor"),
        ("GET", f"{PARKED}/msg_999", None, 404, None),
        ("POST", f"{PARKED}/msg_999/resume", REASON, 404, None),
        ("POST", f"{PARKED}/resume", {"reason": ""}, 400, "reason"),
    ],
)
async def test_what_is_wrong_is_refused_by_its_name(
    world: World, method: str, path: str, *, body: Any, status: int, field: str | None
) -> None:
    reply = await world.api.call(method, path, body)

    assert reply.status == status
    if field is not None:
        assert field in reply.error["details"]
    assert await world.actions() == []


@pytest.mark.parametrize("path", [LETTERS, f"{LETTERS}/dlt_1", PARKED])
async def test_only_operators_may_look(world: World, path: str) -> None:
    assert (await world.api.call("GET", path, key="writer")).status == 403


async def test_parked_messages_are_listed_and_sent_again(world: World) -> None:
    first, second = await world.park(1), await world.park(2)
    listed = (await world.api.call("GET", f"{PARKED}?limit=1")).data
    assert [each["id"] for each in listed["parkedMessages"]] == [second]
    assert listed["nextCursor"] == second
    shown = (await world.api.call("GET", f"{PARKED}/{first}")).data
    assert (shown["sends"], shown["payload"]["paymentId"]) == (20, "pay_1")

    reply = await world.api.call("POST", f"{PARKED}/{first}/resume", REASON)

    assert reply.data == {"count": 1}
    assert await relay.resend_due(world.core.database, world.core.publisher) == 1
    sent = await items_on(world.core.redis, "enrollment.grants")
    assert [item["payload"]["paymentId"] for item in sent] == ["pay_1"]
    assert (await world.api.call("GET", f"{PARKED}/{first}")).status == 404
    (action,) = await world.actions()
    assert (action["action"], action["target"]) == ("resume", f"parked_message:{first}")


async def test_all_parked_messages_are_sent_again_at_once(world: World) -> None:
    for number in (1, 2, 3):
        await world.park(number)

    for _ in range(2):
        reply = await world.api.call("POST", f"{PARKED}/resume", REASON, idempotency_key="k")
        assert reply.data == {"count": 3}

    assert await relay.resend_due(world.core.database, world.core.publisher) == 3
    assert len(await world.actions()) == 1


async def test_a_worker_handles_what_an_operator_retries(world: World, redis_url: str) -> None:
    """The whole way: buried by a worker because of a bug, mended, and handled by its loop."""
    is_mended, handled = False, asyncio.Event()

    async def handle(_deliveries: Any) -> None:
        if not is_mended:
            raise NotFoundError("not there yet")
        handled.set()

    handlers = {
        kind: handle
        for kind, subscriptions in SUBSCRIPTIONS.items()
        if "payments" in {subscription.service for subscription in subscriptions}
    }
    queues = queues_of("payments") - {receipts_queue("payments")}
    async with consume(
        world.core, redis_url, handlers=handlers, priorities=dict.fromkeys(queues, 0)
    ) as part:
        loops = [asyncio.create_task(loop()) for loop in part.tasks]
        notice = notice_received("att_1")
        await world.core.publisher.send(
            [Outgoing(1, "payments.medium", notice.name, notice.encode(), None)]
        )

        async def letters() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await world.api.call("GET", LETTERS)).data["deadLetters"]
            return found

        (letter,) = await eventually(letters)
        assert letter["reason"] == "NotFoundError: not there yet"
        is_mended = True
        await world.api.call("POST", f"{LETTERS}/{letter['id']}/retry", REASON)

        async with asyncio.timeout(15):
            await handled.wait()

        async def ended() -> bool:
            reply = await world.api.call("GET", f"{LETTERS}/{letter['id']}")
            return bool(reply.data["state"] == "handled")

        await eventually(ended)
        for loop in loops:
            loop.cancel()


async def test_what_was_discarded_is_not_handled_whatever_race_it_was_in(world: World) -> None:
    ids = [await world.bury(number) for number in range(1, 41)]
    await world.api.call("POST", f"{LETTERS}/retry", REASON)
    handled: list[str] = []

    async def work() -> None:
        while some := await world.retry_due():
            handled.extend(some)

    async def discard(letter_id: str) -> int:
        path = f"{LETTERS}/{letter_id}?reason=not+ours"
        return (await world.api.call("DELETE", path)).status

    statuses, *_ = await asyncio.gather(
        asyncio.gather(*(discard(letter_id) for letter_id in reversed(ids))), work(), work()
    )

    discarded = {
        f"pay_{ids.index(letter_id) + 1}"
        for letter_id, status in zip(reversed(ids), statuses, strict=True)
        if status == 200
    }
    assert set(statuses) <= {200, 409}
    assert discarded.isdisjoint(handled)
    assert len(discarded) + len(handled) == len(ids)
    assert len(set(handled)) == len(handled)
