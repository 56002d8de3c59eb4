"""What the suite must know of each gateway to bring about every outcome: one entry per gateway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from shared.gateways.interface import (
    ActionRequired,
    Card,
    Checkout,
    FailureKind,
    Method,
    MethodKind,
    Paid,
    Pending,
    Prompt,
    Wallet,
)
from shared.money import Money

#: Calls that go wrong: by each of them nothing is said of the money.
FAULTS: Final = (
    "timeout_before",
    "error",
    "too_many_requests",
    "in_use",
    "timeout",
    "drop",
    "reset",
    "error_after",
    "html",
    "malformed",
)

#: Those that also spoil a look; how each client reads every fault has tests of its own.
FAULTS_OF_LOOKS: Final = ("timeout", "drop", "error", "malformed")


@dataclass(frozen=True, slots=True)
class Decline:
    """A way not to pay, and what it must be called.

    `method` and `amount` replace the ordinary ones; `wish` is what the customer does after the
    start. Without it the start itself is declined.
    """

    kind: FailureKind
    is_final: bool
    wish: str | None = None
    method: Method | None = None
    amount: Money | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """One method of a gateway: what opens it, and the simulator's names of the calls it makes.

    Attributes:
        method: An ordinary one, with nothing magic about it.
        amount: The same.
        opens: What a start gives when all is well.
        starts: Operations of `start`, each of which may go wrong.
        looks: Operations of `look_up`; it says nothing when all of a group go wrong.
        declines: By a name for each.
        doubts: Amounts of which the gateway takes the money and says at first that it may not have.
        certain: Faults of a start that say for certain that nothing was done, and how they read.
    """

    method: Method
    amount: Money
    opens: type[ActionRequired | Pending | Paid]
    starts: tuple[str, ...]
    looks: tuple[tuple[str, ...], ...]
    declines: Mapping[str, Decline] = field(default_factory=dict)
    doubts: Mapping[str, Money] = field(default_factory=dict)
    certain: Mapping[str, FailureKind] = field(default_factory=dict)


#: One of each kind, to be refused by those who cannot.
ANY_METHOD: Final[Mapping[MethodKind, Method]] = MappingProxyType(
    {
        "checkout": Checkout(),
        "prompt": Prompt("237677123456"),
        "card": Card("pm_card_visa"),
        "wallet": Wallet("0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"),
    }
)

SSLCOMMERZ: Final = {
    "checkout": Way(
        method=Checkout(),
        amount=Money(150_000, "BDT"),
        opens=ActionRequired,
        starts=("session",),
        looks=(("query",),),
        declines={
            "by the issuer": Decline(FailureKind.UNKNOWN_CODE, is_final=False, wish="failed"),
            "cancelled": Decline(FailureKind.CANCELLED, is_final=False, wish="cancelled"),
            "expired": Decline(FailureKind.EXPIRED, is_final=False, wish="expired"),
        },
    )
}

STRIPE: Final = {
    "off session": Way(
        method=Card("pm_card_visa", off_session=True),
        amount=Money(1_900, "USD"),
        opens=Paid,
        starts=("create",),
        # Without a handle the same call is made again, under the same idempotency key.
        looks=(("create",),),
        declines={
            "lost card": Decline(
                FailureKind.CARD_DECLINED,
                is_final=True,
                method=Card("pm_card_visa_chargeDeclinedLostCard", off_session=True),
            ),
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS,
                is_final=True,
                method=Card("pm_card_visa_chargeDeclinedInsufficientFunds", off_session=True),
            ),
            "authentication": Decline(
                FailureKind.AUTHENTICATION_FAILED,
                is_final=True,
                method=Card("pm_card_authenticationRequired", off_session=True),
            ),
            "processing error": Decline(
                FailureKind.PROCESSING_ERROR,
                is_final=True,
                method=Card("pm_card_chargeDeclinedProcessingError", off_session=True),
            ),
        },
        certain={"too_many_requests": FailureKind.RATE_LIMIT_EXCEEDED},
    ),
    "on session": Way(
        method=Card("pm_card_authenticationRequired"),
        amount=Money(1_900, "USD"),
        opens=ActionRequired,
        starts=("create",),
        looks=(("retrieve",),),
        declines={
            "authentication": Decline(
                FailureKind.AUTHENTICATION_FAILED, is_final=True, wish="failed"
            ),
        },
        certain={"too_many_requests": FailureKind.RATE_LIMIT_EXCEEDED},
    ),
}

FAPSHI: Final = {
    "prompt": Way(
        method=Prompt("237677123456"),
        amount=Money(5_000, "XAF"),
        opens=Pending,
        starts=("direct",),
        looks=(("status",),),
        declines={
            "by the operator": Decline(FailureKind.UNKNOWN_CODE, is_final=True, wish="declined"),
            "by the customer": Decline(FailureKind.CANCELLED, is_final=True, wish="cancelled"),
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=True, wish="insufficient_funds"
            ),
            "not our number": Decline(
                FailureKind.CONFIGURATION, is_final=True, method=Prompt("237222123456")
            ),
        },
    ),
    "page": Way(
        method=Checkout(),
        amount=Money(5_000, "XAF"),
        opens=ActionRequired,
        starts=("initiate",),
        looks=(("status",),),
        declines={
            "by the operator": Decline(FailureKind.UNKNOWN_CODE, is_final=False, wish="declined"),
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=False, wish="insufficient_funds"
            ),
            "expired": Decline(FailureKind.EXPIRED, is_final=True, wish="expired"),
        },
    ),
}

CAMPAY: Final = {
    "prompt": Way(
        method=Prompt("237677123456"),
        amount=Money(5_000, "XAF"),
        opens=Pending,
        starts=("collect",),
        looks=(("status",),),
        declines={
            "by the operator": Decline(FailureKind.UNKNOWN_CODE, is_final=True, wish="declined"),
            "by the customer": Decline(FailureKind.CANCELLED, is_final=True, wish="cancelled"),
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=True, wish="insufficient_funds"
            ),
        },
    ),
    "page": Way(
        method=Checkout(),
        amount=Money(5_000, "XAF"),
        opens=ActionRequired,
        starts=("link",),
        looks=(("status",),),
        declines={
            "by the operator": Decline(FailureKind.UNKNOWN_CODE, is_final=False, wish="declined"),
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=False, wish="insufficient_funds"
            ),
        },
    ),
}

X402: Final = {
    "wallet": Way(
        method=Wallet("0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"),
        amount=Money(2_000_000, "USDC"),
        opens=Paid,
        starts=("verify", "settle"),
        looks=(("settle", "rpc"),),
        declines={
            "no money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=True, amount=Money(2_000_001, "USDC")
            ),
            "too little money": Decline(
                FailureKind.INSUFFICIENT_FUNDS, is_final=True, amount=Money(2_000_002, "USDC")
            ),
        },
        doubts={
            "pending at first": Money(2_000_005, "USDC"),
            "unexpected error": Money(2_000_013, "USDC"),
        },
    ),
}

#: By gateway, then by a name of the way. A gateway of the registry without an entry here fails the
#: suite.
SUBJECTS: Final[Mapping[str, Mapping[str, Way]]] = MappingProxyType(
    {
        "sslcommerz": SSLCOMMERZ,
        "fapshi": FAPSHI,
        "campay": CAMPAY,
        "stripe": STRIPE,
        "x402": X402,
    }
)
