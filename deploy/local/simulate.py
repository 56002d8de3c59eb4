"""`sluice simulate`: a year of many subscriptions in a minute, and everything checked."""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from deploy.local import audit
from deploy.local.load_comparison import Compared, Verdict, compare
from deploy.local.load_ledgers import StoredLedgers
from deploy.local.load_traffic import open_client
from deploy.local.own_stack import own_directory, own_environment, stop_in_order_at_sigterm
from deploy.local.printing import console
from deploy.local.service_databases import ServiceDatabases, open_databases
from deploy.local.simulate_checks import find_problems
from deploy.local.simulate_plan import (
    GATEWAYS,
    LIFELIKE_NAME,
    Offer,
    SimulationError,
    Subscriber,
    offers,
    profile_of,
    read_interval,
    read_span,
    subscribers,
)
from deploy.local.simulate_report import Outcome, as_json, render
from deploy.local.simulate_year import LOOK_SECONDS, Rehearsal
from deploy.local.simulator_names import NameAtSimulator, NamesAtSimulator
from deploy.local.stack import LocalStack, free_ports
from shared.clock import system_clock

SUBSCRIPTIONS_DEFAULT: Final = 1_000
SUBSCRIPTIONS_MAX: Final = 100_000
TIMEOUT_SECONDS_DEFAULT: Final = 600.0

#: Both ledgers agree within this time after the clocks are ready.
AGREE_SECONDS: Final = 20.0
AGREE_LOOK_SECONDS: Final = 0.5

WELL: Final = 0
NOT_WELL: Final = 1

#: Settings of the simulation's own Sluice.
_SETTINGS: Final[Mapping[str, str]] = {
    "API_RATE_LIMIT_PER_SECOND": "100000",
    "MAX_CONCURRENT_PAYMENTS": "64",
    "X402_MAX_PER_DAY": str(10**15),
    "LOG_LEVEL": "WARNING",
}

#: What has a process of its own, so that two cores have work: the two that charges keep busy.
_APART: Final = ("simulator-http", "payments-worker")

#: Nothing of its data outlives the simulation, so nothing need survive the end of the machine.
_NOT_DURABLE: Final = ("fsync = off", "full_page_writes = off", "synchronous_commit = off")

_VIRTUAL_PROGRESS: Final = """
    SELECT count(*),
           avg(CASE WHEN state IN ('cancelled', 'ended') THEN 1
                    ELSE extract(epoch FROM least(as_of, $2) - $1)
                             / extract(epoch FROM $2::timestamptz - $1)
               END)::float
      FROM subscription
     WHERE clock_id IS NOT NULL
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--subscriptions",
        type=_count,
        default=SUBSCRIPTIONS_DEFAULT,
        metavar="COUNT",
        help=f"how many customers subscribe ({SUBSCRIPTIONS_DEFAULT})",
    )
    parser.add_argument(
        "--for",
        dest="span",
        default="1y",
        metavar="SPAN",
        help="how long they live: 1y, 18m, 6w, 90d (1y)",
    )
    parser.add_argument(
        "--interval",
        default="month",
        metavar="INTERVAL,...",
        help="how often they are billed, in turns: month, 2week, 3day, ... (month)",
    )
    parser.add_argument(
        "--gateways",
        default="stripe",
        metavar="NAME,...",
        help=f"which gateways charge them, in turns, of {','.join(GATEWAYS)} (stripe)",
    )
    parser.add_argument(
        "--profile",
        default=LIFELIKE_NAME,
        metavar="NAME|FILE",
        help=f"how charges fail: {LIFELIKE_NAME}, smooth, rough, or a file as PUT "
        f"/simulator/profile takes it ({LIFELIKE_NAME})",
    )
    parser.add_argument(
        "--notices",
        action="store_true",
        help="let gateways send notices that tell nothing new, too: it takes longer",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, another year (1)")
    parser.add_argument(
        "--from",
        dest="start",
        metavar="DATE",
        help="the first day, like 2027-01-31 (1 January of this year)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=TIMEOUT_SECONDS_DEFAULT,
        metavar="SECONDS",
        help=f"how long to wait for the clocks ({TIMEOUT_SECONDS_DEFAULT:g})",
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")


def run(arguments: argparse.Namespace) -> int:
    """Let the time pass, check, tell; return 0 only if every period was billed exactly once.

    Raises:
        LocalStackError: there is no stack, or it does not answer as it should.
    """
    began = time.monotonic()
    wanted = _read(arguments)
    stop_in_order_at_sigterm()
    # What is for a person goes elsewhere when the answer is for a machine.
    target = Console(stderr=True) if arguments.json else console()
    with own_directory(None, prefix="sluice-simulate-") as directory:
        target.print("Starting PostgreSQL, Redis and all services ...")
        with LocalStack(
            directory,
            free_ports(),
            split=False,
            apart=_APART,
            environment=own_environment(os.environ, _SETTINGS),
        ) as stack:
            outcome = asyncio.run(_simulate(wanted, target, stack, began))
    if arguments.json:
        print(orjson.dumps(as_json(outcome), option=orjson.OPT_INDENT_2).decode())
    else:
        render(target, outcome)
    return WELL if outcome.is_well else NOT_WELL


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the arguments ask for."""

    offers: Sequence[Offer]
    subscribers: Sequence[Subscriber]
    profile: Mapping[str, Any]
    start: datetime
    end: datetime
    timeout_seconds: float


