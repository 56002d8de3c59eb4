"""Customers with subscriptions on test clocks, over HTTP, and what was promised to them."""

from __future__ import annotations

import itertools
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import asyncpg
import orjson

from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import EXAMPLES_MAX, Broken, BrokenPromiseError, audit_cleanly
from tests.support.supervised_stack import SupervisedStack

#: Period 0 of everybody begins on a day that most months do not have.
START: Final = datetime(2026, 1, 31, 9, tzinfo=UTC)

#: The last days of the months from January 2026 on.
_LAST_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

#: Longer than the services' own time-outs.
REQUEST_SECONDS: Final = 25.0

#: Longest that a request is repeated for want of an answer.
ANSWERED_SECONDS: Final = 40.0

REPEAT_SECONDS: Final = 0.2

#: Requests that are sent side by side.
TOGETHER_MAX: Final = 8

#: How long a clock may take to do what is due, faults included.
READY_SECONDS: Final = 60.0

GOOD_CARD: Final = "pm_card_visa"
EMPTY_CARD: Final = "pm_card_chargeDeclinedInsufficientFunds"

T = TypeVar("T")
R = TypeVar("R")


def month(number: int) -> datetime:
    """Return when period `number` begins: at nine on the last day of a month."""
    year, index = divmod(number, 12)
    return START.replace(year=START.year + year, month=index + 1, day=_LAST_DAYS[index])


@dataclass(slots=True)
class Subscriber:
    """One customer with one subscription."""

    customer_id: str
    subscription_id: str
    product_id: str
    #: None: they live in the real time, and are in their first period for years.
    clock_id: str | None
    #: How long a period is.
    months: int
    #: Whether their means of payment ever pays.
    pays: bool
    #: Whether they have cancelled.
    is_gone: bool = False


