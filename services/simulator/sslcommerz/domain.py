"""What the gateway knows: sessions, elements, the ways to misbehave, the magic amounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.simulator.behaviours import OF_CALLS, OF_NOTICES, Behaviour, Fault, fault
from services.simulator.profiles import AT_LAST
from shared.money import Money

NAME: Final = "sslcommerz"

CHARGE_CURRENCY: Final = "BDT"

#: The currencies a session may ask for, and how many BDT one unit is; made up, and fixed.
RATES: Final[Mapping[str, Decimal]] = MappingProxyType(
    {
        "BDT": Decimal("1.0000"),
        "EUR": Decimal("132.5000"),
        "GBP": Decimal("155.2500"),
        "INR": Decimal("1.4200"),
        "MYR": Decimal("27.8000"),
        "SGD": Decimal("92.1000"),
        "USD": Decimal("122.0000"),
    }
)

#: Limits of one payment, in minor units of BDT.
CHARGE_MIN: Final = 10_00
CHARGE_MAX: Final = 500_000_00


class Status(StrEnum):
    """How one attempt to pay ended, in the words of the protocol."""

    VALID = "VALID"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNATTEMPTED = "UNATTEMPTED"
    EXPIRED = "EXPIRED"


#: The text that goes with each status.
ERRORS: Final[Mapping[Status, str]] = MappingProxyType(
    {
        Status.VALID: "",
        Status.FAILED: "Declined by the issuer: insufficient balance",
        Status.CANCELLED: "Cancelled by User",
        Status.UNATTEMPTED: "Customer did not choose to pay any channel",
        Status.EXPIRED: "Payment time ran out",
    }
)

#: What a customer may do, and how it ends unless the amount is a magic one.
FATES: Final[Mapping[str, Status]] = MappingProxyType(
    {
        "paid": Status.VALID,
        AT_LAST: Status.VALID,
        "failed": Status.FAILED,
        "declined": Status.FAILED,
        "insufficient_funds": Status.FAILED,
        # Declined now; `at_last` follows.
        "late_success": Status.FAILED,
        "cancelled": Status.CANCELLED,
        "expired": Status.EXPIRED,
        "unattempted": Status.UNATTEMPTED,
    }
)


class SessionState(StrEnum):
    """Whether a customer may still pay."""

    OPEN = "open"
    PAID = "paid"
    EXPIRED = "expired"


#: The state of a session after an attempt. A customer who was declined, or who pressed Cancel and
#: thought better of it, may try again in the same session.
STATE_AFTER: Final[Mapping[Status, SessionState]] = MappingProxyType(
    {
        Status.VALID: SessionState.PAID,
        Status.FAILED: SessionState.OPEN,
        Status.CANCELLED: SessionState.OPEN,
        Status.UNATTEMPTED: SessionState.EXPIRED,
        Status.EXPIRED: SessionState.EXPIRED,
    }
)


@dataclass(frozen=True, slots=True)
class Session:
    """What a merchant asked for. `price` is in its currency, `charge` the same in BDT."""

    session_key: str
    tran_id: str
    state: SessionState
    price: Money
    charge: Money
    rate: Decimal
    store_id: str
    product_name: str
    success_url: str
    fail_url: str
    cancel_url: str
    ipn_url: str
    echoed: tuple[str, ...]
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Element:
    """One attempt to pay a session, and what it took from the customer if it is `VALID`."""

    status: Status
    val_id: str | None
    bank_tran_id: str
    charge: Money
    price: Money
    risk_level: int
    created_at: datetime
    validated_at: datetime | None = None


class RefundState(StrEnum):
    """How far a refund is, in the words of the protocol."""

    PROCESSING = "processing"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Refund:
    """Money on its way back; `asked` is how often the merchant has asked about it."""

    refund_ref_id: str
    refund_trans_id: str
    bank_tran_id: str
    tran_id: str
    amount: Money
    state: RefundState
    asked: int
    initiated_on: datetime
    ended_on: datetime | None

    def ended(self, state: RefundState, now: datetime) -> Refund:
        """Return the refund after its end."""
        return replace(self, state=state, ended_on=now)


class Operation(StrEnum):
    """What can be made to misbehave."""

    SESSION = "session"
    VALIDATE = "validate"
    QUERY = "query"
    REFUND = "refund"
    REFUND_QUERY = "refund_query"
    NOTICE = "notice"


#: A validation's own behaviour: paid, but the gateway does not say so yet.
PENDING: Final = "pending"

#: Which behaviours each operation has.
BEHAVIOURS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Operation.SESSION: OF_CALLS,
        Operation.VALIDATE: OF_CALLS | {PENDING},
        Operation.QUERY: OF_CALLS,
        Operation.REFUND: OF_CALLS,
        Operation.REFUND_QUERY: OF_CALLS,
        Operation.NOTICE: OF_NOTICES,
    }
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What becomes of a payment when the customer presses Pay.

    `shortfall` is how much less than the price is taken, in minor units. `validate` holds for the
    first `validate_times` validations, or for all of them.
    """

    description: str
    outcome: Status = Status.VALID
    risk_level: int = 0
    shortfall: int = 0
    session: Fault | None = None
    validate: Fault | None = None
    validate_times: int | None = None
    notice: Fault | None = None

    def validation_fault(self, number: int) -> Fault | None:
        """Return how the validation with this number goes wrong; the first is 1."""
        if self.validate_times is not None and number > self.validate_times:
            return None
        return self.validate


