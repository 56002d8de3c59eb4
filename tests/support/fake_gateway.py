"""A gateway in memory that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime

from shared.gateways.disputes import Disputed, DisputeState
from shared.gateways.interface import (
    ActionRequired,
    Capabilities,
    Declined,
    DisputeOutcome,
    FailureKind,
    Limits,
    Listing,
    Order,
    Outcome,
    Paid,
    Pending,
    Refunded,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    Refusal,
    Unknown,
    refusal_of,
)
from shared.gateways.listings import ListedPage, ListedPayment
from shared.money import MINOR_UNITS_MAX, Money

EVERYTHING_IN_BDT = Capabilities(
    methods=("checkout", "prompt", "card", "wallet"),
    limits={"BDT": Limits(1, MINOR_UNITS_MAX)},
    charges_off_session=True,
    refunds=True,
    disputes=True,
    lists_payments=True,
)


@dataclass
class FakeGateway:
    """One account. What a customer does is done by `charge` and `decline`."""

    name: str = "sslcommerz"
    capabilities: Capabilities = EVERYTHING_IN_BDT
    orders: list[Order] = field(default_factory=list)
    looked_up: list[Order] = field(default_factory=list)
    #: (operation, reference) of every question.
    questions: list[tuple[str, str]] = field(default_factory=list)
    #: Answers to the next orders; without one a page is opened.
    next_starts: list[Outcome] = field(default_factory=list)
    #: Answers to the next look-ups; without one what happened is told.
    next_look_ups: list[Outcome] = field(default_factory=list)
    #: Every call that gives money back, the repeated ones included.
    refund_calls: list[RefundOrder] = field(default_factory=list)
    #: What was given back, by our reference; a repeated call is the same refund.
    given_back: dict[str, RefundOrder] = field(default_factory=dict)
    #: Answers to the next calls about refunds; without one the money was given back. Money moves
    #: before any of them but `RefundFailed` is answered.
    next_refunds: list[RefundOutcome] = field(default_factory=list)
    #: Refunds that the customer's bank sent back.
    bounced: set[str] = field(default_factory=set)
    #: What was to be closed, and the answers to that; without one it cannot be.
    cancelled: list[Order] = field(default_factory=list)
    next_cancels: list[Outcome] = field(default_factory=list)
    #: It answers no question, as during an outage.
    is_silent: bool = False
    #: Charges that its list leaves out, and whether it may have left out more.
    unlisted: set[str] = field(default_factory=set)
    cuts_lists: bool = False
    #: Payments on one page of its list.
    page_size: int = 2
    #: Cleared, it lets every call wait.
    is_answering: asyncio.Event = field(default_factory=asyncio.Event)
    _paid: defaultdict[str, list[Paid]] = field(default_factory=lambda: defaultdict(list))
    _declined: dict[str, Declined] = field(default_factory=dict)
    disputes: dict[str, Disputed] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.is_answering.set()

    def charge(
        self, reference: str, *, amount: Money | None = None, is_risky: bool = False
    ) -> Paid:
        """Let the customer pay what was asked for, or another amount; return what confirms it."""
        ordered = next(order.amount for order in self.orders if order.reference == reference)
        number = next(self._numbers)
        paid = Paid(
            reference=reference,
            amount=amount or ordered,
            validation_id=f"val_{number}",
            gateway_payment_id=f"bank_{number}",
            is_risky=is_risky,
        )
        self._paid[reference].append(paid)
        return paid

    def approve(self, reference: str) -> None:
        """Take back the doubt about what was paid under a reference."""
        self._paid[reference] = [replace(paid, is_risky=False) for paid in self._paid[reference]]

    def decline(
        self,
        reference: str,
        reason: str = "no funds",
        *,
        cancelled: bool = False,
        is_final: bool = False,
    ) -> None:
        """Let the customer's try fail, or let them give up."""
        kind = FailureKind.CANCELLED if cancelled else FailureKind.UNKNOWN_CODE
        self._declined[reference] = Declined(reason, kind, is_final=is_final)

    def dispute(
        self,
        paid: Paid,
        state: DisputeState = DisputeState.OPENED,
        *,
        amount: Money | None = None,
        fee: Money | None = None,
    ) -> Disputed:
        """Let the customer's bank take back what was paid, or decide; there is one per charge."""
        disputed = Disputed(
            handle=f"dispute_of_{paid.gateway_payment_id}",
            state=state,
            amount=amount or paid.amount,
            reason="fraudulent",
            reference=paid.reference,
            gateway_payment_id=paid.gateway_payment_id,
            opened_at=datetime(2026, 1, 5, 12, tzinfo=UTC),
            fee=fee,
        )
        self.disputes[disputed.handle] = disputed
        return disputed

    def refusal(self, order: Order) -> Refusal | None:
        return refusal_of(self.name, self.capabilities, order)

    async def start(self, order: Order) -> Outcome:
        assert order.reference not in {each.reference for each in self.orders}
        self.orders.append(order)
        await self.is_answering.wait()
        if self.next_starts:
            return self.next_starts.pop(0)
        url = f"https://gateway.example/pay/{order.reference}"
        return ActionRequired("customer_must_pay", url, "session_1")

    async def confirm(self, reference: str, validation_id: str) -> Outcome:
        if unknown := await self._ask("confirm", reference):
            return unknown
        found = [
            each for all_ in self._paid.values() for each in all_
            if each.validation_id == validation_id
        ]  # fmt: skip
        if not found:
            return Unknown("invalid_transaction")
        return found[0] if found[0].reference == reference else Unknown("reference_differs")

    async def look_up(self, order: Order) -> Outcome:
        reference = order.reference
        self.looked_up.append(order)
        if unknown := await self._ask("look_up", reference):
            return unknown
        if self.next_look_ups:
            return self.next_look_ups.pop(0)
        if paid := self._paid.get(reference):
            return replace(paid[0], is_repeated=len(paid) > 1)
        return self._declined.get(reference, Pending("not_attempted"))

    async def cancel(self, order: Order) -> Outcome:
        self.cancelled.append(order)
        if unknown := await self._ask("cancel", order.reference):
            return unknown
        return self.next_cancels.pop(0) if self.next_cancels else Unknown("not_supported")

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        self.refund_calls.append(order)
        return await self._answer_refund("refund", order)

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        return await self._answer_refund("look_up_refund", order)

    async def _answer_refund(self, operation: str, order: RefundOrder) -> RefundOutcome:
        unknown = await self._ask(operation, order.reference)
        answer = self.next_refunds.pop(0) if self.next_refunds else None
        if not isinstance(answer, RefundFailed):
            known = self.given_back.setdefault(order.reference, order)
            assert known.amount == order.amount, "another refund under the same reference"
        if order.reference in self.bounced:
            return RefundFailed("bounced")
        return unknown or answer or Refunded(f"refund_of_{order.reference}")

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        if unknown := await self._ask("look_up_dispute", handle):
            return unknown
        return self.disputes.get(handle, Unknown("not_found"))

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        if unknown := await self._ask("list_paid", day.isoformat()):
            return unknown
        listed = [
            ListedPayment(paid.reference, paid.gateway_payment_id, paid.amount)
            for all_ in self._paid.values()
            for paid in all_
            if paid.gateway_payment_id not in self.unlisted
        ]
        first = int(cursor or 0)
        following = first + self.page_size
        return ListedPage(
            tuple(listed[first:following]),
            str(following) if following < len(listed) else None,
            is_cut=self.cuts_lists,
        )

    async def close(self) -> None:
        pass

    async def _ask(self, operation: str, reference: str) -> Unknown | None:
        self.questions.append((operation, reference))
        await self.is_answering.wait()
        return Unknown("timeout") if self.is_silent else None
