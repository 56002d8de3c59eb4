"""Jobs over HTTP: how far each charge has come, and how many there are."""

from __future__ import annotations

from typing import Annotated, Literal

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from services.scheduler.domain.model import SENT, JobStatus
from services.scheduler.handlers import jobs
from services.scheduler.runtime import Runtime
from services.scheduler.store.job_views import UNRESOLVED_MAX, JobView
from shared.errors import InvalidInputError
from shared.web.bodies import TimeText, time_text
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse_query

#: The gateway whose name for a charge is the hash of a transaction.
_X402 = "x402"

WaitsFor = Literal["payments", "gateway", "retry", "review"]


class JobsQuery(PageQuery):
    """Query of `GET /api/jobs`."""

    status: JobStatus | None = None
    unresolved: Annotated[
        bool,
        Field(
            description="Only jobs in hand of which nothing was heard for longer than"
            " `CHARGE_UNRESOLVED_AFTER`; without `status`"
        ),
    ] = False

    def check(self) -> None:
        """Check what the types cannot say.

        Raises:
            InvalidInputError: the cursor is not one of ours, or both filters are given.
        """
        self.require_cursor_of("job")
        if self.unresolved and self.status is not None:
            raise InvalidInputError(
                "give status or unresolved, not both", details={"status": "given with unresolved"}
            )


class ResultAnswer(TypedDict):
    """How a job ended."""

    success: bool
    transactionHash: Annotated[str | None, Field(description="Of x402")]
    gatewayReference: Annotated[
        str | None, Field(description="The gateway's name for the charge; of x402 the same hash")
    ]
    amount: Annotated[int, Field(description="Minor units; 0 when it failed")]
    currency: str


class JobDataAnswer(TypedDict):
    """What is charged, for what."""

    subscriptionId: str
    customerId: str
    planId: str
    paymentId: Annotated[str, Field(description="At `GET /api/payments/{paymentId}`")]
    paymentMethodId: str | None
    gateway: str
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    periodStart: TimeText
    chargeNumber: Annotated[int, Field(description="Which charge of its period it is, from 1")]
    occasion: Annotated[str, Field(description="`period`, `dunning` or `trigger`")]


class JobAnswer(TypedDict):
    """A charge as a job. On a test clock its times are those of its subscription."""

    id: str
    status: JobStatus
    progress: Annotated[
        int,
        Field(
            description="Per cent: 10 validated, 30 accepted by payments, 50 sent to the gateway,"
            " 100 confirmed and recorded"
        ),
    ]
    result: Annotated[ResultAnswer | None, Field(description="Null until it has ended")]
    attemptsMade: Annotated[int, Field(description="Tries at the gateway")]
    failedReason: Annotated[
        str | None,
        Field(
            description="Of the last try, `kind:code`",
            examples=["insufficient_funds:card_declined"],
        ),
    ]
    waitsFor: Annotated[WaitsFor | None, Field(description="Null when it has ended")]
    isUnresolved: Annotated[
        bool, Field(description="Nothing was heard for longer than `CHARGE_UNRESOLVED_AFTER`")
    ]
    data: JobDataAnswer
    createdAt: TimeText
    processedAt: Annotated[
        TimeText | None, Field(description="When payments was first heard of it")
    ]
    nextRetryAt: TimeText | None
    finishedAt: TimeText | None
    updatedAt: Annotated[TimeText, Field(description="In real time, on a test clock too")]


class JobStatisticsAnswer(TypedDict):
    """How many jobs there are. Jobs leave some days after their end (`JOB_KEEP_DAYS`)."""

    waiting: int
    active: int
    delayed: int
    completed: int
    failed: int
    unresolved: Annotated[
        int,
        Field(description=f"Of the first three: see `isUnresolved`; at most {UNRESOLVED_MAX}"),
    ]


