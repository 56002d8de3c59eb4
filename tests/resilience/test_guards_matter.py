"""The tests of the tests: without one of its guards, Sluice fails the checks that it passes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from deploy.local.postgres_server import PostgresServer
from tests.resilience import mutants, scenarios
from tests.resilience.mutants import Mutation, copy_without
from tests.resilience.scenarios import World
from tests.support.databases import fresh_database
from tests.support.promises import BrokenPromiseError
from tests.support.supervised_stack import supervised_stack
from tests.support.traffic import Traffic

STATE_TEST: Final = (
    "tests/contract/test_payment_states.py::test_the_database_allows_exactly_the_steps_of_the_table"
)

#: What is removed, what shows it, and what is then found.
CASES: Final[Mapping[str, tuple[Mutation, Callable[[World], None], str]]] = {
    "resend": (mutants.RESEND, scenarios.redis_refuses, "has no enrollment"),
    "unique enrollment": (
        mutants.ENROLLMENT_UNIQUE,
        scenarios.two_payments_for_one_product,
        "is enrolled twice",
    ),
    "unique event": (
        mutants.EVENT_UNIQUE,
        scenarios.one_notice_five_times,
        "is stored 5 times",
    ),
    "version": (mutants.VERSION, scenarios.two_notices_race, "has more than one success"),
    "acknowledge after commit": (
        mutants.ACKNOWLEDGE_AFTER_COMMIT,
        scenarios.notices_while_postgres_is_away,
        "the acknowledged notice of .* is not stored",
    ),
    "receipt after commit": (
        mutants.RECEIPT_AFTER_COMMIT,
        scenarios.death_before_the_commit,
        "has no enrollment",
    ),
}


@contextmanager
def world_of(
    environment: Mapping[str, str], postgres: PostgresServer, redis_url: str
) -> Iterator[World]:
    with fresh_database(postgres) as database_url:
        given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        with (
            supervised_stack({**environment, **given}, split=False) as stack,
            Traffic(stack.local.url, stack.local.api_key, seed=9, count=0) as traffic,
        ):
            yield World(stack, traffic, postgres, redis_url)


def test_with_every_guard_all_ends_well(postgres: PostgresServer, redis_url: str) -> None:
    with world_of({}, postgres, redis_url) as world:
        for _, scenario, _ in CASES.values():
            with world.stack.fault(scenario.__name__):
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


def test_a_missing_state_guard_is_noticed(tmp_path: Path) -> None:
    environment = copy_without(mutants.STATE_TRIGGER, tmp_path, "tests", "pyproject.toml")

    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", STATE_TEST],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome.returncode == pytest.ExitCode.TESTS_FAILED, outcome.stdout + outcome.stderr
    assert "AssertionError" in outcome.stdout or "assert {" in outcome.stdout, outcome.stdout
    assert "1 failed" in outcome.stdout
