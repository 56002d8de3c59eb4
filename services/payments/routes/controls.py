"""What operators decide over HTTP: pause, resume, drain, limits, purge. All of it needs `admin`."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from pydantic import ConfigDict, Field, JsonValue, StringConstraints
from typing_extensions import TypedDict

from services.payments.domain.limits import from_json
from services.payments.domain.profiles import Cause, Mode
from services.payments.flow.configured import in_force, limits_of
from services.payments.handlers import controls
from services.payments.handlers.controls import ControlsView
from services.payments.routes import limits
from services.payments.routes.limits import LimitsAnswer, LimitsBody
from services.payments.runtime import Runtime
from services.payments.store.controls import DRAIN, LIMITS, NEW_PAYMENTS, PAUSE, Control
from services.payments.store.profiles import FIRST, ProfileSwitch
from shared.errors import InvalidInputError
from shared.web.bodies import TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import (
    ReasonBody,
    ReasonQuery,
    ReasonText,
    action_routes,
    carry_out,
)
from shared.web.operator_actions import Instruction
from shared.web.routes import Answer, Route, Scope, parse, parse_query, read_body

_TOP: Final = "/api/operations"
_GATEWAY: Final = "gateway:"

_PAUSABLE: Final = r"all|gateway:[a-z][a-z0-9_]{0,39}|priority:(high|medium|normal)"
_EXAMPLE: Final[dict[str, JsonValue]] = {"target": "gateway:stripe", "reason": "bank is down"}


class PauseBody(ReasonBody):
    """Body of `POST /api/operations/pause`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    target: Annotated[str, StringConstraints(pattern=f"^({_PAUSABLE})$")]


class ResumeBody(ReasonBody):
    """Body of `POST /api/operations/resume`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    target: Annotated[
        str,
        StringConstraints(pattern=f"^({_PAUSABLE}|{NEW_PAYMENTS})$"),
        Field(description=f"`{NEW_PAYMENTS}` ends a drain"),
    ]


class SetLimitsBody(LimitsBody):
    """Body of `PUT /api/operations/limits`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "maxConcurrentPayments": 40,
                    "gateways": {"stripe": {"concurrency": 80, "callsPerSecond": 50}},
                    "reason": "the backlog of last night",
                }
            ]
        }
    )

    reason: ReasonText


class DecisionAnswer(TypedDict):
    """Who decided what holds, when and why."""

    reason: str
    by: str
    at: TimeText


class PauseAnswer(DecisionAnswer):
    """One pause."""

    target: str


class OperatorLimitsAnswer(DecisionAnswer):
    """Limits that an operator set."""

    limits: LimitsAnswer


class LayersAnswer(TypedDict):
    """The limits in force, and what they are made of: the operator's go before the profile's."""

    inForce: LimitsAnswer
    operator: OperatorLimitsAnswer | None
    profile: LimitsAnswer
    settings: LimitsAnswer


class ProfileInForceAnswer(TypedDict):
    """The profile in force; `since` is null when none ever came into force."""

    name: str
    mode: Mode
    cause: Cause
    since: TimeText | None
    by: Annotated[str | None, Field(description="The operator who chose it")]


class InHandAnswer(TypedDict):
    """What is begun and not finished."""

    isEmpty: bool
    payments: Annotated[dict[str, int], Field(description="Payments not at rest, by state")]
    messages: Annotated[int, Field(description="Facts that no receiver has confirmed yet")]


class ControlsAnswer(TypedDict):
    """What holds now. Every process follows it within two seconds."""

    paused: list[PauseAnswer]
    drain: DecisionAnswer | None
    inHand: InHandAnswer
    limits: LayersAnswer
    profile: ProfileInForceAnswer


class PurgedAnswer(TypedDict):
    """What was cleared from one queue in Redis."""

    deadLetters: int
    orphanedBodies: int


class PurgeAnswer(PurgedAnswer):
    """What was cleared from Redis in all, and from each queue."""

    queues: dict[str, PurgedAnswer]


