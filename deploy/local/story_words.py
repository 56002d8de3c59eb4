"""The words of a payment's story: one sentence for each kind of thing that happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

import asyncpg

from services.payments.domain.refunds import RefundState
from shared.gateways.interface import FailureKind
from shared.money import Money


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened; `event` is for programs, `text` for people."""

    at: datetime
    service: str
    event: str
    text: str
    #: The payment's state from then on, where it was recorded.
    state: str | None = None
    reason: str | None = None
    next_at: datetime | None = None


_HISTORY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "created": "the payment was recorded",
        "ordered": "the scheduler ordered the payment for a subscription",
        "order_refused": "the order could not be carried out, and no gateway heard of it",
        "charge_cancelled": "the scheduler ordered that no other try be made",
        "checkout_opened": "the gateway opened a page where the customer can pay",
        "checkout_refused": "the gateway refused to open a page",
        "checkout_unknown": "the gateway did not say whether it opened a page",
        "accepted": "the gateway has taken the order on",
        "charge_refused": "the gateway refused to begin the charge",
        "charge_unknown": "the gateway did not say whether it took the order on",
        "checked": "the gateway was asked, and did not decide it",
        "confirmed": "the gateway confirmed that the money was taken",
        "confirmed_late": "the gateway confirmed the money after the payment had ended",
        "released": "the gateway confirmed the money and has no doubt any more",
        "held": "the money was taken, but must not be released yet",
        "declined": "the gateway confirmed that no money was taken",
        "expired": "the time to pay is over and no money was taken",
        "closed": "nothing can be paid there any more, so it is not looked at again",
        "confirmation_stays_out": "the gateway keeps owing its confirmation",
        "surplus_charge_found": "the gateway has taken money more than once",
        "retry_scheduled": "the try failed, and another one will be made",
        "retry_requested": "somebody asked for another try",
        "retry_ordered": "the scheduler ordered the next try, as its test clock came to its time",
        "retry_begun": "another try began",
        "retry_cancelled": "somebody cancelled the next try",
        "retry_moved": "somebody gave the next try another time",
        "retry_resumed": "somebody let a parked retry wait for its turn again",
        "refund_requested": "money is to be given back",
        "refunded": "the gateway gave money back",
        "refund_failed": "the gateway did not give the money back",
        "refund_returned": "the customer's bank sent the money back to us",
        "dispute_opened": "the customer's bank took the money back until it has decided",
        "dispute_reopened": "the customer's bank hears again what it had decided against us",
        "dispute_won": "the customer's bank decided for us, and the money is ours again",
        "dispute_lost": "the customer's bank decided against us, and the money is gone",
        "dispute_fee": "the gateway told its fee for a dispute",
        "put_off": "the gateway may not be asked at the moment",
        "held_by_operator": "an operator put the payment on hold",
        "released_by_operator": "an operator released the payment",
    }
)

#: A decline for good has its kind before the gateway's own words: `insufficient_funds:…`.
DECLINE_KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        FailureKind.CARD_DECLINED: "the card or account will not be charged",
        FailureKind.INSUFFICIENT_FUNDS: "there is not enough money",
        FailureKind.AUTHENTICATION_FAILED: "the customer must correct something or be present",
        FailureKind.PROCESSING_ERROR: "the gateway could not process it",
        FailureKind.NETWORK_ERROR: "a network in between failed",
        FailureKind.RATE_LIMIT_EXCEEDED: "the gateway had too many requests",
        FailureKind.SERVICE_UNAVAILABLE: "the gateway was not available",
        FailureKind.CANCELLED: "the customer gave up",
        FailureKind.EXPIRED: "the customer did not answer in time",
        FailureKind.CONFIGURATION: "it is our own mistake, not the customer's",
        FailureKind.UNKNOWN_CODE: "for a reason that we do not know",
    }
)

_ENROLLMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "granted": "the customer was enrolled",
        "regranted": "the customer was enrolled anew after a revocation",
        "granted_by_hand": "an operator enrolled the customer",
        "revoked_by_hand": "an operator took the enrollment away",
        "revocation_planned": "the enrollment is to be taken away",
        "revocation_cancelled": "the enrollment is not taken away after all",
        "revoked_after_refund": "the enrollment was taken away, as its money was given back",
        "revoked_after_dispute": "the enrollment was taken away, as its money was lost",
        "restored": "the enrollment was given back, as its money is ours again",
        "revoked_with_subscription": "the enrollment ended with its subscription",
    }
)

#: What operators do to a payment.
_BY_HAND: Final[Mapping[str, str]] = MappingProxyType(
    {
        "hold": "put it on hold",
        "release": "released it",
        "look_up": "had the gateway asked at once",
    }
)

#: What became of an attempt, where that is not what the payment became.
_ATTEMPT_STATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "abandoned": "given up later for another one",
        "refused": "refused by the gateway",
        "put_off": "not sent",
    }
)


