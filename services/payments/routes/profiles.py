"""Profiles of limits over HTTP. All of it needs `admin`."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Final, Self

from aiohttp import web
from pydantic import ConfigDict, Field, StringConstraints, model_validator
from typing_extensions import TypedDict

from services.payments.domain.profiles import (
    MINIMUM_STAY_DEFAULT,
    Cause,
    LoadCondition,
    Mode,
    Profile,
    Weekday,
    Window,
    windows_as_json,
)
from services.payments.handlers import profiles
from services.payments.routes import limits
from services.payments.routes.controls import ProfileInForceAnswer, render_profile
from services.payments.routes.limits import LimitsAnswer, LimitsBody
from services.payments.runtime import Runtime
from services.payments.store import profiles as profile_store
from services.payments.store.profiles import ProfileSwitch, StoredProfile
from shared.web.bodies import Body, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.operator_action_routes import ReasonBody, ReasonQuery, ReasonText, carry_out
from shared.web.operator_actions import Instruction
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

#: A name as the path of a profile has it.
_NAME: Final = re.compile(r"^[a-z][a-z0-9-]{0,39}$")
ProfileName = Annotated[str, StringConstraints(pattern=_NAME.pattern)]

_ClockTime = Annotated[
    str,
    StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"),
    Field(examples=["07:00"]),
]

_DAY_SECONDS: Final = 86_400


class WindowBody(Body):
    """Hours of some weekdays, by the clock of the operator; an early end is one of the next day."""

    days: Annotated[list[Weekday], Field(min_length=1, max_length=7, strict=False)]
    from_: Annotated[_ClockTime, Field(alias="from")]
    to: _ClockTime

    def window(self) -> Window:
        """Return it as decisions know it."""
        return Window(
            frozenset(self.days), time.fromisoformat(self.from_), time.fromisoformat(self.to)
        )


class LoadBody(Body):
    """In force from a queue of `above` payments on, until it is `below` or shorter."""

    above: Annotated[int, Field(ge=1, le=10_000_000)]
    below: Annotated[int, Field(ge=0, le=10_000_000)]

    @model_validator(mode="after")
    def _has_hysteresis(self) -> Self:
        if self.below >= self.above:
            raise ValueError("below must be less than above")
        return self


class ProfileBody(Body):
    """Body of `PUT /api/operations/profiles/{name}`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "limits": {"maxConcurrentPayments": 40, "batchSize": 200},
                    "rank": 20,
                    "schedule": [{"days": ["mon", "fri"], "from": "07:00", "to": "09:30"}],
                    "load": {"above": 1_000, "below": 200},
                    "minimumStaySeconds": 300,
                    "reason": "the sale on Friday",
                }
            ]
        }
    )

    limits: LimitsBody
    rank: Annotated[
        int, Field(ge=0, le=1_000, description="Of those whose condition is met the highest wins")
    ] = 0
    schedule: Annotated[list[WindowBody], Field(max_length=20, default_factory=list)]
    load: LoadBody | None = None
    minimum_stay_seconds: Annotated[
        int, Field(ge=0, le=_DAY_SECONDS, description="Before one of its rank or below follows")
    ] = int(MINIMUM_STAY_DEFAULT.total_seconds())
    reason: ReasonText

    def profile(self, name: str) -> Profile:
        """Return it as decisions know it."""
        return Profile(
            name=name,
            limits=self.limits.limits(),
            rank=self.rank,
            windows=tuple(window.window() for window in self.schedule),
            load=None if self.load is None else LoadCondition(self.load.above, self.load.below),
            minimum_stay=timedelta(seconds=self.minimum_stay_seconds),
        )


class SwitchesQuery(PageQuery):
    """Query of `GET /api/operations/profile-switches`."""

    cursor: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,17}$")] | None = None


#: A window as the API shows it; `from` is no name for a field of a class.
WindowAnswer = TypedDict("WindowAnswer", {"days": list[Weekday], "from": str, "to": str})


class LoadAnswer(TypedDict):
    """The lengths of the queue between which it is in force."""

    above: int
    below: int


class ProfileAnswer(TypedDict):
    """A named set of limits, and when it is in force by itself."""

    name: str
    rank: int
    limits: LimitsAnswer
    schedule: list[WindowAnswer]
    load: LoadAnswer | None
    minimumStaySeconds: int
    reason: str
    by: str
    at: TimeText


class ProfilesAnswer(TypedDict):
    """All profiles; without one called `normal` that name stands for the settings."""

    profiles: list[ProfileAnswer]
    inForce: ProfileInForceAnswer
    timeZone: Annotated[str, Field(description="OPERATOR_TIME_ZONE")]


class SwitchAnswer(TypedDict):
    """One profile that came into force."""

    number: int
    at: TimeText
    profile: str
    mode: Mode
    cause: Cause
    queueLength: int | None
    by: str | None


