"""What can go wrong, and which amounts make it: the operations, wishes and magic amounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.simulator.behaviours import OF_CALLS, Behaviour, Fault, fault
from services.simulator.profiles import AT_LAST, Fate, Plan

NAME: Final = "x402"

SUPPORTED: Final = "supported"
VERIFY: Final = "verify"
SETTLE: Final = "settle"
RPC: Final = "rpc"
RESOURCE: Final = "resource"

#: The node shows the chain as it was the delay ago.
LAGGING: Final = "lagging"

BEHAVIOURS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        SUPPORTED: OF_CALLS,
        VERIFY: OF_CALLS,
        SETTLE: OF_CALLS,
        RPC: OF_CALLS | {LAGGING},
        RESOURCE: OF_CALLS,
    }
)

#: What settling leads to. `pending` is mined at once, and said to be under way at first.
PAID: Final = "paid"
DECLINED: Final = "declined"
INSUFFICIENT_FUNDS: Final = "insufficient_funds"
LATE_SUCCESS: Final = "late_success"
NEVER_CONFIRMS: Final = "never_confirms"
EXPIRED: Final = "expired"
PENDING: Final = "pending"
UNEXPECTED: Final = "unexpected"
CANCELLED: Final = "cancelled"

#: What may happen by itself to an authorization that was broadcast.
WISHES: Final = frozenset({PAID, AT_LAST, CANCELLED})


@dataclass(frozen=True, slots=True)
class Scenario:
    """What an amount stands for; `call` spoils the first settle."""

    description: str
    wish: str = PAID
    call: Fault | None = None


PLAIN: Final = Scenario("transferred in the next block")

#: The magic amounts: the last two digits in atomic units.
MAGIC: Final[Mapping[int, Scenario]] = MappingProxyType(
    {
        1: Scenario("refused: insufficient_funds", DECLINED),
        2: Scenario("refused: invalid_exact_evm_insufficient_balance", INSUFFICIENT_FUNDS),
        3: Scenario("settlement_pending, never in a block", NEVER_CONFIRMS),
        4: Scenario("settlement_pending, transferred after 20 s", LATE_SUCCESS),
        5: Scenario("transferred, but settlement_pending at first", PENDING),
        6: Scenario("cancelled by the payer before it is settled", CANCELLED),
        12: Scenario("refused: the window is over", EXPIRED),
        13: Scenario("transferred, but unexpected_settle_error", UNEXPECTED),
        14: Scenario("500, and nothing is done", call=fault(Behaviour.ERROR)),
        15: Scenario(
            "transferred, the connection drops before the answer", call=fault(Behaviour.DROP)
        ),
        16: Scenario("transferred, no answer for 30 s", call=fault(Behaviour.TIMEOUT)),
        17: Scenario(
            "no answer for 30 s, and nothing is done", call=fault(Behaviour.TIMEOUT_BEFORE)
        ),
        18: Scenario("transferred, 500", call=fault(Behaviour.ERROR_AFTER)),
        19: Scenario("429 with Retry-After", call=fault(Behaviour.TOO_MANY_REQUESTS)),
        20: Scenario("409", call=fault(Behaviour.IN_USE)),
        21: Scenario("transferred, the answer takes 2 s", call=fault(Behaviour.SLOW)),
        22: Scenario("transferred, half of the answer is sent", call=fault(Behaviour.RESET)),
        23: Scenario("transferred, the answer is 200 with HTML", call=fault(Behaviour.HTML)),
        24: Scenario(
            "transferred, the answer is half a JSON text", call=fault(Behaviour.MALFORMED)
        ),
    }
)


def scenario_of(value: int) -> Scenario:
    """Return what an amount in atomic units stands for."""
    return MAGIC.get(value % 100, PLAIN)


def wish_of(value: int, plan: Plan | None) -> str:
    """Return what settling leads to by the amount or by the recorded fate."""
    wish = scenario_of(value).wish
    if wish == PAID and plan is not None:
        return NEVER_CONFIRMS if plan.fate is Fate.NEVER_CONFIRMS else plan.wish
    return wish