def job_routes(runtime: Runtime) -> list[Route]:
    """Return the routes under /api/jobs."""

    async def statistics(_request: web.Request) -> web.StreamResponse:
        """Count jobs by status."""
        counts = await jobs.count_jobs(runtime)
        answer: JobStatisticsAnswer = {
            "waiting": counts.by_status[JobStatus.WAITING],
            "active": counts.by_status[JobStatus.ACTIVE],
            "delayed": counts.by_status[JobStatus.DELAYED],
            "completed": counts.by_status[JobStatus.COMPLETED],
            "failed": counts.by_status[JobStatus.FAILED],
            "unresolved": counts.unresolved,
        }
        return Answer(answer).response()

    async def of_subscription(request: web.Request) -> web.StreamResponse:
        """List the jobs of a subscription, the newest first."""
        query = parse_query(PageQuery, request)
        query.require_cursor_of("job")
        found = await jobs.list_jobs_of(
            runtime,
            request.match_info["subscriptionId"],
            cursor=query.cursor,
            limit=query.limit + 1,
        )
        return _page(query, found)

    async def read(request: web.Request) -> web.StreamResponse:
        """Read a job."""
        return Answer(_render(await jobs.read_job(runtime, request.match_info["jobId"]))).response()

    async def list_all(request: web.Request) -> web.StreamResponse:
        """List jobs, the newest first."""
        query = parse_query(JobsQuery, request)
        query.check()
        found = await jobs.list_jobs(
            runtime,
            status=query.status,
            is_unresolved=query.unresolved,
            cursor=query.cursor,
            limit=query.limit + 1,
        )
        return _page(query, found)

    return [
        Route("GET", "/api/jobs/stats", statistics, Scope.READ, answer=JobStatisticsAnswer),
        Route(
            "GET",
            "/api/jobs/subscription/{subscriptionId}",
            of_subscription,
            Scope.READ,
            query=PageQuery,
            answer=PageOf("jobs", JobAnswer),
        ),
        Route("GET", "/api/jobs/{jobId}", read, Scope.READ, answer=JobAnswer),
        Route(
            "GET",
            "/api/jobs",
            list_all,
            Scope.READ,
            query=JobsQuery,
            answer=PageOf("jobs", JobAnswer),
        ),
    ]


def _page(query: PageQuery, found: list[JobView]) -> web.StreamResponse:
    return query.page("jobs", found, id_of=lambda view: view.job.id, render=_render).response()


def _render(view: JobView) -> JobAnswer:
    job = view.job
    return {
        "id": job.id,
        "status": job.status,
        "progress": job.progress,
        "result": _result(view),
        "attemptsMade": job.attempts_made,
        "failedReason": job.failed_reason,
        "waitsFor": _waits_for(view),
        "isUnresolved": view.is_unresolved,
        "data": {
            "subscriptionId": job.subscription_id,
            "customerId": view.customer_id,
            "planId": view.plan_id,
            "paymentId": job.payment_id,
            "paymentMethodId": view.payment_method_id,
            "gateway": view.gateway,
            "amount": view.amount,
            "currency": view.currency,
            "periodStart": time_text(job.period_start),
            "chargeNumber": job.charge_number,
            "occasion": job.occasion,
        },
        "createdAt": time_text(job.ordered_at),
        "processedAt": time_text(view.processed_at),
        "nextRetryAt": time_text(job.retry_at),
        "finishedAt": time_text(job.finished_at),
        "updatedAt": time_text(view.updated_at),
    }


def _result(view: JobView) -> ResultAnswer | None:
    job = view.job
    if job.finished_at is None:
        return None
    is_paid = job.status is JobStatus.COMPLETED
    return {
        "success": is_paid,
        "transactionHash": job.gateway_reference if view.gateway == _X402 else None,
        "gatewayReference": job.gateway_reference,
        "amount": view.amount if is_paid else 0,
        "currency": view.currency,
    }


def _waits_for(view: JobView) -> WaitsFor | None:
    match view.job.status:
        case JobStatus.WAITING:
            return "payments"
        case JobStatus.ACTIVE:
            return "payments" if view.job.progress < SENT else "gateway"
        case JobStatus.DELAYED:
            return "review" if view.job.retry_at is None else "retry"
        case _:
            return None
