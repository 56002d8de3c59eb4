"""The database guards the same states and steps of a payment as the code, pair by pair."""

from __future__ import annotations

import itertools
from datetime import timedelta

import asyncpg
import pytest

from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING, TRANSITIONS
from shared.database import Connection
from shared.identifiers import new_id
from shared.process import Core
from tests.support.payments import NOW

_INSERT = """
    INSERT INTO payment (id, gateway, state, amount, currency, customer_id, product_id, reference,
                         next_check_at, created_at, expires_at, updated_at)
    VALUES ($1, 'sslcommerz', $2, 1000, 'BDT', 'cus_1', 'course_1', $3, $4, $5, $5, $5)
"""

_CHANGE = "UPDATE payment SET state = $2, next_check_at = $3 WHERE id = $1"

#: The customer may have tried again and paid.
LOOKED_AT_AFTER_THE_END = (PaymentState.FAILED, PaymentState.CANCELLED)

#: It has its time in its retry.
RETRIED = (PaymentState.RETRY_SCHEDULED,)


async def insert(connection: Connection, state: str, *, is_waiting: bool) -> str:
    id_ = new_id("pay", NOW)
    due = NOW + timedelta(minutes=1) if is_waiting else None
    await connection.execute(_INSERT, id_, state, new_id("att", NOW), due, NOW)
    return id_


async def is_allowed(connection: Connection, state: PaymentState, wanted: PaymentState) -> bool:
    id_ = await insert(connection, state, is_waiting=state not in RESTING)
    due = None if wanted in RESTING else NOW
    try:
        await connection.execute(_CHANGE, id_, wanted, due)
    except asyncpg.CheckViolationError as error:
        if error.constraint_name != "payment_transition":
            raise
        return False
    return True


async def test_the_database_allows_exactly_the_steps_of_the_table(payments_core: Core) -> None:
    async with payments_core.database.connection() as connection:
        allowed = {
            (state, wanted)
            for state, wanted in itertools.product(PaymentState, PaymentState)
            if await is_allowed(connection, state, wanted)
        }

    # To stay is no step, and always possible.
    assert allowed == {(s, w) for s in PaymentState for w in TRANSITIONS[s] | {s}}


@pytest.mark.parametrize("state", sorted(set(PaymentState) - {*LOOKED_AT_AFTER_THE_END, *RETRIED}))
async def test_a_payment_says_when_it_is_looked_at_next_exactly_while_it_waits(
    payments_core: Core, state: PaymentState
) -> None:
    is_resting = state in RESTING
    async with payments_core.database.connection() as connection:
        await insert(connection, state, is_waiting=not is_resting)
        with pytest.raises(asyncpg.CheckViolationError, match="waiting_has_a_time"):
            await insert(connection, state, is_waiting=is_resting)


@pytest.mark.parametrize("state", LOOKED_AT_AFTER_THE_END)
async def test_a_payment_that_failed_may_be_looked_at_again(
    payments_core: Core, state: PaymentState
) -> None:
    async with payments_core.database.connection() as connection:
        await insert(connection, state, is_waiting=True)
        await insert(connection, state, is_waiting=False)


async def test_a_state_that_the_code_does_not_know_is_refused(payments_core: Core) -> None:
    async with payments_core.database.connection() as connection:
        with pytest.raises(asyncpg.CheckViolationError, match="state_check"):
            await insert(connection, "settled", is_waiting=True)
