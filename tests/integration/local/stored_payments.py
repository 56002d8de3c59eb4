"""Payments as the services would have stored them, written by hand into their tables."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg

from shared.contracts.payments import PaymentSucceeded
from shared.contracts.webhook import NoticeReceived
from shared.identifiers import new_id

#: A moment in the past of whatever is stored.
START = datetime.now(UTC) - timedelta(seconds=20)

AMOUNT = 150_000

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Stored:
    """The names of one stored payment."""

    payment_id: str
    reference: str
    enrollment_id: str
    customer_id: str
    bank_id: str
    validation_id: str
    at: datetime

    @property
    def event_key(self) -> str:
        return f"{self.reference}:VALID:{self.validation_id}"

    @property
    def event_day(self) -> date:
        return self.at.date()


def new_names() -> Stored:
    number = next(_numbers)
    at = datetime.now(UTC) - timedelta(seconds=20)  # Not of the import: a suite takes its time.
    return Stored(
        payment_id=new_id("pay", at),
        reference=new_id("att", at),
        enrollment_id=new_id("enr", at),
        customer_id=f"customer-{number}",
        bank_id=f"bank-{number}",
        validation_id=f"val-{number}",
        at=at,
    )


@dataclass
class Tables:
    """A connection to each service's tables."""

    connections: dict[str, asyncpg.Connection[asyncpg.Record]] = field(default_factory=dict)

    async def execute(self, service: str, query: str, *arguments: Any) -> None:
        await self.connections[service].execute(query, *arguments)

    async def succeeded(self) -> Stored:
        """Store a payment that went through without a hitch."""
        names = new_names()
        await self.payment(names, "succeeded", bank_id=names.bank_id)
        await self.history(names, ["created", "pending", "succeeded"])
        await self.notice(names)
        await self.charge(names)
        await self.enrollment(names)
        return names

    async def held(self, *, charged: int = AMOUNT) -> Stored:
        """Store a payment that the gateway calls risky."""
        names = new_names()
        await self.payment(names, "on_hold", bank_id=names.bank_id)
        await self.history(names, ["created", "pending", "on_hold"])
        await self.notice(names)
        await self.charge(names, amount=charged)
        return names

    async def failed(self) -> Stored:
        """Store a payment that was declined."""
        names = new_names()
        await self.payment(names, "failed")
        await self.history(names, ["created", "pending", "failed"])
        await self.notice(names, claim="failed")
        return names

    async def pending(self) -> Stored:
        """Store a payment whose customer has not acted."""
        names = new_names()
        await self.payment(names, "pending", next_check_at=names.at + timedelta(minutes=5))
        await self.history(names, ["created", "pending"])
        return names

    async def payment(
        self,
        names: Stored,
        state: str,
        *,
        bank_id: str | None = None,
        next_check_at: datetime | None = None,
    ) -> None:
        await self.execute(
            "payments",
            """
            INSERT INTO payment (id, gateway, state, reason, amount, currency, customer_id,
                                 product_id, customer, reference, validation_id,
                                 gateway_payment_id, next_check_at, created_at, expires_at,
                                 updated_at)
            VALUES ($1, 'sslcommerz', $2, $3, $4, 'BDT', $5, 'course-1',
                    '{"name": "Rahim Uddin", "email": "rahim@example.com"}', $6, $7, $8, $9, $10,
                    $10::timestamptz + interval '1 day', $10)
            """,
            names.payment_id,
            state,
            "customer_must_pay" if state == "pending" else None,
            AMOUNT,
            names.customer_id,
            names.reference,
            names.validation_id,
            bank_id,
            next_check_at,
            names.at,
        )
        await self.execute(
            "payments",
            """
            INSERT INTO attempt (reference, payment_id, number, state, checkout_url, created_at)
            VALUES ($1, $2, 1, 'open', 'https://gateway.example/page', $3)
            """,
            names.reference,
            names.payment_id,
            names.at,
        )

        if bank_id is not None:
            await self.booked(names, credit="held" if state == "on_hold" else "revenue")

    async def booked(self, names: Stored, *, credit: str) -> None:
        """Store what the ledger has of a payment that took money."""
        await self.execute(
            "payments",
            """
            INSERT INTO ledger_transfer (payment_id, kind, occasion, debit, credit, amount,
                                         currency, reference)
            VALUES ($1, 'capture', '', 'gateway:sslcommerz', $2, $3, 'BDT', $4)
            """,
            names.payment_id,
            credit,
            AMOUNT,
            names.reference,
        )

    async def history(self, names: Stored, states: Sequence[str]) -> None:
        events = {"created": "created", "pending": "checkout_opened", "succeeded": "confirmed"}
        for number, state in enumerate(states):
            await self.execute(
                "payments",
                """
                INSERT INTO payment_history (payment_id, at, event, state, reason)
                VALUES ($1, $2, $3, $4, $5)
                """,
                names.payment_id,
                names.at + timedelta(seconds=number),
                events.get(state, "checked"),
                state,
                "customer_must_pay" if state == "pending" else None,
            )

    async def notice(self, names: Stored, *, claim: str = "paid") -> None:
        await self.execute(
            "webhook",
            """
            INSERT INTO inbound_event (gateway, event_key, event_day, source, claim, received_at,
                                       body, reference)
            VALUES ('sslcommerz', $1, $2, 'notice', $3, $4, 'tran_id=1&cus_name=Rahim', $5)
            """,
            names.event_key,
            names.event_day,
            claim,
            names.at + timedelta(seconds=1.5),
            names.reference,
        )

    async def charge(self, names: Stored, *, amount: int = AMOUNT) -> None:
        """Let the gateway take money, which opens its session if there is none."""
        await self.session(names)
        await self.execute(
            "simulator",
            """
            INSERT INTO charge (gateway, reference, val_id, gateway_payment_id, amount, currency,
                                currency_amount, currency_type, risk_level, charged_at)
            VALUES ('sslcommerz', $1, $2, $3, $4, 'BDT', $4, 'BDT', 0, $5)
            """,
            names.reference,
            names.validation_id,
            names.bank_id,
            amount,
            names.at + timedelta(seconds=1),
        )

    async def session(self, names: Stored) -> None:
        await self.execute(
            "simulator",
            """
            INSERT INTO session (session_key, tran_id, state, price_amount, price_currency,
                                 charge_amount, rate, store_id, product_name, success_url,
                                 fail_url, cancel_url, ipn_url, echoed, created_at, expires_at)
            VALUES ($1, $1, 'paid', $2, 'BDT', $2, 1, 'store', 'Course', 'http://shop.example/s',
                    'http://shop.example/f', 'http://shop.example/c', 'http://shop.example/n',
                    '{"", "", "", ""}', $3, $3)
                ON CONFLICT DO NOTHING
            """,
            names.reference,
            AMOUNT,
            names.at,
        )

    async def enrollment(self, names: Stored) -> None:
        await self.execute(
            "enrollment",
            """
            INSERT INTO enrollment (id, customer_id, product_id, payment_id, state)
            VALUES ($1, $2, 'course-1', $3, 'active')
            """,
            names.enrollment_id,
            names.customer_id,
            names.payment_id,
        )
        await self.execute(
            "enrollment",
            """
            INSERT INTO enrollment_history (enrollment_id, at, event, payment_id)
            VALUES ($1, $2, 'granted', $3)
            """,
            names.enrollment_id,
            names.at + timedelta(seconds=4),
            names.payment_id,
        )

    async def notice_message(self, names: Stored, *, age_seconds: int = 0) -> None:
        """Store the message of a notice, as if sent so long ago."""
        message = NoticeReceived(
            gateway="sslcommerz",
            reference=names.reference,
            claim="paid",
            validation_id=names.validation_id,
            amount=AMOUNT,
            currency="BDT",
            received_at=names.at + timedelta(seconds=1.5),
        )
        await self.message(
            "webhook", "payments.medium", message.name, message.encode(), age_seconds=age_seconds
        )

    async def success_message(self, names: Stored) -> None:
        """Store the announcement of a success."""
        message = PaymentSucceeded(
            payment_id=names.payment_id,
            customer_id=names.customer_id,
            product_id="course-1",
            amount=AMOUNT,
            currency="BDT",
            noticed_at=names.at,
        )
        await self.message("payments", "enrollment.grants", message.name, message.encode())

    async def message(
        self, service: str, queue: str, name: str, payload: str, *, age_seconds: int = 0
    ) -> None:
        await self.execute(
            service,
            """
            INSERT INTO outbox (queue, message_name, payload, send_again_at)
            VALUES ($1, $2, $3, clock_timestamp() + make_interval(secs => 30 - $4::int))
            """,
            queue,
            name,
            payload,
            age_seconds,
        )

    async def dead_letter(self, service: str, name: str, payload: str, reason: str) -> None:
        await self.execute(
            service,
            """
            INSERT INTO dead_letter (queue, sender, message_id, message_name, payload, reason)
            VALUES ('queue', 'sender', $1, $2, $3, $4)
            """,
            next(_numbers),
            name,
            payload,
            reason,
        )


@asynccontextmanager
async def open_tables(url: str) -> AsyncIterator[Tables]:
    async with AsyncExitStack() as stack:
        tables = Tables()
        for service in ("webhook", "payments", "enrollment", "scheduler", "simulator"):
            connection = await asyncpg.connect(url, server_settings={"search_path": service})
            stack.push_async_callback(connection.close)
            tables.connections[service] = connection
        yield tables
