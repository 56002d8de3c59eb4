"""Two ledgers compared payment by payment: what Sluice says, and what the gateways really took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from services.payments.domain.model import PaymentState

#: The states of a payment that took money.
TOOK_MONEY: Final = frozenset({PaymentState.SUCCEEDED, PaymentState.ON_HOLD})

#: Why a payment is on hold when the gateway took another sum than it should have.
_HELD_FOR_THE_SUM: Final = frozenset({"amount_differs", "currency_differs"})

#: What a payment's reason is once it is known that the gateway took money more than once.
_SURPLUS: Final = "surplus_charge"


class Verdict(StrEnum):
    """How one payment compares."""

    MATCH = "match"
    #: One charge, but another one, another sum, or held for a reason that is none.
    MISMATCH = "mismatch"
    #: Only one of the two ledgers knows of money.
    MISSING = "missing"
    #: Charged more than once, and recorded so: someone refunds the surplus.
    DUPLICATE = "duplicate"
    #: Charged more than once without our noticing, or one charge is claimed by several payments.
    CONFLICTING_DUPLICATE = "conflicting duplicate"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A payment as Sluice has recorded it. `references` are our names of all its attempts."""

    payment_id: str
    gateway: str
    state: str
    reason: str | None
    amount: int
    currency: str
    references: tuple[str, ...]
    gateway_payment_id: str | None


@dataclass(frozen=True, slots=True)
class Charge:
    """Money that a gateway took, and under which of our references."""

    gateway: str
    reference: str
    gateway_payment_id: str
    amount: int
    currency: str


class Compared(NamedTuple):
    """The verdict about one payment, or about a charge that belongs to none."""

    subject: str
    gateway: str
    verdict: Verdict
    #: What is wrong; empty for a match.
    problem: str


def compare(payments: Sequence[Recorded], charges: Iterable[Charge]) -> list[Compared]:
    """Return one verdict per payment, then one per reference that was charged for no payment."""
    charged: defaultdict[tuple[str, str], list[Charge]] = defaultdict(list)
    for charge in charges:
        charged[charge.gateway, charge.reference].append(charge)
    claims = Counter(
        (payment.gateway, payment.gateway_payment_id)
        for payment in payments
        if payment.gateway_payment_id
    )
    verdicts = [_compared(payment, _charges_of(payment, charged), claims) for payment in payments]
    known = {(payment.gateway, name) for payment in payments for name in payment.references}
    verdicts += [
        Compared(
            reference, gateway, Verdict.MISSING, "was charged, but no payment has this reference"
        )
        for gateway, reference in charged
        if (gateway, reference) not in known
    ]
    return verdicts


def count(verdicts: Iterable[Compared]) -> dict[Verdict, int]:
    """Count the verdicts; each kind is there, also with 0."""
    found = Counter(each.verdict for each in verdicts)
    return {verdict: found[verdict] for verdict in Verdict}


def _charges_of(
    payment: Recorded, charged: Mapping[tuple[str, str], Sequence[Charge]]
) -> list[Charge]:
    return [
        charge
        for reference in payment.references
        for charge in charged.get((payment.gateway, reference), ())
    ]


def _compared(
    payment: Recorded, charges: Sequence[Charge], claims: Mapping[tuple[str, str], int]
) -> Compared:
    if claims.get((payment.gateway, payment.gateway_payment_id or ""), 0) > 1:
        verdict, problem = Verdict.CONFLICTING_DUPLICATE, "shares its charge with another payment"
    elif len(charges) > 1:
        is_known = payment.reason == _SURPLUS
        verdict = Verdict.DUPLICATE if is_known else Verdict.CONFLICTING_DUPLICATE
        noticed = "and this is recorded" if is_known else "and nobody noticed"
        problem = f"was charged {len(charges)} times, {noticed}"
    elif payment.state in TOOK_MONEY and not charges:
        verdict, problem = Verdict.MISSING, f"is {payment.state}, but nothing was charged"
    elif payment.state not in TOOK_MONEY and charges:
        verdict, problem = Verdict.MISSING, f"was charged, but is {payment.state}"
    elif charges:
        verdict, problem = _compared_with_one(payment, charges[0])
    else:
        verdict, problem = Verdict.MATCH, ""
    return Compared(payment.payment_id, payment.gateway, verdict, problem)


def _compared_with_one(payment: Recorded, charge: Charge) -> tuple[Verdict, str]:
    if payment.gateway_payment_id != charge.gateway_payment_id:
        return Verdict.MISMATCH, "rests on another charge than the gateway's"
    is_same = (payment.amount, payment.currency) == (charge.amount, charge.currency)
    is_held_for_it = payment.state == PaymentState.ON_HOLD and payment.reason in _HELD_FOR_THE_SUM
    if is_same == is_held_for_it:
        there, here = (f"{each.amount} {each.currency}" for each in (charge, payment))
        held = ", held for the sum" if is_held_for_it else ""
        return Verdict.MISMATCH, f"was charged {there} (minor units), but is about {here}{held}"
    return Verdict.MATCH, ""
