"""What was charged: here, and in the ledger of the gateway that the simulator plays.

The ledgers are compared from both sides. Each payment that took money must have exactly its one
charge there; each charge there must belong to a payment that knows of it, or that will.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import asyncpg

from deploy.local.invariants.events import NOTICES_IN_OUTBOX, PAYMENTS_OF_REFERENCES
from deploy.local.invariants.findings import EXAMPLES_MAX, Example, Findings, Invariant
from deploy.local.service_databases import ServiceDatabases
from services.payments.domain.model import PaymentState
from shared.contracts.webhook import NoticeReceived

#: The states of a payment that took money.
_TOOK_MONEY: Final = (PaymentState.SUCCEEDED, PaymentState.ON_HOLD)

_SUCCESSES: Final = """
    WITH step AS (
        SELECT payment_id, state,
               lag(state) OVER (PARTITION BY payment_id ORDER BY id) AS state_before
          FROM payment_history
    )
    SELECT payment_id, count(*) AS successes, count(*) OVER () AS total
      FROM step
     WHERE state = 'succeeded'
       AND state_before IS DISTINCT FROM state
     GROUP BY payment_id
    HAVING count(*) > 1
     ORDER BY payment_id
     LIMIT $1
"""

_SHARED_CHARGES: Final = """
    SELECT gateway, gateway_payment_id, min(id) AS payment_id, count(*) AS payments,
           count(*) OVER () AS total
      FROM payment
     WHERE gateway_payment_id <> ''
     GROUP BY gateway, gateway_payment_id
    HAVING count(*) > 1
     ORDER BY payment_id
     LIMIT $1
"""

_UNPROVEN_SUCCESSES: Final = """
    SELECT id AS payment_id, count(*) OVER () AS total
      FROM payment
     WHERE state = 'succeeded'
       AND coalesce(gateway_payment_id, '') = ''
     ORDER BY id
     LIMIT $1
"""

_SURPLUS: Final = """
    SELECT id AS payment_id, count(*) OVER () AS total
      FROM payment
     WHERE reason = 'surplus_charge'
     ORDER BY id
     LIMIT $1
"""

_COUNT_SUCCEEDED: Final = "SELECT count(*) FROM payment WHERE state = 'succeeded'"

#: Each query that finds wrong payments, and what is wrong with them.
_WRONG_SUCCESSES: Final = (
    (_SUCCESSES, "has succeeded {successes} times"),
    (_SHARED_CHARGES, "shares the charge {gateway_payment_id} with other payments"),
    (_UNPROVEN_SUCCESSES, "has succeeded without a charge of the gateway"),
    (_SURPLUS, "was charged more than once by the gateway, which was found out"),
)


async def check_successes(databases: ServiceDatabases, findings: Findings) -> None:
    """Check what this side alone can tell about charges."""
    findings.checked = (await databases.fetch("payments", _COUNT_SUCCEEDED))[0][0]
    for query, problem in _WRONG_SUCCESSES:
        rows = await databases.fetch("payments", query, EXAMPLES_MAX)
        findings.add_rows(rows, partial(_tell, problem))


def _tell(problem: str, row: asyncpg.Record) -> Example:
    return Example(row["payment_id"], problem.format(**row))


_HAS_SESSIONS: Final = "SELECT EXISTS (SELECT FROM session)"

# Of the gateway that the simulator plays.
_PAYMENTS_THAT_TOOK_MONEY: Final = """
    SELECT id, state, reason, amount, currency, gateway_payment_id,
           ARRAY(SELECT reference FROM attempt WHERE payment_id = payment.id) AS known_as
      FROM payment
     WHERE id > $1
       AND gateway = 'sslcommerz'
       AND state IN ('succeeded', 'on_hold')
     ORDER BY id
     LIMIT $2
"""

_CHARGES: Final = """
    SELECT reference, gateway_payment_id, currency_amount AS amount, currency_type AS currency
      FROM charge
     WHERE reference = ANY($1::text[])
"""

# Other merchants may use the simulator too; their references do not look like ours.
_CHARGED_REFERENCES: Final = """
    SELECT reference, count(*) AS charges,
           count(DISTINCT (currency_amount, currency_type)) AS amounts
      FROM charge
     WHERE reference > $1
       AND starts_with(reference, 'att_')
     GROUP BY reference
     ORDER BY reference
     LIMIT $2
