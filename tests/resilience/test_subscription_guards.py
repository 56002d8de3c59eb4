"""Subscriptions without one of their guards fail the checks that they pass with all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from deploy.local.postgres_server import PostgresServer
from tests.resilience import mutants
from tests.resilience import subscription_scenarios as scenarios
from tests.resilience.mutants import Mutation, copy_without
from tests.resilience.subscription_scenarios import SubscriptionWorld
from tests.support.databases import fresh_database
from tests.support.promises import BrokenPromiseError
from tests.support.subscribers import Subscribers
from tests.support.supervised_stack import supervised_stack

#: What is removed, what shows it, and what is then found.
CASES: Final[Mapping[str, tuple[Mutation, Callable[[SubscriptionWorld], None], str]]] = {
    "an outcome is recorded once": (
        mutants.OUTCOME_ONCE,
        scenarios.messages_come_twice,
        "periods were paid twice",
    ),
    "the latest word about access holds": (
        mutants.ACCESS_SEQUENCE,
        scenarios.messages_come_twice,
        "the enrollment of .* is active",
    ),
    "what is cancelled is not charged later": (
        mutants.CANCELLED_UNHEARD,
        scenarios.cancelled_before_the_order_came,
        "paid when it was cancelled",
    ),
    "a subscription is claimed once": (
        mutants.CLAIMED_ONCE,
        scenarios.all_are_due_at_once,
        "has period 0 twice",
    ),
}


@contextmanager
def world_of(
    environment: Mapping[str, str], postgres: PostgresServer, redis_url: str
) -> Iterator[SubscriptionWorld]:
    with fresh_database(postgres) as database_url:
        given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        with supervised_stack({**environment, **given}, split=False) as stack:
            yield SubscriptionWorld(Subscribers(stack), redis_url)


def test_with_every_guard_all_ends_well(postgres: PostgresServer, redis_url: str) -> None:
    with world_of({}, postgres, redis_url) as world:
        shown = dict.fromkeys(scenario for _, scenario, _ in CASES.values())
        for scenario in (*shown, scenarios.cancelled_in_flight):
            world.subscribers.everybody.clear()
            with world.subscribers.stack.fault(scenario.__name__):
                scenario(world)


@pytest.mark.parametrize("guard", CASES)
def test_a_missing_guard_is_noticed(
    postgres: PostgresServer, redis_url: str, tmp_path: Path, guard: str
) -> None:
    mutation, scenario, finding = CASES[guard]
    environment = copy_without(mutation, tmp_path)

    with (
        world_of(environment, postgres, redis_url) as world,
        pytest.raises(BrokenPromiseError, match=finding),
    ):
        scenario(world)
