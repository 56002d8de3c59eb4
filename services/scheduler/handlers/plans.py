"""Makes and changes plans. Nothing is billed by that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from services.scheduler.domain.model import Plan
from services.scheduler.domain.plans import require_chargeable, require_length
from services.scheduler.runtime import Runtime
from services.scheduler.store import plans as plan_store
from services.scheduler.store.plans import PlanView
from shared.errors import NotFoundError
from shared.gateways.registry import REGISTRY
from shared.identifiers import is_id

#: Ids of plans begin with this.
ID_PREFIX: Final = "pln"

_GATEWAYS: Final = MappingProxyType(
    {name: registration.capabilities for name, registration in REGISTRY.items()}
)


async def create_plan(
    runtime: Runtime, plan: Plan, name: str, metadata: Mapping[str, str]
) -> PlanView:
    """Store a plan. Repeated with the same id it finds it there.

    Raises:
        InvalidInputError: it could not be charged; the details name the field.
    """
    require_length("interval", plan.interval)
    if plan.trial is not None:
        require_length("trial", plan.trial)
    require_chargeable(_GATEWAYS, plan)
    async with runtime.core.database.connection() as connection:
        await plan_store.insert_plan(connection, plan, name, metadata, runtime.core.clock())
    return await read_plan(runtime, plan.id)


async def read_plan(runtime: Runtime, plan_id: str) -> PlanView:
    """Return a plan, an archived one too.

    Raises:
        NotFoundError: none has this id.
    """
    found = None
    if is_id(plan_id, ID_PREFIX):  # Anything else may hold what PostgreSQL cannot encode.
        async with runtime.core.database.connection() as connection:
            found = await plan_store.find_plan_view(connection, plan_id)
    if found is None:
        raise NotFoundError(f"no plan has the id {plan_id[:40]!r}")
    return found


async def change_plan(
    runtime: Runtime, plan_id: str, changed: Callable[[PlanView], PlanView]
) -> PlanView:
    """Change what may change of a plan: for all its subscriptions, each from its next step on.

    `changed` returns what shall stand, in the fields that `save_plan` writes.

    Raises:
        NotFoundError: none has this id.
    """
    await read_plan(runtime, plan_id)
    async with runtime.core.database.transaction() as connection:
        view = await plan_store.lock_plan(connection, plan_id)
        assert view is not None, "plans are never deleted"
        await plan_store.save_plan(connection, changed(view), runtime.core.clock())
    return await read_plan(runtime, plan_id)


async def archive_plan(runtime: Runtime, plan_id: str) -> PlanView:
    """Let no new subscription have a plan; those that have it go on. Repeating changes nothing.

    Raises:
        NotFoundError: none has this id.
    """
    await read_plan(runtime, plan_id)
    async with runtime.core.database.connection() as connection:
        await plan_store.archive_plan(connection, plan_id, runtime.core.clock())
    return await read_plan(runtime, plan_id)
