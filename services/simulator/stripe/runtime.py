"""What the parts of the simulated Stripe share: the account, a call, and the work it asks for."""

from __future__ import annotations

import secrets
import string
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from services.simulator.core import Core, Treatment
from services.simulator.faults import Reply
from services.simulator.stripe.form import Tree
from shared.database import Connection

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 24


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the handlers need: the core and the account's two secrets."""

    core: Core
    secret_key: SecretStr
    webhook_secret: SecretStr


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated request."""

    method: str
    path: str
    tree: Tree
    request_id: str
    idempotency_key: str | None = None
    #: The identifier in the path, or none.
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What a request with valid parameters asks for.

    `run` is given a connection in a transaction, which is undone when it raises. The payment is
    known by its `reference`, or by the intent or charge that the request names. A request that
    confirms a payment starts it; `amount` is that of one which it makes too.
    """

    operation: str
    run: Callable[[Connection, Treatment], Awaitable[Reply]]
    reference: str | None = None
    intent_id: str | None = None
    charge: str | None = None
    amount: int | None = None
    confirms: bool = False


def new_id(prefix: str) -> str:
    """Make an identifier like `pi_3Nq…`."""
    return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))}"