def control_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/operations that are about what holds, and about the records."""

    async def read(_request: web.Request) -> web.StreamResponse:
        """Read what holds now: pauses, drain, limits, the profile in force, what is in hand."""
        return (await _shown(runtime)).response()

    return [
        Route("GET", f"{_TOP}/controls", read, Scope.ADMIN, answer=ControlsAnswer),
        *_pause_routes(runtime, idempotency),
        *_limit_routes(runtime, idempotency),
        *_purge_routes(runtime, idempotency),
        *action_routes(runtime.core.database, f"{_TOP}/actions"),
    ]


async def _shown(runtime: Runtime) -> Answer:
    return Answer(render(runtime, await controls.read_controls(runtime)))


def _pause_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def pause(request: web.Request) -> web.StreamResponse:
        """Pause all payments, one gateway or one priority.

        No call is made for them any more, on any worker, within two seconds. Nothing is lost: what
        is due waits in the database, calls in flight are finished, notices are taken.
        """
        body = await read_body(request)
        asked = parse(PauseBody, body)
        _require_gateway(runtime, asked.target)

        async def work(instruction: Instruction) -> Answer:
            await controls.pause(runtime, instruction, asked.target)
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def resume(request: web.Request) -> web.StreamResponse:
        """End a pause, or a drain. Other pauses hold on."""
        body = await read_body(request)
        asked = parse(ResumeBody, body)

        async def work(instruction: Instruction) -> Answer:
            await controls.resume(runtime, instruction, asked.target)
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def drain(request: web.Request) -> web.StreamResponse:
        """Accept no new payments: they are answered 503 with the reason.

        What is in hand is finished; `inHand.isEmpty` says when it is. End it with `resume`, target
        `new`.
        """
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            await controls.drain(runtime, instruction)
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    answer = ControlsAnswer
    return [
        Route("POST", f"{_TOP}/pause", pause, Scope.ADMIN, body=PauseBody, answer=answer),
        Route("POST", f"{_TOP}/resume", resume, Scope.ADMIN, body=ResumeBody, answer=answer),
        Route("POST", f"{_TOP}/drain", drain, Scope.ADMIN, body=ReasonBody, answer=answer),
    ]


def _limit_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def set_limits(request: web.Request) -> web.StreamResponse:
        """Set limits by hand, in place of those set by hand before; they go before any profile."""
        body = await read_body(request)
        asked = parse(SetLimitsBody, body)

        async def work(instruction: Instruction) -> Answer:
            await controls.set_limits(runtime, instruction, asked.limits())
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def reset_limits(request: web.Request) -> web.StreamResponse:
        """Drop the limits that were set by hand: the profile's and the settings' hold again."""
        asked = parse_query(ReasonQuery, request)

        async def work(instruction: Instruction) -> Answer:
            await controls.reset_limits(runtime, instruction)
            return await _shown(runtime)

        return await carry_out(request, idempotency, asked.reason.encode(), asked.reason, work)

    path, answer = f"{_TOP}/limits", ControlsAnswer
    return [
        Route("PUT", path, set_limits, Scope.ADMIN, body=SetLimitsBody, answer=answer),
        Route("DELETE", path, reset_limits, Scope.ADMIN, query=ReasonQuery, answer=answer),
    ]


def _purge_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def purge(request: web.Request) -> web.StreamResponse:
        """Clear Redis of what no worker takes up again: dead letters, bodies without a place.

        The record is in PostgreSQL, so nothing is lost by it. Completed payments take up no memory.
        """
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            purged = await controls.purge(runtime, instruction)
            queues: dict[str, PurgedAnswer] = {
                name: {"deadLetters": each.dead_letters, "orphanedBodies": each.orphaned_bodies}
                for name, each in purged.items()
            }
            answer: PurgeAnswer = {
                "deadLetters": sum(each.dead_letters for each in purged.values()),
                "orphanedBodies": sum(each.orphaned_bodies for each in purged.values()),
                "queues": queues,
            }
            return Answer(answer)

        return await carry_out(request, idempotency, body, asked.reason, work)

    return [Route("POST", f"{_TOP}/purge", purge, Scope.ADMIN, body=ReasonBody, answer=PurgeAnswer)]


def _require_gateway(runtime: Runtime, target: str) -> None:
    if target.startswith(_GATEWAY) and target.removeprefix(_GATEWAY) not in runtime.gateways:
        problem = f"must be one of {', '.join(f'{_GATEWAY}{name}' for name in runtime.gateways)}"
        raise InvalidInputError(f"target {problem}", details={"target": problem})


def render(runtime: Runtime, view: ControlsView) -> ControlsAnswer:
    """Return what holds as the API shows it."""
    override = view.decisions.get(LIMITS)
    drain = view.decisions.get(DRAIN)
    return {
        "paused": [
            {"target": key.removeprefix(PAUSE), **_decision(control)}
            for key, control in view.decisions.items()
            if key.startswith(PAUSE)
        ],
        "drain": None if drain is None else _decision(drain),
        "inHand": {
            "isEmpty": view.in_hand.is_empty,
            "payments": dict(view.in_hand.payments),
            "messages": view.in_hand.messages,
        },
        "limits": {
            "inForce": limits.render(in_force(runtime.settings, view.stored)),
            "operator": None
            if override is None
            else {"limits": limits.render(from_json(override.value)), **_decision(override)},
            "profile": limits.render(view.stored.profile),
            "settings": limits.render(limits_of(runtime.settings)),
        },
        "profile": render_profile(view.profile),
    }


def render_profile(switch: ProfileSwitch) -> ProfileInForceAnswer:
    """Return the last switch as the API shows what is in force."""
    return {
        "name": switch.profile,
        "mode": switch.mode,
        "cause": switch.cause,
        "since": None if switch.number == FIRST else time_text(switch.at),
        "by": switch.actor,
    }


def _decision(control: Control) -> DecisionAnswer:
    return {"reason": control.reason, "by": control.set_by, "at": time_text(control.set_at)}
