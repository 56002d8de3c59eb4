"""A process: parts of services on one event loop, one port, a clean and bounded stop.

The same parts make every topology. One process may carry one part (as on Kubernetes) or all of them
(the unified stack on a laptop).
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import redis.asyncio
import structlog
import uvloop
from aiohttp import web

from shared import logs, metrics
from shared.clock import Clock, system_clock
from shared.contracts.subscriptions import queues_of
from shared.database import Database
from shared.errors import SluiceError
from shared.messaging import outbox
from shared.messaging.publisher import Publisher, namespace
from shared.messaging.queue_metrics import measure_memory, measure_queues
from shared.messaging.redis_client import UNAVAILABLE, is_cluster, publisher_client
from shared.settings import ServiceSettings, SettingsError
from shared.tracing import Tracing, tracing_to
from shared.web.direct import Listener

log = structlog.get_logger()

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

#: How long open HTTP requests may finish at a stop.
HTTP_SHUTDOWN_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Core:
    """What every part of a service stands on."""

    service: str
    database: Database
    redis: redis.asyncio.Redis
    publisher: Publisher
    tracing: Tracing
    clock: Clock

    async def ping_redis(self) -> bool:
        """Tell whether Redis answers."""
        try:
            return bool(await self.redis.ping())
        except UNAVAILABLE:
            return False

    async def measure(self) -> None:
        """Set the gauges of the service's queues, outbox and dead letters, and of Redis."""
        await measure_queues(self.redis, sorted(queues_of(self.service)))
        await measure_memory(self.redis)
        async with self.database.connection() as connection:
            waiting, parked, age_seconds, dead = await outbox.measure(connection)
        metrics.OUTBOX_MESSAGES.labels(self.service, "waiting").set(waiting)
        metrics.OUTBOX_MESSAGES.labels(self.service, "parked").set(parked)
        metrics.OUTBOX_OLDEST_AGE.labels(self.service).set(age_seconds)
        metrics.DEAD_LETTERS.labels(self.service).set(dead)


async def _always_well() -> bool:
    return True


def _no_problems() -> list[str]:
    return []


def _hears() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Part:
    """One service's HTTP side or worker side, opened and ready to run.

    `tasks` run until the process stops; if one fails, the process stops with exit code 1, so that
    its supervisor starts it anew. `routes` are `shared.web.routes.Route`.
    """

    name: str
    routes: Sequence[Any] = ()
    tasks: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
    needs_redis: bool = False
    ping_database: Callable[[], Awaitable[bool]] = _always_well
    ping_redis: Callable[[], Awaitable[bool]] = _always_well
    problems: Callable[[], list[str]] = _no_problems
    #: Whether its consumers heard from Redis lately; asked only while Redis answers others.
    is_hearing: Callable[[], bool] = _hears
    measure: Callable[[], Awaitable[None]] | None = None


#: Opens a part; leaving the context closes it in good order.
PartOpener = Callable[[], AbstractAsyncContextManager[Part]]


@asynccontextmanager
async def open_core(
    settings: ServiceSettings, service: str, database_url: str, *, pool_size_max: int = 10
) -> AsyncIterator[Core]:
    """Connect a service to what it stands on.

    Raises:
        DatabaseUnavailableError: PostgreSQL does not answer. Redis may be away.
    """
    database = Database(database_url, service, pool_size_max=pool_size_max)
    await database.open()
    redis_url = settings.redis_address()
    client = publisher_client(redis_url, namespace(service))
    client_of = _client_of(redis_url) if is_cluster(redis_url) else None
    publisher = Publisher(client, service, client_of)
    tracing = tracing_to(
        settings.otlp_endpoint, process=service, sample_ratio=settings.trace_sample_ratio
    )
    try:
        yield Core(service, database, client, publisher, tracing, system_clock)
    finally:
        await publisher.close()
        await database.close()
        tracing.close()


def _client_of(redis_url: str) -> Callable[[str], redis.asyncio.Redis]:
    return lambda service: publisher_client(redis_url, namespace(service))


def run(
    name: str,
    openers: Iterable[PartOpener],
    make_application: Callable[[Sequence[Part]], web.Application],
    settings: ServiceSettings,
    *,
    host: str,
    port: int,
    on_ready: Callable[[], None] | None = None,
) -> int:
    """Run parts until SIGTERM or SIGINT and return the exit code.

    The first signal stops everything within about 10 s; further ones change nothing. A part that
    cannot open ends the process at once with exit code 1.
    """
    logs.configure(level=settings.log_level, process=name)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        exit_code = runner.run(_run(openers, make_application, host, port, on_ready))
    for number in _STOP_SIGNALS:
        # The loop's handlers are gone; a late second signal must not spoil a clean end.
        signal.signal(number, signal.SIG_IGN)
    return exit_code


async def _run(
    openers: Iterable[PartOpener],
    make_application: Callable[[Sequence[Part]], web.Application],
    host: str,
    port: int,
    on_ready: Callable[[], None] | None,
) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        async with _open(openers) as parts, AsyncExitStack() as stack:
            application = make_application(parts)
            runner = web.AppRunner(
                application,
                access_log=None,
                handle_signals=False,
                shutdown_timeout=HTTP_SHUTDOWN_SECONDS,
            )
            await runner.setup()
            listener = Listener(runner)
            # Entered last, left first: no request arrives while the parts close.
            stack.push_async_callback(listener.close, HTTP_SHUTDOWN_SECONDS)
            await listener.start(host, port)
            tune_interpreter()
            tasks = [asyncio.create_task(task()) for part in parts for task in part.tasks]
            log.info("process_ready", host=host, port=port, parts=[part.name for part in parts])
            if on_ready is not None:
                on_ready()
            failed = await _until_stopped(stop, tasks)
            log.info("process_stopping")
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    except (SluiceError, SettingsError, OSError, redis.RedisError) as error:
        log.critical("process_failed", error=f"{type(error).__name__}: {error}")
        print(f"sluice: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it by hand
        return 1
    log.info("process_stopped")
    return 1 if failed else 0


def tune_interpreter() -> None:
    """Make collections rare, and let Dramatiq's threads and the event loop alternate quickly.

    A request makes hundreds of objects and no cycles; by default a collection would come every few
    requests and walk all modules in the end. By default a thread may also keep another from running
    for 5 ms, which is most of what a message takes from end to end.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.0005)


@asynccontextmanager
async def _open(openers: Iterable[PartOpener]) -> AsyncIterator[list[Part]]:
    """Open parts one after the other and close them side by side: each may take its time."""
    stacks: list[AsyncExitStack] = []
    parts = []
    try:
        for opener in openers:
            stacks.append(AsyncExitStack())
            parts.append(await stacks[-1].enter_async_context(opener()))
        yield parts
    finally:
        closed = await asyncio.gather(*(stack.aclose() for stack in stacks), return_exceptions=True)
        for error in closed:
            if isinstance(error, BaseException):
                log.error("part_not_closed", error=f"{type(error).__name__}: {error}")


async def _until_stopped(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> bool:
    """Wait for the signal, or for a task to end, which none should; tell which it was."""
    signalled = asyncio.create_task(stop.wait())
    await asyncio.wait([signalled, *tasks], return_when=asyncio.FIRST_COMPLETED)
    if signalled.done():
        return False
    signalled.cancel()
    for task in tasks:
        if task.done() and not task.cancelled():
            log.critical("background_task_ended", exc_info=task.exception())
    return True
