"""What an operator may hold, and what becomes of it when it is released."""

from __future__ import annotations

from datetime import datetime

from services.payments.domain.ledger import REVENUE
from services.payments.domain.model import Payment, PaymentState
from services.payments.domain.refunds import Returned
from services.payments.domain.settlement import HELD_BY_OPERATOR, Change
from services.payments.domain.state_machine import RESTING, next_state
from shared.errors import ConflictError


def hold(payment: Payment) -> Change:
    """Keep a payment from going on: no look, no further attempt, and no enrollment if it is paid.

    A call that is in flight is not called back; what came of it is asked when it is released.

    Raises:
        ConflictError: it is at rest.
    """
    if payment.state in RESTING:
        raise ConflictError(
            f"a payment that is {payment.state} cannot be held", details={"state": payment.state}
        )
    held = payment._replace(
        state=next_state(payment.state, PaymentState.ON_HOLD),
        reason=HELD_BY_OPERATOR,
        next_check_at=None,
    )
    return Change(held, "held_by_operator")


def release(payment: Payment, returned: Returned, *, has_open_retry: bool, now: datetime) -> Change:
    """Let a payment that is on hold go on.

    What an operator held goes on where the gateway says it stands: it is asked at once. What was
    held because the gateway, or the amount, was in doubt has its money, and succeeds.

    Args:
        payment: As it stands under its lock.
        returned: What of its money was given back, or is about to be.
        has_open_retry: Whether a further attempt is still planned.
        now: The present moment.

    Raises:
        ConflictError: it is not on hold, or its money is on its way back.
    """
    if payment.state is not PaymentState.ON_HOLD:
        raise ConflictError(
            f"a payment that is {payment.state} is not on hold", details={"state": payment.state}
        )
    if returned.refunded or returned.reserved:
        raise ConflictError("its money is on its way back to the customer")
    if payment.reason != HELD_BY_OPERATOR:
        released = payment._replace(
            state=next_state(payment.state, PaymentState.SUCCEEDED), reason="released_by_operator"
        )
        return Change(released, "released_by_operator", is_success=True, frees_held_to=REVENUE)
    state = PaymentState.RETRY_SCHEDULED if has_open_retry else PaymentState.UNKNOWN
    released = payment._replace(
        state=next_state(payment.state, state),
        reason="released_by_operator",
        checks_made=0,
        next_check_at=None if has_open_retry else now,
    )
    return Change(released, "released_by_operator")
