"""The magic amounts choose what their table says, and nothing is scripted that cannot happen."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest

from services.simulator.behaviours import DELAY_SECONDS, Behaviour, fault
from services.simulator.sslcommerz import domain
from services.simulator.sslcommerz.domain import (
    BEHAVIOURS,
    ERRORS,
    FATES,
    MAGIC,
    PENDING,
    PLAIN,
    STATE_AFTER,
    Operation,
    Scenario,
    SessionState,
    Status,
    scenario_of,
    to_charge,
)
from shared.money import Money


@pytest.mark.parametrize("minor_units", [100_000, 100_050, 99_999, 115_000, 100_019, 1_000])
def test_a_plain_amount_is_paid_without_a_fault(minor_units: int) -> None:
    scenario = scenario_of(Money(minor_units, "BDT"))

    assert scenario is PLAIN
    assert scenario.outcome is Status.VALID
    assert (scenario.session, scenario.validate, scenario.notice) == (None, None, None)


@pytest.mark.parametrize(("decimals", "scenario"), MAGIC.items())
def test_the_decimals_alone_choose_the_scenario(decimals: int, scenario: Scenario) -> None:
    assert scenario is scenario_of(Money(1_000_00 + decimals, "BDT"))
    assert scenario is scenario_of(Money(77_00 + decimals, "USD"))


@pytest.mark.parametrize("scenario", MAGIC.values(), ids=lambda scenario: scenario.description)
def test_a_magic_amount_uses_only_behaviours_of_the_operation(scenario: Scenario) -> None:
    chosen = {
        Operation.SESSION: scenario.session,
        Operation.VALIDATE: scenario.validate,
        Operation.NOTICE: scenario.notice,
    }
    for operation, chance in chosen.items():
        assert chance is None or chance.behaviour in BEHAVIOURS[operation]


def test_no_two_magic_amounts_do_the_same() -> None:
    assert len(MAGIC) == len({scenario.description for scenario in MAGIC.values()})


def test_a_validation_fails_as_often_as_the_table_says() -> None:
    scenario = MAGIC[9]

    faults = [scenario.validation_fault(number) for number in range(1, 6)]

    behaviours = [fault.behaviour if fault else None for fault in faults]
    assert behaviours == [Behaviour.ERROR] * 3 + [None] * 2


def test_a_validation_without_a_number_of_times_fails_always() -> None:
    assert MAGIC[11].validation_fault(1000) == fault(Behaviour.SLOW)


def test_every_status_has_its_texts_and_its_state() -> None:
    assert set(Status) == ERRORS.keys() == STATE_AFTER.keys() == set(FATES.values())
    assert {SessionState.PAID} == {STATE_AFTER[Status.VALID]}


def test_every_behaviour_belongs_to_an_operation() -> None:
    assert {*Behaviour, PENDING} == frozenset().union(*BEHAVIOURS.values())
    assert DELAY_SECONDS.keys() <= set(Behaviour)


@pytest.mark.parametrize(
    ("price", "rate", "charge"),
    [
        (Money(10_00, "USD"), "122.0000", 1_220_00),
        (Money(1_150_00, "BDT"), "1.0000", 1_150_00),
        (Money(1, "INR"), "1.4200", 1),
        (Money(25, "INR"), "1.4200", 36),
    ],
    ids=["dollars", "taka", "rounded down", "a half is rounded up"],
)
def test_a_price_is_charged_in_taka(price: Money, rate: str, charge: int) -> None:
    assert Money(charge, "BDT") == to_charge(price, Decimal(rate))


@pytest.mark.parametrize(("enumeration", "table"), [(Status, "element"), (SessionState, "session")])
def test_the_database_knows_the_same_words(
    enumeration: type[Status | SessionState], table: str
) -> None:
    folder = Path(domain.__file__).parent.parent / "migrations"
    migration = "".join(path.read_text() for path in sorted(folder.glob("*.sql")))
    definition = migration.partition(f"CREATE TABLE {table} (")[2]

    listed = re.search(r"IN \(([^)]*)\)", definition)

    assert listed is not None
    assert {word.value for word in enumeration} == set(re.findall(r"'(\w+)'", listed[1]))
