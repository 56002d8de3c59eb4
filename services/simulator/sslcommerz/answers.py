"""What goes over the wire: answers and notices, with the protocol's own field names. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final

from services.simulator.gateway import Json
from services.simulator.sslcommerz.domain import (
    ERRORS,
    Element,
    Refund,
    RefundState,
    Session,
    SessionState,
    Status,
)
from services.simulator.sslcommerz.signing import sign
from shared.money import Money

#: Times on the wire carry no zone; Bangladesh has had no daylight saving since 2009.
DHAKA: Final = timezone(timedelta(hours=6))

#: The gateway keeps 2.5 percent.
MERCHANT_SHARE_PER_MILLE: Final = 975

#: Sent with notices but not signed.
UNSIGNED: Final = frozenset({"card_sub_brand"})

_CARD: Final = {
    "card_type": "VISA-Demo Bank",
    "card_no": "411111XXXXXX1111",
    "card_issuer": "DEMO BANK, LTD.",
    "card_brand": "VISA",
    "card_sub_brand": "Classic",
    "card_issuer_country": "Bangladesh",
    "card_issuer_country_code": "BD",
}
_NO_CARD: Final = dict.fromkeys(_CARD, "")
_NO_INSTALMENTS: Final = {
    "emi_instalment": "0",
    "emi_amount": "0.00",
    "emi_description": "",
    "emi_issuer": "",
    "discount_percentage": "0",
    "discount_remarks": "",
    "discount_amount": "0.00",
}


def session_opened(session: Session, public_url: str) -> Json:
    """Answer a request that opened a session."""
    page = f"{public_url}/EasyCheckOut/{session.session_key}"
    return {
        "status": "SUCCESS",
        "failedreason": "",
        "sessionkey": session.session_key,
        "gw": {"visa": "visa", "master": "master", "mobilebanking": "bkash"},
        "redirectGatewayURL": page,
        "GatewayPageURL": page,
        "storeBanner": "",
        "storeLogo": "",
        "store_name": "Demo",
        "desc": [],
        "is_direct_pay_enable": "0",
    }


def session_refused(reason: str) -> Json:
    """Answer a request that opened none."""
    return {
        "status": "FAILED",
        "failedreason": reason,
        "sessionkey": "",
        "gw": {},
        "GatewayPageURL": "",
    }


def notice_form(session: Session, element: Element, store_password: str) -> dict[str, str]:
    """Return the signed fields of a notice, which the browser's callback carries too.

    They tell the amount that was asked for; what was really taken, validation and query tell.
    """
    fields = _common(session, element, session.charge, session.price)
    if element.status is not Status.VALID:
        # The key list of these is not documented; providers.md has this one.
        for name in ("val_id", "store_amount", "risk_level", "risk_title"):
            del fields[name]
        fields["error"] = ERRORS[element.status]
    return fields | sign(fields, fields.keys() - UNSIGNED, store_password)


def callback_url(session: Session, element: Element) -> str:
    """Return where the customer's browser goes after an attempt."""
    if element.status is Status.VALID:
        return session.success_url
    if element.status is Status.CANCELLED:
        return session.cancel_url
    return session.fail_url


def validation(session: Session, element: Element, status: str) -> Json:
    """Answer a validation of a known `val_id` with `VALID`, `VALIDATED` or `PENDING`."""
    return {
        **_common(session, element, element.charge, element.price),
        "status": status,
        **_NO_INSTALMENTS,
        "account_details": "",
        "APIConnect": "DONE",
        "validated_on": _text_of(element.validated_at) if element.validated_at else "",
        "gw_version": "",
        "offer_avail": 0,
        "isTokeizeSuccess": 0,
        "campaign_code": "",
    }


def invalid_transaction(api_connect: str) -> Json:
    """Answer a validation of an unknown `val_id`, or with wrong credentials."""
    return {"status": "INVALID_TRANSACTION", "APIConnect": api_connect}


def transactions(session: Session | None, elements: Sequence[Element]) -> Json:
    """Answer a query by `tran_id`: every attempt, or one PENDING while there is none."""
    found = []
    if session is not None:
        found = [_queried(session, element) for element in elements] or [_waiting(session)]
    return {"APIConnect": "DONE", "no_of_trans_found": len(found), "element": found}