class RefusedError(Exception):
    """The answer is no success."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body.decode()}")
        self.status = status


@dataclass
class Subscribers:
    """Everybody who subscribes to one stack, and the requests of their shop."""

    stack: SupervisedStack
    everybody: list[Subscriber] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, path: str, body: Any = None, *, waits_for: int = 0) -> Any:
        """Return the data of a success; repeat what is not answered, under one idempotency key.

        Args:
            method: Of HTTP.
            path: Below the one address.
            body: What becomes the JSON text.
            waits_for: A status that will pass, because a message is on its way.

        Raises:
            RefusedError: by the answer, which will not change.
        """
        name = f"subscribers-{next(self._numbers)}"
        deadline = time.monotonic() + ANSWERED_SECONDS
        while True:
            try:
                return self._once(method, path, body, name)
            except RefusedError as answer:
                is_passing = answer.status in {429, waits_for} or answer.status >= 500
                # One that died with its process holds its key.
                is_held = answer.status == 409 and b"in_progress" in str(answer).encode()
                if not (is_passing or is_held) or time.monotonic() > deadline:
                    raise
                if answer.status == waits_for:
                    name = f"subscribers-{next(self._numbers)}"
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(REPEAT_SECONDS)

    def _once(self, method: str, path: str, body: Any, name: str) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own stack
            self.stack.local.url + path,
            data=None if body is None else orjson.dumps(body),
            method=method,
            headers={
                "Authorization": f"Bearer {self.stack.local.api_key}",
                "Content-Type": "application/json",
                "Idempotency-Key": name,
            },
        )
        try:
            with urllib.request.urlopen(  # noqa: S310 - our own stack
                request, timeout=REQUEST_SECONDS
            ) as response:
                return orjson.loads(response.read())["data"]
        except urllib.error.HTTPError as error:
            raise RefusedError(error.code, error.read()) from error

    def each(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Do something for each, side by side."""
        with ThreadPoolExecutor(TOGETHER_MAX) as pool:
            return list(pool.map(work, items))

    def plan(self, amount: int = 1_000, *, months: int = 1) -> str:
        """Make a plan and return its id. Its product is named by the amount."""
        body = {
            "name": f"Every {months} months",
            "product": {"id": f"course-{amount}", "name": "Course"},
            "amount": amount,
            "currency": "USD",
            "interval": {"unit": "month", "count": months},
            "gateway": "stripe",
        }
        return str(self.call("POST", "/api/plans", body)["id"])

    def clock(self) -> str:
        """Make a test clock that stands just before everybody's first period."""
        return str(
            self.call("POST", "/api/test-clocks", {"name": "faults", "now": _text(START)})["id"]
        )

    def subscribe(
        self,
        plan: str,
        clock: str | None,
        count: int,
        *,
        card: str = GOOD_CARD,
        start_at: datetime = START,
    ) -> list[Subscriber]:
        """Let so many new customers subscribe, all from the same moment on."""
        shown = self.call("GET", f"/api/plans/{plan}")

        def one(number: int) -> Subscriber:
            customer = f"customer-{number}"
            method = self.call("POST", "/api/payment-methods", _method(customer, card))
            body = {
                "customerId": customer,
                "planId": plan,
                "paymentMethodId": method["id"],
                "startAt": _text(start_at),
            }
            if clock is not None:
                body["testClockId"] = clock
            # The scheduler answers 503 as long as it has not heard of the means of payment.
            made = self.call("POST", "/api/subscriptions", body)
            return Subscriber(
                customer_id=customer,
                subscription_id=made["id"],
                product_id=shown["product"]["id"],
                clock_id=clock,
                months=shown["interval"]["count"],
                pays=card == GOOD_CARD,
            )

        made = self.each(one, [next(self._numbers) for _ in range(count)])
        self.everybody += made
        return made

    def cancel(self, leaving: Subscriber) -> None:
        """End a subscription at once."""
        path = f"/api/subscriptions/{leaving.subscription_id}/cancel"
        # On a clock that is advancing it is not known yet what it finds.
        self.call("POST", path, {"atPeriodEnd": False}, waits_for=409)
        leaving.is_gone = True

    def advance(self, clock: str, to: datetime) -> None:
        """Let it become later; what is due happens while this returns already."""
        self.call("POST", f"/api/test-clocks/{clock}/advance", {"to": _text(to)})

    def wait_until_ready(self, clock: str, *, timeout_seconds: float = READY_SECONDS) -> None:
        """Wait until all that is due on a clock has happened."""

        def is_ready() -> bool:
            return bool(self.call("GET", f"/api/test-clocks/{clock}")["state"] == "ready")

        eventually_blocking(is_ready, timeout_seconds=timeout_seconds)

    def paid_periods(self) -> int:
        """Count what is paid so far."""
        return run_blocking(_count_paid(self.stack.local.database_url))

    def wait_for_more_paid(self, count: int, *, timeout_seconds: float = 40.0) -> None:
        """Wait until so many more periods are paid than now: charges are in mid-stream then."""
        wanted = self.paid_periods() + count
        eventually_blocking(lambda: self.paid_periods() >= wanted, timeout_seconds=timeout_seconds)

    def keep_promises(self, months: int, deadline: float) -> None:
        """Wait until everybody is billed and has paid as promised.

        Args:
            months: How many have gone by on everybody's clock since `START`.
            deadline: On the monotonic clock.

        Raises:
            BrokenPromiseError: something is doubled, or still missing at the deadline, or the
                audit finds a violation.
        """
        broken = Broken()

        def is_settled() -> bool:
            nonlocal broken
            url = self.stack.local.database_url
            broken = run_blocking(find_broken(url, self.everybody, months))
            return bool(broken.doubled) or not broken.lost or time.monotonic() > deadline

        timeout = max(0.0, deadline - time.monotonic()) + 30
        eventually_blocking(is_settled, timeout_seconds=timeout)
        if problems := broken.doubled or broken.lost:
            what = "doubled" if broken.doubled else "missing"
            raise BrokenPromiseError(
                f"{len(problems)} {what} of {len(self.everybody)} subscriptions:\n"
                + "\n".join(problems[:EXAMPLES_MAX])
            )
        audit_cleanly(self.stack.local.environment)


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _method(customer: str, card: str) -> dict[str, Any]:
    return {
        "gateway": "stripe",
        "customer": {"id": customer},
        "method": {"type": "card", "paymentMethod": card, "gatewayCustomer": f"cus_{customer[9:]}"},
    }


_PAID: Final = "SELECT count(*) FROM scheduler.billing_cycle WHERE state = 'paid'"

_CYCLES: Final = """
    SELECT subscription_id, number, periods, period_start, period_end, state, payment_id
      FROM scheduler.billing_cycle
     ORDER BY subscription_id, period_start, number
"""

