"""Gateways over HTTP: how each stands, and its breaker by hand."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from aiohttp import web
from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from services.payments.domain.breaker import BreakerForce, BreakerState
from services.payments.handlers.breakers import force_breaker, require_gateway
from services.payments.handlers.gateways import (
    GatewayDetails,
    GatewayStatus,
    list_gateways,
    read_gateway,
)
from services.payments.routes.limits import GatewayLimitAnswer, render_gateway
from services.payments.runtime import Runtime
from services.payments.store.flow import Transition
from services.payments.store.shares import ShareHolder
from shared.errors import ConflictError
from shared.web.bodies import TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import ReasonBody, carry_out
from shared.web.operator_actions import Instruction
from shared.web.routes import Answer, Route, Scope, parse, read_body

_TOP = "/api/gateways"

Force: TypeAlias = Literal["open", "closed", "automatic"]


class ForceBody(ReasonBody):
    """Body of `POST /api/gateways/{gateway}/breaker`."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"force": "open", "reason": "they move their servers"}]}
    )

    force: Annotated[
        Force, Field(description="`automatic` lets it decide for itself, by what calls come to")
    ]


class CallsAnswer(TypedDict):
    """Calls of all processes together."""

    calls: int
    failures: Annotated[int, Field(description="Not reached, no answer in time, or its error")]


class BreakerAnswer(TypedDict):
    """A breaker. While it is open nobody calls the gateway, and payments wait uncounted."""

    state: BreakerState
    force: Force
    reason: str | None
    since: TimeText | None
    until: Annotated[TimeText | None, Field(description="When an open one is probed")]
    heldUntil: Annotated[
        TimeText | None, Field(description="The gateway itself wants no calls until then")
    ]
    window: Annotated[CallsAnswer, Field(description="In the window, since it is in this state")]
    probes: Annotated[CallsAnswer, Field(description="Results of probes while it is half open")]


class GatewayAnswer(TypedDict):
    """How a gateway stands."""

    name: str
    breaker: BreakerAnswer
    limits: GatewayLimitAnswer
    paused: Annotated[str | None, Field(description="Why an operator paused it")]


class GatewaysAnswer(TypedDict):
    """The gateways that are on."""

    gateways: list[GatewayAnswer]


class TransitionAnswer(TypedDict):
    """A state that a breaker came into."""

    at: TimeText
    state: BreakerState
    force: Force
    reason: str
    window: Annotated[CallsAnswer, Field(description="What was seen when it was decided")]
    by: Annotated[str | None, Field(description="The operator who forced it")]


class ShareAnswer(TypedDict):
    """What one process has of a gateway's limits; null where there is no limit of the kind."""

    process: str
    kind: str | None
    concurrency: int | None
    callsPerSecond: float | None
    inFlight: int
    waiting: int


class GatewayDetailsAnswer(GatewayAnswer):
    """How a gateway stands, what led to it, and who calls it."""

    history: Annotated[list[TransitionAnswer], Field(description="The last 50, the latest first")]
    shares: Annotated[list[ShareAnswer], Field(description="Empty while it has no limits")]


def gateway_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/gateways."""

    async def list_(_request: web.Request) -> web.StreamResponse:
        """List the gateways that are on: breaker, limits, pause."""
        found: GatewaysAnswer = {
            "gateways": [render(status) for status in await list_gateways(runtime)]
        }
        return Answer(found).response()

    async def read(request: web.Request) -> web.StreamResponse:
        """Read how a gateway stands, its breaker's history, and the processes' shares."""
        details = await read_gateway(runtime, request.match_info["gateway"])
        return Answer(render_details(details)).response()

    async def force(request: web.Request) -> web.StreamResponse:
        """Open or close a gateway's breaker by hand, or let it decide for itself again.

        Every process follows within two seconds. One that was forced open begins with probes when
        it is `automatic` again. To force one closed also ends a wait that the gateway asked for.
        """
        name = request.match_info["gateway"]
        require_gateway(runtime, name)
        body = await read_body(request)
        asked = parse(ForceBody, body)
        wanted = None if asked.force == "automatic" else BreakerForce(asked.force)

        async def work(instruction: Instruction) -> Answer:
            await force_breaker(runtime, instruction, name, wanted)
            return Answer(render_details(await read_gateway(runtime, name)))

        return await carry_out(request, idempotency, body, asked.reason, work)

    one = f"{_TOP}/{{gateway}}"
    return [
        Route("GET", _TOP, list_, Scope.READ, answer=GatewaysAnswer),
        Route("GET", one, read, Scope.READ, answer=GatewayDetailsAnswer),
        Route(
            "POST",
            f"{one}/breaker",
            force,
            Scope.ADMIN,
            body=ForceBody,
            answer=GatewayDetailsAnswer,
            errors=(ConflictError,),
        ),
    ]


def render(status: GatewayStatus) -> GatewayAnswer:
    """Return a gateway as lists show it."""
    breaker, seen = status.seen.breaker, status.seen.seen
    return {
        "name": status.name,
        "breaker": {
            "state": breaker.state,
            "force": _force(breaker.force),
            "reason": breaker.reason,
            "since": time_text(breaker.since),
            "until": time_text(breaker.until),
            "heldUntil": time_text(breaker.held_until),
            "window": {"calls": seen.calls, "failures": seen.failures},
            "probes": {"calls": breaker.probes.calls, "failures": breaker.probes.failures},
        },
        "limits": render_gateway(status.limit),
        "paused": status.paused,
    }


def render_details(details: GatewayDetails) -> GatewayDetailsAnswer:
    """Return a gateway with its history and the shares of its limits."""
    return {
        **render(details.status),
        "history": [_transition(each) for each in details.history],
        "shares": [_holder(each) for each in details.holders],
    }


def _transition(transition: Transition) -> TransitionAnswer:
    seen = transition.seen
    return {
        "at": time_text(transition.at),
        "state": transition.state,
        "force": _force(transition.force),
        "reason": transition.reason,
        "window": {"calls": seen.calls, "failures": seen.failures},
        "by": transition.actor,
    }


def _holder(holder: ShareHolder) -> ShareAnswer:
    return {
        "process": holder.process,
        "kind": holder.kind,
        "concurrency": holder.share.calls,
        "callsPerSecond": holder.share.rate,
        "inFlight": holder.share.in_flight,
        "waiting": holder.share.waiting,
    }


def _force(force: BreakerForce | None) -> Force:
    match force:
        case BreakerForce.OPEN:
            return "open"
        case BreakerForce.CLOSED:
            return "closed"
        case None:
            return "automatic"
