"""What was charged here, and in the ledgers of the gateways that the simulator plays.

The ledgers are compared from both sides. Each payment that took money must have exactly its one
charge there; each charge there must belong to a payment that knows of it, or that will.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import asyncpg

from deploy.local.invariants.events import NOTICES_IN_OUTBOX, PAYMENTS_OF_REFERENCES
from deploy.local.invariants.findings import Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from services.payments.domain.settlement import HELD_BY_OPERATOR
from services.payments.domain.state_machine import TAKEN
from shared.clock import system_clock
from shared.contracts.webhook import NoticeReceived
from shared.identifiers import created_at, from_uuid, is_id

#: What an operator released is kept in the amount that was taken.
RELEASED_BY_OPERATOR: Final = "released_by_operator"

#: No reference of ours is older, and none is from the future: whatever else looks like one is
#: another merchant's UUID.
_FIRST_REFERENCE: Final = datetime(2026, 1, 1, tzinfo=UTC)
_CLOCKS_DIFFER: Final = timedelta(days=1)

# Of any other gateway the payments are made at the real one, whose ledger we cannot read.
_PLAYED: Final = """
    SELECT 'sslcommerz' AS gateway WHERE EXISTS (SELECT FROM session)
     UNION
    SELECT 'fapshi' WHERE EXISTS (SELECT FROM fapshi_transaction)
     UNION
    SELECT 'campay' WHERE EXISTS (SELECT FROM campay_transaction)
     UNION
    SELECT 'stripe' WHERE EXISTS (SELECT FROM stripe_intent)
     UNION
    SELECT 'x402' WHERE EXISTS (SELECT FROM x402_authorization)
     UNION
    SELECT gateway FROM charge
"""

_PAYMENTS_THAT_TOOK_MONEY: Final = """
    SELECT id, gateway, state, reason, amount, currency, gateway_payment_id,
           ARRAY(SELECT reference FROM attempt WHERE payment_id = payment.id) AS known_as
      FROM payment
     WHERE id > $1
       AND (state IN ('succeeded', 'partially_refunded', 'refunded', 'disputed')
            OR (state = 'on_hold' AND gateway_payment_id IS NOT NULL))
     ORDER BY id
     LIMIT $2
"""

_ATTEMPTS_BY_X402: Final = """
    SELECT attempt.reference
      FROM attempt
      JOIN payment ON payment.id = attempt.payment_id
     WHERE attempt.reference > $1
       AND payment.gateway = 'x402'
     ORDER BY attempt.reference
     LIMIT $2
"""

_CHARGES: Final = """
    SELECT gateway, reference, gateway_payment_id, currency_amount AS amount,
           currency_type AS currency
      FROM charge
     WHERE (gateway, reference) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""

_CHARGED_REFERENCES: Final = """
    SELECT gateway, reference, count(*) AS charges,
           count(DISTINCT (currency_amount, currency_type)) AS amounts
      FROM charge
     WHERE (gateway, reference) > ($1, $2)
     GROUP BY gateway, reference
     ORDER BY gateway, reference
     LIMIT $3
"""

_NOTICES_TO_COME: Final = """
    SELECT gateway, reference
      FROM notice
     WHERE sent_at IS NULL
       AND (gateway, reference) IN (SELECT * FROM unnest($1::text[], $2::text[]))
"""


class _Charged(NamedTuple):
    """What the simulator took under one reference of ours."""

    gateway: str
    #: What it calls the reference.
    name: str
    charges: int
    #: How many different sums.
    amounts: int


