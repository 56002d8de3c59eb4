"""Whether and when a payment that failed is tried again: one table, and who may change it.

A plug-in of an installation sees each failure with the decision of the table and may decide
otherwise; what card networks allow holds for everybody. Times and chance are given by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final, TypeAlias

from shared.gateways.interface import FailureKind, MethodKind

#: Waits before the first retry, the second, and so on; past the end the failure is the last.
Delays: TypeAlias = tuple[timedelta, ...]

_NEVER: Final[Delays] = ()

#: No wait is longer, whoever asks for it.
DELAY_MAX: Final = timedelta(days=30)


def doubling(first: timedelta, attempts: int) -> Delays:
    """Return `attempts` waits, each twice as long as the one before, up to the longest there is."""
    return tuple(min(first * (1 << number), DELAY_MAX) for number in range(attempts))


#: What holds unless an installation says otherwise.
DEFAULT_DELAYS: Final[Mapping[FailureKind, Delays]] = MappingProxyType(
    {
        # A lost or closed card stays so, and card networks fine those who keep trying.
        FailureKind.CARD_DECLINED: _NEVER,
        # Most are over at once, and the customer may still be waiting.
        FailureKind.NETWORK_ERROR: (timedelta(0), *doubling(timedelta(seconds=2), 2)),
        # Money comes by the day.
        FailureKind.INSUFFICIENT_FUNDS: (timedelta(hours=24),) * 2,
        # The issuer or the network has a hiccup.
        FailureKind.PROCESSING_ERROR: doubling(timedelta(minutes=1), 3),
        # A wrong PIN or code; the customer has seen the message by then.
        FailureKind.AUTHENTICATION_FAILED: (timedelta(minutes=5),) * 2,
        # Unless the gateway says how long it wants to be left alone.
        FailureKind.RATE_LIMIT_EXCEEDED: (timedelta(minutes=30),) * 3,
        FailureKind.SERVICE_UNAVAILABLE: doubling(timedelta(minutes=1), 3),
        FailureKind.UNKNOWN_CODE: (timedelta(minutes=5),) * 2,
        # The customer has decided.
        FailureKind.CANCELLED: _NEVER,
        # The customer did not answer, and nobody wants to be rung up again and again.
        FailureKind.EXPIRED: _NEVER,
        # Our own mistake: it is the same each time until somebody mends it.
        FailureKind.CONFIGURATION: _NEVER,
    }
)

#: Failures that are the fault of machines, not of the customer or the bank.
TECHNICAL: Final = frozenset(
    {
        FailureKind.NETWORK_ERROR,
        FailureKind.PROCESSING_ERROR,
        FailureKind.SERVICE_UNAVAILABLE,
    }
)

#: Tries of one payment with a card, the first included. Visa allows 15 in 30 days by most sources;
#: Stripe's own retries stop at 8, which is inside every network's rules.
CARD_TRIES_MAX: Final = 8

#: Share of a wait by which it is prolonged at most, so that the failures of one bad minute do not
#: come back in one second.
JITTER_RATIO: Final = 0.1


@dataclass(frozen=True, slots=True)
class Failure:
    """A try that failed, as a plug-in sees it: no personal data, no card data."""

    payment_id: str
    gateway: str
    method: MethodKind
    kind: FailureKind
    #: The gateway's own code or words.
    code: str
    #: Minor units.
    amount: int
    currency: str
    #: Failures of this kind so far, this one included.
    failures_of_kind: int
    #: Tries so far, the failed one included.
    tries: int
    #: What the gateway asked us to wait, in seconds.
    retry_after_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Try again after `delay`."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again."""

    reason: str


Decision: TypeAlias = RetryAfter | GiveUp

#: One function of an installation: it is given a failure and the table's decision, and returns its
#: own.
Plugin: TypeAlias = Callable[[Failure, Decision], Decision]


