"""What can go wrong, and which amounts make it: the operations, wishes and magic amounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from services.simulator.behaviours import OF_CALLS, OF_NOTICES, Behaviour, Fault, fault
from services.simulator.profiles import AT_LAST

NAME: Final = "stripe"

#: 429 for the lock of an object that another request holds.
LOCK_TIMEOUT: Final = "lock_timeout"

#: Searches do not find what is younger than the delay: the index of the real one lags behind.
STALE: Final = "stale"

#: Operations of the API that scripts can spoil, and `notice`.
CREATE: Final = "create"
CONFIRM: Final = "confirm"
RETRIEVE: Final = "retrieve"
LIST: Final = "list"
SEARCH: Final = "search"
CANCEL: Final = "cancel"
CAPTURE: Final = "capture"
REFUND: Final = "refund"
DISPUTE: Final = "dispute"
OTHER: Final = "other"
NOTICE: Final = "notice"

_OF_CALLS: Final = OF_CALLS | {LOCK_TIMEOUT}

BEHAVIOURS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        CREATE: _OF_CALLS,
        CONFIRM: _OF_CALLS,
        RETRIEVE: _OF_CALLS,
        LIST: _OF_CALLS,
        SEARCH: _OF_CALLS | {STALE},
        CANCEL: _OF_CALLS,
        CAPTURE: _OF_CALLS,
        REFUND: _OF_CALLS,
        DISPUTE: _OF_CALLS,
        OTHER: _OF_CALLS,
        NOTICE: OF_NOTICES,
    }
)

#: What charging a card leads to. `failed` is an authentication that did not succeed.
PAID: Final = "paid"
FAILED: Final = "failed"
DECLINED: Final = "declined"
INSUFFICIENT_FUNDS: Final = "insufficient_funds"
LATE_SUCCESS: Final = "late_success"
LATE_FAILURE: Final = "late_failure"
NEVER_CONFIRMS: Final = "never_confirms"
EXPIRED: Final = "expired"

#: What a customer may be told to do.
WISHES: Final = frozenset(
    {PAID, FAILED, DECLINED, INSUFFICIENT_FUNDS, LATE_SUCCESS, LATE_FAILURE, EXPIRED, AT_LAST}
)

#: The decline of a wish.
DECLINE_OF: Final[Mapping[str, str]] = MappingProxyType(
    {DECLINED: "generic_decline", INSUFFICIENT_FUNDS: "insufficient_funds"}
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What an amount stands for; `call` spoils the first call that confirms the payment."""

    description: str
    wish: str = PAID
    call: Fault | None = None
    notice: Fault | None = None


PLAIN: Final = Scenario("paid, unless the payment method says otherwise")

#: The magic amounts: the last two digits in minor units. The payment method goes before them.
MAGIC: Final[Mapping[int, Scenario]] = MappingProxyType(
    {
        1: Scenario("declined: generic_decline", DECLINED),
        2: Scenario("declined: insufficient_funds", INSUFFICIENT_FUNDS),
        3: Scenario("needs an authentication that never comes", NEVER_CONFIRMS),
        4: Scenario("processing, succeeded after 20 s", LATE_SUCCESS),
        5: Scenario("paid, no notice is ever sent", notice=fault(Behaviour.NEVER)),
        6: Scenario(
            "paid, the notice is sent five times, once as another event",
            notice=fault(Behaviour.DUPLICATE),
        ),
        7: Scenario("paid, the only notice is badly signed", notice=fault(Behaviour.BADLY_SIGNED)),
        8: Scenario("paid, the notice is 20 s late", notice=fault(Behaviour.LATE)),
        9: Scenario(
            "paid, the only notice is signed with another's secret",
            notice=fault(Behaviour.WRONG_SECRET),
        ),
        10: Scenario(
            "paid, an older event (processing) comes 1 s after that of the payment",
            notice=fault(Behaviour.REORDERED),
        ),
        11: Scenario("processing, failed after 20 s", LATE_FAILURE),
        12: Scenario("needs an authentication, canceled as expired after 20 s", EXPIRED),
        14: Scenario("500, and nothing is done", call=fault(Behaviour.ERROR)),
        15: Scenario("paid, the connection drops before the answer", call=fault(Behaviour.DROP)),
        16: Scenario("paid, no answer for 30 s", call=fault(Behaviour.TIMEOUT)),
        17: Scenario(
            "no answer for 30 s, and nothing is done", call=fault(Behaviour.TIMEOUT_BEFORE)
        ),
        18: Scenario(
            "paid, 500, which the idempotency key keeps", call=fault(Behaviour.ERROR_AFTER)
        ),
        19: Scenario("429 with Retry-After", call=fault(Behaviour.TOO_MANY_REQUESTS)),
        20: Scenario("409 idempotency_key_in_use", call=fault(Behaviour.IN_USE)),
        21: Scenario("paid after 2 s, in which the key is in use", call=fault(Behaviour.SLOW)),
        22: Scenario("paid, half of the answer is sent", call=fault(Behaviour.RESET)),
        23: Scenario("paid, the answer is 200 with HTML", call=fault(Behaviour.HTML)),
        24: Scenario("paid, the answer is half a JSON text", call=fault(Behaviour.MALFORMED)),
        25: Scenario("429 lock_timeout without Retry-After", call=fault(LOCK_TIMEOUT)),
    }
)


def scenario_of(amount: int) -> Scenario:
    """Return what an amount in minor units stands for."""
    return MAGIC.get(amount % 100, PLAIN)
