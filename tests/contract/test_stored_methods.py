"""The database guards stored means of payment: whole while they are there, erased when removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, get_args

import asyncpg
import orjson
import pytest

from services.payments.domain.payment_methods import Chargeable, Means, StoredKind
from services.payments.store import payment_methods as method_store
from shared.contracts.payments import PaymentMethodStored
from shared.database import Connection
from shared.gateways.interface import Card, Customer, Prompt, Wallet
from shared.identifiers import new_id
from shared.process import Core
from tests.support.payments import NOW

CUSTOMER = Customer("cus_1", "Ada", "ada@shop.example", "677000111")
METHODS: list[Chargeable] = [
    Prompt("237677123456"),
    Card("pm_1", "cus_1", off_session=True),
    Wallet("0x1"),
]

_INSERT = """
    INSERT INTO payment_method (id, gateway, kind, customer_id, customer, details, created_at)
    VALUES ($1, 'stripe', $2, 'cus_1', '{}', $3, $4)
"""


async def stored(connection: Connection, method: Chargeable = METHODS[0]) -> str:
    method_id = new_id("pmt", NOW)
    means = Means(CUSTOMER, method)
    assert await method_store.insert_method(connection, method_id, "stripe", means, NOW)
    return method_id


def test_every_kind_of_method_that_is_stored_is_tried() -> None:
    kinds = {method.kind for method in METHODS}

    assert kinds == set(get_args(StoredKind)) == method_store._KINDS.keys()
    assert kinds == set(get_args(PaymentMethodStored.model_fields["kind"].annotation))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
async def test_a_method_is_read_back_as_it_was_stored(
    payments_core: Core, method: Chargeable
) -> None:
    async with payments_core.database.connection() as connection:
        method_id = await stored(connection, method)
        found = await method_store.find_methods(connection, [method_id])

    assert found[method_id].means == Means(CUSTOMER, method)


@pytest.mark.parametrize(
    ("kind", "details", "guard"),
    [
        ("checkout", {}, "can_be_charged_alone"),
        ("prompt", {}, "details_are_whole"),
        ("prompt", {"phone": None}, "details_are_whole"),
        ("card", asdict(Card("pm_1")), "details_are_whole"),
        ("wallet", {"phone": "237677123456"}, "details_are_whole"),
    ],
    ids=str,
)
async def test_what_could_not_be_charged_alone_is_refused(
    payments_core: Core, kind: str, details: Any, guard: str
) -> None:
    text = orjson.dumps(details).decode()
    async with payments_core.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match=guard):
            await connection.execute(_INSERT, new_id("pmt", NOW), kind, text, NOW)


@pytest.mark.parametrize(
    ("change", "guard"),
    [
        ("removed_at = now()", "removed_is_erased"),
        ("removed_at = now(), details = NULL", "removed_is_erased"),
        ("removed_at = now(), customer = NULL", "removed_is_erased"),
        ("customer = NULL", "removed_is_erased"),
        ("customer_id = 'cus_2'", "must not change"),
        ("gateway = 'x402'", "must not change"),
        ("kind = 'wallet', details = '{\"recipient\": \"0x1\"}'", "must not change"),
    ],
)
async def test_a_method_is_there_or_erased_and_never_another_s(
    payments_core: Core, change: str, guard: str
) -> None:
    async with payments_core.database.connection() as connection:
        method_id = await stored(connection)
        with pytest.raises(asyncpg.CheckViolationError, match=guard):
            await connection.execute(
                f"UPDATE payment_method SET {change} WHERE id = $1",  # noqa: S608 - of this test
                method_id,
            )


async def test_what_is_erased_does_not_come_back(payments_core: Core) -> None:
    async with payments_core.database.connection() as connection:
        method_id = await stored(connection)
        assert await method_store.erase_method(connection, method_id, NOW)
        means = Means(CUSTOMER, METHODS[0])
        assert not await method_store.insert_method(connection, method_id, "stripe", means, NOW)
        with pytest.raises(asyncpg.CheckViolationError, match="must not change"):
            await connection.execute(
                "UPDATE payment_method SET removed_at = NULL, customer = '{}', details = $2"
                " WHERE id = $1",
                method_id,
                '{"phone": "237677123456"}',
            )
        assert not await method_store.erase_method(connection, method_id, NOW), "it is already"
