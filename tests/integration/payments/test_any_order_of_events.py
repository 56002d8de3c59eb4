"""Whatever happens in whatever order: a small model knows what must be true after each step.

Hypothesis makes up stories of orders, customers, notices, outages, refunds, operators and clocks.
The model knows only what customers really paid and were given back, which the gateway in memory
remembers, and what an operator let pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

import pytest
import redis.asyncio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from deploy.local.invariants.books import WRONG_PAYMENTS
from services.payments.domain.model import PaymentState
from services.payments.domain.state_machine import RESTING, TAKEN
from shared.contracts.payments import PaymentSucceeded
from shared.contracts.subscriptions import receipts_queue
from shared.gateways.interface import (
    ActionRequired,
    Declined,
    FailureKind,
    Outcome,
    Paid,
    RefundFailed,
    RefundOutcome,
    RefundPending,
    Unknown,
)
from shared.money import Money
from tests.integration.payments.retrying import process
from tests.integration.payments.world import Payments, running_payments
from tests.support.http_api import Reply
from tests.support.queues import key_of

T = TypeVar("T")

AMOUNTS: Final = st.sampled_from([1_000, 115_000, 500_000])
STARTS: Final = st.sampled_from(
    [
        None,
        None,
        ActionRequired("customer_must_pay", "https://gateway.example/pay/x", "session_x"),
        Unknown("timeout"),
        Declined("no such store", FailureKind.CONFIGURATION, is_final=True),
    ]
)
CHARGES: Final = st.sampled_from(
    [
        None,
        Unknown("timeout"),
        *(
            Declined("51", kind, is_final=True)
            for kind in (
                FailureKind.INSUFFICIENT_FUNDS,
                FailureKind.PROCESSING_ERROR,
                FailureKind.SERVICE_UNAVAILABLE,
                FailureKind.CARD_DECLINED,
            )
        ),
    ]
)
REFUND_ANSWERS: Final = st.sampled_from(
    [None, None, RefundPending("processing"), Unknown("timeout"), RefundFailed("too_old")]
)
#: More than any payment waits: its expiry, and the longest way between two looks after it.
LONG: Final = 26 * 3600

#: Rounds of looks after which nothing may wait any more.
ROUNDS_MAX: Final = 60


@dataclass
class Known:
    """What the model knows of one payment."""

    id: str
    key: str
    amount: int
    paid: list[Paid] = field(default_factory=list)
    #: Whether failures are followed by retries.
    is_automatic: bool = False
    #: An operator let it pass, whatever spoke against it.
    is_released: bool = False


class World:
    """One service for all stories: what one story leaves behind is none of another's business."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.payments: Payments = self.run(
            self._stack.enter_async_context(running_payments(database_url, redis_url))
        )
        self.keys = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end, in the loop that everything lives in."""
        return self._runner.run(work)

    def close(self) -> None:
        """End the service and the loop."""
        self.run(self._stack.aclose())
        self._runner.close()


class Stories(RuleBasedStateMachine):
    """The steps that a story is made of."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Known] = []
        #: Tries that the gateway declined for good: nobody can pay them.
        self.dead: set[str] = set()

    @property
    def payments(self) -> Payments:
        return self.world.payments

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.world.run(work)

    def row(self, known: Known) -> Any:
        (row,) = self.run(
            self.payments.rows("SELECT * FROM payments.payment WHERE id = $1", known.id)
        )
        return row

    @rule(amount=AMOUNTS, start=STARTS)
    @precondition(lambda self: len(self.known) < 3)
    def order(self, amount: int, start: Outcome | None) -> None:
        """A caller orders, and the gateway answers, or does not."""
        self.begin(amount, start, is_automatic=False)

    @rule(amount=AMOUNTS, start=CHARGES)
    @precondition(lambda self: len(self.known) < 3)
    def charge(self, amount: int, start: Outcome | None) -> None:
        """A caller has a card charged, with retries."""
        self.begin(amount, start, is_automatic=True)

    def begin(self, amount: int, start: Outcome | None, *, is_automatic: bool) -> None:
        self.world.keys += 1
        key = f"story-{self.world.keys}"
        with self.answering(start):
            reply = self.run(self.ask(key, amount, is_automatic=is_automatic))
        assert reply.status in {201, 422, 502, 503}, reply.json
        body = reply.json
        id_ = body["data"]["id"] if reply.status == 201 else body["error"]["details"]["paymentId"]
        self.known.append(Known(id_, key, amount, is_automatic=is_automatic))

    @contextmanager
    def answering(self, start: Outcome | None) -> Iterator[None]:
        """Let the gateway answer the next try so, and remember whether that has ended it."""
        gateway = self.payments.gateway
        gateway.next_starts, known = [] if start is None else [start], len(gateway.orders)
        yield
        for order in gateway.orders[known : known + 1]:
            if isinstance(start, Declined):
                self.dead.add(order.reference)
        gateway.next_starts = []

    async def ask(self, key: str, amount: int, *, is_automatic: bool) -> Reply:
        if is_automatic:
            return await process(self.payments, key, amount=amount)
        return await self.payments.post(key, amount=amount)

    @rule(data=st.data())
    @precondition(lambda self: self.known)
    def order_again(self, data: st.DataObject) -> None:
        """The caller repeats a request, as callers do after a time-out."""
        known = data.draw(st.sampled_from(self.known))
        reply = self.run(self.ask(known.key, known.amount, is_automatic=known.is_automatic))
        assert reply.status in {201, 422, 502, 503}, reply.json
        if reply.status == 201:
            assert reply.data["id"] == known.id

    @rule(start=CHARGES)
    def retry(self, start: Outcome | None) -> None:
        """The worker makes the retries that are due."""
        with self.answering(start):
            self.run(self.payments.retry())

    @rule(data=st.data(), kind=st.sampled_from(["right", "right", "right", "less", "risky"]))
    @precondition(lambda self: self.known)
    def pay(self, data: st.DataObject, kind: str) -> None:
        """A customer pays on the page, once; the gateway may doubt it, or take less."""
        known = data.draw(st.sampled_from(self.known))
        row = self.row(known)
        reference = row["reference"]
        is_open = any(order.reference == reference for order in self.payments.gateway.orders)
        # Gateways close their pages; what is paid after that only a notice can tell.
        is_over = self.payments.clock.now >= row["expires_at"]
        if known.paid or reference in self.dead or not is_open or is_over:
            return
        amount = Money(known.amount - 1, "BDT") if kind == "less" else None
        known.paid.append(
            self.payments.gateway.charge(reference, amount=amount, is_risky=kind == "risky")
        )

    @rule(data=st.data(), is_final=st.booleans())
    @precondition(lambda self: self.known)
    def decline(self, data: st.DataObject, *, is_final: bool) -> None:
        """A customer's try fails; where it is final, the page is closed."""
        known = data.draw(st.sampled_from(self.known))
        if not known.paid and not is_final:
            self.payments.gateway.decline(self.row(known)["reference"])

    @rule(
        data=st.data(),
        claim=st.sampled_from(["paid", "paid", "failed", "cancelled", "expired", "other"]),
        copies=st.integers(1, 3),
        is_wrong=st.booleans(),
    )
    @precondition(lambda self: self.known)
    def notify(self, data: st.DataObject, claim: str, copies: int, *, is_wrong: bool) -> None:
        """A notice comes, true or not, once or several times."""
        known = data.draw(st.sampled_from(self.known))
        handle = known.paid[0].validation_id if known.paid and not is_wrong else "val_of_nobody"
        payment = {"gatewayReference": self.row(known)["reference"]}
        if self.payments.gateway.is_silent and claim == "paid" and self.row(known)["state"] in {
            "failed", "cancelled", "on_hold",
        }:  # fmt: skip
            return  # Such a notice is repeated by its receiver until the gateway speaks.
        is_unfounded = claim == "paid" and (is_wrong or not known.paid)
        if is_unfounded and PaymentState(self.row(known)["state"]) in RESTING:
            return  # Nobody confirms it, so that its receiver repeats it.
        for _ in range(copies):
            self.run(self.payments.notify_of(payment, claim=claim, validation_id=handle))

    @rule(seconds=st.sampled_from([1, 30, 60, 600, 7_200, 90_000]))
    def wait(self, seconds: int) -> None:
        """Time passes, and the reconciler looks at what is due."""
        self.payments.clock.advance(seconds)
        self.run(self.payments.look())

    @rule()
    def toggle_outage(self) -> None:
        """The gateway stops answering questions, or answers again."""
        gateway = self.payments.gateway
        gateway.is_silent = not gateway.is_silent

    @rule(data=st.data(), share=st.sampled_from([1, 2, 3]), answer=REFUND_ANSWERS)
    @precondition(lambda self: any(known.paid for known in self.known))
    def refund(self, data: st.DataObject, share: int, answer: RefundOutcome | None) -> None:
        """An operator gives money back; what is too much, or too early, is refused."""
        known = data.draw(st.sampled_from([each for each in self.known if each.paid]))
        self.payments.gateway.next_refunds = [] if answer is None else [answer]
        reply = self.run(
            self.payments.try_refund({"id": known.id}, amount=max(1, known.amount // share))
        )
        assert reply.status in {201, 400, 409, 422}, reply.json

    @rule()
    def carry_out_refunds(self) -> None:
        """The worker takes up the refunds that are due."""
        self.run(self.payments.carry_out_refunds())

    @rule(data=st.data(), is_released=st.booleans())
    @precondition(lambda self: self.known)
    def hold_or_release(self, data: st.DataObject, *, is_released: bool) -> None:
        """An operator holds a payment, or releases it."""
        known = data.draw(st.sampled_from(self.known))
        action = "release" if is_released else "hold"
        path = f"/api/payments/{known.id}/{action}"
        reply = self.run(self.payments.api.call("POST", path, {"reason": "to be sure"}))
        assert reply.status in {200, 409}, reply.json
        known.is_released |= is_released and reply.status == 200

    def everything_due(self) -> list[Coroutine[Any, Any, int]]:
        payments = self.payments
        return [payments.look(), payments.retry(), payments.carry_out_refunds()]

    @invariant()
    def what_is_announced_was_paid_once_and_in_full(self) -> None:
        announced = self.run(self.payments.facts(PaymentSucceeded))
        for known in self.known:
            facts = [fact for fact in announced if fact["paymentId"] == known.id]
            row = self.row(known)
            assert len(facts) <= 1
            if row["state"] in {"succeeded", "partially_refunded"}:
                assert len(facts) == 1, "confirmed money was not announced"
            if facts:
                assert row["state"] in TAKEN | {PaymentState.ON_HOLD}
                assert facts[0]["amount"] == known.amount
                (paid,) = known.paid
                assert paid.amount.minor_units == known.amount or known.is_released

    @invariant()
    def never_more_goes_back_than_came(self) -> None:
        back = self.payments.gateway.given_back.values()
        for known in self.known:
            row = self.row(known)
            references = {paid.reference for paid in known.paid}
            given = sum(each.amount.minor_units for each in back
                        if each.payment_reference in references)  # fmt: skip
            assert given <= sum(paid.amount.minor_units for paid in known.paid)
            assert row["refunded_amount"] <= given
            assert row["refunded_amount"] + row["refund_reserved"] <= known.amount

    @invariant()
    def the_books_say_what_the_payments_say(self) -> None:
        wrong = self.run(self.payments.rows(WRONG_PAYMENTS, 5))
        assert [tuple(row) for row in wrong] == []

    @invariant()
    def what_waits_has_a_time(self) -> None:
        for known in self.known:
            row = self.row(known)
            if PaymentState(row["state"]) not in RESTING | {PaymentState.RETRY_SCHEDULED}:
                assert row["next_check_at"] is not None

    def teardown(self) -> None:
        """Let everything come to its end: then the truth is known of each payment."""
        receipts = key_of(receipts_queue("webhook"))
        # Nobody takes the receipts here, and each notice reads them all.
        self.run(forget(self.payments.core.redis, receipts, f"{receipts}.msgs"))
        gateway = self.payments.gateway
        gateway.is_silent, gateway.next_starts, gateway.next_refunds = False, [], []
        for known in self.known:
            path = f"/api/payments/{known.id}/release"
            if self.row(known)["reason"] == "held_by_operator":
                assert self.run(
                    self.payments.api.call("POST", path, {"reason": "the end"})
                ).status == 200  # fmt: skip
        for _ in range(ROUNDS_MAX):
            self.payments.clock.advance(LONG)
            found = sum(map(self.run, self.everything_due()))
            if not found:
                break
        else:
            pytest.fail("something is looked at for ever")
        for known in self.known:
            row = self.row(known)
            state = PaymentState(row["state"])
            assert state in RESTING, f"{state} after the end of all stories"
            assert row["refund_reserved"] == 0, "a refund is still under way"
            if known.paid:
                assert state in TAKEN | {PaymentState.ON_HOLD}, f"{state}, though it was paid"
            else:
                assert state in {PaymentState.FAILED, PaymentState.CANCELLED}


async def forget(client: redis.asyncio.Redis, *keys: str) -> None:
    await client.delete(*keys)


@pytest.fixture
def world(new_database: str, redis_url: str) -> Iterator[World]:
    made = World(new_database, redis_url)
    yield made
    made.close()


def test_every_promise_holds_after_each_step_of_any_story(world: World) -> None:
    Stories.world = world
    run_state_machine_as_test(
        Stories,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            # A story is short enough to be read as it was found.
            phases=[Phase.explicit, Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
