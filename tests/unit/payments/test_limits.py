"""Of three layers of limits the nearest to the operator's hand decides, value by value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.limits import (
    GatewayLimit,
    Limits,
    as_json,
    from_json,
    limits_in_force,
)

SETTINGS = Limits(10, 50, {"stripe": GatewayLimit(20, 25.0), "fapshi": GatewayLimit(5)})

counts = st.none() | st.integers(1, 1_000)
gateway_limits = st.builds(GatewayLimit, counts, st.none() | st.floats(0.1, 1_000))
layers = st.builds(
    Limits,
    counts,
    counts,
    st.dictionaries(st.sampled_from(["stripe", "fapshi", "campay"]), gateway_limits),
)


def test_without_a_profile_and_an_operator_the_settings_hold() -> None:
    assert limits_in_force(settings=SETTINGS, profile=Limits(), override=Limits()) == SETTINGS


def test_a_profile_changes_only_what_it_names() -> None:
    profile = Limits(max_concurrent_payments=40, gateways={"stripe": GatewayLimit(80)})

    found = limits_in_force(settings=SETTINGS, profile=profile, override=Limits())

    assert found == Limits(
        40, 50, {"stripe": GatewayLimit(80, 25.0), "fapshi": GatewayLimit(5, None)}
    )


def test_an_operator_goes_before_the_profile() -> None:
    profile = Limits(max_concurrent_payments=40, batch_size=200)
    override = Limits(max_concurrent_payments=2, gateways={"campay": GatewayLimit(None, 1.5)})

    found = limits_in_force(settings=SETTINGS, profile=profile, override=override)

    assert (found.max_concurrent_payments, found.batch_size) == (2, 200)
    assert found.of_gateway("campay") == GatewayLimit(None, 1.5)
    assert found.of_gateway("fapshi") == GatewayLimit(5)


def test_a_gateway_that_nobody_names_has_no_limit() -> None:
    assert Limits().of_gateway("stripe") == GatewayLimit(None, None)


def test_what_is_not_set_is_left_out_of_what_is_shown() -> None:
    shown = as_json(Limits(None, 50, {"stripe": GatewayLimit(None, 2.5), "fapshi": GatewayLimit()}))

    assert shown == {"batchSize": 50, "gateways": {"stripe": {"callsPerSecond": 2.5}}}


@given(layers)
def test_what_is_stored_is_read_back(limits: Limits) -> None:
    again = from_json(as_json(limits))

    assert as_json(again) == as_json(limits)
    for name in ("stripe", "fapshi", "campay"):
        assert again.of_gateway(name) == limits.of_gateway(name)


@given(layers, layers, layers)
def test_every_value_comes_from_the_first_layer_that_says_something(
    settings: Limits, profile: Limits, override: Limits
) -> None:
    found = limits_in_force(settings=settings, profile=profile, override=override)
    said = [override, profile, settings]

    for field in ("max_concurrent_payments", "batch_size"):
        values = [getattr(layer, field) for layer in said]
        assert getattr(found, field) == next((v for v in values if v is not None), None)
    for name in ("stripe", "fapshi", "campay"):
        for field in ("concurrency", "calls_per_second"):
            values = [getattr(layer.of_gateway(name), field) for layer in said]
            expected = next((v for v in values if v is not None), None)
            assert getattr(found.of_gateway(name), field) == expected
