"""Short scenarios of subscriptions that need one guard each, and what they are made of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from shared.contracts.scheduler import AccessGranted
from tests.resilience.scenarios import pushes_refused
from tests.support.blocking import execute, run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import BrokenPromiseError
from tests.support.subscribers import Subscriber, Subscribers, month

#: The services whose messages are about subscriptions.
SENDERS: Final = ("scheduler", "payments")

#: How long after a scenario all must have come right.
SETTLED_SECONDS: Final = 10.0

#: Wait before the first resend, where a scenario loses what is sent.
RESEND_SECONDS: Final = 3

#: Where it must be overtaken by what is said meanwhile.
OVERTAKEN_SECONDS: Final = 7

#: How much later the second copy of a message comes: up to this.
COPY_SECONDS: Final = 1.5

#: That of an access which was given: when it is taken away by then, and that was said twice.
LATE_COPY_SECONDS: Final = 7

#: The gateway has the order, and its answer is on the way.
SLOW_SECONDS: Final = 2

# Of every message the first receipt is lost: it is sent again, under the same number, and its
# receiver handles it a second time, after what may have been sent meanwhile.
_LOSE_FIRST_RECEIPT: Final = """
    CREATE FUNCTION {service}.lose_first_receipt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE {service}.outbox
           SET sends = 2,
               send_again_at = clock_timestamp() + CASE OLD.message_name
                   WHEN '{granted}' THEN interval '{late_seconds} seconds'
                   ELSE random() * interval '{seconds} seconds'
               END
         WHERE id = OLD.id;
        RETURN NULL;
    END
    $$;
    CREATE TRIGGER lose_first_receipt BEFORE DELETE ON {service}.outbox
       FOR EACH ROW
      WHEN (OLD.sends = 1)
   EXECUTE FUNCTION {service}.lose_first_receipt();
"""

_FIND_RECEIPTS_AGAIN: Final = """
    DROP TRIGGER lose_first_receipt ON {service}.outbox;
    DROP FUNCTION {service}.lose_first_receipt();
"""

_RESEND_SOON: Final = """
    ALTER TABLE {service}.outbox ALTER COLUMN send_again_at
      SET DEFAULT clock_timestamp() + interval '{seconds} seconds'
"""

# In one statement, which sees one moment: what leaves one of these is in the next one by then.
_UNDER_WAY: Final = """
    SELECT (SELECT count(*) FROM scheduler.outbox)
         + (SELECT count(*) FROM payments.outbox)
         + (SELECT count(*)
              FROM payments.payment
             WHERE subscription_id IS NOT NULL
               AND next_check_at IS NOT NULL)
"""

_HISTORY: Final = """
    SELECT count(*)
      FROM scheduler.subscription_history
     WHERE event = $1
       AND subscription_id = $2
"""


@dataclass(frozen=True, slots=True)
class SubscriptionWorld:
    """A running stack and those who subscribe there."""

    subscribers: Subscribers
    redis_url: str

    @property
    def database_url(self) -> str:
        return self.subscribers.stack.local.database_url

    def settle(self, months: int) -> None:
        """Check that everybody has paid each period once when so many months have gone by."""
        self.subscribers.keep_promises(months, time.monotonic() + SETTLED_SECONDS)


def resend_soon(database_url: str, seconds: int = RESEND_SECONDS) -> None:
    """Shorten the wait before the first resend, so that a scenario takes seconds."""
    for service in SENDERS:
        execute(database_url, _RESEND_SOON.format(service=service, seconds=seconds))


@contextmanager
def every_message_twice(database_url: str) -> Iterator[None]:
    """Deliver every message twice, the second time late, until the context ends."""
    for service in SENDERS:
        losing = _LOSE_FIRST_RECEIPT.format(
            service=service,
            granted=AccessGranted.name,
            seconds=COPY_SECONDS,
            late_seconds=LATE_COPY_SECONDS,
        )
        execute(database_url, losing)
    yield
    for service in SENDERS:
        execute(database_url, _FIND_RECEIPTS_AGAIN.format(service=service))


def wait_until_quiet(database_url: str) -> None:
    """Wait until every message was handled, no copy is on its way, and every charge has an end."""
    eventually_blocking(
        lambda: run_blocking(_value(database_url, _UNDER_WAY)) == 0, timeout_seconds=30
    )


def wait_for(
    world: SubscriptionWorld, event: str, subscriber: Subscriber, *, times: int = 1
) -> None:
    """Wait until something has happened to a subscription so many times."""
    arguments = (event, subscriber.subscription_id)
    eventually_blocking(
        lambda: run_blocking(_value(world.database_url, _HISTORY, *arguments)) >= times
    )


async def _value(url: str, query: str, *arguments: object) -> int:
    connection = await asyncpg.connect(url)
    try:
        value: int = await connection.fetchval(query, *arguments)
    finally:
        await connection.close()
    return value


def messages_come_twice(world: SubscriptionWorld) -> None:
    """Say everything twice, the second time late: orders, outcomes, and who may use what."""
    subscribers = world.subscribers
    plan, clock = subscribers.plan(), subscribers.clock()
    with every_message_twice(world.database_url):
        made = subscribers.subscribe(plan, clock, 8)
        for leaving in made[:4]:
            # What gave them their access comes once more when they are gone.
            wait_for(world, "paid", leaving)
            subscribers.cancel(leaving)
        subscribers.advance(clock, month(1))
        subscribers.wait_until_ready(clock)
        wait_until_quiet(world.database_url)
    world.settle(1)


def cancelled_before_the_order_came(world: SubscriptionWorld) -> None:
    """Lose an order on its way, and cancel it before it is sent again: nobody may be charged."""
    subscribers = world.subscribers
    resend_soon(world.database_url, OVERTAKEN_SECONDS)
    plan, clock = subscribers.plan(), subscribers.clock()
    (leaving,) = subscribers.subscribe(plan, clock, 1)
    wait_for(world, "paid", leaving)
    wait_until_quiet(world.database_url)
    paid = subscribers.paid_periods()
    with pushes_refused(world.redis_url):
        subscribers.advance(clock, month(1))
        wait_for(world, "period_opened", leaving, times=2)
    subscribers.cancel(leaving)
    subscribers.wait_until_ready(clock)
    wait_until_quiet(world.database_url)
    if subscribers.paid_periods() > paid:
        raise BrokenPromiseError(f"{leaving.subscription_id} paid when it was cancelled")
    world.settle(1)


def cancelled_in_flight(world: SubscriptionWorld) -> None:
    """Cancel while the gateway takes the money: it is known, and gives no access."""
    subscribers = world.subscribers
    slow = {"operation": "create", "behaviour": "slow", "delaySeconds": SLOW_SECONDS, "times": 1}
    subscribers.call("POST", "/simulator/stripe/script", slow)
    plan, clock = subscribers.plan(), subscribers.clock()
    (leaving,) = subscribers.subscribe(plan, clock, 1)
    wait_for(world, "charge_accepted", leaving)
    subscribers.cancel(leaving)
    wait_for(world, "paid_after_end", leaving)
    wait_until_quiet(world.database_url)
    world.settle(0)


def all_are_due_at_once(world: SubscriptionWorld) -> None:
    """Let so many be due at the same moment that several take them up at once."""
    subscribers = world.subscribers
    plan = subscribers.plan(months=12)
    soon = datetime.now(UTC) + timedelta(seconds=4)
    subscribers.subscribe(plan, None, 20, start_at=soon)
    world.settle(0)
