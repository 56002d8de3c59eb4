"""Plans over HTTP: what is accepted, what changes, and what never does."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

from tests.integration.scheduler.world import PLAN, Scheduler


async def test_a_plan_is_made_with_what_it_leaves_out_filled_in(service: Scheduler) -> None:
    made = await service.plan(metadata={"tier": "gold"})

    shown = (await service.api.call("GET", f"/api/plans/{made['id']}", key="reader")).data
    assert shown == made
    assert made.pop("id").startswith("pln_")
    assert made.pop("createdAt") == made.pop("updatedAt") == "2026-01-05T12:00:00Z"
    assert made == {
        **PLAN,
        "trial": None,
        "isArchived": False,
        "graceDays": 3,
        "dunning": {"days": [1, 3, 7], "end": "cancel"},
        "catchUp": {"policy": "current", "periodsMax": 12},
        "metadata": {"tier": "gold"},
    }


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gateway": "sslcommerz"}, "gateway"),
    ({"gateway": "unheard-of"}, "gateway"),
    ({"currency": "USDC"}, "currency"),
    ({"currency": "QQQ"}, "currency"),
    ({"amount": 49}, "amount"),
    ({"amount": 100_000_000}, "amount"),
    ({"amount": 9.5}, "amount"),
    ({"amount": 0}, "amount"),
    ({"interval": {"unit": "month", "count": 0}}, "interval.count"),
    ({"interval": {"unit": "year", "count": 101}}, "interval.count"),
    ({"interval": {"unit": "second", "count": 1}}, "interval.unit"),
    ({"trial": {"unit": "month", "count": 1_201}}, "trial.count"),
    ({"graceDays": 366}, "graceDays"),
    ({"dunning": {"days": [3, 1]}}, "dunning.days"),
    ({"dunning": {"days": [1, 1]}}, "dunning.days"),
    ({"dunning": {"days": [0]}}, "dunning.days.0"),
    ({"dunning": {"days": list(range(1, 22))}}, "dunning.days"),
    ({"dunning": {"end": "forgive"}}, "dunning.end"),
    ({"catchUp": {"periodsMax": 1_001}}, "catchUp.periodsMax"),
    ({"catchUp": {"policy": "none"}}, "catchUp.policy"),
    ({"name": "nul \x00"}, "name"),
    ({"metadata": {str(number): "" for number in range(21)}}, "metadata"),
    ({"price": 990}, "price"),
]


async def test_what_a_plan_cannot_be_is_refused_by_its_field(service: Scheduler) -> None:
    for changes, field in WRONG:
        reply = await service.api.call("POST", "/api/plans", {**PLAN, **changes})
        assert (reply.status, reply.error["code"]) == (400, "invalid_input"), changes
        assert list(reply.error["details"]) == [field]

    assert await service.rows("SELECT id FROM plan") == []


async def test_every_gateway_that_needs_no_page_can_bill_a_plan(service: Scheduler) -> None:
    least = [("fapshi", 100, "XAF"), ("campay", 1, "XAF"), ("stripe", 50, "EUR")]
    for gateway, amount, currency in [*least, ("x402", 1, "USDC")]:
        made = await service.plan(gateway=gateway, amount=amount, currency=currency)

        assert (made["gateway"], made["amount"], made["currency"]) == (gateway, amount, currency)


async def test_a_plan_changes_what_is_not_billed(service: Scheduler) -> None:
    made = await service.plan(dunning={"days": [2], "end": "cancel"})
    service.clock.advance(60)

    changes = {
        "name": "Month by month",
        "graceDays": 0,
        "dunning": {"end": "pause"},
        "catchUp": {"periodsMax": 3},
        "metadata": {"seen": "yes"},
    }
    reply = await service.api.call("PATCH", f"/api/plans/{made['id']}", changes)

    assert reply.data == {
        **made,
        **changes,
        "dunning": {"days": [2], "end": "pause"},
        "catchUp": {"policy": "current", "periodsMax": 3},
        "updatedAt": "2026-01-05T12:01:00Z",
    }


async def test_what_is_billed_does_not_change(service: Scheduler) -> None:
    made = await service.plan()

    for field in ("product", "amount", "currency", "interval", "trial", "gateway"):
        body = {"name": "Cheaper", field: PLAN.get(field)}
        reply = await service.api.call("PATCH", f"/api/plans/{made['id']}", body)

        assert reply.status == 400
        assert reply.error["details"].keys() == {field}
        assert "another plan" in reply.error["details"][field]

    assert (await service.api.call("GET", f"/api/plans/{made['id']}")).data == made


async def test_postgresql_refuses_another_price_too(service: Scheduler) -> None:
    made = await service.plan()

    with pytest.raises(asyncpg.CheckViolationError):
        await service.rows("UPDATE plan SET amount = 1 WHERE id = $1", made["id"])


async def test_an_archived_plan_is_listed_only_when_asked_for(service: Scheduler) -> None:
    kept, archived = await service.plan(), await service.plan()
    for _ in range(2):  # Repeating it changes nothing.
        reply = await service.api.call("DELETE", f"/api/plans/{archived['id']}")
        assert reply.data["isArchived"] is True

    async def listed(query: str) -> list[str]:
        data = (await service.api.call("GET", f"/api/plans{query}")).data
        return [plan["id"] for plan in data["plans"]]

    assert await listed("") == [kept["id"]]
    assert await listed("?archived=true") == sorted([kept["id"], archived["id"]], reverse=True)


async def test_a_list_goes_on_where_it_ended(service: Scheduler) -> None:
    made = []
    for _ in range(3):
        made.append((await service.plan())["id"])
        service.clock.advance(1)

    path = "/api/plans?limit=2"
    first = (await service.api.call("GET", path)).data
    second = (await service.api.call("GET", f"{path}&cursor={first['nextCursor']}")).data

    assert [each["id"] for each in first["plans"] + second["plans"]] == made[::-1]
    assert second["nextCursor"] is None


async def test_a_repeated_request_makes_one_plan(service: Scheduler) -> None:
    replies = [
        await service.api.call("POST", "/api/plans", PLAN, idempotency_key="once") for _ in range(2)
    ]

    assert [reply.status for reply in replies] == [201, 201]
    assert replies[0].data == replies[1].data
    other = await service.api.call(
        "POST", "/api/plans", {**PLAN, "amount": 991}, idempotency_key="once"
    )
    assert other.status == 409


async def test_a_plan_that_is_not_there_is_not_found(service: Scheduler) -> None:
    for plan_id in ("pln_0", "pln_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A", "%00", "sub_1"):
        path = f"/api/plans/{plan_id}"
        replies = [await service.api.call(method, path) for method in ("GET", "DELETE")]
        replies.append(await service.api.call("PATCH", path, {}))

        assert {reply.status for reply in replies} == {404}


async def test_making_a_plan_needs_the_right_to_write(service: Scheduler) -> None:
    reply = await service.api.call("POST", "/api/plans", PLAN, key="reader")

    assert reply.status == 403
