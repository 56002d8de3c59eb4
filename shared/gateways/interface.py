"""What a gateway can do and can say, in one vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple, Protocol, TypeAlias

from shared.errors import PermanentError
from shared.gateways.disputes import Disputed
from shared.gateways.listings import ListedPage
from shared.money import Money


class FailureKind(StrEnum):
    """Why money did not move, as far as it decides what to do next."""

    #: The instrument will not be charged: lost, closed, not supported, blocked.
    CARD_DECLINED = "card_declined"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    #: The customer must correct something or be present.
    AUTHENTICATION_FAILED = "authentication_failed"
    PROCESSING_ERROR = "processing_error"
    NETWORK_ERROR = "network_error"
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded"
    SERVICE_UNAVAILABLE = "service_unavailable"
    #: The customer gave up, or did not answer in time.
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    #: Our own mistake: wrong credentials, a parameter the gateway refuses. Alert, blame no card.
    CONFIGURATION = "configuration"
    UNKNOWN_CODE = "unknown_code"


@dataclass(frozen=True, slots=True)
class Paid:
    """The gateway's source of truth confirms that the money was taken.

    `amount` is in the currency we asked for. Whether it is what we asked for is not decided here.
    """

    reference: str
    amount: Money
    #: The gateway's handle by which the payment can be confirmed again; unique per gateway.
    validation_id: str
    #: The gateway's name for the charge; a refund names it.
    gateway_payment_id: str
    is_risky: bool = False
    #: The gateway took the money more than once under this reference.
    is_repeated: bool = False
    #: What the gateway keeps for itself, in the currency of `amount`; None when it does not tell.
    fee: Money | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """No money moved under this reference so far.

    With `is_final` none ever will; without it the customer may still try again on the same page.
    `reason` is the gateway's own code or words, at most 200 characters, free of personal data.
    """

    reason: str
    kind: FailureKind = FailureKind.UNKNOWN_CODE
    is_final: bool = False
    handle: str | None = None
    #: What the gateway asks us to wait before another try, in seconds.
    retry_after_seconds: float | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the customer gave up."""
        return self.kind is FailureKind.CANCELLED