def transaction_of_session(session: Session, elements: Sequence[Element]) -> Json:
    """Answer a query by `sessionkey`: the attempt that counts, which is the last."""
    answer = _queried(session, elements[-1]) if elements else _waiting(session)
    return {"APIConnect": "DONE", "sessionkey": session.session_key, **answer}


def no_session() -> Json:
    """Answer a query by an unknown `sessionkey`."""
    return {"APIConnect": "DONE", "status": "INVALID_TRANSACTION", "sessionkey": ""}


def query_refused(api_connect: str) -> Json:
    """Answer a query that cannot be served: wrong credentials or parameters."""
    return {"APIConnect": api_connect, "no_of_trans_found": 0, "element": []}


def refund_started(refund: Refund, status: str) -> Json:
    """Answer a call for a refund: `success` when it is new, `processing` when it is known."""
    return {
        "APIConnect": "DONE",
        "bank_tran_id": refund.bank_tran_id,
        "trans_id": refund.tran_id,
        "refund_ref_id": refund.refund_ref_id,
        "status": status,
        "errorReason": "",
    }


def refund_refused(parameters: Mapping[str, str], reason: str) -> Json:
    """Answer a call for a refund that is not going to be made."""
    return {
        "APIConnect": "DONE",
        "bank_tran_id": parameters.get("bank_tran_id", ""),
        "trans_id": "",
        "refund_ref_id": "",
        "status": "failed",
        "errorReason": f"Invalid Information! {reason}",
    }


def refund_told(refund: Refund) -> Json:
    """Answer a question about a refund."""
    refunded_on = refund.ended_on if refund.state is RefundState.REFUNDED else None
    return {
        "APIConnect": "DONE",
        "bank_tran_id": refund.bank_tran_id,
        "tran_id": refund.tran_id,
        "refund_ref_id": refund.refund_ref_id,
        "initiated_on": _text_of(refund.initiated_on),
        "refunded_on": _text_of(refunded_on) if refunded_on else "",
        "status": refund.state.value,
        "errorReason": "",
    }


def no_refund(refund_ref_id: str) -> Json:
    """Answer a question about an unknown refund."""
    return {
        "APIConnect": "DONE",
        "bank_tran_id": "",
        "tran_id": "",
        "refund_ref_id": refund_ref_id,
        "initiated_on": "",
        "refunded_on": "",
        "status": "",
        "errorReason": "Invalid Information! 'refund_ref_id' is not known.",
    }


def _queried(session: Session, element: Element) -> Json:
    fields = _common(session, element, element.charge, element.price)
    if element.validated_at is not None:
        fields["status"] = "VALIDATED"
        fields["validated_on"] = _text_of(element.validated_at)
    return {**fields, **_NO_INSTALMENTS, "error": ERRORS[element.status]}


def _waiting(session: Session) -> Json:
    assert session.state is SessionState.OPEN, "a session ends with an element"
    return {
        "val_id": "",
        "status": "PENDING",
        "error": "",
        "tran_id": session.tran_id,
        "bank_tran_id": "",
        "amount": session.charge.decimal_text(),
        "currency": session.charge.currency,
        "currency_type": session.price.currency,
        "currency_amount": session.price.decimal_text(),
        "risk_level": "0",
        "risk_title": "Safe",
    }


def _common(session: Session, element: Element, charge: Money, price: Money) -> dict[str, str]:
    used_a_card = element.status in (Status.VALID, Status.FAILED)
    merchants = Money(charge.minor_units * MERCHANT_SHARE_PER_MILLE // 1000, charge.currency)
    return {
        "tran_id": session.tran_id,
        "val_id": element.val_id or "",
        "amount": charge.decimal_text(),
        "store_amount": merchants.decimal_text(),
        **(_CARD if used_a_card else _NO_CARD),
        "bank_tran_id": element.bank_tran_id,
        "status": element.status.value,
        "tran_date": _text_of(element.created_at),
        "currency": charge.currency,
        "store_id": session.store_id,
        "currency_type": price.currency,
        "currency_amount": price.decimal_text(),
        "currency_rate": f"{session.rate:.4f}",
        "base_fair": "0.00",
        **{f"value_{letter}": text for letter, text in zip("abcd", session.echoed, strict=True)},
        "risk_level": str(element.risk_level),
        "risk_title": "Risky" if element.risk_level else "Safe",
    }


def _text_of(moment: datetime) -> str:
    return moment.astimezone(DHAKA).strftime("%Y-%m-%d %H:%M:%S")
