"""Reads what Fapshi says of a transaction; everything that identifies it must be exact.

Protocol facts: docs.fapshi.com (API reference, request status) and Fapshi's own SDKs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.gateways.fees import kept_of
from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import Declined, FailureKind, Outcome, Paid, Pending, Unknown
from shared.gateways.json_calls import money_in, text_in
from shared.gateways.mobile_money import kind_in, plain_reason

#: Its name for a transaction has 8 to 10 letters and digits; longer ones cost us nothing.
TRANSACTION_ID: Final = re.compile(r"[A-Za-z0-9]{1,40}")

#: There is no currency field: all amounts are whole XAF.
CURRENCY: Final = "XAF"

#: What is money for us; the other type, a payout, is money from us.
COLLECTION: Final = "Collection"

_LIVE: Final = frozenset({"CREATED", "PENDING"})

#: How a transaction ends without money; the first may not be the end of a page.
_ENDED: Final = ("FAILED", "EXPIRED")


def single(content: Any) -> Mapping[str, Any]:
    """Return the one transaction of a status answer: an object, or (in some docs) a list of one.

    Raises:
        HttpCallError: it is neither.
    """
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise HttpCallError("not_a_transaction")
    return content


def several(content: Any) -> Sequence[Mapping[str, Any]]:
    """Return the transactions of a listing.

    Raises:
        HttpCallError: it is no list of objects.
    """
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise HttpCallError("not_a_listing")
    return content


def of_reference(listing: Sequence[Mapping[str, Any]], reference: str) -> dict[str, str]:
    """Return the statuses, by transaction, of the collections that carry our reference."""
    return {
        transaction_id: text_in(row, "status")
        for row in listing
        if row.get("externalId") == reference
        and row.get("transType") == COLLECTION
        and TRANSACTION_ID.fullmatch(transaction_id := text_in(row, "transId"))
    }


def most_telling(statuses: Mapping[str, str]) -> str:
    """Return which of several transactions decides: a paid one, else one that may still be."""

    def rank(transaction_id: str) -> int:
        status = statuses[transaction_id]
        return 0 if status == "SUCCESSFUL" else _ENDED.index(status) + 2 if status in _ENDED else 1

    return min(statuses, key=rank)


def may_still_be_paid(status: str, *, is_prompt: bool) -> bool:
    """Tell whether a transaction may still bring money: of a page a failed one may, too."""
    return status != "EXPIRED" and not (is_prompt and status == "FAILED")


def outcome_of(
    fields: Mapping[str, Any], reference: str, handle: str, *, is_failure_final: bool
) -> Outcome:
    """Return what a transaction object means for our reference.

    `is_failure_final` is true of a prompt only: on a page the customer may apparently try again
    after FAILED until the page has expired, so only EXPIRED ends it.
    """
    difference = _difference(fields, reference, handle)
    if difference is not None:
        return Unknown(difference)
    status = text_in(fields, "status")
    if status == "SUCCESSFUL":
        return _paid(fields, reference, handle)
    if status in _LIVE:
        return Pending(f"gateway_{status.lower()}", handle)
    if status == "EXPIRED":
        return Declined("EXPIRED", FailureKind.EXPIRED, is_final=True, handle=handle)
    if status == "FAILED":
        words = text_in(fields, "reason")
        hidden = (text_in(fields, "payerName"), text_in(fields, "email"))
        return Declined(
            plain_reason(words, "FAILED", hidden),
            kind_in(words),
            is_final=is_failure_final,
            handle=handle,
        )
    return Unknown("unknown_status")


def _difference(fields: Mapping[str, Any], reference: str, handle: str) -> str | None:
    """Return in what a transaction is not the one we asked for, or None."""
    if text_in(fields, "transId") != handle:
        return "handle_differs"
    if fields.get("externalId") != reference:
        return "reference_differs"
    return None if fields.get("transType") == COLLECTION else "not_a_collection"


def _paid(fields: Mapping[str, Any], reference: str, handle: str) -> Paid | Unknown:
    amount = money_in(fields.get("amount"), CURRENCY)
    if amount is None:
        return Unknown("unreadable_amount")
    return Paid(
        reference,
        amount,
        validation_id=handle,
        gateway_payment_id=handle,
        # `revenue` is net of fees.
        fee=kept_of(amount, fields.get("revenue")),
    )
