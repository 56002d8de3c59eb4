"""Health, liveness, readiness and metrics of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Final, Literal, TypeAlias

import orjson
import structlog
from aiohttp import web
from typing_extensions import TypedDict

from shared import metrics
from shared.clock import Clock
from shared.errors import DatabaseUnavailableError
from shared.process import Part
from shared.web.bodies import TimeText, time_text
from shared.web.routes import Bare, Route, Text, json_response

log = structlog.get_logger()

#: A check that takes longer counts as failed; probes usually give up after a second or two.
CHECK_TIMEOUT_SECONDS: Final = 2.0


Connection: TypeAlias = Literal["connected", "disconnected"]


class HealthAnswer(TypedDict):
    """How a process and what it depends on are."""

    status: Literal["healthy", "unhealthy"]
    database: Connection
    redis: Connection
    timestamp: TimeText
    problems: list[str]


class VerdictAnswer(TypedDict):
    """Whether a probe is content, and if not, why."""

    status: Literal["ok", "failing"]
    problems: list[str]


def health_routes(parts: Sequence[Part], clock: Clock) -> list[Route]:
    """Return the routes that operators and probes read; none needs a key."""
    probes = _Probes(parts, clock)
    health = Bare(HealthAnswer)
    verdict = Bare(VerdictAnswer)
    return [
        Route("GET", "/health", probes.health, answer=health, other_answers={503: health}),
        Route("GET", "/livez", probes.live, answer=verdict, other_answers={503: verdict}),
        Route("GET", "/readyz", probes.ready, answer=verdict, other_answers={503: verdict}),
        Route("GET", "/metrics", probes.metrics, answer=Text()),
    ]


class _Probes:
    def __init__(self, parts: Sequence[Part], clock: Clock) -> None:
        self._parts = parts
        self._clock = clock

    async def health(self, _request: web.Request) -> web.Response:
        """Say whether the process and what it depends on are well: 503 when not."""
        problems = self._problems()
        databases, redis = await asyncio.gather(self._databases_answer(), self._redis_answers())
        is_well = databases and redis and not problems
        body: HealthAnswer = {
            "status": "healthy" if is_well else "unhealthy",
            "database": "connected" if databases else "disconnected",
            "redis": "connected" if redis else "disconnected",
            "timestamp": time_text(self._clock()),
            "problems": problems,
        }
        return json_response(orjson.dumps(body), status=200 if is_well else 503)

    async def live(self, _request: web.Request) -> web.Response:
        """Say whether a restart would help: 503 when a thread of the worker is dead or stuck.

        That this is answered at all proves that the event loop runs. Redis being away is no reason
        to restart; consumers that hear nothing from it while it answers are.
        """
        problems = self._problems()
        silent = [part.name for part in self._parts if not part.is_hearing()]
        if silent and await self._redis_answers():
            problems += [f"the consumers of {name} hear nothing from Redis" for name in silent]
        return _verdict(problems)

    async def ready(self, _request: web.Request) -> web.Response:
        """Say whether the process can do its work: PostgreSQL for all, Redis for workers.

        An HTTP process works on without Redis: the outbox keeps what it would publish.
        """
        problems = self._problems()
        if not await self._databases_answer():
            problems.append("PostgreSQL does not answer")
        if any(part.needs_redis for part in self._parts) and not await self._redis_answers():
            problems.append("Redis does not answer")
        return _verdict(problems)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the metrics, measuring first what is only known on demand."""
        for part in self._parts:
            if part.measure is not None:
                try:
                    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                        await part.measure()
                except (DatabaseUnavailableError, TimeoutError) as error:
                    log.warning("not_measured", part=part.name, error=type(error).__name__)
        return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def _problems(self) -> list[str]:
        return [problem for part in self._parts for problem in part.problems()]

    async def _databases_answer(self) -> bool:
        answers = await asyncio.gather(*(_within(part.ping_database()) for part in self._parts))
        return all(answers)

    async def _redis_answers(self) -> bool:
        answers = await asyncio.gather(*(_within(part.ping_redis()) for part in self._parts))
        return all(answers)


async def _within(check: Awaitable[bool]) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            return await check
    except TimeoutError:
        return False


def _verdict(problems: Sequence[str]) -> web.Response:
    body: VerdictAnswer = {"status": "failing" if problems else "ok", "problems": list(problems)}
    return json_response(orjson.dumps(body), status=503 if problems else 200)
