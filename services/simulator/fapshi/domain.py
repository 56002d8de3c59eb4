"""What the gateway knows: transactions, their states, and the ways to misbehave. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.simulator import mobile_money
from services.simulator.behaviours import OF_CALLS, OF_NOTICES

NAME: Final = "fapshi"

#: Least amount of a payment, in XAF.
AMOUNT_MIN: Final = 100

#: The gateway keeps 3 percent.
MERCHANT_SHARE_PER_CENT: Final = 97


class Kind(StrEnum):
    """How the customer is asked."""

    LINK = "link"
    PROMPT = "prompt"


class State(StrEnum):
    """How far a transaction is, in the words of the protocol."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One link or prompt; amounts are in XAF, `phone` is nine digits."""

    trans_id: str
    reference: str
    kind: Kind
    state: State
    amount: int
    expires_at: datetime
    initiated_at: datetime
    charged: int | None = None
    link_key: str | None = None
    phone: str | None = None
    name: str | None = None
    email: str | None = None
    user_id: str | None = None
    external_id: str | None = None
    redirect_url: str | None = None
    message: str | None = None
    reason: str | None = None
    financial_trans_id: str | None = None
    confirmed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it may still be paid: a link that failed may."""
        if self.state is State.FAILED:
            return self.kind is Kind.LINK
        return self.state in (State.CREATED, State.PENDING)


class Operation(StrEnum):
    """What can be made to misbehave."""

    INITIATE = "initiate"
    DIRECT = "direct"
    STATUS = "status"
    EXPIRE = "expire"
    LISTING = "listing"
    SEARCH = "search"
    BALANCE = "balance"
    NOTICE = "notice"


#: Own behaviours. The status comes in an array of one; a listing does not know the newest yet.
ARRAY: Final = "array"
EMPTY: Final = "empty"

#: Which behaviours each operation has.
BEHAVIOURS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Operation.INITIATE: OF_CALLS,
        Operation.DIRECT: OF_CALLS,
        Operation.STATUS: OF_CALLS | {ARRAY, mobile_money.PENDING},
        Operation.EXPIRE: OF_CALLS,
        Operation.LISTING: OF_CALLS | {EMPTY},
        Operation.SEARCH: OF_CALLS | {EMPTY},
        Operation.BALANCE: OF_CALLS,
        Operation.NOTICE: OF_NOTICES,
    }
)

#: What starts each kind.
STARTS: Final[Mapping[Kind, Operation]] = MappingProxyType(
    {Kind.LINK: Operation.INITIATE, Kind.PROMPT: Operation.DIRECT}
)
