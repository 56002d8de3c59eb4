"""Subscriptions are billed while processes die, servers forget and the gateway hangs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

import redis

from tests.resilience.subscription_scenarios import resend_soon
from tests.support.blocking import execute
from tests.support.promises import RECOVERY_SECONDS
from tests.support.subscribers import EMPTY_CARD, Subscribers, month
from tests.support.supervised_stack import SupervisedStack, outlast, supervised_stack

#: Those who pay every month, and months that pass while one fault strikes.
SUBSCRIBERS: Final = 40
MONTHS: Final = 3

#: Periods that are paid before a fault strikes, so that it does so in mid-stream.
MID_STREAM: Final = 20

STALL_SECONDS: Final = 5.0

#: Shorter than the stall, so that calls in flight fail.
SETTINGS: Final = {
    "GATEWAY_TIMEOUT_SECONDS": "3",
    "PAYMENT_FIRST_CHECK_AFTER": "PT3S",
    "RETRY_LOCK_TIMEOUT": "PT12S",
}

#: Amounts by which the simulated Stripe misbehaves: it answers 500 and has done nothing; it takes
#: the money and drops the connection; it tells of each payment five times.
BAD_AMOUNTS: Final = (1_014, 1_015, 1_006)

#: These take seconds: such plans bill seldom.
BAD_MONTHS: Final = 9


_FREE_KEYS: Final = (
    "UPDATE simulator.stripe_idempotency SET leased_until = now() WHERE status IS NULL"
)


def kill(process: str) -> Callable[[SupervisedStack], None]:
    return lambda stack: stack.kill(process)


def flush(stack: SupervisedStack) -> None:
    with stack.fault("FLUSHALL"), redis.Redis.from_url(stack.redis.url()) as client:
        client.flushall()


def restart_postgres(stack: SupervisedStack) -> None:
    with stack.fault("restart of PostgreSQL"):
        stack.postgres.restart()
        # The simulated gateway stands on it as well, which a real one does not: a request that died
        # there holds its key for a minute.
        execute(stack.local.database_url, _FREE_KEYS)


def stall_the_gateway(stack: SupervisedStack) -> None:
    with stack.fault("gateway stalled"):
        gateway = stack.local.processes["simulator-http"].pid
        os.kill(gateway, signal.SIGSTOP)
        with outlast(STALL_SECONDS):
            pass
        os.kill(gateway, signal.SIGCONT)


FAULTS: Final[tuple[Callable[[SupervisedStack], None], ...]] = (
    kill("scheduler-worker"),
    kill("payments-worker"),
    flush,
    kill("enrollment-worker"),
    restart_postgres,
    stall_the_gateway,
)


def test_whatever_fails_no_period_is_doubled_or_missed() -> None:
    with supervised_stack(SETTINGS) as stack:
        subscribers = Subscribers(stack)
        resend_soon(stack.local.database_url)
        clock = subscribers.clock()
        subscribers.subscribe(subscribers.plan(), clock, SUBSCRIBERS)
        for amount in BAD_AMOUNTS:
            subscribers.subscribe(subscribers.plan(amount, months=BAD_MONTHS), clock, 3)
        subscribers.subscribe(subscribers.plan(2_000), clock, 2, card=EMPTY_CARD)
        subscribers.wait_until_ready(clock)

        for number, strike in enumerate(FAULTS, start=1):
            subscribers.advance(clock, month(MONTHS * number))
            subscribers.wait_for_more_paid(MID_STREAM)
            strike(stack)
            subscribers.wait_until_ready(clock)

        subscribers.keep_promises(MONTHS * len(FAULTS), stack.last_fault_at + RECOVERY_SECONDS)
