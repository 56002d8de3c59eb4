"""The words of a payment's story: one sentence for each kind of thing that happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

import asyncpg

from services.payments.domain.model import PaymentState
from services.payments.domain.refunds import RefundState
from services.payments.domain.retries import RetryState
from shared.contracts.payments import PaymentSucceeded
from shared.contracts.webhook import NoticeReceived
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


class Outlook(NamedTuple):
    """How a payment stands, what happens next and why."""

    now: str
    next: str
    because: str


_HISTORY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "created": "the payment was recorded",
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

#: What waiting is for, by what the gateway said last.
_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "customer_must_pay": "the customer has a page to pay on and no notice has come",
        "open_page": "the customer has a page to pay on and no notice has come",
        "requires_action": "the customer must authenticate on the gateway's page",
        "page_unknown": "a page is open whose address was lost with the gateway's answer",
        "page_unused": "the customer has not tried to pay yet",
        "prompted": "the customer must confirm on the phone",
        "not_attempted": "the customer has not tried to pay yet",
        "gateway_created": "the customer has not tried to pay yet",
        "gateway_is_off": "the gateway is not configured any more, so it cannot be asked",
        "not_visible_yet": "the gateway may not list yet what was begun just now",
        "breaker_open": "the gateway failed too often and is given a rest",
        "breaker_half_open": "the gateway failed too often and is being tried out",
        "held_by_operator": "an operator holds it until it is released",
        "released_by_operator": "an operator released it, and its gateway is asked",
        "retry_begun": "another try is on its way to the gateway",
        "gateway_pending": "the gateway says that the payment is still on its way",
        "invalid_transaction": "the gateway does not know the transaction that the notice names",
    }
)

#: What became of an attempt, where that is not what the payment became.
_ATTEMPT_STATES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "abandoned": "given up later for another one",
        "refused": "refused by the gateway",
        "put_off": "not sent yet",
    }
)

_RESTING_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        PaymentState.FAILED: "it has ended; a late success would still be recorded",
        PaymentState.CANCELLED: "it has ended; a late success would still be recorded",
        PaymentState.ON_HOLD: "a person must look at it and decide",
        PaymentState.PARTIALLY_REFUNDED: "nothing: a part of it was given back",
        PaymentState.REFUNDED: "nothing: all of it was given back",
        PaymentState.DISPUTED: "what the customer's bank decides is recorded",
    }
)


#: Why a payment rests whose state says it all.
_BECAUSE: Final[Mapping[str, str]] = MappingProxyType(
    {
        PaymentState.PARTIALLY_REFUNDED: "it was paid, and somebody gave money back",
        PaymentState.REFUNDED: "it was paid, and somebody gave the money back",
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


def outlook(
    payment: asyncpg.Record,
    enrolled: asyncpg.Record | None,
    *,
    messages: Sequence[asyncpg.Record],
    dead_letters: Sequence[asyncpg.Record],
) -> Outlook:
    """Say how a payment stands, what happens next and why.

    Args:
        payment: Its row.
        enrolled: The enrollment that it led to.
        messages: What waits in an outbox about it.
        dead_letters: What could not be handled about it, and waits for an operator.
    """
    state, reason = payment["state"], payment["reason"]
    if payment["next_check_at"] is not None:
        asked = "no answer so far" if reason is None else _REASONS.get(reason, reason)
        if _find(messages, NoticeReceived.name) is not None:
            asked = "a notice has come and is being checked"
        return Outlook(
            state, f"the gateway is asked at {moment(payment['next_check_at'])} UTC", asked
        )
    if state == PaymentState.RETRY_SCHEDULED:
        return _outlook_of_retry(payment)
    if state != PaymentState.SUCCEEDED:
        rest = _RESTING_WORDS.get(state, "nothing: no time is set, which must not be")
        return Outlook(state, rest, reason or _BECAUSE.get(state, "no reason was written down"))
    return _outlook_of_success(payment, enrolled, messages, dead_letters)


def _outlook_of_retry(payment: asyncpg.Record) -> Outlook:
    state, because = payment["state"], payment["reason"] or "somebody asked for another try"
    if payment["retry_state"] == RetryState.PARKED:
        return Outlook(state, "an operator resumes its retry", "too many retries waited")
    if payment["next_attempt_at"] is None:
        return Outlook(state, "nothing: it has no retry, which must not be", because)
    return Outlook(state, f"it is tried again at {moment(payment['next_attempt_at'])} UTC", because)


def _outlook_of_success(
    payment: asyncpg.Record,
    enrolled: asyncpg.Record | None,
    messages: Sequence[asyncpg.Record],
    dead_letters: Sequence[asyncpg.Record],
) -> Outlook:
    if enrolled is not None:
        return _outlook_of_enrolled(payment, enrolled)
    now = "succeeded, not enrolled"
    waiting = _find(messages, PaymentSucceeded.name)
    if waiting is not None and waiting["parked_at"] is None:
        again = f"its message is sent again at {moment(waiting['send_again_at'])} UTC"
        return Outlook(now, again, "enrollment has not confirmed it yet")
    if waiting is not None:
        return Outlook(now, "an operator sends its message again", "the message is parked")
    if (dead := _find(dead_letters, PaymentSucceeded.name)) is not None:
        again = "an operator retries the dead letter"
        if dead["retry_at"] is not None:
            again = f"the dead letter is handled again at {moment(dead['retry_at'])} UTC"
        return Outlook(now, again, dead["reason"])
    return Outlook(now, "an operator enrolls the customer by hand", "no message is on its way")


def _outlook_of_enrolled(payment: asyncpg.Record, enrolled: asyncpg.Record) -> Outlook:
    now = f"succeeded, and {enrolled['id']} is {enrolled['state']}"
    if payment["reason"] == "surplus_charge":
        return Outlook(now, "refund one charge at the gateway", "it took the money repeatedly")
    if enrolled["payment_id"] != payment["id"]:
        return Outlook(now, "the operator refunds it or answers", "it was paid for before")
    return Outlook(now, "nothing", "it is final and has had its effect")


def _find(rows: Sequence[asyncpg.Record], name: str) -> asyncpg.Record | None:
    return next((row for row in rows if row["message_name"] == name), None)


def moment(at: datetime) -> str:
    """Write a time, which is in UTC like all of ours, for people."""
    return f"{at:%Y-%m-%d} {time_of_day(at)}"


def time_of_day(at: datetime) -> str:
    """Write a time of day to the millisecond."""
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}"
