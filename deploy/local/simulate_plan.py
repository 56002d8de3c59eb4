"""What `sluice simulate` is going to make: plans, customers, and how long they live. Pure."""

from __future__ import annotations

import calendar
import random
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from deploy.local.errors import LocalStackError
from deploy.local.load_plan import read_profile

#: Gateways that charge without a page, which is what subscriptions need.
GATEWAYS: Final = ("stripe", "fapshi", "campay", "x402")

#: The built-in profile, in per cent of tries: most charges succeed, most others at a later try.
LIFELIKE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "customersAct": True,
        "fates": {"insufficient_funds": 6, "declined": 0.5, "error_500": 0.2},
    }
)
LIFELIKE_NAME: Final = "lifelike"

#: Gateways whose answer to a charge is its end, so that their notices tell nothing new.
_ANSWER_AT_ONCE: Final = frozenset({"stripe", "x402"})

#: Zones in turns: three of them change their clocks, on different days.
_ZONES: Final = ("UTC", "Europe/Paris", "America/New_York", "Asia/Dhaka", "Australia/Sydney")

#: Prices in turns, in minor units. They end in 00, so that none is one of the simulator's magic
#: ones: what happens to a charge is the profile's business here.
PRICES: Final = 3
_PRICES: Final[Mapping[str, tuple[str, Sequence[int]]]] = MappingProxyType(
    {
        "stripe": ("USD", (900, 1_900, 4_900)),
        "fapshi": ("XAF", (1_500, 2_500, 5_000)),
        "campay": ("XAF", (1_500, 2_500, 5_000)),
        "x402": ("USDC", (1_000_000, 2_000_000, 5_000_000)),
    }
)

#: What customers pay with, and what those do who cannot: the simulator knows these by name.
_METHODS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "stripe": {"type": "card", "paymentMethod": "pm_card_visa"},
        "fapshi": {"type": "prompt", "phone": "237677123456"},
        "campay": {"type": "prompt", "phone": "237677123456"},
        "x402": {"type": "wallet", "recipient": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"},
    }
)
_FAILING_METHODS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = MappingProxyType(
    {
        "stripe": (
            {"type": "card", "paymentMethod": "pm_card_visa_chargeDeclinedInsufficientFunds"},
            {"type": "card", "paymentMethod": "pm_card_visa_chargeDeclinedLostCard"},
        ),
        "fapshi": ({"type": "prompt", "phone": "237670000001"},),
        "campay": ({"type": "prompt", "phone": "237670000001"},),
        "x402": (),  # Our own wallet pays.
    }
)

#: One customer in so many never pays. They come at any time of it, so that each month loses some.
FAILING_ONE_IN: Final = 40

#: The others begin within this part of the time, a month at the most.
_BEGIN_WITHIN: Final = 12
_BEGIN_WITHIN_MAX: Final = timedelta(days=31)

_SPAN: Final = re.compile(r"([1-9][0-9]{0,3})([dwmy])")
_INTERVAL: Final = re.compile(r"([1-9][0-9]{0,3})?(minute|hour|day|week|month|year)")

YEARS_MAX: Final = 1_000


class SimulationError(LocalStackError):
    """What was asked for cannot be simulated."""


class Span(NamedTuple):
    """A length of time as somebody wrote it: `1y`, `18m`, `90d`."""

    number: int
    unit: str

    def after(self, start: datetime) -> datetime:
        """Return the end of it; a month too short for the day ends on its last one.

        Raises:
            SimulationError: that is beyond all calendars.
        """
        try:
            return self._after(start)
        except (OverflowError, ValueError) as error:
            problem = f"{self.number}{self.unit} from {start:%Y-%m-%d} on is too long"
            raise SimulationError(problem) from error

    def _after(self, start: datetime) -> datetime:
        if self.unit in "dw":
            return start + timedelta(days=self.number * (7 if self.unit == "w" else 1))
        months = start.year * 12 + start.month - 1 + self.number * (12 if self.unit == "y" else 1)
        year, month = divmod(months, 12)
        day = min(start.day, calendar.monthrange(year, month + 1)[1])
        return start.replace(year=year, month=month + 1, day=day)


