"""Reads what Campay says of a transaction; everything that identifies it must be exact.

Protocol facts: Campay's Postman documentation and SDKs. Members beyond the first seven of a
transaction vary with the age of the account, and what is absent may be the text "None".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from shared.gateways.fees import kept_of
from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import Declined, FailureKind, Outcome, Paid, Pending, Unknown
from shared.gateways.json_calls import JsonAnswer, money_in, text_in
from shared.gateways.mobile_money import kind_in, plain_reason
from shared.identifiers import as_uuid

CURRENCY: Final = "XAF"

#: Campay names a transaction by a UUID.
TRANSACTION_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

#: The codes we know, what they say, and what that is to us.
_CODES: Final[Mapping[str, tuple[str, FailureKind]]] = MappingProxyType(
    {
        "ER101": ("invalid phone number", FailureKind.AUTHENTICATION_FAILED),
        "ER102": ("operator not supported", FailureKind.CARD_DECLINED),
        "ER201": ("invalid amount", FailureKind.CONFIGURATION),
        "ER301": ("insufficient balance", FailureKind.INSUFFICIENT_FUNDS),
    }
)
# Bounded on both sides: our own reference, which an answer may repeat, can hold these letters.
_CODE: Final = re.compile(r"(?<![A-Za-z0-9_])ER\d{3}(?![A-Za-z0-9_])")

_CLIENT_ERRORS: Final = range(400, 500)

#: Money from us, not for us.
_PAYOUT: Final = "withdraw"


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text; empty when it is absent, also as the text "None"."""
    text = text_in(fields, name)
    return "" if text == "None" else text


def code_in(text: str) -> str | None:
    """Return the first code that we know, wherever it stands."""
    return next((code for code in _CODE.findall(text) if code in _CODES), None)


def refused(answer: JsonAnswer) -> Declined | None:
    """Return the definite refusal of a starting call, or None.

    In which member the code stands, and under which status, is not documented: the whole body is
    searched. A code that we do not know decides nothing: it may say that the reference was used.
    """
    is_said = answer.is_success and answer.problem is None
    if not is_said and answer.status not in _CLIENT_ERRORS:
        return None
    code = code_in(answer.body.decode("utf-8", "replace"))
    if code is None:
        return None
    words, kind = _CODES[code]
    return Declined(f"{code}: {words}", kind, is_final=True)


def transactions_of(history: Mapping[str, Any], reference: str) -> dict[str, str]:
    """Return the statuses, by transaction, of the rows whose description carries our reference.

    Raises:
        HttpCallError: the history is not of the documented shape.
    """
    rows = history.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise HttpCallError("not_a_history")
    return {
        handle: text_of(row, "status")
        for row in rows
        if reference in text_of(row, "description")
        and TRANSACTION_ID.fullmatch(handle := text_of(row, "reference_uuid"))
    }


def outcome_of(
    fields: Mapping[str, Any], reference: str, handle: str, *, is_failure_final: bool
) -> Outcome:
    """Return what a transaction object means for our reference.

    `is_failure_final` is true of a prompt only: whether a page can be tried again after a failure
    is not documented.
    """
    difference = _difference(fields, reference, handle)
    if difference is not None:
        return Unknown(difference)
    status = text_of(fields, "status")
    if status == "SUCCESSFUL":
        return _paid(fields, reference, handle)
    if status == "PENDING":
        return Pending("gateway_pending", handle)
    if status == "FAILED":
        return _failed(fields, handle, is_final=is_failure_final)
    return Unknown("unknown_status")


def _difference(fields: Mapping[str, Any], reference: str, handle: str) -> str | None:
    """Return in what a transaction is not the one we asked for, or None."""
    if text_of(fields, "reference").lower() != handle.lower():
        return "handle_differs"
    if text_of(fields, "external_reference").lower() != as_uuid(reference):
        return "reference_differs"
    return "not_a_collection" if text_of(fields, "endpoint") == _PAYOUT else None


def _paid(fields: Mapping[str, Any], reference: str, handle: str) -> Paid | Unknown:
    amount = money_in(fields.get("amount"), text_of(fields, "currency"))
    if amount is None:
        return Unknown("unreadable_amount")
    return Paid(
        reference,
        amount,
        validation_id=handle,
        gateway_payment_id=handle,
        # `app_amount`, where the account has it, is net of fees.
        fee=kept_of(amount, fields.get("app_amount")),
    )


def _failed(fields: Mapping[str, Any], handle: str, *, is_final: bool) -> Declined:
    words = text_of(fields, "reason")
    code = code_in(words)
    kind = _CODES[code][1] if code else kind_in(words)
    return Declined(plain_reason(words, "FAILED"), kind, is_final=is_final, handle=handle)