async def check_ledgers(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare our payments with the simulator's ledgers, from both sides."""
    played = frozenset(
        row["gateway"]
        for row in await databases.fetch("simulator", _PLAYED)
        if databases.names_at_simulator.knows(row["gateway"])
    )
    if not played:
        return
    async for page in databases.pages("payments", _PAYMENTS_THAT_TOOK_MONEY, after=[""]):
        payments = [payment for payment in page if payment["gateway"] in played]
        findings.checked += len(payments)
        await _compare_payments(databases, findings, payments)
    nonces = await _references_of_nonces(databases) if "x402" in played else {}
    pages = databases.pages("simulator", _CHARGED_REFERENCES, after=("", ""), key_length=2)
    async for page in pages:
        charges = _ours(page, played, nonces)
        findings.checked += len(charges)
        await _compare_charges(databases, findings, charges)


async def _references_of_nonces(databases: ServiceDatabases) -> dict[str, str]:
    """Return our references by what they are on the chain, which does not tell them back."""
    return {
        databases.names_at_simulator.of("x402", row["reference"]): row["reference"]
        async for page in databases.pages("payments", _ATTEMPTS_BY_X402, after=[""])
        for row in page
    }


def _ours(
    page: Sequence[asyncpg.Record], played: Collection[str], nonces: Mapping[str, str]
) -> dict[str, _Charged]:
    """Return what was charged under references of ours, by reference.

    Other merchants may use the simulator too. Their references do not look like ours, and a nonce
    that is none of ours cannot be told from theirs.
    """
    charged = {}
    for row in page:
        gateway, name = row["gateway"], row["reference"]
        reference = nonces.get(name) if gateway == "x402" else _reference_of(gateway, name)
        if gateway in played and reference is not None:
            charged[reference] = _Charged(gateway, name, row["charges"], row["amounts"])
    return charged


def _reference_of(gateway: str, name: str) -> str | None:
    if gateway != "campay":
        return name if is_id(name, "att") else None
    try:
        reference = from_uuid("att", name)
        is_plausible = _FIRST_REFERENCE < created_at(reference) < system_clock() + _CLOCKS_DIFFER
    except ValueError:
        return None
    return reference if is_plausible else None


async def _compare_payments(
    databases: ServiceDatabases, findings: Findings, payments: Sequence[asyncpg.Record]
) -> None:
    names = {
        payment["id"]: [
            (payment["gateway"], databases.names_at_simulator.of(payment["gateway"], reference))
            for reference in payment["known_as"]
        ]
        for payment in payments
    }
    gateways, references = _columns([name for found in names.values() for name in found])
    charges: defaultdict[tuple[str, str], list[asyncpg.Record]] = defaultdict(list)
    for charge in await databases.fetch("simulator", _CHARGES, gateways, references):
        charges[charge["gateway"], charge["reference"]].append(charge)
    for payment in payments:
        found = [charge for name in names[payment["id"]] for charge in charges[name]]
        kind, problem = _compare(payment, found)
        findings.classes[kind] += 1
        if problem is not None:
            findings.add_violation(payment["id"], problem)


def _columns(names: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [gateway for gateway, _ in names], [reference for _, reference in names]


def _compare(payment: asyncpg.Record, charges: Sequence[asyncpg.Record]) -> tuple[str, str | None]:
    """Return the class of a payment that took money, and what is wrong with it if anything is."""
    if not charges:
        return "missing there", f"is {payment['state']}, but the gateway has charged nothing"
    if len(charges) > 1:
        amounts = {(charge["amount"], charge["currency"]) for charge in charges}
        kind = "duplicate" if len(amounts) == 1 else "conflicting duplicate"
        return kind, f"was charged {len(charges)} times by the gateway"
    (charge,) = charges
    if charge["gateway_payment_id"] != payment["gateway_payment_id"]:
        return "mismatch", "rests on another charge than the gateway's"
    if all(charge[field] == payment[field] for field in ("amount", "currency")):
        return "match", None
    if payment["state"] == PaymentState.ON_HOLD or payment["reason"] == RELEASED_BY_OPERATOR:
        return "held", None  # That they differ is why it is on hold, or was.
    there, here = (f"{each['amount']} {each['currency']}" for each in (charge, payment))
    return "mismatch", f"was charged {there} (minor units) by the gateway, but is about {here}"


async def _compare_charges(
    databases: ServiceDatabases, findings: Findings, charges: Mapping[str, _Charged]
) -> None:
    """Find charges that no payment knows of; those that one does were compared before."""
    suspects = []
    for reference, payment in (await _payments_of(databases, list(charges))).items():
        if payment is None or not (_is_settled_with(payment) or _is_to_be_asked(payment)):
            suspects.append(reference)
        elif not _is_settled_with(payment):
            findings.classes["waiting"] += 1
            findings.waiting += 1
            _count_repeated(findings, payment["id"], charges[reference])
    if not suspects:
        return
    # In the order in which a notice travels, so that it is met wherever it is by now.
    ours = {(charges[each].gateway, charges[each].name): each for each in suspects}
    gateways, names = _columns(list(ours))
    to_come = {
        ours[row["gateway"], row["reference"]]
        for row in await databases.fetch("simulator", _NOTICES_TO_COME, gateways, names)
    }
    to_come |= {
        row["reference"]
        for row in await databases.fetch(
            "webhook", NOTICES_IN_OUTBOX, NoticeReceived.name, suspects
        )
    }
    for reference, payment in (await _payments_of(databases, suspects)).items():
        if payment is not None and _is_settled_with(payment):
            continue
        if payment is not None and (_is_to_be_asked(payment) or reference in to_come):
            findings.classes["waiting"] += 1
            findings.waiting += 1
            continue
        findings.classes["missing here"] += 1
        if payment is None:
            story = "no payment has this reference"
        else:
            story = f"its payment {payment['id']} is {payment['state']} for good"
        findings.add_violation(reference, f"was charged by the gateway, but {story}")


def _count_repeated(findings: Findings, payment_id: str, charged: _Charged) -> None:
    if charged.charges > 1:
        kind = "duplicate" if charged.amounts == 1 else "conflicting duplicate"
        findings.classes[kind] += 1
        findings.add_violation(payment_id, f"was charged {charged.charges} times by the gateway")


async def _payments_of(
    databases: ServiceDatabases, references: Sequence[str]
) -> dict[str, asyncpg.Record | None]:
    rows = await databases.fetch("payments", PAYMENTS_OF_REFERENCES, references)
    payments = {row["reference"]: row for row in rows}
    return {reference: payments.get(reference) for reference in references}


def _is_to_be_asked(payment: asyncpg.Record) -> bool:
    """Tell whether the gateway will be asked: in time, before a retry, or when it is released."""
    return (
        payment["next_check_at"] is not None
        or payment["state"] == PaymentState.RETRY_SCHEDULED
        or payment["reason"] == HELD_BY_OPERATOR
    )


def _is_settled_with(payment: asyncpg.Record) -> bool:
    # An operator may hold what has no money yet.
    is_held = payment["state"] == PaymentState.ON_HOLD
    return payment["state"] in TAKEN or (is_held and payment["gateway_payment_id"] is not None)


LEDGERS_AGREE: Final = Invariant(
    name="ledgers_agree",
    sentence="Here and in the simulator's ledgers the same payments were charged, once each.",
    hint="Money that is missing here: repeat the notice. Money that is missing there, or taken "
    "twice: compare with the gateway's own list, then revoke or refund.",
    check=check_ledgers,
    services=frozenset({"webhook", "payments", "simulator"}),
)