class PluginError(Exception):
    """A plug-in raised an error or returned something else than a decision."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rules of one installation."""

    delays: Mapping[FailureKind, Delays] = field(default_factory=lambda: DEFAULT_DELAYS)
    #: For technical failures of prompts on a phone.
    prompt_delays: Delays = field(default_factory=lambda: doubling(timedelta(seconds=5), 3))
    #: Tries of one payment, the first included, whatever made them fail.
    tries_max: int = CARD_TRIES_MAX
    plugin: Plugin | None = None

    def decide(self, failure: Failure, *, jitter: float) -> Decision:
        """Decide whether and after what time a failed try is followed by another.

        Args:
            failure: What happened.
            jitter: A random draw from [0, 1).

        Raises:
            PluginError: the plug-in failed; `decide_by_table` says what to do all the same.
        """
        if self.plugin is None:
            return self.decide_by_table(failure, jitter=jitter)
        if (limit := self.limit(failure.method, failure.tries)) is not None:
            return limit
        by_table = self._by_table(failure)
        try:
            decision = self.plugin(failure, by_table)
        except Exception as error:
            raise PluginError(f"it raised {type(error).__name__}") from error
        if not isinstance(decision, (RetryAfter, GiveUp)):
            raise PluginError(f"it returned a {type(decision).__name__}")
        return _jittered(decision, jitter)

    def decide_by_table(self, failure: Failure, *, jitter: float) -> Decision:
        """Decide like `decide` without asking the plug-in."""
        if (limit := self.limit(failure.method, failure.tries)) is not None:
            return limit
        return _jittered(self._by_table(failure), jitter)

    def limit(self, method: MethodKind, tries: int) -> GiveUp | None:
        """Return why a payment must not be tried once more, whatever the reason; else None."""
        if method == "card" and tries >= CARD_TRIES_MAX:
            return GiveUp("card_network_limit")
        return GiveUp("too_many_tries") if tries >= self.tries_max else None

    def is_permanent(self, kind: FailureKind) -> bool:
        """Tell whether a refusal of this kind forbids any retry with the same instrument."""
        return kind is FailureKind.CARD_DECLINED and not self.delays[kind]

    def _by_table(self, failure: Failure) -> Decision:
        delays = self.delays[failure.kind]
        if failure.method == "prompt" and failure.kind in TECHNICAL:
            delays = self.prompt_delays
        if not delays:
            return GiveUp("not_retried")
        if failure.failures_of_kind > len(delays):
            return GiveUp("attempts_used_up")
        if failure.kind is FailureKind.RATE_LIMIT_EXCEEDED and failure.retry_after_seconds:
            seconds = min(failure.retry_after_seconds, DELAY_MAX.total_seconds())
            return RetryAfter(timedelta(seconds=seconds))
        return RetryAfter(delays[failure.failures_of_kind - 1])


def _jittered(decision: Decision, jitter: float) -> Decision:
    if isinstance(decision, GiveUp):
        return decision
    delay = min(max(decision.delay, timedelta(0)), DELAY_MAX)
    return RetryAfter(delay * (1 + JITTER_RATIO * jitter))


#: Waits between questions about a try whose answer was lost, once the table's own are over.
ASK_FIRST: Final = timedelta(seconds=2)
ASK_LAST: Final = timedelta(hours=1)


def ask_delay(asked: int) -> timedelta:
    """Return the wait before the next question about a try that is in doubt.

    Args:
        asked: Questions so far that the gateway did not answer.
    """
    # The exponent is bounded, because a timedelta is.
    return min(ASK_FIRST * (1 << min(asked, 12)), ASK_LAST)


#: Waits between two tries to start what was put off without a time that lies ahead.
PUT_OFF_AT_LEAST: Final = timedelta(seconds=1)


def kind_of_doubt(reason: str) -> FailureKind:
    """Return what kind of failure a lost answer is, by the reason that stands for it."""
    if reason in {"http_429", "rate_limited"}:
        return FailureKind.RATE_LIMIT_EXCEEDED
    if reason.startswith("http_5"):
        return FailureKind.SERVICE_UNAVAILABLE
    return FailureKind.NETWORK_ERROR
