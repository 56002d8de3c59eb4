"""Stored means of payment: kept for charging later, told of without their details, erased."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import pytest

from deploy.local.environment import gateways_at_simulator
from services.payments.domain.payment_methods import Chargeable, Means
from services.payments.store.payment_methods import find_methods
from shared.contracts.payments import PaymentMethodRemoved, PaymentMethodStored
from shared.contracts.subscriptions import METHODS_QUEUE
from shared.errors import DatabaseUnavailableError
from shared.gateways.interface import Capabilities, Card, Customer, Limits, Prompt, Wallet
from shared.gateways.registry import REGISTRY
from shared.identifiers import is_id
from tests.integration.api.world import opened_parts
from tests.integration.payments.world import Payments, running_payments
from tests.support.fake_gateway import FakeGateway
from tests.support.http_api import Reply, serving
from tests.support.queues import items_on

PHONE = "237677123456"
RECIPIENT = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"
CUSTOMER = {"id": "cus_1", "name": "Ada", "email": "ada@shop.example", "phone": "677000111"}
PROMPT = {"type": "prompt", "phone": PHONE}
CARD = {"type": "card", "paymentMethod": "pm_card_visa", "gatewayCustomer": "cus_of_gateway"}
WALLET = {"type": "wallet", "recipient": RECIPIENT}

#: Whatever of a method or its owner must be found in no other place than in its row.
PERSONAL = (PHONE, RECIPIENT, "pm_card_visa", "cus_of_gateway", "Ada", "shop.example", "677000111")

KINDS = [
    pytest.param(PROMPT, Prompt(PHONE), "…3456", id="prompt"),
    pytest.param(
        CARD, Card("pm_card_visa", "cus_of_gateway", off_session=True), "pm_car…visa", id="card"
    ),
    pytest.param(WALLET, Wallet(RECIPIENT), "0x5050…3c9c", id="wallet"),
]


async def post(payments: Payments, key: str | None = None, **changes: Any) -> Reply:
    body = {"gateway": "sslcommerz", "customer": CUSTOMER, "method": PROMPT, **changes}
    return await payments.api.call("POST", "/api/payment-methods", body, idempotency_key=key)


async def store(payments: Payments, **changes: Any) -> dict[str, Any]:
    reply = await post(payments, **changes)
    assert reply.status == 201, reply.json
    data = reply.data
    assert isinstance(data, dict)
    return data


async def remove(payments: Payments, method: dict[str, Any], key: str | None = None) -> Reply:
    path = f"/api/payment-methods/{method['id']}"
    return await payments.api.call("DELETE", path, idempotency_key=key)


async def read(payments: Payments, method: dict[str, Any]) -> Any:
    return (await payments.api.call("GET", f"/api/payment-methods/{method['id']}")).data


async def page(payments: Payments, query: str = "") -> Any:
    return (await payments.api.call("GET", f"/api/payment-methods?{query}")).data


async def ids_in(payments: Payments, query: str = "") -> list[str]:
    return [method["id"] for method in (await page(payments, query))["paymentMethods"]]


async def text_of_rows(payments: Payments) -> str:
    return str(await payments.sql("SELECT string_agg(m::text, ' ') FROM payment_method AS m"))


@pytest.mark.parametrize(("method", "as_gateways_know_it", "hint"), KINDS)
async def test_a_method_is_shown_by_a_hint_and_found_whole_by_who_charges(
    payments: Payments, method: dict[str, Any], as_gateways_know_it: Chargeable, hint: str
) -> None:
    reply = await post(payments, method=method)

    assert reply.status == 201
    stored = reply.data
    assert is_id(stored["id"], "pmt")
    assert stored == {
        "id": stored["id"],
        "gateway": "sslcommerz",
        "customerId": "cus_1",
        "type": method["type"],
        "hint": hint,
        "createdAt": payments.clock().isoformat().replace("+00:00", "Z"),
        "removedAt": None,
    }
    assert await read(payments, stored) == stored
    assert (await page(payments))["paymentMethods"] == [stored]
    async with payments.core.database.connection() as connection:
        found = await find_methods(connection, [stored["id"], "pmt_nobody"])
    assert list(found) == [stored["id"]]
    means = found[stored["id"]].means
    assert means == Means(Customer(**CUSTOMER), as_gateways_know_it)
    assert asdict(means.customer) == CUSTOMER
    assert (payments.gateway.orders, payments.gateway.questions) == ([], []), "nobody was called"


async def test_the_scheduler_is_told_whose_it_is_and_nothing_personal(payments: Payments) -> None:
    method = await store(payments)
    payments.clock.advance(60)
    removed = (await remove(payments, method)).data

    (stored_fact,) = await payments.facts(PaymentMethodStored)
    (removed_fact,) = await payments.facts(PaymentMethodRemoved)
    assert stored_fact == {
        "paymentMethodId": method["id"],
        "customerId": "cus_1",
        "gateway": "sslcommerz",
        "kind": "prompt",
        "storedAt": method["createdAt"],
    }
    assert removed_fact == {
        "paymentMethodId": method["id"],
        "customerId": "cus_1",
        "removedAt": removed["removedAt"],
    }
    sent = await items_on(payments.core.redis, METHODS_QUEUE)
    assert [item["payload"] for item in sent] == [stored_fact, removed_fact], "sent at once"


async def test_a_method_that_cannot_be_told_of_is_neither_stored_nor_removed(
    payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await store(payments)

    async def breaks(*_: Any) -> Any:
        raise DatabaseUnavailableError("PostgreSQL restarts")

    monkeypatch.setattr("shared.messaging.outbox.append", breaks)
    replies = [await post(payments), await remove(payments, kept)]

    assert [reply.status for reply in replies] == [503, 503]
    assert await ids_in(payments) == [kept["id"]]


async def test_a_repeated_request_is_the_same_method(payments: Payments) -> None:
    first = await post(payments, "key")
    again = await post(payments, "key")
    assert (again.status, again.data) == (201, first.data)
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await post(payments, "key", method=WALLET)
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")

    # As after a crash between the commit and the answer.
    await payments.sql(
        "UPDATE idempotency_key SET status = NULL, body = NULL, leased_until = clock_timestamp()"
    )
    payments.clock.advance(1)
    carried_on = await post(payments, "key")

    assert (carried_on.status, carried_on.data) == (201, first.data)
    assert await ids_in(payments) == [first.data["id"]]
    assert len(await payments.facts(PaymentMethodStored)) == 1


async def test_a_removed_method_is_erased_and_stays_as_a_tombstone(payments: Payments) -> None:
    methods = [await store(payments, method=method) for method in (PROMPT, CARD, WALLET)]
    text = await text_of_rows(payments)
    assert all(personal in text for personal in PERSONAL), "the test would find it"
    payments.clock.advance(60)
    for method in methods:
        reply = await remove(payments, method)
        tombstone = {**method, "hint": None, "removedAt": reply.data["removedAt"]}
        assert (reply.status, reply.data) == (200, tombstone)
        assert tombstone["removedAt"] is not None
        assert await read(payments, method) == tombstone

    text = await text_of_rows(payments)
    assert [personal for personal in PERSONAL if personal in text] == []
    async with payments.core.database.connection() as connection:
        found = await find_methods(connection, [method["id"] for method in methods])
    assert [method.means for method in found.values()] == [None] * 3


async def test_removing_twice_or_at_once_is_one_removal(payments: Payments) -> None:
    method = await store(payments)

    replies = await asyncio.gather(*(remove(payments, method) for _ in range(5)))
    payments.clock.advance(60)
    replies += [await remove(payments, method, key) for key in (None, "key", "key")]

    assert {reply.status for reply in replies} == {200}
    assert len({reply.raw for reply in replies}) == 1
    assert len(await payments.facts(PaymentMethodRemoved)) == 1


async def test_a_request_that_is_repeated_after_the_removal_brings_nothing_back(
    payments: Payments,
) -> None:
    method = (await post(payments, "key")).data
    await remove(payments, method)
    await payments.sql(
        "UPDATE idempotency_key SET status = NULL, body = NULL, leased_until = clock_timestamp()"
    )

    reply = await post(payments, "key")

    assert (reply.data["id"], reply.data["hint"]) == (method["id"], None)
    assert PHONE not in await text_of_rows(payments)
    assert len(await payments.facts(PaymentMethodStored)) == 1


async def test_a_payment_that_was_made_from_it_keeps_what_its_gateway_must_be_asked_with(
    payments: Payments,
) -> None:
    payment = await payments.create(method=PROMPT)
    await remove(payments, await store(payments))
    payments.clock.advance(60)
    await payments.look()

    assert [order.method for order in payments.gateway.looked_up] == [Prompt(PHONE)]
    assert payments.gateway.looked_up[0].reference == payment["gatewayReference"]


async def test_lists_are_of_one_customer_or_all_newest_first_and_without_the_removed(
    payments: Payments,
) -> None:
    stored = []
    for number in range(6):
        payments.clock.advance(1)
        stored.append(await store(payments, customer={"id": f"cus_{number % 2}"}))
    await remove(payments, stored[2])
    ids = [method["id"] for method in stored]

    assert await ids_in(payments) == [ids[number] for number in (5, 4, 3, 1, 0)]
    assert await ids_in(payments, "removed=true") == ids[::-1]
    assert await ids_in(payments, "customerId=cus_0") == [ids[4], ids[0]]
    assert await ids_in(payments, "customerId=cus_0&removed=true") == [ids[4], ids[2], ids[0]]
    assert await ids_in(payments, "customerId=%27%20OR%201%3D1") == []
    first = await page(payments, "limit=2")
    assert first["nextCursor"] == ids[4]
    assert await ids_in(payments, f"limit=3&cursor={ids[4]}") == [ids[3], ids[1], ids[0]]
    assert (await page(payments, f"limit=3&cursor={ids[4]}"))["nextCursor"] is None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gateway": None}, "gateway"),
    ({"gateway": "paypall"}, "gateway"),
    ({"gateway": "fapshi"}, "gateway"),
    ({"customer": None}, "customer"),
    ({"customer": {"name": "Ada"}}, "customer.id"),
    ({"customer": {"id": ""}}, "customer.id"),
    ({"customer": {"id": "c" * 101}}, "customer.id"),
    ({"customer": {"id": "cus\u0000"}}, "customer.id"),
    ({"method": None}, "method"),
    ({"method": "prompt"}, "method"),
    ({"method": {}}, "method.type"),
    ({"method": {"type": "checkout"}}, "method.type"),
    ({"method": {"type": ["card"]}}, "method.type"),
    ({"method": {"type": "prompt"}}, "method.phone"),
    ({"method": {"type": "prompt", "phone": f"+{PHONE}"}}, "method.phone"),
    ({"method": {**PROMPT, "recipient": RECIPIENT}}, "method.recipient"),
    ({"method": {"type": "card", "gatewayCustomer": "cus_1"}}, "method.paymentMethod"),
    ({"method": {"type": "card", "paymentMethod": "pm_1"}}, "method.gatewayCustomer"),
    ({"method": {**CARD, "offSession": True}}, "method.offSession"),
    ({"method": {**CARD, "number": "4242424242424242"}}, "method.number"),
    ({"method": {"type": "wallet", "recipient": "0x12"}}, "method.recipient"),
    ({"amount": 1_000}, "amount"),
]


@pytest.mark.parametrize(("change", "field"), WRONG, ids=str)
async def test_what_is_wrong_is_refused_with_the_name_of_its_field_and_not_its_value(
    payments: Payments, change: dict[str, Any], field: str
) -> None:
    reply = await post(payments, **change)

    assert (reply.status, reply.error["code"]) == (400, "invalid_input")
    assert list(reply.error["details"]) == [field]
    assert not any(personal in reply.raw.decode() for personal in PERSONAL)
    assert await ids_in(payments, "removed=true") == []
    assert await payments.facts(PaymentMethodStored) == []


@pytest.mark.parametrize(
    ("methods", "change", "field"),
    [
        (("checkout",), {}, "gateway"),
        (("checkout", "prompt"), {"method": WALLET}, "method.type"),
        (("wallet",), {"method": PROMPT}, "method.type"),
        (("card",), {"method": CARD}, "method.offSession"),
    ],
)
async def test_a_gateway_that_could_not_charge_so_is_refused_up_front(
    new_database: str, redis_url: str, methods: Any, change: dict[str, Any], field: str
) -> None:
    capabilities = Capabilities(methods=methods, limits={"XAF": Limits(100, 500_000)})
    gateway = FakeGateway(capabilities=capabilities)
    async with running_payments(new_database, redis_url, gateway=gateway) as payments:
        reply = await post(payments, **change)

        assert (reply.status, reply.error["code"]) == (400, "invalid_input")
        assert list(reply.error["details"]) == [field]
        assert await ids_in(payments, "removed=true") == []


@pytest.mark.parametrize("path", ["pmt_01KE70EHG0JY1QREBD77BRA2Z7", "pay_1", "%00", "%F0%9F%A6%86"])
async def test_nobody_has_an_unknown_id(payments: Payments, path: str) -> None:
    for method in ("GET", "DELETE"):
        reply = await payments.api.call(method, f"/api/payment-methods/{path}")
        assert (reply.status, reply.error["code"]) == (404, "not_found")


#: What each gateway of the registry takes, and what it refuses up front, by the field.
AT_GATEWAYS = [
    ("sslcommerz", PROMPT, "gateway"),
    ("fapshi", PROMPT, None),
    ("fapshi", {"type": "prompt", "phone": "8801711111111"}, "method.phone"),
    ("fapshi", CARD, "method.type"),
    ("campay", PROMPT, None),
    ("campay", {"type": "prompt", "phone": "33612345678"}, "method.phone"),
    ("stripe", CARD, None),
    ("stripe", {**CARD, "paymentMethod": "4242424242424242"}, "method.paymentMethod"),
    ("stripe", {**CARD, "gatewayCustomer": "customer-1"}, "method.gatewayCustomer"),
    ("stripe", PROMPT, "method.type"),
    ("x402", WALLET, None),
    ("x402", {"type": "wallet", "recipient": f"0x{RECIPIENT[2:].swapcase()}"}, "method.recipient"),
    ("x402", {"type": "wallet", "recipient": f"0x{0:040}"}, "method.recipient"),
]


async def test_every_gateway_takes_what_it_can_charge_later_and_nothing_else(
    new_database: str, redis_url: str
) -> None:
    environment = gateways_at_simulator("http://127.0.0.1:9", {})
    keys = {name: each.keys(**environment) for name, each in REGISTRY.items()}
    assert {gateway for gateway, *_ in AT_GATEWAYS} == REGISTRY.keys()
    async with (
        opened_parts(["payments"], new_database, redis_url, keys) as parts,
        serving(parts=parts) as api,
    ):
        for gateway, method, field in AT_GATEWAYS:
            body = {"gateway": gateway, "customer": CUSTOMER, "method": method}
            reply = await api.call("POST", "/api/payment-methods", body)

            fields = [] if reply.status == 201 else list(reply.error["details"])
            assert fields == ([] if field is None else [field]), (gateway, method)
            assert PHONE not in reply.raw.decode()
