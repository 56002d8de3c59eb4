"""The HTTP side of statistics and of jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from services.payments.domain.jobs import JobState, finished_at, job_state, next_step_at
from services.payments.domain.model import PaymentState
from services.payments.domain.statistics import COMPLETED, Tally
from services.payments.handlers import statistics
from services.payments.handlers.backlog import Backlog
from services.payments.handlers.statistics import Statistics
from services.payments.routes import limits
from services.payments.routes.limits import LimitsAnswer
from services.payments.runtime import Runtime
from services.payments.store.jobs import Job, JobAttempt, JobStory
from shared.contracts.priorities import Priority
from shared.web.bodies import TimeText, time_text
from shared.web.pages import PageQuery
from shared.web.routes import Answer, Route, Scope, parse_query

WINDOW_SECONDS_DEFAULT: Final = 3_600


class StatisticsQuery(BaseModel):
    """Query of `GET /api/payments/stats`."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    window_seconds: Annotated[int, Field(ge=60, le=86_400)] = WINDOW_SECONDS_DEFAULT


class JobsQuery(PageQuery):
    """Query of `GET /api/payments/jobs`."""

    state: JobState = JobState.WAITING


class TotalsAnswer(TypedDict):
    """What came to rest; a late success was counted as a failure before."""

    processed: int
    successful: int
    failed: Annotated[int, Field(description="Failed or cancelled")]
    onHold: int
    retried: Annotated[int, Field(description="Retries that were scheduled")]
    successRate: Annotated[float | None, Field(description="Per cent of what was processed")]
    averageSeconds: Annotated[
        float | None,
        Field(description="Our own time: from the notice, or the begin of the call, to the result"),
    ]


class WindowAnswer(TotalsAnswer):
    """The same of a window of time, with percentiles (each may be a fifth too high)."""

    p50Seconds: float | None
    p95Seconds: float | None
    p99Seconds: float | None


class CallsAnswer(TypedDict):
    """Calls of gateways in the window, of the last hour at most."""

    calls: int
    failures: Annotated[int, Field(description="Outages; a decline is none")]
    errorRate: Annotated[float | None, Field(description="Per cent")]


class ByPriorityAnswer(TypedDict):
    """A count for each priority."""

    high: int
    medium: int
    normal: int


class QueueAnswer(TypedDict):
    """What waits to be worked at."""

    total: int
    messages: Annotated[
        ByPriorityAnswer | None,
        Field(description="On the queues, taken by nobody; null while Redis is away"),
    ]
    dueLooks: ByPriorityAnswer
    dueRetries: ByPriorityAnswer
    isCapped: Annotated[bool, Field(description="There is more that is due than was counted")]


class JobCountsAnswer(TypedDict):
    """Payments by how they stand as jobs."""

    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int
    held: int


class StatisticsAnswer(TypedDict):
    """What payments came to, and what waits."""

    since: TimeText
    until: TimeText
    total: Annotated[TotalsAnswer, Field(description="Since the counting began")]
    window: WindowAnswer
    gateways: Annotated[dict[str, WindowAnswer], Field(description="The window, by gateway")]
    gatewayCalls: CallsAnswer
    queue: QueueAnswer
    processingNow: int
    jobs: JobCountsAnswer
    limits: Annotated[LimitsAnswer, Field(description="In force: of settings, profile, operator")]
    profile: str


class JobAnswer(TypedDict):
    """A payment as a job."""

    id: str
    state: JobState
    paymentState: PaymentState
    reason: str | None
    waitsFor: Annotated[str | None, Field(description="What keeps a retry that is due")]
    gateway: str
    priority: Priority
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    nextStepAt: TimeText | None
    createdAt: TimeText
    updatedAt: TimeText


class JobsAnswer(TypedDict):
    """Counts of all jobs, and a page of those of one state."""

    counts: JobCountsAnswer
    jobs: list[JobAnswer]
    nextCursor: str | None


class JobAttemptAnswer(TypedDict):
    """One try to take the money."""

    number: int
    reference: Annotated[str, Field(description="Our name for it at the gateway")]
    state: Annotated[str, Field(description="started, open, refused or abandoned")]
    gatewayHandle: str | None
    startedAt: TimeText


class JobDataAnswer(TypedDict):
    """What the job is about; personal data of the customer is left out."""

    gateway: str
    method: str
    amount: int
    currency: str
    customerId: str
    productId: str
    metadata: dict[str, str]


class JobDetailAnswer(JobAnswer):
    """One job with its data, attempts, finish time and failure."""

    data: JobDataAnswer
    attemptsMade: int
    attempts: list[JobAttemptAnswer]
    looksMade: Annotated[int, Field(description="Looks at the gateway in the present schedule")]
    finishedAt: TimeText | None
    failedReason: str | None


