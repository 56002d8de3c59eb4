"""What operators do by hand, and what callers read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.integration.enrollment.world import Enrollments

UNKNOWN = "enr_01KE70EHG0JY1QREBD77BRA2Z7"


async def test_a_grant_by_hand_enrolls_and_is_written_down(service: Enrollments) -> None:
    reply = await service.grant()

    assert reply.status == 201
    granted = reply.data
    assert granted["state"] == "active"
    assert granted["paymentId"] is None
    assert (await service.api.call("GET", f"/api/enrollments/{granted['id']}")).data == granted
    (line,) = await service.rows("SELECT * FROM enrollment_history")
    assert (line["event"], line["actor"], line["reason"]) == ("granted_by_hand", "admin", "a gift")


async def test_a_revocation_takes_it_away_and_a_grant_gives_it_back(service: Enrollments) -> None:
    granted = (await service.grant()).data
    revoked = await service.revoke(granted["id"])
    assert (revoked.status, revoked.data["state"]) == (200, "revoked")
    assert revoked.data["updatedAt"] > granted["updatedAt"]

    again = await service.grant()
    assert (again.status, again.data["id"], again.data["state"]) == (201, granted["id"], "active")
    assert [event for event, _ in await service.story()] == [
        "granted_by_hand",
        "revoked_by_hand",
        "granted_by_hand",
    ]


async def test_what_is_so_already_is_a_conflict(service: Enrollments) -> None:
    granted = (await service.grant()).data
    again = await service.grant()
    assert (again.status, again.error["code"]) == (409, "conflict")
    assert again.error["details"] == {"enrollmentId": granted["id"], "state": "active"}

    await service.revoke(granted["id"])
    twice = await service.revoke(granted["id"])
    assert (twice.status, twice.error["details"]["state"]) == (409, "revoked")
    assert len(await service.story()) == 2


async def test_of_concurrent_changes_one_wins(service: Enrollments) -> None:
    granted = await asyncio.gather(*(service.grant() for _ in range(8)))
    assert sorted(reply.status for reply in granted) == [201] + [409] * 7
    (winner,) = (reply.data for reply in granted if reply.status == 201)

    revoked = await asyncio.gather(*(service.revoke(winner["id"]) for _ in range(8)))
    assert sorted(reply.status for reply in revoked) == [200] + [409] * 7
    assert len(await service.story()) == 2


async def test_the_same_key_changes_once(service: Enrollments) -> None:
    replies = [await service.grant(idempotency_key="a") for _ in range(2)]
    assert [reply.status for reply in replies] == [201, 201]
    assert replies[0].data == replies[1].data

    replies = [await service.revoke(replies[0].data["id"], idempotency_key="b") for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert len(await service.story()) == 2
    other = await service.grant(customer="cus_2", idempotency_key="a")
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")


async def test_a_grant_that_died_before_its_answer_was_kept_answers_with_what_it_made(
    service: Enrollments,
) -> None:
    first = await service.grant(idempotency_key="a")
    await service.rows(
        "UPDATE idempotency_key SET status = NULL, body = NULL, leased_until = clock_timestamp()"
    )
    second = await service.grant(idempotency_key="a")

    assert (second.status, second.data) == (201, first.data)
    assert len(await service.story()) == 1


async def test_changes_by_hand_need_the_scope_admin(service: Enrollments) -> None:
    assert (await service.grant(key="writer")).status == 403
    assert (await service.grant(key=None)).status == 401
    granted = (await service.grant()).data
    assert (await service.revoke(granted["id"], key="writer")).status == 403
    assert (await service.api.call("GET", "/api/enrollments", key=None)).status == 401
    assert (await service.api.call("GET", "/api/enrollments", key="reader")).status == 200


@pytest.mark.parametrize("enrollment_id", [UNKNOWN, "enr_1", "pay_" + UNKNOWN[4:], "%00", "x" * 99])
async def test_an_enrollment_that_there_is_not_is_not_found(
    service: Enrollments, enrollment_id: str
) -> None:
    read = await service.api.call("GET", f"/api/enrollments/{enrollment_id}")
    revoked = await service.revoke(enrollment_id)

    assert (read.status, read.error["code"]) == (404, "not_found")
    assert (revoked.status, revoked.error["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"customerId": ""}, "customerId"),
        ({"customerId": "a\x00"}, "customerId"),
        ({"productId": 7}, "productId"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"paymentId": "pay_1"}, "paymentId"),
    ],
)
async def test_a_wrong_field_is_named(
    service: Enrollments, change: dict[str, Any], field: str
) -> None:
    body = {"customerId": "c", "productId": "p", "reason": "r"} | change
    reply = await service.api.call("POST", "/api/enrollments", body)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert field in reply.error["details"]
    assert await service.enrollments() == []


async def test_enrollments_are_found_by_customer_by_product_and_by_any_of_their_payments(
    service: Enrollments,
) -> None:
    await service.pay("pay_1", customer_id="ada", product_id="x")
    await service.pay("pay_2", customer_id="ada", product_id="y")
    await service.pay("pay_3", customer_id="bob", product_id="x")
    await service.pay("pay_4", customer_id="bob", product_id="x")

    async def found(query: str) -> list[tuple[str, str]]:
        listed = (await service.list(query))["enrollments"]
        return sorted((each["customerId"], each["productId"]) for each in listed)

    assert await found("customerId=ada") == [("ada", "x"), ("ada", "y")]
    assert await found("productId=x") == [("ada", "x"), ("bob", "x")]
    assert await found("paymentId=pay_2") == [("ada", "y")]
    assert await found("paymentId=pay_4") == [("bob", "x")], "its second payment"
    assert await found("customerId=ada&productId=x") == [("ada", "x")]
    assert await found("customerId=bob&paymentId=pay_1") == []


async def test_pages_are_newest_first_without_gaps_or_repeats(service: Enrollments) -> None:
    before = set()
    for number in range(9):
        before.add((await service.grant(customer=f"cus_{number}")).data["id"])
    page = await service.list("limit=4")
    seen = [each["id"] for each in page["enrollments"]]
    while page["nextCursor"] is not None:
        await service.grant(customer=f"late_{len(seen)}")
        page = await service.list(f"limit=4&cursor={page['nextCursor']}")
        seen += [each["id"] for each in page["enrollments"]]

    assert seen == sorted(seen, reverse=True)
    assert len(seen) == len(set(seen))
    assert set(seen) == before


@pytest.mark.parametrize("query", ["cursor=x", "cursor=pay_01KE70EHG0JY1QREBD77BRA2Z7"])
async def test_a_cursor_that_is_none_of_ours_is_refused(service: Enrollments, query: str) -> None:
    reply = await service.api.call("GET", f"/api/enrollments?{query}")

    assert (reply.status, reply.error["details"]) == (400, {"cursor": "malformed"})