def profile_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes about profiles under /api/operations."""

    async def list_(_request: web.Request) -> web.StreamResponse:
        """List all profiles of limits, and say which one is in force."""
        return (await _shown(runtime)).response()

    async def list_switches(request: web.Request) -> web.StreamResponse:
        """List which profile came into force when and why, the latest first."""
        query = parse_query(SwitchesQuery, request)
        async with runtime.core.database.connection() as connection:
            switches = await profile_store.list_switches(
                connection,
                before=None if query.cursor is None else int(query.cursor),
                limit=query.limit + 1,
            )
        page = query.page(
            "switches", switches, id_of=lambda each: str(each.number), render=render_switch
        )
        return page.response()

    top, admin = "/api/operations", Scope.ADMIN
    return [
        Route("GET", f"{top}/profiles", list_, admin, answer=ProfilesAnswer),
        Route(
            "GET",
            f"{top}/profile-switches",
            list_switches,
            admin,
            query=SwitchesQuery,
            answer=PageOf("switches", SwitchAnswer),
        ),
        *_choosing_routes(runtime, idempotency),
        *_writing_routes(runtime, idempotency),
    ]


async def _shown(runtime: Runtime) -> Answer:
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        stored = await profile_store.list_profiles(connection)
        last = await profile_store.find_last_switch(connection, now)
    answer: ProfilesAnswer = {
        "profiles": [render(each) for each in stored.values()],
        "inForce": render_profile(last),
        "timeZone": runtime.settings.operator_time_zone,
    }
    return Answer(answer)


def _writing_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def write(request: web.Request) -> web.StreamResponse:
        """Write a profile, in place of an earlier one with its name; at once if it is in force."""
        name = _name(request)
        body = await read_body(request)
        asked = parse(ProfileBody, body)

        async def work(instruction: Instruction) -> Answer:
            await profiles.set_profile(runtime, instruction, asked.profile(name))
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def delete(request: web.Request) -> web.StreamResponse:
        """Delete a profile that is not in force; `normal` then stands for the settings."""
        name = _name(request)
        asked = parse_query(ReasonQuery, request)

        async def work(instruction: Instruction) -> Answer:
            await profiles.delete_profile(runtime, instruction, name)
            return await _shown(runtime)

        return await carry_out(request, idempotency, asked.reason.encode(), asked.reason, work)

    path, admin, answer = "/api/operations/profiles/{name}", Scope.ADMIN, ProfilesAnswer
    named = {"name": ProfileName}
    return [
        Route("PUT", path, write, admin, body=ProfileBody, answer=answer, parameters=named),
        Route("DELETE", path, delete, admin, query=ReasonQuery, answer=answer, parameters=named),
    ]


def _choosing_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    async def activate(request: web.Request) -> web.StreamResponse:
        """Bring a profile into force until an operator says otherwise."""
        name = _name(request)
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            await profiles.activate(runtime, instruction, name)
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    async def follow(request: web.Request) -> web.StreamResponse:
        """Let schedule and load decide again; the profile in force stays until they do."""
        body = await read_body(request)
        asked = parse(ReasonBody, body)

        async def work(instruction: Instruction) -> Answer:
            await profiles.follow_automatically(runtime, instruction)
            return await _shown(runtime)

        return await carry_out(request, idempotency, body, asked.reason, work)

    top, admin, answer = "/api/operations/profiles", Scope.ADMIN, ProfilesAnswer
    return [
        Route("POST", f"{top}/automatic", follow, admin, body=ReasonBody, answer=answer),
        Route(
            "POST",
            f"{top}/{{name}}/activate",
            activate,
            admin,
            body=ReasonBody,
            answer=answer,
            parameters={"name": ProfileName},
        ),
    ]


def _name(request: web.Request) -> str:
    """Return the name in the path.

    Raises:
        NotFoundError: no profile can be called so.
    """
    name = request.match_info["name"]
    if _NAME.fullmatch(name) is None:
        raise profiles.no_profile(name)
    return name


def render(stored: StoredProfile) -> ProfileAnswer:
    """Return a profile as the API shows it."""
    profile = stored.profile
    load = profile.load
    return {
        "name": profile.name,
        "rank": profile.rank,
        "limits": limits.render(profile.limits),
        "schedule": [
            {"days": each["days"], "from": each["from"], "to": each["to"]}
            for each in windows_as_json(profile.windows)
        ],
        "load": None if load is None else {"above": load.above, "below": load.below},
        "minimumStaySeconds": int(profile.minimum_stay.total_seconds()),
        "reason": stored.reason,
        "by": stored.set_by,
        "at": time_text(stored.set_at),
    }


def render_switch(switch: ProfileSwitch) -> SwitchAnswer:
    """Return a switch as the API shows it."""
    return {
        "number": switch.number,
        "at": time_text(switch.at),
        "profile": switch.profile,
        "mode": switch.mode,
        "cause": switch.cause,
        "queueLength": switch.queue_length,
        "by": switch.actor,
    }
