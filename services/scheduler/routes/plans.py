"""Plans over HTTP: the routes under /api/plans."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import TypedDict

from services.scheduler.domain.model import CatchUpPolicy, Dunning, DunningEnd, Plan
from services.scheduler.domain.periods import Interval, IntervalUnit
from services.scheduler.handlers import plans
from services.scheduler.runtime import Runtime
from services.scheduler.store import plans as plan_store
from services.scheduler.store.plans import PlanView
from shared.money import MINOR_UNITS_MAX, Money
from shared.web.application import CALLER
from shared.web.bodies import Body, LongText, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

METADATA_ENTRIES_MAX: Final = 20
DUNNING_STEPS_MAX: Final = 20
CATCH_UP_PERIODS_MAX: Final = 1_000

_EXAMPLE: Final[dict[str, JsonValue]] = {
    "name": "Monthly",
    "product": {"id": "course-1", "name": "Bangla for beginners"},
    "amount": 990,
    "currency": "EUR",
    "interval": {"unit": "month", "count": 1},
    "trial": {"unit": "week", "count": 2},
    "gateway": "stripe",
}

Metadata = Annotated[dict[ShortText, LongText], Field(max_length=METADATA_ENTRIES_MAX)]
GraceDays = Annotated[
    int, Field(ge=0, le=365, description="Days for which access outlasts an unpaid period's start")
]
DunningDay = Annotated[int, Field(ge=1, le=365)]


class IntervalBody(Body):
    """A number of units."""

    unit: IntervalUnit
    count: Annotated[
        int, Field(ge=1, le=100_000_000, description="At most a hundred years of the unit")
    ]

    def interval(self) -> Interval:
        """Return it as the domain knows it."""
        return Interval(self.unit, self.count)


class PlanProductBody(Body):
    """What subscribers may use."""

    id: ShortText
    name: ShortText | None = None


class DunningBody(Body):
    """When the money of an unpaid period is asked for again, and what comes then."""

    days: Annotated[
        list[DunningDay],
        Field(
            default_factory=lambda: [1, 3, 7],
            max_length=DUNNING_STEPS_MAX,
            description="After the failure, ascending",
        ),
    ]
    end: DunningEnd = DunningEnd.CANCEL

    @field_validator("days")
    @classmethod
    def _ascend(cls, days: list[int]) -> list[int]:
        if days != sorted(set(days)):
            raise ValueError("must ascend, each day once")
        return days

    def dunning(self) -> Dunning:
        """Return it as the domain knows it."""
        return Dunning(tuple(self.days), self.end)


class CatchUpBody(Body):
    """Which periods are billed that went by unbilled."""

    policy: CatchUpPolicy = CatchUpPolicy.CURRENT
    periods_max: Annotated[
        int,
        Field(
            ge=1,
            le=CATCH_UP_PERIODS_MAX,
            description="Most periods that are billed to catch up, the present one included",
        ),
    ] = 12


class PlanBody(Body):
    """Body of `POST /api/plans`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    name: ShortText
    product: PlanProductBody
    amount: Annotated[int, Field(gt=0, le=MINOR_UNITS_MAX, description="Minor units")]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3,5}$")]
    interval: IntervalBody
    trial: Annotated[
        IntervalBody | None, Field(description="From the start of a subscription to its anchor")
    ] = None
    gateway: Annotated[ShortText, Field(description="One that charges customers who are not there")]
    grace_days: GraceDays = 3
    dunning: Annotated[DunningBody, Field(default_factory=DunningBody)]
    catch_up: Annotated[CatchUpBody, Field(default_factory=CatchUpBody)]
    metadata: Annotated[Metadata, Field(default_factory=dict)]

    def plan(self, plan_id: str) -> Plan:
        """Return the plan.

        Raises:
            InvalidInputError: the currency is unknown.
        """
        return Plan(
            id=plan_id,
            product_id=self.product.id,
            product_name=self.product.name or self.product.id,
            amount=Money(self.amount, self.currency),
            interval=self.interval.interval(),
            trial=None if self.trial is None else self.trial.interval(),
            gateway=self.gateway,
            grace=timedelta(days=self.grace_days),
            dunning=self.dunning.dunning(),
            catch_up=self.catch_up.policy,
            catch_up_max=self.catch_up.periods_max,
        )


#: What is billed by a plan never changes: whoever subscribed to it agreed to that.
_FIXED: Final = ("product", "amount", "currency", "interval", "trial", "gateway")
_FIXED_PROBLEM: Final = "does not change: make another plan, and move subscriptions to it"


