"""The database guards how payments are taken as the code does."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import get_args

import asyncpg
import orjson
import pytest

from services.payments.store import attempts as attempt_store
from shared.database import Connection
from shared.gateways.interface import Card, Checkout, Method, MethodKind, Prompt, Wallet
from shared.identifiers import new_id
from shared.process import Core
from tests.support.payments import NOW

METHODS: list[Method] = [Checkout(), Prompt("237670000000"), Card("pm_1"), Wallet("0x1")]

_INSERT_PAYMENT = """
    INSERT INTO payment (id, gateway, state, amount, currency, customer_id, product_id, reference,
                         method, method_details, customer, product, created_at, expires_at,
                         updated_at, next_check_at)
    VALUES ($1, 'sslcommerz', 'created', 1000, 'BDT', 'cus_1', 'course_1', $2, $3, $4,
            '{"id": "cus_1", "name": "", "email": "", "phone": ""}', '{"name": "Course"}',
            $5, $5, $5, $5)
"""
_INSERT_ATTEMPT = """
    INSERT INTO attempt (reference, payment_id, number, state, checkout_url, created_at)
    VALUES ($1, $2, 1, $3, $4, $5)
"""


async def insert(connection: Connection, method: str, details: object) -> tuple[str, str]:
    """Return the id and the reference."""
    payment_id, reference = new_id("pay", NOW), new_id("att", NOW)
    text = orjson.dumps(details).decode()
    await connection.execute(_INSERT_PAYMENT, payment_id, reference, method, text, NOW)
    return payment_id, reference


def test_every_kind_of_method_is_tried() -> None:
    assert {method.kind for method in METHODS} == set(get_args(MethodKind))
    assert attempt_store._METHODS.keys() == set(get_args(MethodKind))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.kind)
async def test_a_method_is_read_back_as_it_was_stored(payments_core: Core, method: Method) -> None:
    async with payments_core.database.connection() as connection:
        payment_id, reference = await insert(connection, method.kind, asdict(method))
        await connection.execute(_INSERT_ATTEMPT, reference, payment_id, "started", None, NOW)
        stored = await attempt_store.find_orders(connection, [reference])

    assert stored[reference].order.method == method


@pytest.mark.parametrize(
    "method", [each for each in METHODS if fields(each)], ids=lambda method: method.kind
)
async def test_a_method_without_what_it_needs_is_refused(
    payments_core: Core, method: Method
) -> None:
    async with payments_core.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="method_is_whole"):
            await insert(connection, method.kind, {})


async def test_a_method_that_the_code_does_not_know_is_refused(payments_core: Core) -> None:
    async with payments_core.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="method_is_known"):
            await insert(connection, "cash", {})


@pytest.mark.parametrize("state", ["started", "refused", "abandoned"])
async def test_only_an_open_attempt_has_a_page(payments_core: Core, state: str) -> None:
    async with payments_core.database.connection() as connection:
        payment_id, reference = await insert(connection, "checkout", {})
        with pytest.raises(asyncpg.CheckViolationError, match="page_is_open"):
            await connection.execute(
                _INSERT_ATTEMPT, reference, payment_id, state, "https://gateway.example/", NOW
            )
