"""Whether a subscription can be charged: what it names must be there, and go together."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import ClassVar, Final

from services.scheduler.domain.model import Plan
from services.scheduler.handlers.plans import ID_PREFIX
from services.scheduler.runtime import Runtime
from services.scheduler.store.payment_methods import KnownMethod, find_known
from services.scheduler.store.plans import find_plan_view
from shared.database import Connection
from shared.errors import ConflictError, InvalidInputError, TransientError
from shared.identifiers import created_at, is_id

#: Ids of means of payment begin with this; payments makes them.
METHOD_PREFIX: Final = "pmt"

#: Payments tells of a new means of payment by a message, which is here in milliseconds as a rule:
#: whoever stores one and subscribes with it at once should not be refused.
TOLD_WITHIN_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.05

#: What is older than this and not known never will be.
NEW_FOR: Final = timedelta(minutes=10)


class NotToldYetError(TransientError):
    """A means of payment may exist, and its news may be on its way."""

    code: ClassVar[str] = "not_told_yet"


class UnusableError(ConflictError):
    """Something that was named cannot be used any more."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}", details={"reason": problem, "field": field})


def wrong(field: str, problem: str) -> InvalidInputError:
    """Return the refusal of a field."""
    return InvalidInputError(f"{field} {problem}", details={field: problem})


async def await_method(runtime: Runtime, method_id: str) -> None:
    """Wait until the news of a means of payment is here. Needs no transaction, and none is open.

    Raises:
        InvalidInputError: there is none.
        NotToldYetError: its id is new, and nothing was told of it within some seconds.
    """
    if not is_id(method_id, METHOD_PREFIX):
        raise wrong("paymentMethodId", "is no id of a means of payment")
    deadline = asyncio.get_running_loop().time() + TOLD_WITHIN_SECONDS
    while True:
        async with runtime.core.database.connection() as connection:
            if await find_known(connection, method_id) is not None:
                return
        if abs(runtime.core.clock() - created_at(method_id)) > NEW_FOR:
            raise wrong("paymentMethodId", "is unknown")
        if asyncio.get_running_loop().time() >= deadline:
            raise NotToldYetError(
                "nothing was told of this means of payment so far",
                details={"paymentMethodId": "unknown"},
                retry_after_seconds=2,
            )
        await asyncio.sleep(_POLL_SECONDS)


async def find_open_plan(connection: Connection, plan_id: str) -> Plan:
    """Return a plan that one may subscribe to.

    Raises:
        InvalidInputError: there is none.
        UnusableError: it is archived.
    """
    view = None
    if is_id(plan_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
        view = await find_plan_view(connection, plan_id)
    if view is None:
        raise wrong("planId", "is unknown")
    if view.is_archived:
        raise UnusableError("planId", "is archived")
    return view.plan


async def require_method(
    connection: Connection, method_id: str, customer_id: str, plan: Plan
) -> KnownMethod:
    """Return a means of payment that a customer's subscription to a plan can charge.

    Raises:
        InvalidInputError: it is another customer's, or another gateway's.
        UnusableError: it is removed.
    """
    method = await find_known(connection, method_id)
    if method is None:
        raise wrong("paymentMethodId", "is unknown")
    if method.customer_id != customer_id:
        raise wrong("paymentMethodId", "belongs to another customer")
    if method.is_removed:
        raise UnusableError("paymentMethodId", "is removed")
    require_gateway(method, plan)
    return method


def require_gateway(method: KnownMethod, plan: Plan) -> None:
    """Check that a plan's gateway can charge a means of payment.

    Raises:
        InvalidInputError: it is another gateway's.
    """
    if method.gateway != plan.gateway:
        problem = f"is of {method.gateway}, and the plan is charged through {plan.gateway}"
        raise wrong("paymentMethodId", problem)
