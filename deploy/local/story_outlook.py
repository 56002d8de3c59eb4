"""How a payment stands, what happens to it next, and why: in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import asyncpg

from deploy.local.story_words import moment
from services.payments.domain.model import PaymentState
from services.payments.domain.retries import RetryState
from shared.contracts.payments import ChargeSucceeded, PaymentSucceeded
from shared.contracts.webhook import NoticeReceived


class Outlook(NamedTuple):
    """How a payment stands, what happens next and why."""

    now: str
    next: str
    because: str


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
        "waits_for_its_turn": "more was ordered than the gateway keeps pace with",
        "paused:new": "nothing new is begun until a drain ends",
        "gateway_pending": "the gateway says that the payment is still on its way",
        "invalid_transaction": "the gateway does not know the transaction that the notice names",
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
    if payment["retry_state"] == RetryState.WAITING:
        return Outlook(state, "it is tried again when its test clock comes to its time", because)
    if payment["next_attempt_at"] is None:
        return Outlook(state, "nothing: it has no retry, which must not be", because)
    return Outlook(state, f"it is tried again at {moment(payment['next_attempt_at'])} UTC", because)


def _outlook_of_success(
    payment: asyncpg.Record,
    enrolled: asyncpg.Record | None,
    messages: Sequence[asyncpg.Record],
    dead_letters: Sequence[asyncpg.Record],
) -> Outlook:
    is_of_subscription = payment["subscription_id"] is not None
    if enrolled is not None and not is_of_subscription:
        return _outlook_of_enrolled(payment, enrolled)
    if is_of_subscription:
        now, receiver, announcement = "succeeded", "the scheduler", ChargeSucceeded.name
    else:
        now, receiver, announcement = (
            "succeeded, not enrolled",
            "enrollment",
            PaymentSucceeded.name,
        )
    waiting = _find(messages, announcement)
    if waiting is not None and waiting["parked_at"] is None:
        again = f"its message is sent again at {moment(waiting['send_again_at'])} UTC"
        return Outlook(now, again, f"{receiver} has not confirmed it yet")
    if waiting is not None:
        return Outlook(now, "an operator sends its message again", "the message is parked")
    if (dead := _find(dead_letters, announcement)) is not None:
        again = "an operator retries the dead letter"
        if dead["retry_at"] is not None:
            again = f"the dead letter is handled again at {moment(dead['retry_at'])} UTC"
        return Outlook(now, again, dead["reason"])
    if is_of_subscription:
        return _outlook_of_subscribed(payment, enrolled)
    return Outlook(now, "an operator enrolls the customer by hand", "no message is on its way")


def _outlook_of_subscribed(payment: asyncpg.Record, enrolled: asyncpg.Record | None) -> Outlook:
    now = "succeeded"
    if enrolled is not None:
        now += f", and {enrolled['id']} is {enrolled['state']}"
    if payment["reason"] == "surplus_charge":
        return Outlook(now, "refund one charge at the gateway", "it took the money repeatedly")
    return Outlook(now, "nothing", f"it is final, and {payment['subscription_id']} knows of it")


def _outlook_of_enrolled(payment: asyncpg.Record, enrolled: asyncpg.Record) -> Outlook:
    now = f"succeeded, and {enrolled['id']} is {enrolled['state']}"
    if payment["reason"] == "surplus_charge":
        return Outlook(now, "refund one charge at the gateway", "it took the money repeatedly")
    if enrolled["payment_id"] != payment["id"]:
        return Outlook(now, "the operator refunds it or answers", "it was paid for before")
    return Outlook(now, "nothing", "it is final and has had its effect")


def _find(rows: Sequence[asyncpg.Record], name: str) -> asyncpg.Record | None:
    return next((row for row in rows if row["message_name"] == name), None)