def _read(arguments: argparse.Namespace) -> _Wanted:
    gateways = arguments.gateways.split(",")
    unknown = [name for name in gateways if name not in GATEWAYS]
    if unknown:
        raise SimulationError(f"{unknown[0]!r} is not one of {', '.join(GATEWAYS)}")
    start = _first_day(arguments.start)
    end = read_span(arguments.span).after(start)
    offered = offers(gateways, [read_interval(each) for each in arguments.interval.split(",")])
    return _Wanted(
        offered,
        subscribers(arguments.subscriptions, len(offered), start, end, arguments.seed),
        profile_of(arguments.profile, arguments.seed, gateways, with_notices=arguments.notices),
        start,
        end,
        arguments.timeout,
    )


def _first_day(given: str | None) -> datetime:
    if given is None:
        return datetime(system_clock().year, 1, 1, tzinfo=UTC)
    try:
        return datetime.strptime(given, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise SimulationError(f"{given!r} is no date like 2027-01-31") from error


async def _simulate(wanted: _Wanted, target: Console, stack: LocalStack, began: float) -> Outcome:
    await _forget_durability(stack)
    async with AsyncExitStack() as opened:
        simulator = await opened.enter_async_context(
            open_client(stack.simulator_url, stack.api_key)
        )
        async with simulator.put("/simulator/profile", json=wanted.profile) as response:
            if not response.ok:
                raise SimulationError(f"the profile is refused: {await response.text()}")
        client = await opened.enter_async_context(open_client(stack.url, stack.api_key))
        databases = await opened.enter_async_context(open_databases(stack.environment))
        rehearsal = Rehearsal(client, wanted.start)
        started = time.monotonic()
        waiting = await _let_time_pass(rehearsal, databases, wanted, target)
        simulated = time.monotonic()
        verdicts = await _agree(databases, NamesAtSimulator(stack.environment).of)
        lived, billed, problems = await find_problems(databases, wanted.end)
        results = await audit.audit(stack.environment)
        analytics = await rehearsal.call("GET", _analytics_path(wanted))
    return Outcome(
        start=wanted.start,
        end=wanted.end,
        seconds=time.monotonic() - began,
        simulating_seconds=simulated - started,
        analytics=analytics,
        lived=lived,
        billed=billed,
        waiting=waiting,
        problems=problems,
        verdicts=verdicts,
        violated=[each.invariant.name for each in results if each.is_violated],
    )


async def _let_time_pass(
    rehearsal: Rehearsal, databases: ServiceDatabases, wanted: _Wanted, target: Console
) -> list[dict[str, Any]]:
    """Make everything and wait for the clocks; return the charges that they still wait for."""
    count = len(wanted.subscribers)
    with Progress(
        TextColumn("{task.description:<24}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=target,
    ) as progress:
        making = progress.add_task("customers subscribe", total=count)
        passing = progress.add_task("time passes", total=1.0)

        async def look() -> None:
            ((made, share),) = await databases.fetch(
                "scheduler", _VIRTUAL_PROGRESS, wanted.start, wanted.end
            )
            passed = (share or 0.0) * made / count
            today = wanted.start + (wanted.end - wanted.start) * passed
            text = f"time passes: {today:%-d %b %Y}"
            progress.update(passing, completed=passed, description=text)

        begun = asyncio.create_task(
            rehearsal.begin(
                wanted.offers, wanted.subscribers, wanted.end, lambda: progress.advance(making)
            )
        )
        while not begun.done():
            await look()
            await asyncio.wait([begun], timeout=LOOK_SECONDS)
        await begun
        deadline = time.monotonic() + wanted.timeout_seconds
        waiting = await rehearsal.arrive(look, deadline=deadline)
        if not waiting:
            progress.update(passing, completed=1.0)
        return waiting


async def _agree(databases: ServiceDatabases, name_of: NameAtSimulator) -> list[Compared]:
    """Compare both ledgers, until they agree: the clocks do not wait for late notices and looks."""
    deadline = time.monotonic() + AGREE_SECONDS
    ledgers = StoredLedgers(databases, name_of)
    while True:
        books = await ledgers.read([])
        verdicts = compare(books.payments, books.charges)
        is_equal = all(each.verdict is Verdict.MATCH for each in verdicts)
        if is_equal or time.monotonic() > deadline:
            return verdicts
        await asyncio.sleep(AGREE_LOOK_SECONDS)


def _analytics_path(wanted: _Wanted) -> str:
    return (
        f"/api/subscriptions/analytics?from={wanted.start:%Y-%m-%d}&to={wanted.end:%Y-%m-%d}"
        f"&interval=month&includeTest=true"
    )


async def _forget_durability(stack: LocalStack) -> None:
    assert stack.postgres is not None, "a stack of our own has a server of its own"
    connection = await asyncpg.connect(stack.postgres.url("postgres"))
    try:
        for setting in _NOT_DURABLE:
            await connection.execute(f"ALTER SYSTEM SET {setting}")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= SUBSCRIPTIONS_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1 to {SUBSCRIPTIONS_MAX}")
    return number


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return seconds