def attempts(rows: Iterable[asyncpg.Record]) -> Iterator[Entry]:
    """Tell how each attempt to take the money began."""
    for row in rows:
        text = f"attempt {row['number']} began; the gateway knows it as {row['reference']}"
        if row["handle"]:
            text += f", and calls it {row['handle']}"
        if (later := _ATTEMPT_STATES.get(row["state"])) is not None:
            text += f" ({later})"
        yield Entry(row["created_at"], "payments", "attempt_started", text)


def history(rows: Iterable[asyncpg.Record]) -> Iterator[Entry]:
    """Tell what payments has written down."""
    for row in rows:
        event, reason = row["event"], row["reason"]
        text = _HISTORY.get(event, event)
        kind, _, words = (reason or "").partition(":")
        if event in {"declined", "retry_scheduled"} and kind in DECLINE_KINDS:
            text, reason = f"{text} ({kind}: {DECLINE_KINDS[kind]})", words
        yield Entry(row["at"], "payments", event, text, row["state"], reason, row["next_check_at"])


def refunds(rows: Iterable[asyncpg.Record]) -> Iterator[Entry]:
    """Tell which refunds were asked for, and how far they are."""
    for row in rows:
        amount = Money(row["amount"], row["currency"])
        text = f"{row['requested_by']} asked for {amount} to be given back as {row['id']}"
        if row["handle"]:
            text += f", which the gateway calls {row['handle']}"
        text += f"; that is {row['state']} now"
        is_open = row["state"] not in {RefundState.SUCCEEDED, RefundState.FAILED}
        next_at = row["next_look_at"] if is_open else None
        yield Entry(
            row["created_at"],
            "payments",
            "refund_recorded",
            text,
            reason=row["detail"],
            next_at=next_at,
        )


def by_hand(rows: Iterable[asyncpg.Record]) -> Iterator[Entry]:
    """Tell what operators did to the payment, and why."""
    for row in rows:
        deed = _BY_HAND.get(row["action"], f"did {row['action']}")
        text = f"an operator {deed}, with the key {row['actor']}"
        yield Entry(row["at"], "payments", "by_hand", text, reason=row["reason"])


def notice(gateway: str, row: asyncpg.Record) -> Entry:
    """Tell of a stored notice. Its copies were answered too, but are not kept."""
    how = "sent a notice" if row["source"] == "notice" else "sent the customer's browser back"
    return Entry(
        row["received_at"],
        "webhook",
        f"{row['source']}_received",
        f"{gateway} {how}, claiming: {row['claim']} (event {row['event_key']})",
    )


def message(service: str, row: asyncpg.Record) -> Entry:
    """Tell of a message that its receiver has not confirmed yet."""
    if row["parked_at"] is None:
        fate = f"waits for its receipt from {row['queue']}; sent {row['sends']} times"
        next_at = row["send_again_at"]
    else:
        fate = f"was sent {row['sends']} times to {row['queue']} without a receipt and is parked"
        next_at = None
    return Entry(
        row["created_at"],
        service,
        "message_waits",
        f"{row['message_name']} {fate}",
        next_at=next_at,
    )


def dead_letter(service: str, row: asyncpg.Record) -> Entry:
    """Tell of a message that could not be handled, and what became of it."""
    fates = {
        "waiting": "could not be handled",
        "handled": "could not be handled, and was when it was tried again",
        "discarded": "could not be handled, and an operator discarded it",
    }
    return Entry(
        row["stored_at"],
        service,
        "dead_letter_stored",
        f"{row['message_name']} from {row['sender']} {fates[row['state']]}",
        reason=row["reason"],
        next_at=row["retry_at"],
    )


def enrollment(enrollment_id: str, row: asyncpg.Record) -> Entry:
    """Tell a line of an enrollment's history."""
    text = f"{_ENROLLMENT[row['event']]} as {enrollment_id}"
    if row["payment_id"] is not None:
        text += f", for {row['payment_id']}"
    if row["subscription_id"] is not None:
        text += f", by {row['subscription_id']}"
    if row["actor"] is not None:
        text += f", with the key {row['actor']}"
    return Entry(row["at"], "enrollment", row["event"], text, reason=row["reason"])


def further_payment(enrollment_id: str, payment_id: str, row: asyncpg.Record) -> Entry:
    """Tell of a payment for a product that the customer had paid for before."""
    whose = "this payment" if row["payment_id"] == payment_id else row["payment_id"]
    amount = Money(row["amount"], row["currency"])
    text = f"{whose} ({amount}) was a further one for {enrollment_id}"
    if row["effect"] == "recorded":
        text += ", recorded for the operator: the customer had it already"
    return Entry(row["stored_at"], "enrollment", "further_payment_stored", text)


def moment(at: datetime) -> str:
    """Write a time, which is in UTC like all of ours, for people."""
    return f"{at:%Y-%m-%d} {time_of_day(at)}"


def time_of_day(at: datetime) -> str:
    """Write a time of day to the millisecond."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
