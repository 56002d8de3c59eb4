"""The database guards a refund's states as the code does, pair by pair, and what it reserves."""

from __future__ import annotations

import itertools

import asyncpg
import pytest

from services.payments.domain.refunds import REFUND_TRANSITIONS, RefundState
from shared.database import Connection
from shared.identifiers import new_id
from shared.process import Core
from tests.support.payments import NOW

_PAYMENT = """
    INSERT INTO payment (id, gateway, state, amount, currency, customer_id, product_id, reference,
                         gateway_payment_id, next_check_at, created_at, expires_at, updated_at,
                         reason)
    VALUES ($1, 'stripe', $2, 1000, 'USD', 'cus_1', 'course_1', $1, $4, $5, $3, $3, $3, $6)
"""

_REFUND = """
    INSERT INTO refund (id, payment_id, gateway, amount, currency, state, reason, requested_by,
                        next_look_at, created_at, updated_at)
    VALUES ($1, $2, 'stripe', $4, $5, $6, 'why', 'who', $3, $3, $3)
"""

_CHANGE = "UPDATE refund SET state = $2, next_look_at = $3 WHERE id = $1"

_DISPUTE = """
    INSERT INTO dispute (id, payment_id, gateway, handle, amount, currency, state, reason,
                         next_look_at, opened_at, created_at, updated_at)
    VALUES ($1, $2, 'stripe', $1, 1000, 'USD', $4, 'why', $3, $3, $3, $3)
"""


async def insert_payment(
    connection: Connection,
    state: str = "succeeded",
    charge: str | None = "pi_1",
    reason: str | None = None,
) -> str:
    id_ = new_id("pay", NOW)
    due = NOW if state in {"created", "pending", "processing", "unknown"} else None
    await connection.execute(_PAYMENT, id_, state, NOW, charge, due, reason)
    return id_


async def insert_refund(
    connection: Connection,
    payment_id: str,
    *,
    amount: int = 400,
    currency: str = "USD",
    state: str = "requested",
) -> str:
    id_ = new_id("ref", NOW)
    await connection.execute(_REFUND, id_, payment_id, NOW, amount, currency, state)
    return id_


async def change(connection: Connection, refund_id: str, state: str) -> None:
    due = None if state in {"succeeded", "failed"} else NOW
    await connection.execute(_CHANGE, refund_id, state, due)


async def sums(connection: Connection, payment_id: str) -> tuple[int, int]:
    row = await connection.fetchrow(
        "SELECT refunded_amount, refund_reserved FROM payment WHERE id = $1", payment_id
    )
    assert row is not None
    return row["refunded_amount"], row["refund_reserved"]


async def refund_in(connection: Connection, payment_id: str, state: RefundState) -> str:
    refund_id = await insert_refund(connection, payment_id, amount=1)
    if state is not RefundState.REQUESTED:
        await change(connection, refund_id, state)
    return refund_id


async def is_allowed(connection: Connection, refund_id: str, wanted: RefundState) -> bool:
    try:
        await change(connection, refund_id, wanted)
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "refund_transition":
            raise
        return False
    return True


async def test_the_database_allows_exactly_the_steps_of_the_table(payments_core: Core) -> None:
    allowed = set()
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection)
        for state, wanted in itertools.product(RefundState, RefundState):
            refund_id = await refund_in(connection, payment_id, state)
            if await is_allowed(connection, refund_id, wanted):
                allowed.add((state, wanted))

    assert allowed == {(s, w) for s in RefundState for w in REFUND_TRANSITIONS[s] | {s}}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], (0, 400)),
        (["pending"], (0, 400)),
        (["pending", "unknown"], (0, 400)),
        (["failed"], (0, 0)),
        (["succeeded"], (400, 0)),
        (["unknown", "pending", "succeeded"], (400, 0)),
        (["succeeded", "failed"], (0, 0)),
    ],
    ids=lambda value: ">".join(value) or "requested" if isinstance(value, list) else None,
)
async def test_a_payment_has_reserved_and_refunded_what_its_refunds_are(
    payments_core: Core, steps: list[str], expected: tuple[int, int]
) -> None:
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection)
        refund_id = await insert_refund(connection, payment_id)
        for step in steps:
            await change(connection, refund_id, step)

        assert await sums(connection, payment_id) == expected


async def test_the_sum_of_refunds_is_never_above_the_payment(payments_core: Core) -> None:
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection)
        first = await insert_refund(connection, payment_id, amount=600)
        await insert_refund(connection, payment_id, amount=400)
        with pytest.raises(asyncpg.CheckViolationError, match="refunds_within_amount"):
            await insert_refund(connection, payment_id, amount=1)
        await change(connection, first, "failed")
        await insert_refund(connection, payment_id, amount=600)

        assert await sums(connection, payment_id) == (0, 1000)


@pytest.mark.parametrize(
    ("payment", "refund"),
    [
        pytest.param({"state": "pending"}, {}, id="not paid"),
        pytest.param({"state": "refunded"}, {}, id="refunded"),
        pytest.param({"state": "disputed"}, {}, id="disputed"),
        pytest.param({"charge": None}, {}, id="no charge"),
        pytest.param({}, {"currency": "EUR"}, id="another currency"),
        pytest.param({}, {"state": "pending"}, id="not new"),
        pytest.param(
            {"state": "on_hold", "reason": "gateway_says_risky"}, {"amount": 999}, id="a part"
        ),
        pytest.param(
            {"state": "on_hold", "reason": "amount_differs"}, {"amount": 1000}, id="another sum"
        ),
    ],
)
async def test_money_that_is_not_there_is_not_given_back(
    payments_core: Core, payment: dict[str, str | None], refund: dict[str, object]
) -> None:
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection, **payment)  # type: ignore[arg-type]
        with pytest.raises(asyncpg.CheckViolationError, match="money that is not there"):
            await insert_refund(connection, payment_id, **refund)  # type: ignore[arg-type]

        assert await sums(connection, payment_id) == (0, 0)


@pytest.mark.parametrize("state", ["opened", "lost"])
async def test_what_a_bank_has_taken_back_is_not_given_back(
    payments_core: Core, state: str
) -> None:
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection)
        await connection.execute(_DISPUTE, new_id("dsp", NOW), payment_id, NOW, state)
        with pytest.raises(asyncpg.CheckViolationError, match="money that is not there"):
            await insert_refund(connection, payment_id)


@pytest.mark.parametrize("state", ["inquiry", "won"])
async def test_what_a_bank_only_asks_about_can_be_given_back(
    payments_core: Core, state: str
) -> None:
    async with payments_core.database.connection() as connection:
        payment_id = await insert_payment(connection)
        await connection.execute(_DISPUTE, new_id("dsp", NOW), payment_id, NOW, state)
        await insert_refund(connection, payment_id)

        assert await sums(connection, payment_id) == (0, 400)


@pytest.mark.parametrize("column", ["amount = 500", "payment_id = 'pay_2'", "currency = 'EUR'"])
async def test_what_a_refund_is_about_never_changes(payments_core: Core, column: str) -> None:
    async with payments_core.database.connection() as connection:
        refund_id = await insert_refund(connection, await insert_payment(connection))
        with pytest.raises(asyncpg.CheckViolationError, match="must not change so"):
            await connection.execute(f"UPDATE refund SET {column} WHERE id = $1", refund_id)  # noqa: S608
