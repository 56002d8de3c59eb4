"""What a gateway can say, in one vocabulary, and what we may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from shared.errors import PermanentError
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Paid:
    """The gateway's source of truth confirms that the money was taken.

    `amount` is in the currency we asked for. Whether it is what we asked for is not decided here.
    """

    reference: str
    amount: Money
    validation_id: str
    gateway_payment_id: str
    is_risky: bool
    #: The gateway took the money more than once under this reference.
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """No money moved under this reference so far; `is_cancelled` when the customer gave up."""

    reason: str
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """The customer or a network still has to act, or has not begun."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The gateway did not say. Never a failure: ask again."""

    reason: str


Verdict: TypeAlias = Paid | Declined | Pending | Unknown


@dataclass(frozen=True, slots=True)
class CheckoutOrder:
    """What a hosted payment page needs to know. Personal data stays inside the request."""

    reference: str
    amount: Money
    customer_id: str
    customer_name: str
    customer_email: str
    customer_phone: str
    product_name: str


@dataclass(frozen=True, slots=True)
class CheckoutOpened:
    """A page where the customer can pay."""

    checkout_url: str
    session_key: str


@dataclass(frozen=True, slots=True)
class CheckoutRefused:
    """The gateway will not open a page for this order; its reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class CheckoutUnknown:
    """The gateway may or may not have opened a page."""

    reason: str


class PaymentGateway(Protocol):
    """A client of one gateway. None of its calls raises for what the gateway does or omits."""

    name: str

    def refusal(self, amount: Money) -> str | None:
        """Return why the gateway cannot take this amount, or None."""

    async def open_checkout(
        self, order: CheckoutOrder
    ) -> CheckoutOpened | CheckoutRefused | CheckoutUnknown:
        """Open a hosted payment page; never repeated with the same reference."""

    async def confirm(self, reference: str, validation_id: str) -> Verdict:
        """Ask whether the payment that a notice names was really made."""

    async def look_up(self, reference: str) -> Verdict:
        """Ask what became of a payment, knowing only our own reference."""


Claim: TypeAlias = Literal["paid", "failed", "cancelled", "expired", "other"]


class Notice(NamedTuple):
    """A verified notice. `event_key` and `event_day` are the same for each copy of it."""

    event_key: str
    event_day: date
    reference: str
    claim: Claim
    validation_id: str
    amount: Money


class NoticeRefusedError(PermanentError):
    """A notice is not authentic or not readable; `reason` is a bounded metric label."""

    code = "unauthorized"

    def __init__(self, reason: str) -> None:
        super().__init__("the notice is refused")
        self.reason = reason


class UnreadableNoticeError(NoticeRefusedError):
    """A notice cannot be parsed at all."""

    code: ClassVar[str] = "unreadable"


class NoticeReader(Protocol):
    """Verifies and reads what one gateway sends to us."""

    name: str

    def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a notice over its raw bytes and read it.

        Raises:
            UnreadableNoticeError: it cannot be parsed.
            NoticeRefusedError: its proof is missing or wrong.
        """
