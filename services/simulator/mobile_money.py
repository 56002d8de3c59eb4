"""What the two gateways for mobile money in Cameroon share: phones, and magic numbers. Pure.

Their protocols have nothing in common; the customers, their phones and their networks have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.simulator import pages
from services.simulator.behaviours import DELAY_SECONDS, Behaviour, Fault, fault
from services.simulator.profiles import AT_LAST, NEVER_CONFIRMS, Plan

CURRENCY: Final = "XAF"

#: What a customer can do. `paid` may lead to any other, by a magic number or a profile's fate.
WISHES: Final = frozenset(
    {
        *("paid", "declined", "failed", "cancelled", "insufficient_funds", "expired"),
        *("late_success", AT_LAST, NEVER_CONFIRMS),
    }
)

#: Why no money moved, by what the customer did; null: the network's words, or a name of the end.
REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "declined": "Payment declined by the operator",
        "failed": "Payment declined by the operator",
        "cancelled": "Payment cancelled by the customer",
        "insufficient_funds": "Insufficient funds",
        "expired": "Payment not confirmed in time",
    }
)

#: Nine digits without the country code; the prefixes of the two networks.
_MTN: Final = re.compile(r"6(?:7[0-9]|8[0-3]|5[0-4])[0-9]{6}")
_ORANGE: Final = re.compile(r"6(?:9[0-9]|8[6-9]|5[5-9]|40)[0-9]{6}")

#: The numbers of Fapshi's sandbox: they confirm by themselves, or fail by themselves.
CONFIRMING_PHONES: Final = frozenset(
    {"670000000", "670000002", "650000000", "690000000", "690000002", "656000000"}
)
FAILING_PHONES: Final = frozenset(
    {"670000001", "670000003", "650000001", "690000001", "690000003", "656000001"}
)

#: Smaller amounts are never magic, so that the least amounts of both gateways can be tried.
MAGIC_ABOVE: Final = 1_000

#: What the protocols' own behaviour of a status read is called: paid, but not said yet.
PENDING: Final = "pending"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What becomes of a payment.

    `start` is a fault of the first call that starts it, `status` one of the first `status_times`
    reads of its status, or of all. `shortfall` is how much less is taken, in XAF.
    """

    description: str
    wish: str = "paid"
    start: Fault | None = None
    status: Fault | None = None
    status_times: int | None = None
    notice: Fault | None = None
    shortfall: int = 0
    #: The customer confirms at once and unasked.
    acts_alone: bool = False

    def status_fault(self, number: int) -> Fault | None:
        """Return how the read with this number goes wrong; the first is 1."""
        if self.status_times is not None and number > self.status_times:
            return None
        return self.status


PLAIN: Final = Scenario("paid when the customer confirms, and everything works")

