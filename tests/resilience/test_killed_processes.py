"""SIGKILL of each kind of process while customers are buying."""

from __future__ import annotations

from typing import Final

from tests.support.promises import settle
from tests.support.supervised_stack import supervised_stack
from tests.support.traffic import Traffic

#: A creation that dies with payments-http holds its idempotency key for a minute: it goes first.
VICTIMS: Final = (
    "payments-http",
    "payments-worker",
    "webhook-http",
    "webhook-worker",
    "enrollment-worker",
    "simulator-http",
)


def test_the_sudden_death_of_any_process_loses_and_doubles_nothing() -> None:
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=1) as traffic,
    ):
        for victim in VICTIMS:
            traffic.wait_for_more(30)
            stack.kill(victim)
        traffic.wait_for_more(30)

        settle(stack, traffic)
