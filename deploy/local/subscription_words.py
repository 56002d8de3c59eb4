"""The words of a subscription's story: what happened, how it stands and what comes next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import asyncpg

from deploy.local.story_outlook import Outlook
from deploy.local.story_words import DECLINE_KINDS, moment
from services.scheduler.domain.model import DunningEnd, SubscriptionState
from services.scheduler.domain.steps import AUTO_PAY_OFF, NO_PAYMENT_METHOD

_EVENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "created": "somebody subscribed",
        "trial_began": "the trial began",
        "period_opened": "a period began",
        "charge_accepted": "payments took the order on",
        "charge_sent": "the gateway has the charge",
        "charge_held": "the money was taken, but a person must look at it",
        "charge_failed": "the charge failed for good",
        "charge_closed": "what was still open at the gateway can be paid no more",
        "retry_scheduled": "the charge failed, and is tried again",
        "retry_ordered": "the time of the retry has come",
        "paid": "the money is there",
        "paid_late": "the money came after its period had been given up",
        "paid_after_end": "the money came after the subscription was over",
        "paid_twice": "money came for a period that was paid: it must be given back",
        "charged_by_dunning": "dunning asked for the money again",
        "charged_by_trigger": "somebody had the period charged",
        "dunning_announced": "dunning reminded the customer, and charged nothing",
        "access_revoked": "access was taken away",
        "catch_up_asked": "periods went by unbilled, and somebody must say which are billed",
        "paused": "it was paused",
        "resumed": "somebody resumed it",
        "cancelled": "it was cancelled",
        "ended": "it has run its periods",
        "cancellation_planned": "somebody had it end with its period",
        "cancellation_withdrawn": "somebody let it go on after its period",
        "plan_change_planned": "somebody chose the plan of the next period",
        "payment_method_changed": "it got another means of payment",
        "auto_pay_on": "somebody let periods be charged by themselves",
        "auto_pay_off": "somebody had periods charged only when told to",
        "attached_to_test_clock": "it was put on a test clock",
        "set_aside": "what was due could not be done, so it was set aside",
        "problem_cleared": "an operator had what was due tried again",
    }
)

_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{str(kind): words for kind, words in DECLINE_KINDS.items()},
        AUTO_PAY_OFF: "periods are charged only when somebody says so",
        NO_PAYMENT_METHOD: "it has no means of payment",
        "paused_by_operator": "somebody paused it",
        "cancelled_by_operator": "somebody cancelled it",
        "cancelled_at_period_end": "somebody had it end with its period",
        "ran_its_periods": "it was to run so many periods",
        "dunning_over": "it stayed unpaid to the end of dunning",
        "catch_up_asked": "periods went by unbilled",
        "payment_method_changed": "there is another means of payment to try",
    }
)


def history(row: asyncpg.Record) -> str:
    """Tell a line of the scheduler's history."""
    text: str = _EVENTS.get(row["event"], row["event"])
    if row["event"] == "period_opened":
        text += f" ({moment(row['period_start'])[:-4]})"
    if row["payment_id"] is not None:
        text += f", by {row['payment_id']}"
    if row["actor"] is not None:
        text += f", with the key {row['actor']}"
    return text


def reason(word: str) -> str:
    """Tell why a subscription is in its state, with the word that programs know."""
    words = _REASONS.get(word)
    return word if words is None else f"{words} ({word})"


def outlook(
    subscription: asyncpg.Record,
    payment: asyncpg.Record | None,
    *,
    dead_letters: Sequence[asyncpg.Record],
) -> Outlook:
    """Say how a subscription stands, what happens next and why.

    Args:
        subscription: Its row, with the dunning of its plan.
        payment: Of a charge that is not resolved, as far as payments has it.
        dead_letters: What could not be handled about it, and waits for an operator.
    """
    s = subscription
    now, because = s["state"], reason(s["reason"])
    if s["problem"] is not None:
        return Outlook(now, "nothing, until an operator clears its problem", s["problem"])
    if dead_letters:
        return Outlook(now, "an operator retries the dead letter", dead_letters[0]["reason"])
    if s["charging"] is not None:
        return _outlook_of_charge(s, payment)
    return Outlook(now, _next_step(s), because)


def _outlook_of_charge(s: asyncpg.Record, payment: asyncpg.Record | None) -> Outlook:
    now, charging = s["state"], s["charging"]
    if s["retry_at"] is not None:
        again = f"{charging} is tried again at {moment(s['retry_at'])} UTC of its clock"
        return Outlook(now, again, "the try before has failed")
    if payment is None:
        return Outlook(now, "payments takes the order on", f"{charging} was ordered")
    because = f"{charging} is {payment['state']}"
    if payment["reason"] is not None:
        because += f" ({payment['reason']})"
    return Outlook(now, "payments tells how the charge went", because)


def _next_step(s: asyncpg.Record) -> str:
    if s["due_at"] is not None:
        return f"{_next_due(s)} at {moment(s['due_at'])} UTC"
    if s["asks_to_catch_up"]:
        return "somebody says which periods are billed"
    is_paused = s["state"] == SubscriptionState.PAUSED
    return "nothing, until somebody resumes it" if is_paused else "nothing: that is for good"


def _next_due(s: asyncpg.Record) -> str:
    if s["state"] == SubscriptionState.PAUSED:
        return "access ends"
    if s["cancels_at_period_end"] and s["due_at"] >= s["period_end"]:
        return "it ends"
    if s["state"] == SubscriptionState.PAST_DUE:
        return _next_of_dunning(s)
    if s["state"] == SubscriptionState.TRIALING and not s["has_access"]:
        return "its trial begins"
    return "its next period begins"


def _next_of_dunning(s: asyncpg.Record) -> str:
    if s["has_access"] and s["due_at"] == s["grace_until"]:
        return "access ends"
    steps = len(s["dunning_days"])
    if s["dunning_step"] < steps:
        return f"dunning step {s['dunning_step'] + 1} of {steps} comes"
    return "it is paused" if s["dunning_end"] == DunningEnd.PAUSE else "it is cancelled"