def statistics_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of statistics and jobs."""

    async def read(request: web.Request) -> web.StreamResponse:
        """Read what payments came to, ever and lately, what waits and what is worked at now."""
        query = parse_query(StatisticsQuery, request)
        window = timedelta(seconds=query.window_seconds)
        found = await statistics.read_statistics(runtime, window)
        return Answer(render(found)).response()

    async def list_jobs(request: web.Request) -> web.StreamResponse:
        """Count all jobs by state, and list those of one state, the newest payment first."""
        query = parse_query(JobsQuery, request)
        query.require_cursor_of("pay")
        found = await statistics.list_jobs(
            runtime, query.state, before_id=query.cursor, limit=query.limit + 1
        )
        answer: JobsAnswer = {
            "counts": render_counts(await statistics.count_jobs(runtime)),
            "jobs": [render_job(runtime, job) for job in found[: query.limit]],
            "nextCursor": found[query.limit - 1].id if len(found) > query.limit else None,
        }
        return Answer(answer).response()

    async def read_job(request: web.Request) -> web.StreamResponse:
        """Read a payment as a job: its data, attempts, when it finished, why it failed."""
        job, story = await statistics.read_job(runtime, request.match_info["payment_id"])
        return Answer(render_detail(runtime, job, story)).response()

    return [
        Route(
            "GET",
            "/api/payments/stats",
            read,
            Scope.READ,
            query=StatisticsQuery,
            answer=StatisticsAnswer,
        ),
        Route(
            "GET", "/api/payments/jobs", list_jobs, Scope.READ, query=JobsQuery, answer=JobsAnswer
        ),
        Route(
            "GET", "/api/payments/{payment_id}/job", read_job, Scope.READ, answer=JobDetailAnswer
        ),
    ]


def render(found: Statistics) -> StatisticsAnswer:
    """Return statistics as the API shows them."""
    return {
        "since": time_text(found.since),
        "until": time_text(found.until),
        "total": _totals(found.ever),
        "window": _window(found.lately),
        "gateways": {name: _window(tally) for name, tally in found.lately_by_gateway.items()},
        "gatewayCalls": {
            "calls": found.calls.calls,
            "failures": found.calls.failures,
            "errorRate": found.calls.error_rate,
        },
        "queue": _queue(found.backlog),
        "processingNow": found.jobs[JobState.ACTIVE],
        "jobs": render_counts(found.jobs),
        "limits": limits.render(found.limits),
        "profile": found.profile,
    }


def _totals(tally: Tally) -> TotalsAnswer:
    return {
        "processed": tally.processed,
        "successful": tally.succeeded,
        "failed": tally.failed,
        "onHold": tally.on_hold,
        "retried": tally.retried,
        "successRate": tally.success_rate,
        "averageSeconds": tally.average_seconds,
    }


def _window(tally: Tally) -> WindowAnswer:
    return {
        **_totals(tally),
        "p50Seconds": tally.percentile_seconds(0.5),
        "p95Seconds": tally.percentile_seconds(0.95),
        "p99Seconds": tally.percentile_seconds(0.99),
    }


def _queue(backlog: Backlog) -> QueueAnswer:
    return {
        "total": backlog.total,
        "messages": None if backlog.messages is None else _by_priority(backlog.messages),
        "dueLooks": _by_priority(backlog.looks),
        "dueRetries": _by_priority(backlog.retries),
        "isCapped": backlog.is_capped,
    }


def _by_priority(counts: Mapping[Priority, int]) -> ByPriorityAnswer:
    return {
        "high": counts[Priority.HIGH],
        "medium": counts[Priority.MEDIUM],
        "normal": counts[Priority.NORMAL],
    }


def render_counts(counts: Mapping[JobState, int]) -> JobCountsAnswer:
    """Return counts of jobs as the API shows them."""
    return {
        "waiting": counts[JobState.WAITING],
        "active": counts[JobState.ACTIVE],
        "completed": counts[JobState.COMPLETED],
        "failed": counts[JobState.FAILED],
        "delayed": counts[JobState.DELAYED],
        "held": counts[JobState.HELD],
    }


def render_job(runtime: Runtime, job: Job) -> JobAnswer:
    """Return a job as the API shows it."""
    return {
        "id": job.id,
        "state": job_state(job.facts, runtime.core.clock()),
        "paymentState": job.facts.state,
        "reason": job.reason,
        "waitsFor": job.waits_for,
        "gateway": job.gateway,
        "priority": Priority(job.priority),
        "amount": job.amount,
        "currency": job.currency,
        "nextStepAt": time_text(next_step_at(job.facts)),
        "createdAt": time_text(job.created_at),
        "updatedAt": time_text(job.updated_at),
    }


def render_detail(runtime: Runtime, job: Job, story: JobStory) -> JobDetailAnswer:
    """Return a job with its data, attempts, finish time and failure."""
    state = job.facts.state
    return {
        **render_job(runtime, job),
        "data": {
            "gateway": job.gateway,
            "method": job.method,
            "amount": job.amount,
            "currency": job.currency,
            "customerId": job.customer_id,
            "productId": job.product_id,
            "metadata": story.metadata,
        },
        "attemptsMade": len(story.attempts),
        "attempts": [_attempt(attempt) for attempt in story.attempts],
        "looksMade": job.checks_made,
        "finishedAt": time_text(finished_at(story.history, state)),
        "failedReason": None if state in COMPLETED else job.reason,
    }


def _attempt(attempt: JobAttempt) -> JobAttemptAnswer:
    return {
        "number": attempt.number,
        "reference": attempt.reference,
        "state": attempt.state,
        "gatewayHandle": attempt.handle,
        "startedAt": time_text(attempt.created_at),
    }
