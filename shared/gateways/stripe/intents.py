"""Reads PaymentIntents: what one says became of an order of ours. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from shared.errors import InvalidInputError
from shared.gateways.interface import (
    ActionRequired,
    Declined,
    FailureKind,
    Outcome,
    Paid,
    Pending,
    Unknown,
)
from shared.gateways.pages import PageHosts
from shared.gateways.stripe.declines import Decline, read_decline, word
from shared.money import Money

#: The member of `metadata` that holds our reference.
REFERENCE_MEMBER: Final = "reference"

_INTENT_ID: Final = re.compile(r"pi_[A-Za-z0-9_]{1,97}")

#: Statuses that wait for somebody; the last three only if somebody else works on our intents, as
#: we create and confirm in one call and never ask for a later capture.
_WAITING: Final = frozenset(
    {"processing", "requires_payment_method", "requires_confirmation", "requires_capture"}
)

#: Statuses in which the money has moved or may be about to.
_NOT_DECLINED: Final = frozenset({"succeeded", "processing", "requires_capture"})

#: Why an intent was cancelled; without a reason it was our own call.
_CANCELLATIONS: Final[Mapping[str, FailureKind]] = MappingProxyType(
    {
        "automatic": FailureKind.EXPIRED,
        "expired": FailureKind.EXPIRED,
        "fraudulent": FailureKind.CARD_DECLINED,
        "duplicate": FailureKind.CONFIGURATION,
        "failed_invoice": FailureKind.CONFIGURATION,
        "void_invoice": FailureKind.CONFIGURATION,
    }
)


def is_intent_id(text: str) -> bool:
    """Tell whether a text has the shape of an intent's id, and so may stand in a path."""
    return _INTENT_ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class IntentReader:
    """Reads the intents of one account."""

    is_live: bool
    #: Where a customer may be sent to authenticate.
    pages: PageHosts

    def read(self, intent: Mapping[str, Any], reference: str) -> Outcome:
        """Return what became of an order; everything that identifies it must be exact.

        An order of ours is confirmed once, when its intent is created. So an intent that waits for
        another payment method is declined for good, though its customer, who was sent to a page
        with the client secret in its address, could confirm it once more with Stripe's scripts.
        Whoever does so pays late, and a late success is never dropped.
        """
        doubt = self._doubt(intent, reference)
        return self._by_status(intent, reference) if doubt is None else doubt

    def read_decline(self, error: Mapping[str, Any], reference: str) -> Outcome:
        """Return what a 402 says of an order; the intent inside it, if any, must agree.

        Whose answer it is, our idempotency key says; so the intent may be shown in part.
        """
        intent = error.get("payment_intent")
        if not isinstance(intent, dict):
            return declined(read_decline(error), None)
        unsaid = {"livemode": self.is_live, "metadata": {REFERENCE_MEMBER: reference}}
        doubt = self._doubt(unsaid | intent, reference)
        if doubt is not None:
            return doubt
        if word(intent.get("status")) in _NOT_DECLINED:
            return Unknown("contradictory_answer")
        return declined(read_decline(error), str(intent["id"]))

    def read_all(self, intents: Sequence[Mapping[str, Any]], reference: str) -> Outcome:
        """Return what became of an order that has several intents, as none of ours should."""
        outcomes = [self.read(intent, reference) for intent in intents]
        paid = [outcome for outcome in outcomes if isinstance(outcome, Paid)]
        if paid:
            return replace(paid[0], is_repeated=len(paid) > 1)
        open_ones = [outcome for outcome in outcomes if not isinstance(outcome, Declined)]
        return (open_ones or outcomes)[0]

    def _doubt(self, intent: Mapping[str, Any], reference: str) -> Unknown | None:
        if intent.get("object") != "payment_intent" or not is_intent_id(word(intent.get("id"))):
            return Unknown("unreadable_answer")
        if own_reference(intent) != reference:
            return Unknown("reference_differs")
        if intent.get("livemode") is not self.is_live:
            return Unknown("livemode_differs")
        return None

    def _by_status(self, intent: Mapping[str, Any], reference: str) -> Outcome:
        handle, status = str(intent["id"]), word(intent.get("status"))
        error = intent.get("last_payment_error")
        if status == "succeeded":
            return _paid(intent, reference)
        if status == "requires_action":
            return self._action(intent, handle)
        if status == "canceled":
            return _cancelled(intent, handle)
        if status == "requires_payment_method" and isinstance(error, dict):
            return declined(read_decline(error), handle)
        if status in _WAITING:
            return Pending(status, handle)
        return Unknown("unknown_status")

    def _action(self, intent: Mapping[str, Any], handle: str) -> Outcome:
        action = intent.get("next_action")
        redirect = action.get("redirect_to_url") if isinstance(action, dict) else None
        url = redirect.get("url") if isinstance(redirect, dict) else None
        if url is None:
            # What else there is to do, only Stripe's own scripts in a browser can.
            return Pending("requires_action", handle)
        if not isinstance(url, str) or not self.pages.has(url):
            return Unknown("action_on_foreign_host")
        return ActionRequired("requires_action", url, handle)


def own_reference(fields: Mapping[str, Any]) -> object:
    """Return what `metadata` names as our reference."""
    metadata = fields.get("metadata")
    return metadata.get(REFERENCE_MEMBER) if isinstance(metadata, dict) else None


def declined(decline: Decline, handle: str | None) -> Declined:
    """Return the outcome of a decline. It is final: a new try is a new order with a new key."""
    return Declined(decline.reason, decline.kind, is_final=True, handle=handle)


def _paid(intent: Mapping[str, Any], reference: str) -> Outcome:
    amount, currency = intent.get("amount_received"), word(intent.get("currency"))
    try:
        # A boolean is an `int` too, and JSON's `true` no amount.
        if type(amount) is not int or amount == 0 or currency != currency.lower():
            return Unknown("unreadable_amount")
        money = Money(amount, currency.upper())
    except InvalidInputError:
        return Unknown("unreadable_amount")
    handle = str(intent["id"])
    return Paid(
        reference=reference,
        amount=money,
        validation_id=handle,
        # Refunds may name the intent as well as its charge, and everything else needs the intent.
        gateway_payment_id=handle,
        # Radar has opened a review: taken, but Stripe advises not to deliver before it is closed.
        is_risky=intent.get("review") is not None,
    )


def _cancelled(intent: Mapping[str, Any], handle: str) -> Outcome:
    reason = word(intent.get("cancellation_reason"))
    kind = _CANCELLATIONS.get(reason, FailureKind.CANCELLED)
    shown = "canceled" if reason in {"", "fraudulent"} else f"canceled_{reason}"
    return Declined(shown, kind, is_final=True, handle=handle)