class PlanChangesBody(Body):
    """Body of `PATCH /api/plans/{planId}`; what is left out, or null, stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"graceDays": 7}]})

    name: ShortText | None = None
    grace_days: GraceDays | None = None
    dunning: DunningBody | None = None
    catch_up: CatchUpBody | None = None
    metadata: Metadata | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_what_is_fixed(cls, value: Any) -> Any:
        found = [name for name in _FIXED if isinstance(value, dict) and name in value]
        if found:
            problem = PydanticCustomError("fixed", _FIXED_PROBLEM)
            problems: list[InitErrorDetails] = [
                {"type": problem, "loc": (name,), "input": None} for name in found
            ]
            raise ValidationError.from_exception_data("PlanChangesBody", problems)
        return value

    def changed(self, view: PlanView) -> PlanView:
        """Return a plan with these changes."""
        plan = view.plan
        if self.grace_days is not None:
            plan = plan._replace(grace=timedelta(days=self.grace_days))
        if self.dunning is not None:
            given = self.dunning.dunning()._asdict()
            named = {name: given[name] for name in self.dunning.model_fields_set}
            plan = plan._replace(dunning=plan.dunning._replace(**named))
        if self.catch_up is not None:
            if "policy" in self.catch_up.model_fields_set:
                plan = plan._replace(catch_up=self.catch_up.policy)
            if "periods_max" in self.catch_up.model_fields_set:
                plan = plan._replace(catch_up_max=self.catch_up.periods_max)
        metadata = view.metadata if self.metadata is None else self.metadata
        return view._replace(plan=plan, name=self.name or view.name, metadata=metadata)


class PlansQuery(PageQuery):
    """Query of `GET /api/plans`."""

    archived: Annotated[bool, Field(description="Whether archived ones are listed too")] = False


class IntervalAnswer(TypedDict):
    """A number of units."""

    unit: IntervalUnit
    count: int


class PlanProductAnswer(TypedDict):
    """What subscribers may use."""

    id: str
    name: str


class DunningAnswer(TypedDict):
    """When the money of an unpaid period is asked for again, and what comes then."""

    days: list[int]
    end: DunningEnd


class CatchUpAnswer(TypedDict):
    """Which periods are billed that went by unbilled."""

    policy: CatchUpPolicy
    periodsMax: int


class PlanAnswer(TypedDict):
    """What is sold, how often and for how much."""

    id: Annotated[str, Field(examples=["pln_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    name: str
    isArchived: Annotated[bool, Field(description="No new subscription may have it")]
    product: PlanProductAnswer
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    interval: IntervalAnswer
    trial: IntervalAnswer | None
    gateway: str
    graceDays: int
    dunning: DunningAnswer
    catchUp: CatchUpAnswer
    metadata: dict[str, str]
    createdAt: TimeText
    updatedAt: TimeText


def plan_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes of plans."""
    routes = _Plans(runtime, idempotency)
    all_, one, answer = "/api/plans", "/api/plans/{plan_id}", PlanAnswer
    read, write = Scope.READ, Scope.WRITE
    listed = PageOf("plans", answer)
    return [
        Route("POST", all_, routes.create, write, body=PlanBody, answer=answer, status=201),
        Route("GET", all_, routes.list_, read, query=PlansQuery, answer=listed),
        Route("GET", one, routes.read, read, answer=answer),
        Route("PATCH", one, routes.change, write, body=PlanChangesBody, answer=answer),
        Route("DELETE", one, routes.archive, write, answer=answer),
    ]


class _Plans:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a plan to subscribe to.

        Its gateway must charge customers who are not there, and take the amount.
        """
        raw = await read_body(request)
        body = parse(PlanBody, raw)

        async def work(plan_id: str) -> Answer:
            plan = body.plan(plan_id)
            view = await plans.create_plan(self._runtime, plan, body.name, body.metadata)
            return Answer(render(view), status=201)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=plans.ID_PREFIX, work=work
        )

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a plan, an archived one too."""
        view = await plans.read_plan(self._runtime, request.match_info["plan_id"])
        return Answer(render(view)).response()

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List plans, the newest first."""
        query = parse_query(PlansQuery, request)
        query.require_cursor_of(plans.ID_PREFIX)
        async with self._runtime.core.database.connection() as connection:
            found = await plan_store.list_plans(
                connection,
                with_archived=query.archived,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        return query.page("plans", found, id_of=lambda each: each.plan.id, render=render).response()

    async def change(self, request: web.Request) -> web.StreamResponse:
        """Change a plan's name, metadata, grace, dunning or catching up.

        It holds for all its subscriptions, each from its next step on. What is billed by a plan
        does not change: another price is another plan.
        """
        raw = await read_body(request)
        body = parse(PlanChangesBody, raw)

        async def work(_id: str) -> Answer:
            plan_id = request.match_info["plan_id"]
            return Answer(render(await plans.change_plan(self._runtime, plan_id, body.changed)))

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=plans.ID_PREFIX, work=work
        )

    async def archive(self, request: web.Request) -> web.StreamResponse:
        """Archive a plan: nobody new can subscribe to it, and those who have it go on.

        Repeating it changes nothing.
        """
        raw = await read_body(request)

        async def work(_id: str) -> Answer:
            plan_id = request.match_info["plan_id"]
            return Answer(render(await plans.archive_plan(self._runtime, plan_id)))

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=plans.ID_PREFIX, work=work
        )


def _render_interval(interval: Interval) -> IntervalAnswer:
    return {"unit": interval.unit, "count": interval.every}


def render(view: PlanView) -> PlanAnswer:
    """Return a plan as the API shows it."""
    plan = view.plan
    return {
        "id": plan.id,
        "name": view.name,
        "isArchived": view.is_archived,
        "product": {"id": plan.product_id, "name": plan.product_name},
        "amount": plan.amount.minor_units,
        "currency": plan.amount.currency,
        "interval": _render_interval(plan.interval),
        "trial": None if plan.trial is None else _render_interval(plan.trial),
        "gateway": plan.gateway,
        "graceDays": plan.grace.days,
        "dunning": {"days": list(plan.dunning.days), "end": plan.dunning.end},
        "catchUp": {"policy": plan.catch_up, "periodsMax": plan.catch_up_max},
        "metadata": dict(view.metadata),
        "createdAt": time_text(view.created_at),
        "updatedAt": time_text(view.updated_at),
    }
