"""The table of retries, row by row, and what an installation may change about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.payments.domain.retry_advice import ADVICE
from services.payments.domain.retry_policy import (
    ASK_LAST,
    CARD_TRIES_MAX,
    DEFAULT_DELAYS,
    DELAY_MAX,
    JITTER_RATIO,
    Decision,
    Failure,
    GiveUp,
    PluginError,
    RetryAfter,
    RetryPolicy,
    ask_delay,
    doubling,
    kind_of_doubt,
)
from shared.gateways.interface import FailureKind

SECONDS = {
    FailureKind.CARD_DECLINED: [],
    FailureKind.NETWORK_ERROR: [0, 2, 4],
    FailureKind.INSUFFICIENT_FUNDS: [86_400, 86_400],
    FailureKind.PROCESSING_ERROR: [60, 120, 240],
    FailureKind.AUTHENTICATION_FAILED: [300, 300],
    FailureKind.RATE_LIMIT_EXCEEDED: [1_800, 1_800, 1_800],
    FailureKind.SERVICE_UNAVAILABLE: [60, 120, 240],
    FailureKind.UNKNOWN_CODE: [300, 300],
    FailureKind.CANCELLED: [],
    FailureKind.EXPIRED: [],
    FailureKind.CONFIGURATION: [],
}


def failure(kind: FailureKind, number: int = 1, **changes: object) -> Failure:
    """Return the failure of a card that failed so often for this reason."""
    made = Failure(
        payment_id="pay_1",
        gateway="stripe",
        method="card",
        kind=kind,
        code="code",
        amount=1_000,
        currency="EUR",
        failures_of_kind=number,
        tries=number,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "seconds"), SECONDS.items(), ids=SECONDS)
def test_a_kind_of_failure_is_retried_as_its_row_says(
    kind: FailureKind, seconds: list[int]
) -> None:
    decided = [
        RetryPolicy().decide(failure(kind, number), jitter=0)
        for number in range(1, len(seconds) + 2)
    ]

    assert decided[:-1] == [RetryAfter(timedelta(seconds=each)) for each in seconds]
    assert isinstance(decided[-1], GiveUp)


def test_every_kind_has_a_row_and_an_advice_for_the_customer() -> None:
    assert set(DEFAULT_DELAYS) == set(ADVICE) == set(FailureKind)


@pytest.mark.parametrize(
    "kind",
    [
        FailureKind.NETWORK_ERROR,
        FailureKind.PROCESSING_ERROR,
        FailureKind.SERVICE_UNAVAILABLE,
    ],
)
def test_a_prompt_that_failed_for_technical_reasons_has_a_row_of_its_own(
    kind: FailureKind,
) -> None:
    policy = RetryPolicy(prompt_delays=doubling(timedelta(seconds=7), 2))

    decided = [
        policy.decide(failure(kind, number, method="prompt"), jitter=0) for number in (1, 2, 3)
    ]

    assert decided == [
        RetryAfter(timedelta(seconds=7)),
        RetryAfter(timedelta(seconds=14)),
        GiveUp("attempts_used_up"),
    ]


def test_a_prompt_that_failed_for_want_of_money_waits_like_any_other() -> None:
    decided = RetryPolicy().decide(
        failure(FailureKind.INSUFFICIENT_FUNDS, method="prompt"), jitter=0
    )

    assert decided == RetryAfter(timedelta(hours=24))


def test_a_gateway_that_says_how_long_to_wait_is_obeyed_within_reason() -> None:
    limited = FailureKind.RATE_LIMIT_EXCEEDED
    decide = RetryPolicy().decide

    assert decide(failure(limited, retry_after_seconds=90.0), jitter=0) == RetryAfter(
        timedelta(seconds=90)
    )
    assert decide(failure(limited, retry_after_seconds=1e12), jitter=0) == RetryAfter(DELAY_MAX)
    assert decide(
        failure(FailureKind.INSUFFICIENT_FUNDS, retry_after_seconds=90.0), jitter=0
    ) == RetryAfter(timedelta(hours=24))


def test_a_card_is_never_tried_more_often_than_the_networks_allow() -> None:
    """Not by a long row, not by many kinds, not by a plug-in."""
    eager = RetryPolicy(
        delays={**DEFAULT_DELAYS, FailureKind.CARD_DECLINED: (timedelta(0),) * 100},
        tries_max=50,
        plugin=lambda _failure, _planned: RetryAfter(timedelta(0)),
    )
    last = failure(FailureKind.CARD_DECLINED, 1, tries=CARD_TRIES_MAX)

    assert eager.decide(last, jitter=0) == GiveUp("card_network_limit")
    assert eager.decide_by_table(last, jitter=0) == GiveUp("card_network_limit")
    assert isinstance(eager.decide(replace(last, tries=CARD_TRIES_MAX - 1), jitter=0), RetryAfter)
    assert isinstance(eager.decide(replace(last, method="prompt"), jitter=0), RetryAfter)


def test_a_payment_that_fails_for_ever_new_reasons_is_given_up() -> None:
    many = failure(FailureKind.NETWORK_ERROR, 1, method="wallet", tries=8)

    assert RetryPolicy().decide(many, jitter=0) == GiveUp("too_many_tries")


def test_a_plug_in_sees_the_failure_with_the_tables_decision_and_has_the_last_word() -> None:
    seen: list[tuple[Failure, Decision]] = []

    def plug_in(failed: Failure, planned: Decision) -> Decision:
        seen.append((failed, planned))
        return RetryAfter(timedelta(minutes=7))

    declined = failure(FailureKind.CARD_DECLINED)

    decided = RetryPolicy(plugin=plug_in).decide(declined, jitter=0)

    assert decided == RetryAfter(timedelta(minutes=7))
    assert seen == [(declined, GiveUp("not_retried"))]


def test_a_plug_in_that_fails_or_talks_nonsense_is_named_as_such() -> None:
    def raising(_failed: Failure, _planned: Decision) -> Decision:
        raise ZeroDivisionError

    def talking(_failed: Failure, _planned: Decision) -> Decision:
        return 5  # type: ignore[return-value]

    declined = failure(FailureKind.PROCESSING_ERROR)

    with pytest.raises(PluginError, match="ZeroDivisionError"):
        RetryPolicy(plugin=raising).decide(declined, jitter=0)
    with pytest.raises(PluginError, match="returned a int"):
        RetryPolicy(plugin=talking).decide(declined, jitter=0)


failures = st.builds(
    failure,
    st.sampled_from(FailureKind),
    st.integers(1, 30),
    tries=st.integers(1, 30),
    retry_after_seconds=st.none() | st.floats(0, 1e15),
)


@given(failures, st.floats(0, 1, exclude_max=True), st.timedeltas())
def test_no_wait_is_negative_or_endless_and_none_is_shorter_than_its_row(
    failed: Failure, jitter: float, wanted: timedelta
) -> None:
    plain, jittered = (RetryPolicy().decide(failed, jitter=share) for share in (0.0, jitter))
    by_plug_in = RetryPolicy(plugin=lambda _f, _p: RetryAfter(wanted)).decide(failed, jitter=jitter)

    for decision in (plain, jittered, by_plug_in):
        if isinstance(decision, RetryAfter):
            assert timedelta(0) <= decision.delay <= DELAY_MAX * (1 + JITTER_RATIO)
    if isinstance(plain, RetryAfter):
        assert isinstance(jittered, RetryAfter)
        assert plain.delay <= jittered.delay


def test_questions_about_a_lost_answer_become_ever_rarer() -> None:
    waits = [ask_delay(asked) for asked in range(40)]

    assert waits[:4] == [timedelta(seconds=each) for each in (2, 4, 8, 16)]
    assert waits == sorted(waits)
    assert waits[-1] == ASK_LAST == ask_delay(10**6)


@pytest.mark.parametrize(
    ("reason", "kind"),
    {
        "timeout": FailureKind.NETWORK_ERROR,
        "connection_reset": FailureKind.NETWORK_ERROR,
        "http_503": FailureKind.SERVICE_UNAVAILABLE,
        "http_500": FailureKind.SERVICE_UNAVAILABLE,
        "http_429": FailureKind.RATE_LIMIT_EXCEEDED,
        "not_json": FailureKind.NETWORK_ERROR,
    }.items(),
)
def test_a_lost_answer_has_a_kind_too(reason: str, kind: FailureKind) -> None:
    assert kind_of_doubt(reason) is kind
