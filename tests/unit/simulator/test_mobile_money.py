"""Amounts and phones choose what their tables say; a profile's fate goes before them."""

from __future__ import annotations

import pytest

from services.simulator import mobile_money
from services.simulator.behaviours import Behaviour
from services.simulator.campay.domain import BEHAVIOURS as CAMPAY
from services.simulator.fapshi.domain import BEHAVIOURS as FAPSHI
from services.simulator.mobile_money import (
    CONFIRMING_PHONES,
    FAILING_PHONES,
    MAGIC,
    PLAIN,
    REASONS,
    WISHES,
    Scenario,
    network_of,
    resolve,
    scenario_of,
)
from services.simulator.profiles import AT_LAST, Fate, Profile, plan_of


@pytest.mark.parametrize("amount", [100, 101, 1_000, 5_000, 15_000, 1_025, 1_099])
def test_plain_amounts_are_paid(amount: int) -> None:
    assert scenario_of(amount) is PLAIN
    assert resolve("paid", amount=amount, phone="677123456", plan=None) == "paid"


@pytest.mark.parametrize(("digits", "scenario"), MAGIC.items())
def test_the_last_digits_choose(digits: int, scenario: Scenario) -> None:
    assert scenario is scenario_of(7_000 + digits)
    assert scenario.wish in WISHES


@pytest.mark.parametrize("scenario", MAGIC.values(), ids=lambda scenario: scenario.description)
def test_a_magic_amount_uses_only_what_both_gateways_can_do(scenario: Scenario) -> None:
    for behaviours, start in ((FAPSHI, "direct"), (CAMPAY, "collect")):
        for operation, fault in (
            (start, scenario.start),
            ("status", scenario.status),
            ("notice", scenario.notice),
        ):
            assert fault is None or fault.behaviour in behaviours[operation]


def test_no_two_magic_amounts_do_the_same() -> None:
    assert len(MAGIC) == len({scenario.description for scenario in MAGIC.values()})


def test_a_read_fails_as_often_as_the_table_says() -> None:
    faults = [MAGIC[9].status_fault(number) for number in range(1, 6)]

    behaviours = [fault.behaviour if fault else None for fault in faults]
    assert behaviours == [Behaviour.ERROR] * 3 + [None] * 2
    assert MAGIC[11].status_fault(1_000) is not None


@pytest.mark.parametrize("phone", sorted(FAILING_PHONES))
def test_a_failing_phone_declines(phone: str) -> None:
    assert resolve("paid", amount=5_000, phone=phone, plan=None) == "declined"
    assert resolve(AT_LAST, amount=5_000, phone=phone, plan=None) == AT_LAST


def test_a_fate_goes_before_a_magic_number() -> None:
    plan = plan_of(Profile(fates={Fate.INSUFFICIENT_FUNDS: 100}), "campay", "x")

    assert resolve("paid", amount=2_001, phone="", plan=plan) == "insufficient_funds"
    assert resolve("cancelled", amount=2_001, phone="", plan=plan) == "cancelled"


def test_every_failure_has_its_reason() -> None:
    no_failures = {"paid", AT_LAST, "late_success", "never_confirms"}

    assert REASONS.keys() == WISHES - no_failures


@pytest.mark.parametrize(
    ("phone", "network"),
    [
        ("670000000", "mtn"),
        ("680123456", "mtn"),
        ("650000000", "mtn"),
        ("690000000", "orange"),
        ("656000000", "orange"),
        ("640123456", "orange"),
        ("620000000", None),
        ("222000000", None),
        ("67000000", None),
        ("237670000000", None),
        ("٦٧٠٠٠٠٠٠٠", None),
    ],
)
def test_a_number_belongs_to_a_network(phone: str, network: str | None) -> None:
    assert network == network_of(phone)


def test_every_magic_phone_has_a_network() -> None:
    assert all(network_of(phone) for phone in CONFIRMING_PHONES | FAILING_PHONES)
    assert not CONFIRMING_PHONES & FAILING_PHONES
    assert mobile_money.acts_alone(2_020, "677123456")
    assert not mobile_money.acts_alone(5_000, "677123456")