PLAIN: Final = Scenario("paid, and everything works")

#: The magic amounts: the two decimals of `total_amount`, whatever stands before the point.
MAGIC: Final[Mapping[int, Scenario]] = MappingProxyType(
    {
        1: Scenario("declined by the issuer", outcome=Status.FAILED),
        2: Scenario("cancelled by the customer", outcome=Status.CANCELLED),
        3: Scenario("left without choosing a channel", outcome=Status.UNATTEMPTED),
        4: Scenario("paid, with risk level 1", risk_level=1),
        5: Scenario("paid, the notice is never sent", notice=fault(Behaviour.NEVER)),
        6: Scenario("paid, the notice is sent five times", notice=fault(Behaviour.DUPLICATE)),
        7: Scenario("paid, the only notice is badly signed", notice=fault(Behaviour.BADLY_SIGNED)),
        8: Scenario("paid, the notice is 20 s late", notice=fault(Behaviour.LATE)),
        9: Scenario(
            "paid, the first 3 validations answer 500",
            validate=fault(Behaviour.ERROR),
            validate_times=3,
        ),
        10: Scenario(
            "paid, the first 2 validations do not answer for 30 s",
            validate=fault(Behaviour.TIMEOUT),
            validate_times=2,
        ),
        11: Scenario("paid, every validation takes 2 s", validate=fault(Behaviour.SLOW)),
        12: Scenario(
            "declined, then paid; the notice of the decline comes 1 s after that of the payment",
            notice=fault(Behaviour.REORDERED),
        ),
        # Half a unit: the official PHP library would let it pass.
        13: Scenario("pays 0.50 less; only validation and query tell", shortfall=50),
        14: Scenario(
            "opening the session answers 500, and nothing is stored", session=fault(Behaviour.ERROR)
        ),
        15: Scenario(
            "the session is opened, but the connection drops before the answer",
            session=fault(Behaviour.DROP),
        ),
        16: Scenario(
            "paid, the first 2 validations answer PENDING",
            validate=fault(PENDING),
            validate_times=2,
        ),
        17: Scenario(
            "paid, the first validation answers 200 with HTML",
            validate=fault(Behaviour.HTML),
            validate_times=1,
        ),
        18: Scenario(
            "paid, the first 2 validations drop the connection",
            validate=fault(Behaviour.DROP),
            validate_times=2,
        ),
    }
)


#: The magic amounts of refunds: their two decimals, and how such a refund ends; null if it is
#: refused at once. None of them is a magic amount of payments.
MAGIC_REFUNDS: Final[Mapping[int, RefundState | None]] = MappingProxyType(
    {21: None, 22: RefundState.CANCELLED, 23: RefundState.PROCESSING}
)


def refund_end(amount: Money) -> RefundState | None:
    """Return how a refund ends, or None if it is refused."""
    return MAGIC_REFUNDS.get(amount.minor_units % 100, RefundState.REFUNDED)


def scenario_of(price: Money) -> Scenario:
    """Return what the amount stands for."""
    return MAGIC.get(price.minor_units % 100, PLAIN)


def to_charge(price: Money, rate: Decimal) -> Money:
    """Convert a price to what is charged, rounded half up to a whole minor unit."""
    charged = (price.minor_units * rate).quantize(Decimal(1), ROUND_HALF_UP)
    return Money(int(charged), CHARGE_CURRENCY)