class Offer(NamedTuple):
    """A plan to make, as in the body of `POST /api/plans`."""

    gateway: str
    body: Mapping[str, Any]


class Subscriber(NamedTuple):
    """A customer with one means of payment and one subscription."""

    number: int
    #: Of `offers`.
    offer: int
    start_at: datetime
    zone: str
    #: Whether no charge of theirs succeeds.
    is_failing: bool

    @property
    def customer_id(self) -> str:
        """What the services know the customer by."""
        return f"simulated-{self.number}"


def read_span(text: str) -> Span:
    """Read a length of time.

    Raises:
        SimulationError: it is none, or longer than a thousand years.
    """
    found = _SPAN.fullmatch(text)
    if found is None:
        raise SimulationError(f"{text!r} is not like 1y, 18m, 6w or 90d")
    span = Span(int(found[1]), found[2])
    if span.unit == "y" and span.number > YEARS_MAX:
        raise SimulationError(f"{text!r} is longer than {YEARS_MAX} years")
    return span


def read_interval(text: str) -> dict[str, Any]:
    """Read an interval into what the body of a plan says of it.

    Raises:
        SimulationError: it is none.
    """
    found = _INTERVAL.fullmatch(text)
    if found is None:
        raise SimulationError(f"{text!r} is not like month, 2week or 3day")
    return {"unit": found[2], "count": int(found[1] or 1)}


def profile_of(
    given: str, seed: int, gateways: Sequence[str], *, with_notices: bool
) -> dict[str, Any]:
    """Return a profile of the simulator by its name or from a file.

    Where every answer is the end of its charge, notices are left out unless they are asked for.
    Where our wallet pays, all charges succeed: one that the network refused has failed for sure
    only when its authorization is over, after five minutes that no test clock shortens.
    """
    if given != LIFELIKE_NAME:
        return read_profile(given, seed)
    profile = {**LIFELIKE, "seed": seed}
    if "x402" in gateways:
        profile["fates"] = {}
    if _ANSWER_AT_ONCE.issuperset(gateways) and not with_notices:
        profile["notices"] = {"never": 100}
    return profile


def offers(gateways: Sequence[str], intervals: Sequence[Mapping[str, Any]]) -> list[Offer]:
    """Return the plans: each price of each gateway with each interval, the gateways in turns."""
    made: list[Offer] = []
    for turn in range(PRICES):
        for interval in intervals:
            for gateway in gateways:
                currency, prices = _PRICES[gateway]
                number = len(made) + 1
                body = {
                    "name": f"Plan {number}",
                    "product": {"id": f"course-{number}", "name": f"Course {number}"},
                    "amount": prices[turn],
                    "currency": currency,
                    "interval": dict(interval),
                    "gateway": gateway,
                }
                made.append(Offer(gateway, body))
    return made


def subscribers(
    count: int, offers_made: int, start: datetime, end: datetime, seed: int
) -> list[Subscriber]:
    """Return who subscribes to what and when, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - a rehearsal is to be repeated, not guessed
    soon = min((end - start) / _BEGIN_WITHIN, _BEGIN_WITHIN_MAX)
    made = []
    for number in range(count):
        is_failing = number % FAILING_ONE_IN == FAILING_ONE_IN - 1
        minutes = int((end - start if is_failing else soon).total_seconds() // 60)
        start_at = start + timedelta(minutes=chance.randrange(max(1, minutes)))
        zone = _ZONES[number % len(_ZONES)]
        made.append(Subscriber(number, number % offers_made, start_at, zone, is_failing))
    return made


def means_of_payment(subscriber: Subscriber, gateway: str) -> dict[str, Any]:
    """Return the body of `POST /api/payment-methods` for a customer."""
    method = _METHODS[gateway]
    failing = _FAILING_METHODS[gateway]
    if subscriber.is_failing and failing:
        method = failing[subscriber.number // FAILING_ONE_IN % len(failing)]
    if gateway == "stripe":
        method = {**method, "gatewayCustomer": f"cus_simulated{subscriber.number}"}
    return {
        "gateway": gateway,
        "customer": {
            "id": subscriber.customer_id,
            "name": "Simulated Customer",
            "email": "simulated@example.com",
            "phone": "670000000",
        },
        "method": dict(method),
    }
