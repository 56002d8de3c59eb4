"""Notices that come five times at once, in the wrong order, badly signed, or never."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlencode

import asyncpg

from services.simulator.sslcommerz.signing import sign
from tests.support.blocking import run_blocking
from tests.support.promises import settle
from tests.support.supervised_stack import supervised_stack
from tests.support.traffic import (
    DECLINED,
    FORGED,
    PLAIN,
    POSTED_FIVE_TIMES,
    REORDERED,
    REPEATED,
    SILENT,
    Order,
    Traffic,
)

#: The first look at a payment without news, and how late it may be on a busy machine.
FIRST_LOOK_SECONDS: Final = 30
LOOK_LATE_SECONDS: Final = 15

_FOUND_AFTER: Final = """
    SELECT payment.id, extract(epoch FROM payment_history.at - created_at)::float AS seconds
      FROM payments.payment
      JOIN payments.payment_history ON payment_id = payment.id AND event = 'confirmed'
     WHERE payment.id = ANY($1::text[])
"""


def forgeries(order: Order) -> dict[str, bytes]:
    """Return the order's notice as someone without the password could make it."""
    fields = dict(parse_qsl(order.notice.decode(), keep_blank_values=True))
    signed = fields["verify_key"].split(",")
    unsigned = {name: text for name, text in fields.items() if not name.startswith("verify_")}
    return {
        "another amount": urlencode(fields | {"amount": "10.00"}).encode(),
        "another payment": urlencode(fields | {"tran_id": f"att_{'0' * 26}"}).encode(),
        "another password": urlencode(fields | sign(fields, signed, "guessed")).encode(),
        "too little signed": urlencode(
            unsigned | sign(fields, ["tran_id"], "sluice_demo_password")
        ).encode(),
        "no signature": urlencode(unsigned).encode(),
    }


def test_repeated_reordered_forged_and_missing_notices_lose_and_double_nothing() -> None:
    kinds = (PLAIN, POSTED_FIVE_TIMES, REPEATED, REORDERED, FORGED, SILENT, DECLINED)
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=6, kinds=kinds, count=200) as traffic,
    ):
        silent = traffic.buy(20)
        for order in silent[:5]:
            for name, body in forgeries(order).items():
                assert traffic.post(body).status == 401, name

        orders = settle(stack, traffic)

        stored = run_blocking(stored_references(stack.local.database_url))
        unheard = [order for order in orders if order.kind in {SILENT, FORGED}]
        assert stored.isdisjoint(order.reference for order in unheard)
        found = run_blocking(found_after(stack.local.database_url, unheard))
        assert len(found) == len(unheard) >= 40
        assert all(
            FIRST_LOOK_SECONDS <= seconds <= FIRST_LOOK_SECONDS + LOOK_LATE_SECONDS
            for seconds in found.values()
        ), found


async def stored_references(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch("SELECT event_key FROM webhook.inbound_event")
    finally:
        await connection.close()
    return {row["event_key"].partition(":")[0] for row in rows}


async def found_after(database_url: str, orders: list[Order]) -> dict[str, float]:
    """Return how old each payment was when its money was found."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(_FOUND_AFTER, [order.payment_id for order in orders])
    finally:
        await connection.close()
    return {row["id"]: row["seconds"] for row in rows}
