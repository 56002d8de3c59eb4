"""Nothing lost, nothing doubled: what was promised to customers against what the tables say."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import asyncpg

from deploy.local.audit import as_json, audit, is_clean
from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.supervised_stack import SupervisedStack
from tests.support.traffic import Order, Traffic

#: What the design promises for every recovery.
RECOVERY_SECONDS = 60.0

EXAMPLES_MAX = 8

_PAYMENTS = "SELECT id, state, reason FROM payments.payment"

_CHARGES = """
    SELECT payment_id, count(*) AS count
      FROM simulator.charge
      JOIN payments.attempt ON attempt.reference = charge.reference
     GROUP BY payment_id
"""

_SUCCESSES = """
    SELECT payment_id, count(*) AS count
      FROM payments.payment_history
     WHERE event IN ('confirmed', 'confirmed_late', 'released')
     GROUP BY payment_id
"""

_ENROLLMENTS = """
    SELECT payment_id, count(*) AS count
      FROM (SELECT payment_id FROM enrollment.enrollment
             UNION ALL
            SELECT payment_id FROM enrollment.further_payment) AS effect
     GROUP BY payment_id
"""

_ENROLLED_TWICE = """
    SELECT customer_id || ' ' || product_id AS name
      FROM enrollment.enrollment
     GROUP BY customer_id, product_id
    HAVING count(*) > 1
"""

_EVENTS = "SELECT event_key, count(*) AS count FROM webhook.inbound_event GROUP BY event_key"


class BrokenPromiseError(AssertionError):
    """Something is lost or doubled."""


@dataclass(slots=True)
class Broken:
    """What is not as promised; what is lost may still come."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)

    def expect_one(self, subject: str, what: str, count: int) -> None:
        if count == 0:
            self.lost.append(f"{subject} has no {what}")
        elif count > 1:
            self.doubled.append(f"{subject} has more than one {what}: {count}")


async def find_broken(database_url: str, orders: Sequence[Order]) -> Broken:
    """Compare every order with the tables of all services."""
    connection = await asyncpg.connect(database_url, timeout=10)
    try:
        # Causes are read before their effects, so that nothing that is just happening looks lost.
        charges = await _counts(connection, _CHARGES)
        payments = {row["id"]: row for row in await connection.fetch(_PAYMENTS)}
        successes = await _counts(connection, _SUCCESSES)
        enrollments = await _counts(connection, _ENROLLMENTS)
        twice = [row["name"] for row in await connection.fetch(_ENROLLED_TWICE)]
        events = await _counts(connection, _EVENTS)
    finally:
        await connection.close()
    broken = Broken()
    broken.doubled += [f"{name} is enrolled twice" for name in twice]
    broken.doubled += [f"event {key} is stored {n} times" for key, n in events.items() if n > 1]
    nobodys = payments.keys() - {order.payment_id for order in orders}
    broken.doubled += [f"nobody ordered {id_}" for id_ in nobodys]
    for order in orders:
        subject = f"{order.payment_id} (order {order.number}, {order.kind.name})"
        id_ = order.payment_id
        if id_ not in payments:
            broken.lost.append(f"{subject} is not there")
        elif order.kind.is_paid:
            state = f"{payments[id_]['state']} ({payments[id_]['reason']})"
            broken.expect_one(subject, "charge", charges[id_])
            broken.expect_one(f"{subject}, which is {state},", "success", successes[id_])
            broken.expect_one(f"{subject}, which is {state},", "enrollment", enrollments[id_])
            if payments[id_]["state"] != "succeeded":
                broken.lost.append(f"{subject} is {state}")
        elif charges[id_] or successes[id_] or enrollments[id_]:
            broken.doubled.append(f"{subject} was not paid, but charged or enrolled")
        if order.is_acknowledged and not events[order.event_key]:
            broken.lost.append(f"the acknowledged notice of {subject} is not stored")
    return broken


async def _counts(
    connection: asyncpg.Connection[asyncpg.Record], query: str
) -> defaultdict[str, int]:
    rows = await connection.fetch(query)
    return defaultdict(int, {row[0]: row[1] for row in rows})


def keep_promises(environment: Mapping[str, str], orders: Sequence[Order], deadline: float) -> None:
    """Wait until nothing is lost; what is doubled is so for good.

    Raises:
        BrokenPromiseError: something is doubled, or still lost at `deadline`, or the audit finds
            a violation.
    """
    broken = Broken()

    def is_settled() -> bool:
        nonlocal broken
        broken = run_blocking(find_broken(environment["DATABASE_URL"], orders))
        return bool(broken.doubled) or not broken.lost or time.monotonic() > deadline

    eventually_blocking(is_settled, timeout_seconds=max(0.0, deadline - time.monotonic()) + 30)
    problems = broken.doubled or broken.lost
    if problems:
        what = "doubled" if broken.doubled else "lost"
        raise BrokenPromiseError(
            f"{len(problems)} {what} of {len(orders)} orders:\n"
            + "\n".join(problems[:EXAMPLES_MAX])
        )
    audit_cleanly(environment)


def audit_cleanly(environment: Mapping[str, str]) -> None:
    """Run the audit.

    Raises:
        BrokenPromiseError: it finds a violation.
    """
    results = run_blocking(audit(dict(environment)))
    if not is_clean(results):
        found = [
            f"{one['name']}: {one['examples']}"
            for one in as_json(results)["invariants"]
            if one["status"] == "violated"
        ]
        raise BrokenPromiseError("the audit finds:\n" + "\n".join(found))


def settle(stack: SupervisedStack, traffic: Traffic) -> list[Order]:
    """End the traffic and check that everything comes right within a minute of the last fault."""
    deadline = stack.last_fault_at + RECOVERY_SECONDS
    orders = traffic.finish(deadline)
    keep_promises(stack.local.environment, orders, deadline)
    kinds = Counter(order.kind.name for order in orders)
    after = time.monotonic() - stack.last_fault_at
    print(f"{len(orders)} orders are settled {after:.1f} s after the last fault: {dict(kinds)}")
    return orders
