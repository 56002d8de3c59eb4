"""A profile deals the same fates whoever asks and in whatever order, in the shares it says."""

from __future__ import annotations

from collections import Counter

import pytest
from pydantic import ValidationError

from services.simulator.behaviours import Behaviour, Fault
from services.simulator.profiles import (
    CALL_FAULTS,
    WISHES,
    Fate,
    NoticeFate,
    Profile,
    call_fault,
    plan_of,
)

PROFILE = Profile.model_validate(
    {
        "seed": 7,
        "fates": {"declined": 10, "timeout_after": 10, "error_500": 5},
        "notices": {"duplicate": 5, "never": 20},
        "latencyMs": {"p50": 20, "p99": 400},
    }
)
REFERENCES = [f"att_{number:026d}" for number in range(4_000)]


def test_a_payment_has_one_fate() -> None:
    plans = [plan_of(PROFILE, "fapshi", "att_1") for _ in range(3)]

    assert plans == [plans[0]] * 3


def test_the_order_in_which_shares_are_written_does_not_matter() -> None:
    turned = PROFILE.model_copy(
        update={
            "fates": dict(reversed(PROFILE.fates.items())),
            "notices": dict(reversed(PROFILE.notices.items())),
        }
    )

    for reference in REFERENCES[:500]:
        assert plan_of(PROFILE, "campay", reference) == plan_of(turned, "campay", reference)


@pytest.mark.parametrize("change", ["seed", "gateway"])
def test_another_seed_or_gateway_deals_anew(change: str) -> None:
    other = PROFILE.model_copy(update={"seed": 8}) if change == "seed" else PROFILE
    gateway = "stripe" if change == "gateway" else "campay"

    same = sum(
        plan_of(PROFILE, "campay", reference).latency_seconds
        == plan_of(other, gateway, reference).latency_seconds
        for reference in REFERENCES[:100]
    )

    assert same == 0


def test_fates_come_in_their_shares() -> None:
    plans = [plan_of(PROFILE, "sslcommerz", reference) for reference in REFERENCES]

    fates = Counter(plan.fate for plan in plans)
    notices = Counter(plan.notice_fate for plan in plans)
    # Four standard deviations of a share of 10 per cent are 1.9 per cent here.
    expected = {Fate.DECLINED: 10, Fate.TIMEOUT_AFTER: 10, Fate.ERROR_500: 5, Fate.PAID: 75}
    assert fates.keys() == expected.keys()
    for fate, share in expected.items():
        assert fates[fate] / len(plans) * 100 == pytest.approx(share, abs=2.8)
    for notice, share in {NoticeFate.DUPLICATE: 5, NoticeFate.NEVER: 20}.items():
        assert notices[notice] / len(plans) * 100 == pytest.approx(share, abs=2.8)


def test_latencies_have_their_median_and_their_tail() -> None:
    latencies = sorted(
        plan_of(PROFILE, "stripe", reference).latency_seconds for reference in REFERENCES
    )

    assert latencies[len(latencies) // 2] == pytest.approx(0.020, rel=0.15)
    assert latencies[len(latencies) * 99 // 100] == pytest.approx(0.400, rel=0.35)
    assert latencies[-1] <= 1.6


def test_without_latencies_nothing_takes_time() -> None:
    assert plan_of(Profile(seed=1), "stripe", "pi_1").latency_seconds == 0


@pytest.mark.parametrize("fate", Fate)
def test_every_fate_is_the_calls_or_the_customers_or_paid(fate: Fate) -> None:
    kinds = [fate is Fate.PAID, fate in CALL_FAULTS, fate in WISHES]

    assert kinds.count(True) == 1


def test_the_profile_says_how_long_faults_take() -> None:
    profile = Profile(timeout_seconds=5, slow_seconds=0.5, late_seconds=3)

    assert call_fault(profile, Fate.TIMEOUT_AFTER) == Fault(Behaviour.TIMEOUT, 5)
    assert call_fault(profile, Fate.SLOW) == Fault(Behaviour.SLOW, 0.5)
    assert call_fault(profile, Fate.DECLINED) is None
    late = Profile(notices={NoticeFate.LATE: 100}, late_seconds=3)
    assert plan_of(late, "fapshi", "att_1").notice_fault == Fault(Behaviour.LATE, 3)


def test_only_customers_who_never_confirm_wait_to_be_asked() -> None:
    for fate in Fate:
        profile = Profile(fates={fate: 100}, customers_act=True)
        assert plan_of(profile, "fapshi", "att_1").acts_alone == (fate is not Fate.NEVER_CONFIRMS)
    assert not plan_of(Profile(), "fapshi", "att_1").acts_alone


@pytest.mark.parametrize(
    "document",
    [
        {"fates": {"declined": 60, "reset": 41}},
        {"fates": {"declined": -1}},
        {"fates": {"exploded": 1}},
        {"notices": {"on_time": 100, "never": 1}},
        {"latencyMs": {"p50": 20}},
        {"latencyMs": {"p50": 400, "p99": 20}},
        {"colour": "red"},
    ],
)
def test_a_profile_that_means_nothing_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Profile.model_validate(document)
