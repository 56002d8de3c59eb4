"""Which movements of money follow from what happens to a payment.

A movement is one amount of one currency from the account that is credited to the one that is
debited, so that both sides are equal whatever is booked. What a gateway keeps of a charge is a part
of the same movement, and debited to `fees`. Accounts are names:

- `gateway:<name>`: what the gateway holds for us (an asset; debits make it more),
- `revenue`: what customers paid for what they were given (credits make it more),
- `held`: taken, but nothing is given for it yet: to be released or given back,
- `surplus`: taken once too often, and owed to the customer,
- `refunds`: given back of what was revenue,
- `disputed`: taken back by a customer's bank until it has decided,
- `dispute_losses`: gone for good,
- `fees`: what gateways keep for themselves.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from shared.gateways.interface import Paid
from shared.money import Money

REVENUE: Final = "revenue"
HELD: Final = "held"
SURPLUS: Final = "surplus"
REFUNDS: Final = "refunds"
DISPUTED: Final = "disputed"
DISPUTE_LOSSES: Final = "dispute_losses"
FEES: Final = "fees"

#: Accounts that few payments move.
UNCOMMON: Final = frozenset({HELD, SURPLUS, REFUNDS, DISPUTED, DISPUTE_LOSSES})


class TransferKind(StrEnum):
    """What a movement is for."""

    #: The one charge of a payment, whether it is revenue or held.
    CAPTURE = "capture"
    #: What was held becomes revenue.
    RELEASE = "release"
    #: A further charge of the same payment.
    SURPLUS = "surplus"
    REFUND = "refund"
    #: A refund came back: the customer's bank did not take it.
    REFUND_RETURNED = "refund_returned"
    DISPUTE_OPENED = "dispute_opened"
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"
    #: One that was lost is heard again.
    DISPUTE_REOPENED = "dispute_reopened"
    FEE = "fee"


class Transfer(NamedTuple):
    """One movement of a payment's money.

    `occasion` tells those of one kind and one payment apart: the database takes each once, so that
    it is the same when the same thing is booked again.
    """

    kind: TransferKind
    occasion: str
    debit: str
    credit: str
    amount: Money
    #: The attempt whose money it is, where that is known.
    reference: str | None = None
    #: What of the amount is debited to `fees` instead, in minor units.
    fee: int = 0


def gateway_account(gateway: str) -> str:
    """Return the account of what a gateway holds for us."""
    return f"gateway:{gateway}"


def captured(gateway: str, paid: Paid, *, is_held: bool, is_further: bool = False) -> Transfer:
    """Book the charge of a payment, in the amount that was taken, and what the gateway kept.

    Args:
        gateway: Who took it.
        paid: What confirms it.
        is_held: Whether nothing is given for it yet.
        is_further: Whether it takes the place of an earlier charge.
    """
    return Transfer(
        TransferKind.CAPTURE,
        # Nearly every payment has one charge, and the primary key is shorter without its name.
        paid.gateway_payment_id if is_further else "",
        gateway_account(gateway),
        HELD if is_held else REVENUE,
        paid.amount,
        paid.reference,
        0 if paid.fee is None else paid.fee.minor_units,
    )


def surplus(gateway: str, paid: Paid, *, is_other: bool) -> Transfer:
    """Book money that was taken once more.

    Args:
        gateway: Who took it.
        paid: What confirms it. The gateway may say only that there was more than one.
        is_other: Whether it names the other charge itself.
    """
    return Transfer(
        TransferKind.SURPLUS,
        paid.gateway_payment_id if is_other else "repeated",
        gateway_account(gateway),
        SURPLUS,
        paid.amount,
        reference=paid.reference,
    )


def refunded(gateway: str, refund_id: str, amount: Money, *, was_held: bool) -> Transfer:
    """Book money that was given back.

    Args:
        gateway: Who paid it back.
        refund_id: Our name for the refund.
        amount: How much.
        was_held: Whether nothing had been given for it: the payment was on hold.
    """
    debit = HELD if was_held else REFUNDS
    account = gateway_account(gateway)
    return Transfer(TransferKind.REFUND, refund_id, debit, account, amount)


def refund_returned(gateway: str, refund_id: str, amount: Money, *, was_held: bool) -> Transfer:
    """Book a refund that came back after it had succeeded."""
    credit = HELD if was_held else REFUNDS
    account = gateway_account(gateway)
    return Transfer(TransferKind.REFUND_RETURNED, refund_id, account, credit, amount)


def dispute_opened(gateway: str, occasion: str, amount: Money) -> Transfer:
    """Book that a customer's bank has taken money back until it decides.

    `occasion` names the dispute, and the round of one that is opened again.
    """
    return Transfer(
        TransferKind.DISPUTE_OPENED, occasion, DISPUTED, gateway_account(gateway), amount
    )


def dispute_won(gateway: str, occasion: str, amount: Money) -> Transfer:
    """Book that the money of a dispute is ours again."""
    return Transfer(TransferKind.DISPUTE_WON, occasion, gateway_account(gateway), DISPUTED, amount)


def dispute_lost(occasion: str, amount: Money) -> Transfer:
    """Book that the money of a dispute is gone; the gateway gave it away when it was opened."""
    return Transfer(TransferKind.DISPUTE_LOST, occasion, DISPUTE_LOSSES, DISPUTED, amount)


def dispute_reopened(occasion: str, amount: Money) -> Transfer:
    """Book that a dispute which was lost is heard again: its money may still come back."""
    return Transfer(TransferKind.DISPUTE_REOPENED, occasion, DISPUTED, DISPUTE_LOSSES, amount)


def fee(gateway: str, occasion: str, amount: Money) -> Transfer:
    """Book what a gateway keeps for itself on another occasion than the charge."""
    return Transfer(TransferKind.FEE, occasion, FEES, gateway_account(gateway), amount)