"""

_NOTICES_TO_COME: Final = """
    SELECT reference FROM notice WHERE sent_at IS NULL AND reference = ANY($1::text[])
"""


async def check_ledgers(databases: ServiceDatabases, findings: Findings) -> None:
    """Compare our payments with the simulator's ledger, from both sides."""
    if not (await databases.fetch("simulator", _HAS_SESSIONS))[0][0]:
        return  # It plays no gateway here: the payments are another's.
    async for page in databases.pages("payments", _PAYMENTS_THAT_TOOK_MONEY, after=[""]):
        findings.checked += len(page)
        await _compare_payments(databases, findings, page)
    async for page in databases.pages("simulator", _CHARGED_REFERENCES, after=[""]):
        findings.checked += len(page)
        await _compare_charges(databases, findings, {row["reference"]: row for row in page})


async def _compare_payments(
    databases: ServiceDatabases, findings: Findings, payments: Sequence[asyncpg.Record]
) -> None:
    references = [reference for payment in payments for reference in payment["known_as"]]
    charges: defaultdict[str, list[asyncpg.Record]] = defaultdict(list)
    for charge in await databases.fetch("simulator", _CHARGES, references):
        charges[charge["reference"]].append(charge)
    for payment in payments:
        found = [charge for name in payment["known_as"] for charge in charges[name]]
        kind, problem = _compare(payment, found)
        findings.classes[kind] += 1
        if problem is not None:
            findings.add_violation(payment["id"], problem)


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
    if payment["state"] == PaymentState.ON_HOLD:
        return "held", None  # That they differ is why it is on hold.
    there, here = (f"{each['amount']} {each['currency']}" for each in (charge, payment))
    return "mismatch", f"was charged {there} (minor units) by the gateway, but is about {here}"


async def _compare_charges(
    databases: ServiceDatabases, findings: Findings, charges: Mapping[str, asyncpg.Record]
) -> None:
    """Find charges that no payment knows of; those that one does were compared before."""
    suspects = []
    for reference, payment in (await _payments_of(databases, list(charges))).items():
        if payment is None or not (_is_settled_with(payment) or payment["next_check_at"]):
            suspects.append(reference)
        elif not _is_settled_with(payment):
            findings.classes["waiting"] += 1
            findings.waiting += 1
            _count_repeated(findings, payment["id"], charges[reference])
    if not suspects:
        return
    # In the order in which a notice travels, so that it is met wherever it is by now.
    to_come = {
        row["reference"] for row in await databases.fetch("simulator", _NOTICES_TO_COME, suspects)
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
        if payment is not None and (payment["next_check_at"] or reference in to_come):
            findings.classes["waiting"] += 1
            findings.waiting += 1
            continue
        findings.classes["missing here"] += 1
        if payment is None:
            story = "no payment has this reference"
        else:
            story = f"its payment {payment['id']} is {payment['state']} for good"
        findings.add_violation(reference, f"was charged by the gateway, but {story}")


def _count_repeated(findings: Findings, payment_id: str, charged: asyncpg.Record) -> None:
    if charged["charges"] > 1:
        kind = "duplicate" if charged["amounts"] == 1 else "conflicting duplicate"
        findings.classes[kind] += 1
        findings.add_violation(payment_id, f"was charged {charged['charges']} times by the gateway")


async def _payments_of(
    databases: ServiceDatabases, references: Sequence[str]
) -> dict[str, asyncpg.Record | None]:
    rows = await databases.fetch("payments", PAYMENTS_OF_REFERENCES, references)
    payments = {row["reference"]: row for row in rows}
    return {reference: payments.get(reference) for reference in references}


def _is_settled_with(payment: asyncpg.Record) -> bool:
    return payment["state"] in _TOOK_MONEY


ONE_SUCCESS_PER_PAYMENT: Final = Invariant(
    name="one_success_per_payment",
    sentence="A payment succeeds at most once, and rests on one charge, which is its own.",
    hint="Compare with the gateway's own list, and refund at the gateway what was taken twice.",
    check=check_successes,
    services=frozenset({"payments"}),
)

LEDGERS_AGREE: Final = Invariant(
    name="ledgers_agree",
    sentence="Here and in the simulator's ledger the same payments were charged, once each.",
    hint="Money that is missing here: repeat the notice. Money that is missing there, or taken "
    "twice: compare with the gateway's own list, then revoke or refund.",
    check=check_ledgers,
    services=frozenset({"webhook", "payments", "simulator"}),
)
