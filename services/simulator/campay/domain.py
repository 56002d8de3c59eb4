"""What the gateway knows: transactions, their states, and the ways to misbehave. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from services.simulator import mobile_money
from services.simulator.behaviours import OF_CALLS, OF_NOTICES

NAME: Final = "campay"

#: The gateway keeps 2 percent.
MERCHANT_SHARE_PER_CENT: Final = 98

COUNTRY_CODE: Final = "237"


class Kind(StrEnum):
    """What a transaction is."""

    COLLECT = "collect"
    LINK = "link"
    WITHDRAW = "withdraw"


class State(StrEnum):
    """How far a transaction is; `CREATED` is a link nobody has opened, and PENDING on the wire."""

    CREATED = "CREATED"
    PENDING = "PENDING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Transaction:
    """One prompt, link or withdrawal; amounts are in XAF, `phone` has the country code."""

    reference: UUID
    external_reference: str
    kind: Kind
    state: State
    amount: int
    description: str
    code: str
    created_at: datetime
    expires_at: datetime
    charged: int | None = None
    phone: str | None = None
    operator: str | None = None
    external_user: str = ""
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    link_key: str | None = None
    redirect_url: str = ""
    failure_url: str = ""
    operator_reference: str | None = None
    reason: str | None = None
    confirmed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self.state in (State.CREATED, State.PENDING)

    @property
    def local_phone(self) -> str:
        """The phone's nine digits, or nothing."""
        return (self.phone or "").removeprefix(COUNTRY_CODE)


class Operation(StrEnum):
    """What can be made to misbehave."""

    TOKEN = "token"  # noqa: S105 - the name of a call
    COLLECT = "collect"
    LINK = "link"
    STATUS = "status"
    HISTORY = "history"
    WITHDRAW = "withdraw"
    BALANCE = "balance"
    NOTICE = "notice"


#: Own behaviours of a status: the amount as `"5000.00"` or as `5000.0`, every absent text as
#: `"None"`, and a transaction that is not known yet.
AMOUNT_TEXT: Final = "amount_text"
AMOUNT_FLOAT: Final = "amount_float"
NONE_TEXTS: Final = "none_texts"
NOT_FOUND: Final = "not_found"

#: Own behaviour of a history: it does not know the newest yet.
EMPTY: Final = "empty"

#: Own behaviour of a call: the token is refused, as if it had just expired.
UNAUTHORIZED: Final = "unauthorized"

#: Own behaviours of a callback: a signature that has expired, or none at all; a good signature on
#: fields that somebody else has written; sent as GET or as a form whatever the settings say.
EXPIRED_TOKEN: Final = "expired_token"  # noqa: S105 - the name of a fault
ALG_NONE: Final = "alg_none"
ALTERED_FIELDS: Final = "altered_fields"
BY_GET: Final = "by_get"
BY_FORM: Final = "by_form"

_CALLS: Final = OF_CALLS | {UNAUTHORIZED}

#: Which behaviours each operation has.
BEHAVIOURS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        Operation.TOKEN: OF_CALLS,
        Operation.COLLECT: _CALLS,
        Operation.LINK: _CALLS,
        Operation.STATUS: _CALLS
        | {AMOUNT_TEXT, AMOUNT_FLOAT, NONE_TEXTS, NOT_FOUND, mobile_money.PENDING},
        Operation.HISTORY: _CALLS | {EMPTY},
        Operation.WITHDRAW: _CALLS,
        Operation.BALANCE: _CALLS,
        Operation.NOTICE: OF_NOTICES | {EXPIRED_TOKEN, ALG_NONE, ALTERED_FIELDS, BY_GET, BY_FORM},
    }
)

#: What starts each kind.
STARTS: Final[Mapping[Kind, Operation]] = MappingProxyType(
    {
        Kind.COLLECT: Operation.COLLECT,
        Kind.LINK: Operation.LINK,
        Kind.WITHDRAW: Operation.WITHDRAW,
    }
)
