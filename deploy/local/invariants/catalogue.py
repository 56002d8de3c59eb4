"""The list of all invariants, and the check of every one of them."""

from __future__ import annotations

from typing import Final

from deploy.local.invariants.access import ACCESS_IS_TOLD, ENROLLED_WHILE_SUBSCRIBED
from deploy.local.invariants.books import BOOKS_AGREE, MOVEMENTS_AGREE
from deploy.local.invariants.charges import ONE_SUCCESS_PER_PAYMENT
from deploy.local.invariants.dues import DEAD_LETTERS, NO_MESSAGE_LATE, NO_PAYMENT_LATE
from deploy.local.invariants.enrollments import (
    ENROLLED_EXACTLY_WHEN_PAID,
    ENROLLMENT_HISTORY_AGREES,
)
from deploy.local.invariants.events import EVENTS_ARE_CARRIED_ON
from deploy.local.invariants.figures import FIGURES_AGREE
from deploy.local.invariants.findings import Findings, Result
from deploy.local.invariants.histories import HISTORY_AGREES
from deploy.local.invariants.ledgers import LEDGERS_AGREE
from deploy.local.invariants.live_charges import CHARGES_ARE_RESOLVED
from deploy.local.invariants.paid_periods import PERIODS_PAID_ONCE
from deploy.local.invariants.payment_methods import METHODS_ARE_TOLD
from deploy.local.invariants.periods import PERIODS_FOLLOW
from deploy.local.invariants.refunds import NO_REFUND_LATE, REFUNDS_ADD_UP
from deploy.local.invariants.retries import NO_RETRY_LATE
from deploy.local.invariants.revocations import REVOKED_EXACTLY_WHEN_GONE
from deploy.local.invariants.subscriptions import (
    NO_SUBSCRIPTION_LATE,
    NO_SUBSCRIPTION_SET_ASIDE,
    SUBSCRIPTIONS_AGREE,
)
from deploy.local.service_databases import ServiceDatabases

#: In the order in which a payment travels.
INVARIANTS: Final = (
    EVENTS_ARE_CARRIED_ON,
    ONE_SUCCESS_PER_PAYMENT,
    LEDGERS_AGREE,
    BOOKS_AGREE,
    MOVEMENTS_AGREE,
    HISTORY_AGREES,
    REFUNDS_ADD_UP,
    ENROLLED_EXACTLY_WHEN_PAID,
    ENROLLMENT_HISTORY_AGREES,
    REVOKED_EXACTLY_WHEN_GONE,
    METHODS_ARE_TOLD,
    PERIODS_FOLLOW,
    PERIODS_PAID_ONCE,
    CHARGES_ARE_RESOLVED,
    SUBSCRIPTIONS_AGREE,
    ACCESS_IS_TOLD,
    ENROLLED_WHILE_SUBSCRIBED,
    NO_MESSAGE_LATE,
    NO_PAYMENT_LATE,
    NO_RETRY_LATE,
    NO_REFUND_LATE,
    NO_SUBSCRIPTION_LATE,
    DEAD_LETTERS,
    NO_SUBSCRIPTION_SET_ASIDE,
    FIGURES_AGREE,
)


async def check_all(databases: ServiceDatabases) -> list[Result]:
    """Check every invariant, one after the other, while Sluice goes on.

    Raises:
        DatabaseUnavailableError: a server is away.
        DatabaseUnusableError: the tables are not those of this version of Sluice.
    """
    results = []
    for invariant in INVARIANTS:
        findings, skipped = Findings(), None
        if missing := invariant.services - databases.names:
            skipped = f"there is no {' and no '.join(sorted(missing))} here"
        else:
            await invariant.check(databases, findings)
        results.append(Result(invariant, findings, skipped))
    return results
