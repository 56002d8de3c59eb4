"""The audit compares the ledger of every gateway that the simulator plays, under its own names."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import AsyncIterator

import pytest

from deploy.local import audit
from deploy.local.environment import gateways_at_simulator
from deploy.local.invariants.findings import Findings
from deploy.local.simulator_names import NamesAtSimulator
from shared.gateways.registry import REGISTRY
from tests.integration.local.stored_payments import Stored, Tables, open_tables

#: What a stack adds to its environment whose simulator plays every gateway.
PLAYED = gateways_at_simulator("http://127.0.0.1:1", {})


@pytest.fixture
async def tables(new_database: str) -> AsyncIterator[Tables]:
    async with open_tables(new_database) as tables:
        yield tables


async def compare(url: str, environment: dict[str, str] = PLAYED) -> Findings:
    results = await audit.audit({**environment, "DATABASE_URL": url})
    return next(each.findings for each in results if each.invariant.name == "ledgers_agree")


async def move(tables: Tables, names: Stored, gateway: str) -> None:
    """Move a payment and its charge to another gateway."""
    name = NamesAtSimulator(PLAYED).of(gateway, names.reference)
    await tables.execute(
        "payments", "UPDATE payment SET gateway = $2 WHERE id = $1", names.payment_id, gateway
    )
    await tables.execute(
        "simulator",
        "UPDATE charge SET gateway = $2, reference = $3 WHERE reference = $1",
        names.reference,
        gateway,
        name,
    )


@pytest.mark.parametrize("gateway", REGISTRY)
async def test_charges_are_found_under_the_names_of_their_gateway(
    new_database: str, tables: Tables, gateway: str
) -> None:
    short, lost = await tables.succeeded(), await tables.failed()
    await tables.charge(lost)
    await tables.execute(
        "simulator",
        "UPDATE charge SET currency_amount = 1 WHERE reference = $1",
        short.reference,
    )
    for names in (await tables.succeeded(), short, lost):
        await move(tables, names, gateway)

    findings = await compare(new_database)

    assert findings.classes == {"match": 1, "mismatch": 1, "missing here": 1}
    assert {example.subject for example in findings.examples} == {
        short.payment_id,
        lost.reference,
    }


async def test_a_charge_of_another_merchant_is_none_of_ours(
    new_database: str, tables: Tables
) -> None:
    await tables.succeeded()
    for gateway, name in (
        ("sslcommerz", "INV-1"),
        ("campay", str(uuid.uuid4())),
        ("x402", f"0x{secrets.token_hex(32)}"),
    ):
        await tables.execute(
            "simulator",
            """
            INSERT INTO charge (gateway, reference, gateway_payment_id, amount, currency,
                                currency_amount, currency_type, charged_at)
            VALUES ($1, $2, 'theirs', 1, 'XAF', 1, 'XAF', now())
            """,
            gateway,
            name,
        )

    assert (await compare(new_database)).classes == {"match": 1}


async def test_a_gateway_that_is_not_played_is_not_compared(
    new_database: str, tables: Tables
) -> None:
    await move(tables, await tables.succeeded(), "stripe")
    await tables.execute("simulator", "DELETE FROM charge")

    assert (await compare(new_database)).checked == 0


async def test_without_the_wallet_its_payments_are_not_compared(
    new_database: str, tables: Tables
) -> None:
    await move(tables, await tables.succeeded(), "x402")

    findings = await compare(new_database, {})

    assert (findings.checked, findings.violations) == (0, 0)
