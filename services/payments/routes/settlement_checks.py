"""Comparing our books with what gateways list: the routes of settlement checks."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Final

from aiohttp import web
from pydantic import ConfigDict, Field, JsonValue
from typing_extensions import TypedDict

from services.payments.domain.settlement_check import Finding, FindingKind
from services.payments.handlers import settlement_checks
from services.payments.handlers.settlement_checks import CHECK_PREFIX, FINDING_PREFIX
from services.payments.runtime import Runtime
from services.payments.store import settlement_checks as check_store
from services.payments.store import settlement_lists as list_store
from services.payments.store.settlement_checks import CheckState, SettlementCheck
from shared.money import Money
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import ReasonText
from shared.web.operator_actions import ID_PREFIX as ACTION_PREFIX
from shared.web.operator_actions import Instruction
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

_EXAMPLE: Final[dict[str, JsonValue]] = {
    "gateway": "stripe",
    "day": "2026-01-05",
    "reason": "before the books of January are closed",
}


class SettlementCheckBody(Body):
    """Body of `POST /api/operations/settlement-checks`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    gateway: ShortText
    day: Annotated[date, Field(strict=False, description="A day of UTC that is over")]
    reason: ReasonText


class SettlementChecksQuery(PageQuery):
    """Query of `GET /api/operations/settlement-checks`."""

    gateway: ShortText | None = None


class SettlementCheckAnswer(TypedDict):
    """A comparison of our successes of one day with what the gateway lists of it."""

    id: Annotated[str, Field(examples=["chk_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    gateway: str
    day: Annotated[
        str,
        Field(
            description="Of UTC; a payment belongs to the day on which its try began",
            json_schema_extra={"format": "date"},
        ),
    ]
    state: CheckState
    reason: Annotated[str | None, Field(description="What it waits for, or why it failed")]
    listed: Annotated[int, Field(description="Payments that the gateway lists")]
    matched: int
    mismatched: Annotated[int, Field(description="Another amount, currency or charge")]
    missingHere: Annotated[
        int, Field(description="Taken by the gateway, without a confirmation here")
    ]
    missingThere: Annotated[int, Field(description="Booked here, and not listed by the gateway")]
    duplicates: Annotated[int, Field(description="Taken more than once")]
    unlisted: Annotated[
        int, Field(description="Booked here, while the gateway may not list everything")
    ]
    isComplete: Annotated[bool, Field(description="Whether the gateway listed everything")]
    nextTryAt: TimeText | None
    createdAt: TimeText
    endedAt: TimeText | None


class SideAnswer(TypedDict):
    """Money in the books of one side."""

    amount: Annotated[int, Field(description="Minor units")]
    currency: str


class SettlementFindingAnswer(TypedDict):
    """One difference between our books and a gateway's list."""

    id: Annotated[str, Field(examples=["fnd_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    kind: FindingKind
    gatewayReference: str
    paymentId: str | None
    gatewayPaymentId: str | None
    ours: SideAnswer | None
    theirs: SideAnswer | None


def settlement_check_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/operations/settlement-checks."""
    routes = _SettlementChecks(runtime, idempotency)
    base = "/api/operations/settlement-checks"
    answer = SettlementCheckAnswer
    return [
        Route(
            "POST",
            base,
            routes.create,
            Scope.ADMIN,
            body=SettlementCheckBody,
            answer=answer,
            status=202,
        ),
        Route(
            "GET",
            base,
            routes.list_,
            Scope.READ,
            query=SettlementChecksQuery,
            answer=PageOf("settlementChecks", answer),
        ),
        Route("GET", f"{base}/{{check_id}}", routes.read, Scope.READ, answer=answer),
        Route(
            "GET",
            f"{base}/{{check_id}}/findings",
            routes.list_findings,
            Scope.READ,
            query=PageQuery,
            answer=PageOf("findings", SettlementFindingAnswer),
        ),
    ]


class _SettlementChecks:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Compare our successes of one day with what a gateway lists of it, now.

        Each day is compared by itself on the next two. Money that the gateway took and of which we
        have no confirmation is asked about at once.
        """
        raw = await read_body(request)
        body = parse(SettlementCheckBody, raw)

        async def work(check_id: str) -> Answer:
            # One key fixes both ids, so that a repeated request records one action.
            action_id = f"{ACTION_PREFIX}{check_id[len(CHECK_PREFIX) :]}"
            instruction = Instruction(action_id, request[CALLER], body.reason)
            check = await settlement_checks.ask_for_check(
                self._runtime, check_id, body.gateway, body.day, instruction
            )
            return Answer(_render(check), status=202)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=CHECK_PREFIX, work=work
        )

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read how far a settlement check is, and what it counted."""
        check = await settlement_checks.read_check(self._runtime, request.match_info["check_id"])
        return Answer(_render(check)).response()

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List settlement checks, the newest first."""
        query = parse_query(SettlementChecksQuery, request)
        query.require_cursor_of(CHECK_PREFIX)
        async with self._runtime.core.database.connection() as connection:
            checks = await check_store.list_checks(
                connection,
                before_id=query.cursor,
                gateway=query.gateway,
                limit=query.limit + 1,
            )
        return query.page(
            "settlementChecks", checks, id_of=lambda check: check.id, render=_render
        ).response()

    async def list_findings(self, request: web.Request) -> web.StreamResponse:
        """List in what our books and the gateway's list differ; the first thousand are kept."""
        query = parse_query(PageQuery, request)
        query.require_cursor_of(FINDING_PREFIX)
        check = await settlement_checks.read_check(self._runtime, request.match_info["check_id"])
        async with self._runtime.core.database.connection() as connection:
            found = await list_store.list_findings(
                connection, check.id, after_id=query.cursor, limit=query.limit + 1
            )
        return query.page(
            "findings", found, id_of=lambda pair: pair[0], render=_render_finding
        ).response()


def _render(check: SettlementCheck) -> SettlementCheckAnswer:
    return {
        "id": check.id,
        "gateway": check.gateway,
        "day": check.day.isoformat(),
        "state": check.state,
        "reason": check.reason,
        "listed": check.listed,
        "matched": check.matched,
        "mismatched": check.counts[FindingKind.MISMATCH],
        "missingHere": check.counts[FindingKind.MISSING_HERE],
        "missingThere": check.counts[FindingKind.MISSING_THERE],
        "duplicates": check.counts[FindingKind.DUPLICATE],
        "unlisted": check.unlisted,
        "isComplete": not check.is_cut,
        "nextTryAt": time_text(check.next_try_at),
        "createdAt": time_text(check.created_at),
        "endedAt": time_text(check.ended_at),
    }


def _render_finding(pair: tuple[str, Finding]) -> SettlementFindingAnswer:
    id_, finding = pair
    return {
        "id": id_,
        "kind": finding.kind,
        "gatewayReference": finding.reference,
        "paymentId": finding.payment_id,
        "gatewayPaymentId": finding.gateway_payment_id,
        "ours": _side(finding.ours),
        "theirs": _side(finding.theirs),
    }


def _side(money: Money | None) -> SideAnswer | None:
    if money is None:
        return None
    return {"amount": money.minor_units, "currency": money.currency}
