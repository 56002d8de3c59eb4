"""Payments that took money before there was a ledger are in it when it is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import asyncpg

from deploy.local.services import load_service
from shared.migrations import Component, migrate

#: The last migration before the ledger's.
BEFORE = 6

INSERT = """
    INSERT INTO payment (id, gateway, state, reason, amount, currency, customer_id, product_id,
                         reference, gateway_payment_id, next_check_at, created_at, expires_at,
                         updated_at)
    VALUES ($1, 'stripe', $2, $3, 500, 'USD', 'c', 'p', 'att_' || $1, $4,
            CASE $2 WHEN 'pending' THEN now() END, now(), now(), now())
"""


async def test_earlier_payments_are_booked(new_database: str, tmp_path: Path) -> None:
    components = load_service("payments").migrations
    (own,) = (each for each in components if each.name == "payments")
    files = sorted(own.directory.glob("*.sql"))
    earlier = [path for path in files if int(path.name[:4]) <= BEFORE]
    directory = Component("payments", tmp_path)
    for path in earlier:
        shutil.copy(path, tmp_path)
    shared = [each for each in components if each.name != "payments"]
    await migrate(new_database, "earlier", [*shared, directory])
    connection = await asyncpg.connect(new_database, server_settings={"search_path": "earlier"})
    for id_, state, reason, charge in (
        ("pay_1", "succeeded", None, "pi_1"),
        ("pay_2", "succeeded", "surplus_charge", "pi_2"),
        ("pay_3", "on_hold", "gateway_says_risky", "pi_3"),
        ("pay_4", "on_hold", "held_by_operator", None),
        ("pay_5", "failed", "declined", None),
        ("pay_6", "pending", None, None),
    ):
        await connection.execute(INSERT, id_, state, reason, charge)

    for path in files:
        if path not in earlier:
            shutil.copy(path, tmp_path)
    await migrate(new_database, "earlier", [*shared, directory])

    rows = await connection.fetch(
        "SELECT payment_id, kind, debit, credit, amount, fee FROM ledger_transfer"
        " ORDER BY payment_id, kind"
    )
    await connection.close()
    assert [tuple(row) for row in rows] == [
        ("pay_1", "capture", "gateway:stripe", "revenue", 500, 0),
        ("pay_2", "capture", "gateway:stripe", "revenue", 500, 0),
        ("pay_2", "surplus", "gateway:stripe", "surplus", 500, 0),
        ("pay_3", "capture", "gateway:stripe", "held", 500, 0),
    ]
