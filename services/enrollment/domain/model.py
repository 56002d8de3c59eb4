"""The nouns of enrollment, and what a payment does to one that exists."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.enrollment.domain.revocation import Cause
from shared.errors import ConflictError


class EnrollmentState(StrEnum):
    """Whether the customer may use the product."""

    ACTIVE = "active"
    REVOKED = "revoked"


class PaymentEffect(StrEnum):
    """What a payment did."""

    #: The first payment for the product.
    GRANTED = "granted"
    #: The product had been taken away, and is paid for anew.
    REGRANTED = "regranted"
    #: The customer had it already: kept for the operator, who owes a refund or an answer.
    RECORDED = "recorded"


@dataclass(frozen=True, slots=True)
class PlannedRevocation:
    """An enrollment will be taken away at `due_at`, unless something else holds it by then."""

    payment_id: str
    cause: Cause
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Enrollment:
    """One customer's right to one product."""

    id: str
    customer_id: str
    product_id: str
    payment_id: str | None
    state: EnrollmentState
    created_at: datetime
    updated_at: datetime
    #: The next one that waits, where it was read with it.
    revocation: PlannedRevocation | None = None
    #: The subscription that gives it, else the last one that did, where it was read with it.
    subscription_id: str | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A succeeded payment that asks for an enrollment; `id` is the one it gets if it is new."""

    id: str
    customer_id: str
    product_id: str
    payment_id: str
    amount: int
    currency: str


def effect_on(existing: EnrollmentState, *, has_gone_back: bool = False) -> PaymentEffect:
    """Return what a further payment does to an enrollment that exists.

    One whose money is no longer ours gives nothing back.
    """
    if existing is EnrollmentState.REVOKED and not has_gone_back:
        return PaymentEffect.REGRANTED
    return PaymentEffect.RECORDED


def require(enrollment: Enrollment, state: EnrollmentState) -> None:
    """Check that an operator's change starts from the state it needs.

    Raises:
        ConflictError: the enrollment is in another state.
    """
    if enrollment.state is not state:
        raise ConflictError(
            f"the enrollment is {enrollment.state}, not {state}",
            details={"enrollmentId": enrollment.id, "state": enrollment.state},
        )