#: The magic amounts: the last two digits of an amount above `MAGIC_ABOVE`.
MAGIC: Final[Mapping[int, Scenario]] = MappingProxyType(
    {
        1: Scenario("declined by the operator", wish="declined"),
        2: Scenario("refused by the customer", wish="cancelled"),
        3: Scenario("insufficient funds", wish="insufficient_funds"),
        4: Scenario("never confirmed: pending until its time is over", wish=NEVER_CONFIRMS),
        5: Scenario("paid, the notice is never sent", notice=fault(Behaviour.NEVER)),
        6: Scenario("paid, the notice is sent five times", notice=fault(Behaviour.DUPLICATE)),
        7: Scenario("paid, the only notice is badly signed", notice=fault(Behaviour.BADLY_SIGNED)),
        8: Scenario("paid, the notice is 20 s late", notice=fault(Behaviour.LATE)),
        9: Scenario(
            "paid, the first 3 reads of the status answer 500",
            status=fault(Behaviour.ERROR),
            status_times=3,
        ),
        10: Scenario(
            "paid, the first 2 reads of the status do not answer for 30 s",
            status=fault(Behaviour.TIMEOUT),
            status_times=2,
        ),
        11: Scenario("paid, every read of the status takes 2 s", status=fault(Behaviour.SLOW)),
        12: Scenario(
            "paid, and 1 s after its notice comes one that is older",
            notice=fault(Behaviour.REORDERED),
        ),
        13: Scenario("pays 50 XAF less", shortfall=50),
        14: Scenario(
            "the call that starts it answers 500 the first time, and nothing is stored",
            start=fault(Behaviour.ERROR),
        ),
        15: Scenario(
            "it is started, but the connection drops before the first answer",
            start=fault(Behaviour.DROP),
        ),
        16: Scenario(
            "paid, the first 2 reads of the status say that it is pending",
            status=fault(PENDING),
            status_times=2,
        ),
        17: Scenario(
            "paid, the first read of the status answers 200 with HTML",
            status=fault(Behaviour.HTML),
            status_times=1,
        ),
        18: Scenario(
            "paid, the first 2 reads of the status drop the connection",
            status=fault(Behaviour.DROP),
            status_times=2,
        ),
        19: Scenario(
            "pending at first (on a page of Fapshi declined), 20 s later paid", wish="late_success"
        ),
        20: Scenario(
            "paid at once, but the call that starts it is not answered for 30 s",
            start=fault(Behaviour.TIMEOUT),
            acts_alone=True,
        ),
        21: Scenario(
            "paid, the only notice carries another account's secret",
            notice=fault(Behaviour.WRONG_SECRET),
        ),
        22: Scenario(
            "the first call that starts it does nothing, and does not answer for 30 s",
            start=fault(Behaviour.TIMEOUT_BEFORE),
        ),
        23: Scenario(
            "the first call that starts it answers 429", start=fault(Behaviour.TOO_MANY_REQUESTS)
        ),
        24: Scenario(
            "it is started, but the connection breaks in the middle of the first answer",
            start=fault(Behaviour.RESET),
        ),
    }
)


def network_of(phone: str) -> str | None:
    """Return `mtn` or `orange`, or None for a number of neither.

    Args:
        phone: Nine digits, without the country code.
    """
    if _MTN.fullmatch(phone):
        return "mtn"
    return "orange" if _ORANGE.fullmatch(phone) else None


def scenario_of(amount: int) -> Scenario:
    """Return what an amount stands for."""
    return MAGIC.get(amount % 100, PLAIN) if amount > MAGIC_ABOVE else PLAIN


def resolve(wish: str, *, amount: int, phone: str, plan: Plan | None) -> str:
    """Return what a customer's wish ends in: the recorded fate, the amount or the phone decide.

    Args:
        wish: One of `WISHES`.
        amount: In XAF.
        phone: Nine digits, or empty if none is known.
        plan: The recorded fate.
    """
    if wish != "paid":
        return wish
    if plan is not None and plan.wish != "paid":
        return plan.wish
    scenario = scenario_of(amount)
    if scenario.wish != "paid":
        return scenario.wish
    return "declined" if phone in FAILING_PHONES else "paid"


def acts_alone(amount: int, phone: str) -> bool:
    """Tell whether a prompt is answered without anybody's doing, because a number is magic."""
    return scenario_of(amount).acts_alone or phone in CONFIRMING_PHONES | FAILING_PHONES


def late_seconds(plan: Plan | None) -> float:
    """Return how late a late success is."""
    return DELAY_SECONDS[Behaviour.LATE] if plan is None else plan.late_seconds


def overview() -> str:
    """Tell a person which amounts and phones are magic, as HTML."""
    rows = [("any other", PLAIN.description)]
    rows += [(f"…{digits:02d}", each.description) for digits, each in sorted(MAGIC.items())]
    phones = [
        (", ".join(sorted(CONFIRMING_PHONES)), "confirm by themselves"),
        (", ".join(sorted(FAILING_PHONES)), "fail by themselves"),
    ]
    return f"""
<p>The last two digits of an amount above {MAGIC_ABOVE:,} XAF choose what happens.</p>
{pages.table(("Amount", "What happens"), rows)}
<p>Some phones answer a prompt by themselves; with all others somebody confirms.</p>
{pages.table(("Phone", "What happens"), phones)}"""