@dataclass(frozen=True, slots=True)
class Pending:
    """The customer's phone or a network still has to act, or nobody has begun."""

    reason: str
    #: The gateway's own name for this try, once it told one.
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class ActionRequired:
    """The customer must open `url` and do something there."""

    reason: str
    url: str
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The gateway did not say. Never a failure: ask again."""

    reason: str
    #: What a gateway that finds our calls too many asks us to wait, in seconds. It says nothing
    #: about the payment, so two outcomes that differ in it are the same.
    retry_after_seconds: float | None = field(default=None, compare=False)


Outcome: TypeAlias = Paid | Declined | Pending | ActionRequired | Unknown


@dataclass(frozen=True, slots=True)
class Checkout:
    """The customer pays on the gateway's page and comes back to us."""

    kind: ClassVar = "checkout"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The customer confirms on the phone; `phone` is in international form, digits only."""

    kind: ClassVar = "prompt"
    phone: str


@dataclass(frozen=True, slots=True)
class Card:
    """A card the gateway keeps for us; without the customer present when `off_session`."""

    kind: ClassVar = "card"
    payment_method: str
    gateway_customer: str | None = None
    off_session: bool = False


@dataclass(frozen=True, slots=True)
class Wallet:
    """Our own signing wallet pays `recipient`, an address on the configured network."""

    kind: ClassVar = "wallet"
    recipient: str


Method: TypeAlias = Checkout | Prompt | Card | Wallet
MethodKind: TypeAlias = Literal["checkout", "prompt", "card", "wallet"]


@dataclass(frozen=True, slots=True)
class Customer:
    """Who pays. Personal data: it goes to the gateway and nowhere else."""

    id: str
    name: str
    email: str
    phone: str


@dataclass(frozen=True, slots=True)
class Order:
    """One try to take money, as it was recorded before the gateway first heard of it.

    Every call about it is built from this record alone, so that a repetition after a crash is the
    same call. `reference` is our name for it, 30 characters; `handle` the gateway's, once known.
    """

    reference: str
    amount: Money
    method: Method
    customer: Customer
    product_name: str
    started_at: datetime
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """Money to give back, as it was recorded before the gateway first heard of it.

    `reference` is our name for the refund, 30 characters; `handle` the gateway's, once known.
    """

    reference: str
    payment_reference: str
    gateway_payment_id: str
    amount: Money
    reason: str
    started_at: datetime
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class Refunded:
    """The gateway confirms that the money was given back."""

    handle: str


@dataclass(frozen=True, slots=True)
class RefundPending:
    """The gateway has accepted the refund and will carry it out."""

    reason: str
    handle: str | None = None


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """No money was given back under this reference, and none will be."""

    reason: str


RefundOutcome: TypeAlias = Refunded | RefundPending | RefundFailed | Unknown

DisputeOutcome: TypeAlias = Disputed | Unknown

Listing: TypeAlias = ListedPage | Unknown


@dataclass(frozen=True, slots=True)
class Limits:
    """Smallest and largest amount of one payment, in minor units."""

    minimum: int
    maximum: int
    #: What every amount is a multiple of.
    step: int = 1


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a gateway can do. What it cannot is refused up front and never tried.

    The first of `methods` is taken when a caller names none.
    """

    methods: tuple[MethodKind, ...]
    limits: Mapping[str, Limits]
    charges_off_session: bool = False
    refunds: bool = False
    #: Currencies of payments whose money it gives back; None where it does so in all it takes.
    refund_currencies: frozenset[str] | None = None
    cancels: bool = False
    #: Whether it tells of disputes, and can be asked about them.
    disputes: bool = False
    #: Whether it lists the payments of a day.
    lists_payments: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field of an order that a gateway cannot take, and why."""

    field: str
    problem: str


def refusal_of(name: str, capabilities: Capabilities, order: Order) -> Refusal | None:
    """Return why a gateway with these capabilities cannot take an order, or None."""
    if order.method.kind not in capabilities.methods:
        known = ", ".join(capabilities.methods)
        return Refusal("method.type", f"{name} takes {known}, not {order.method.kind}")
    is_off_session = isinstance(order.method, Card) and order.method.off_session
    if is_off_session and not capabilities.charges_off_session:
        return Refusal("method.offSession", f"{name} cannot charge without the customer")
    limits = capabilities.limits.get(order.amount.currency)
    if limits is None:
        known = ", ".join(sorted(capabilities.limits))
        return Refusal("currency", f"{name} takes {known}, not {order.amount.currency}")
    if not limits.minimum <= order.amount.minor_units <= limits.maximum:
        low = Money(limits.minimum, order.amount.currency)
        high = Money(limits.maximum, order.amount.currency)
        return Refusal("amount", f"{name} takes {low} to {high}")
    if order.amount.minor_units % limits.step:
        problem = f"{name} takes {order.amount.currency} in multiples of {limits.step} minor units"
        return Refusal("amount", problem)
    return None


def refund_refusal(name: str, capabilities: Capabilities, currency: str) -> Refusal | None:
    """Return why a gateway cannot give back money of payments in a currency, or None."""
    if not capabilities.refunds:
        return Refusal("gateway", f"{name} has no refunds: give the money back another way")
    known = capabilities.refund_currencies
    if known is not None and currency not in known:
        return Refusal("currency", f"{name} gives back {', '.join(sorted(known))}, not {currency}")
    return None


class PaymentGateway(Protocol):
    """A client of one gateway. None of its calls raises for what the gateway does or omits."""

    name: str
    capabilities: Capabilities

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field of an order this gateway cannot take, or None. No I/O."""

    async def start(self, order: Order) -> Outcome:
        """Ask for the money: open a page, prompt a phone, charge. Called once per reference.

        `Unknown` means it may or may not have happened: `look_up` resolves it.
        """

    async def look_up(self, order: Order) -> Outcome:
        """Ask what became of an order, by the gateway's handle or else by our reference.

        A gateway that recognises a repetition (idempotency key, nonce) may be sent the same call
        again here; any other is only asked. `Pending("not_attempted")` says that the gateway knows
        of no try yet.
        """

    async def confirm(self, reference: str, handle: str) -> Outcome:
        """Ask whether the payment that a notice names by the gateway's handle was really made.

        `Unknown("reference_differs")` when the handle belongs to another reference.
        """

    async def cancel(self, order: Order) -> Outcome:
        """Close what is open, so that it can no longer be paid, and return what became of it."""

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give money back; repeated with the same reference it is the same refund."""

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Ask what became of a refund."""

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Ask how a dispute stands, by the gateway's handle: what its notices have as such.

        `Unknown("not_supported")` from a gateway that knows no disputes.
        """

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """List what the gateway took money for, of attempts that began on a day of UTC.

        What it lists besides (of the days around, whose zone it may not tell) has other references
        and is for the caller to leave out. The day must be over. `cursor` is that of the page
        before. `Unknown("not_supported")` from a gateway that does not list.
        """

    async def close(self) -> None:
        """Close kept connections."""


#: What a notice says has happened. Of a dispute it may be anything: opened, won, lost.
Claim: TypeAlias = Literal["paid", "failed", "cancelled", "expired", "dispute", "other"]


class Notice(NamedTuple):
    """A verified notice. `event_key` and `event_day` are the same for each copy of it.

    `validation_id` is the handle to confirm by, empty when the notice has none. In a `dispute` it
    is the dispute's, and never empty; `reference` is then ours if the gateway tells it, else the
    gateway's name for the payment.
    """

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

        `headers` is case-insensitive and may hold a name several times (`getall`). Of a notice that
        came as a GET, `body` is the query string.

        Raises:
            UnreadableNoticeError: it cannot be parsed.
            NoticeRefusedError: its proof is missing or wrong.
        """
