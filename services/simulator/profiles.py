"""Random faults that can be repeated: a profile, and what it has in store for a payment. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from statistics import NormalDist
from types import MappingProxyType
from typing import Annotated, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from services.simulator.behaviours import Behaviour, Fault, fault


class Fate(StrEnum):
    """What becomes of a payment; exactly one of these."""

    PAID = "paid"
    # The customer's part.
    DECLINED = "declined"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    NEVER_CONFIRMS = "never_confirms"
    LATE_SUCCESS = "late_success"
    EXPIRED = "expired"
    # The first call that starts it goes wrong; repeated, it is an ordinary paid one.
    TIMEOUT_BEFORE = "timeout_before"
    TIMEOUT_AFTER = "timeout_after"
    ERROR_500 = "error_500"
    RESET = "reset"
    SLOW = "slow"
    RATE_LIMITED = "rate_limited"
    IN_USE_409 = "in_use_409"


class NoticeFate(StrEnum):
    """What becomes of the notices of a payment."""

    ON_TIME = "on_time"
    LATE = "late"
    DUPLICATE = "duplicate"
    REORDERED = "reordered"
    NEVER = "never"
    BADLY_SIGNED = "badly_signed"
    WRONG_SECRET = "wrong_secret"  # noqa: S105 - the name of a fault


#: The fates that are faults of the call, in the words of a script.
CALL_FAULTS: Final[Mapping[Fate, Behaviour]] = MappingProxyType(
    {
        Fate.TIMEOUT_BEFORE: Behaviour.TIMEOUT_BEFORE,
        Fate.TIMEOUT_AFTER: Behaviour.TIMEOUT,
        Fate.ERROR_500: Behaviour.ERROR,
        Fate.RESET: Behaviour.RESET,
        Fate.SLOW: Behaviour.SLOW,
        Fate.RATE_LIMITED: Behaviour.TOO_MANY_REQUESTS,
        Fate.IN_USE_409: Behaviour.IN_USE,
    }
)

#: The wish of a customer who does nothing, even where somebody presses Pay.
NEVER_CONFIRMS: Final = "never_confirms"

#: What a customer who wants to pay ends up doing, by fate; for the other fates, `paid`.
WISHES: Final[Mapping[Fate, str]] = MappingProxyType(
    {
        Fate.DECLINED: "declined",
        Fate.INSUFFICIENT_FUNDS: "insufficient_funds",
        Fate.LATE_SUCCESS: "late_success",
        Fate.EXPIRED: "expired",
        Fate.NEVER_CONFIRMS: NEVER_CONFIRMS,
    }
)

#: The wish that makes a payment succeed now, whatever its amount, its number or its fate says.
AT_LAST: Final = "at_last"

_NORMAL: Final = NormalDist()
_P99_DEVIATIONS: Final = _NORMAL.inv_cdf(0.99)

#: Latencies are cut at this many times the 99th percentile.
_LATENCY_FACTOR_MAX: Final = 4.0

Percent = Annotated[float, Field(ge=0, le=100)]
Word = TypeVar("Word", Fate, NoticeFate)


def _at_most_all(shares: Mapping[Word, float]) -> Mapping[Word, float]:
    if sum(shares.values()) > 100 + 1e-9:
        raise ValueError("the shares are more than 100 per cent together")
    return shares


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class Latency(_Body):
    """How long answers and customers take, in milliseconds: median and 99th percentile."""

    p50: Annotated[float, Field(gt=0, le=60_000)]
    p99: Annotated[float, Field(gt=0, le=60_000)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.p99 < self.p50:
            raise ValueError("p99 is below p50")
        return self


class Profile(_Body):
    """Shares in per cent of each fate; what is left is paid, with its notice on time.

    With `customers_act`, customers press Pay or confirm on the phone by themselves, one latency
    after the payment is started.
    """

    seed: int = 0
    fates: Annotated[dict[Fate, Percent], AfterValidator(_at_most_all)] = {}
    notices: Annotated[dict[NoticeFate, Percent], AfterValidator(_at_most_all)] = {}
    latency_ms: Latency | None = None
    customers_act: bool = False
    #: Whether gateways keep their limits on reads of a status.
    limits_reads: bool = False
    timeout_seconds: Annotated[float, Field(ge=0, le=600)] = 30.0
    slow_seconds: Annotated[float, Field(ge=0, le=600)] = 2.0
    late_seconds: Annotated[float, Field(ge=0, le=600)] = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a profile has in store for one payment; recorded when the payment is started.

    `late_seconds` is how late a late notice or a late success is.
    """

    fate: Fate
    notice_fate: NoticeFate
    latency_seconds: float
    late_seconds: float
    customer_acts: bool

    @property
    def wish(self) -> str:
        """What pressing Pay leads to."""
        return WISHES.get(self.fate, "paid")

    @property
    def acts_alone(self) -> bool:
        """Whether the customer presses Pay unasked, one latency after the start."""
        return self.customer_acts and self.fate is not Fate.NEVER_CONFIRMS

    @property
    def notice_fault(self) -> Fault | None:
        """How the notices go wrong, in the words of a script."""
        if self.notice_fate is NoticeFate.ON_TIME:
            return None
        behaviour = Behaviour(self.notice_fate.value)
        return fault(behaviour, self.late_seconds if behaviour is Behaviour.LATE else None)


def plan_of(profile: Profile, gateway: str, reference: str) -> Plan:
    """Choose the fate of a payment: the same for the same seed, gateway and reference."""
    digest = hashlib.sha256(f"{profile.seed}\n{gateway}\n{reference}".encode()).digest()
    return Plan(
        fate=_choose(profile.fates, tuple(Fate), _share(digest[:8]), Fate.PAID),
        notice_fate=_choose(
            profile.notices, tuple(NoticeFate), _share(digest[8:16]), NoticeFate.ON_TIME
        ),
        latency_seconds=_latency_seconds(profile.latency_ms, _share(digest[16:24])),
        late_seconds=profile.late_seconds,
        customer_acts=profile.customers_act,
    )


def call_fault(profile: Profile, fate: Fate) -> Fault | None:
    """Return how the first call that starts a payment goes wrong, if its fate says so."""
    behaviour = CALL_FAULTS.get(fate)
    if behaviour is None:
        return None
    is_slow = behaviour is Behaviour.SLOW
    return Fault(behaviour, profile.slow_seconds if is_slow else profile.timeout_seconds)


@lru_cache(maxsize=8)
def read_profile(document: str) -> Profile:
    """Read a stored profile; every call of a gateway needs it, so that the last ones are kept."""
    return Profile.model_validate_json(document)


def _share(digest: bytes) -> float:
    """Return a number from 0 (included) to 1 (excluded)."""
    return (int.from_bytes(digest) >> 11) / (1 << 53)


def _choose(
    shares: Mapping[Word, float], order: tuple[Word, ...], number: float, otherwise: Word
) -> Word:
    """Choose by cumulated shares, in an order that does not depend on how they were written."""
    reached = 0.0
    for word in order:
        reached += shares.get(word, 0.0) / 100
        if number < reached:
            return word
    return otherwise


def _latency_seconds(latency: Latency | None, number: float) -> float:
    """Return the latency that a share `number` of all payments stays below; log-normal."""
    if latency is None:
        return 0.0
    deviations = _NORMAL.inv_cdf(min(max(number, 1e-9), 1 - 1e-9))
    spread = math.log(latency.p99 / latency.p50) / _P99_DEVIATIONS
    milliseconds = latency.p50 * math.exp(spread * deviations)
    return min(milliseconds, latency.p99 * _LATENCY_FACTOR_MAX) / 1000