_CHARGES: Final = """
    SELECT subscription_id, payment.id AS payment_id, count(*) AS count
      FROM simulator.charge
      JOIN payments.attempt ON attempt.reference = charge.reference
      JOIN payments.payment ON payment.id = attempt.payment_id
     WHERE subscription_id IS NOT NULL
     GROUP BY subscription_id, payment.id
"""

_ENROLLMENTS: Final = "SELECT customer_id, product_id, state FROM enrollment.enrollment"

_SURPLUS: Final = "SELECT count(*) FROM scheduler.subscription_history WHERE event = 'paid_twice'"


async def _count_paid(url: str) -> int:
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (OSError, asyncpg.PostgresError):
        return 0  # It may be restarting: nobody knows.
    try:
        count: int = await connection.fetchval(_PAID)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return 0
    finally:
        await connection.close()
    return count


async def find_broken(url: str, everybody: Sequence[Subscriber], months: int) -> Broken:
    """Compare what was promised to everybody with the tables of all services."""
    connection = await asyncpg.connect(url, timeout=10)
    try:
        # Causes are read before their effects, so that nothing that is just happening looks lost.
        charges: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for row in await connection.fetch(_CHARGES):
            charges[row["subscription_id"]][row["payment_id"]] = row["count"]
        cycles = defaultdict(list)
        for row in await connection.fetch(_CYCLES):
            cycles[row["subscription_id"]].append(row)
        enrollments = defaultdict(list)
        for row in await connection.fetch(_ENROLLMENTS):
            enrollments[row["customer_id"], row["product_id"]].append(row["state"])
        surplus = await connection.fetchval(_SURPLUS)
    finally:
        await connection.close()
    broken = Broken()
    if surplus:
        broken.doubled.append(f"{surplus} periods were paid twice")
    for each in everybody:
        _check_cycles(broken, each, cycles[each.subscription_id], months)
        _check_charges(broken, each, cycles[each.subscription_id], charges[each.subscription_id])
        has_access = enrollments[each.customer_id, each.product_id]
        wanted = "active" if each.pays and not each.is_gone else "revoked"
        if len(has_access) > 1:
            broken.doubled.append(f"{each.subscription_id} is enrolled twice")
        elif has_access != [wanted] and (has_access or wanted == "active"):
            found = has_access[0] if has_access else "none"
            broken.lost.append(f"the enrollment of {each.subscription_id} is {found}")
    return broken


def _check_cycles(
    broken: Broken, each: Subscriber, cycles: Sequence[asyncpg.Record], months: int
) -> None:
    subject = each.subscription_id
    periods = 1 if each.clock_id is None else 1 + months // each.months
    numbers = Counter(cycle["number"] for cycle in cycles)
    broken.doubled += [f"{subject} has period {n} twice" for n in numbers if numbers[n] > 1]
    for number, cycle in enumerate(cycles if each.clock_id is not None else ()):
        start, end = month(number * each.months), month((number + 1) * each.months)
        found = (cycle["number"], cycle["periods"], cycle["period_start"], cycle["period_end"])
        if found != (number, 1, start, end):
            broken.doubled.append(f"{subject} has period {number} as {dict(cycle)}")
            return
    if each.is_gone:
        return
    if len(cycles) > periods:
        broken.doubled.append(f"{subject} has {len(cycles)} periods of {periods}")
    if each.pays:
        paid = sum(cycle["state"] == "paid" for cycle in cycles)
        if paid < periods:
            states = [cycle["state"] for cycle in cycles if cycle["state"] != "paid"]
            broken.lost.append(f"{subject} has {paid} of {periods} periods paid, others: {states}")


def _check_charges(
    broken: Broken,
    each: Subscriber,
    cycles: Sequence[asyncpg.Record],
    charges: Counter[str],
) -> None:
    subject = each.subscription_id
    paid = {cycle["payment_id"] for cycle in cycles if cycle["state"] == "paid"}
    for payment_id, count in charges.items():
        if count > 1:
            broken.doubled.append(f"{payment_id} of {subject} was charged {count} times")
    if len(charges) > len(cycles):
        broken.doubled.append(f"{subject} was charged for {len(charges)} of {len(cycles)} periods")
    if unpaid := charges.keys() - paid:
        broken.lost.append(f"{subject} does not know that it paid {sorted(unpaid)}")
    if uncharged := paid - charges.keys():
        broken.doubled.append(f"{subject} was not charged for {sorted(map(str, uncharged))}")
    if charges and not each.pays:
        broken.doubled.append(f"{subject} cannot pay, but was charged")
