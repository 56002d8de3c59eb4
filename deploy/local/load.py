"""`sluice load`: many payments with a profile of misbehaviour, and both ledgers compared."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.local import audit
from deploy.local.arguments import port_number
from deploy.local.environment import gateways_at_simulator
from deploy.local.load_comparison import Compared, Verdict, compare
from deploy.local.load_ledgers import AskedLedgers, Books, Ledgers, StoredLedgers
from deploy.local.load_plan import GATEWAYS, PROFILES, Transaction, plan, read_profile
from deploy.local.load_report import Outcome, as_json, render
from deploy.local.load_traffic import LOOK_SECONDS, LoadError, Made, Merchant, open_client
from deploy.local.own_stack import own_directory, own_environment, stop_in_order_at_sigterm
from deploy.local.printing import console
from deploy.local.service_databases import open_databases
from deploy.local.simulator_names import NamesAtSimulator
from deploy.local.stack import LocalStack, free_ports

TRANSACTIONS_DEFAULT: Final = 2_000
RATE_DEFAULT: Final = 40.0
CONCURRENCY_DEFAULT: Final = 64

#: Longest wait after the last payment was made. A gateway that kept an answer to itself is asked
#: again ever more rarely, and a wallet's authorization is over after five minutes.
TIMEOUT_SECONDS_DEFAULT: Final = 400.0

#: Looks between two comparisons while payments are open: of somebody else's stack, every payment
#: is asked about for each.
LOOKS_PER_COMPARISON: Final = 10

#: Takes orders whose failed attempts are followed by others.
PROCESS_PATH: Final = "/api/payments/process"

WELL: Final = 0
NOT_WELL: Final = 1

#: Settings of the load's own Sluice. One caller makes everybody's requests; a call that hangs costs
#: 2 s; the reconciler's first look comes soon after the slowest customer of the built-in profiles.
_SETTINGS: Final[Mapping[str, str]] = {
    "API_RATE_LIMIT_PER_SECOND": "100000",
    "GATEWAY_TIMEOUT_SECONDS": "2",
    "PAYMENT_FIRST_CHECK_AFTER": "PT3S",
    "FAPSHI_VISIBLE_AFTER_SECONDS": "2",
    "CAMPAY_VISIBLE_AFTER_SECONDS": "4",
    "X402_MAX_PER_DAY": str(10**15),
    "LOG_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class _Target:
    """A running Sluice, and where both its ledgers can be read."""

    url: str
    api_key: str
    #: The environment of a stack of our own, to read its tables; None of somebody else's.
    environment: Mapping[str, str] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--transactions",
        type=_positive(int),
        default=TRANSACTIONS_DEFAULT,
        metavar="COUNT",
        help=f"how many payments to make ({TRANSACTIONS_DEFAULT})",
    )
    parser.add_argument(
        "--profile",
        default="smooth",
        metavar="NAME|FILE",
        help=f"{', '.join(PROFILES)}, or a file as PUT /simulator/profile takes it (smooth)",
    )
    parser.add_argument(
        "--rate",
        type=_positive(float),
        default=RATE_DEFAULT,
        help=f"payments begun a second at the most ({RATE_DEFAULT:g})",
    )
    parser.add_argument(
        "--concurrency",
        type=_positive(int),
        default=CONCURRENCY_DEFAULT,
        help=f"creations asked for side by side at the most ({CONCURRENCY_DEFAULT})",
    )
    parser.add_argument(
        "--gateways",
        type=_gateways,
        default=GATEWAYS,
        metavar="NAME,...",
        help=f"which gateways to cycle through ({','.join(GATEWAYS)})",
    )
    parser.add_argument(
        "--process",
        action="store_true",
        help="ask for automatic retries: what fails for a moment is tried again",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_setting,
        metavar="NAME=VALUE",
        help="a setting of our own Sluice, like MAX_CONCURRENT_PAYMENTS=100",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other payments (1)")
    parser.add_argument(
        "--timeout",
        type=_positive(float),
        default=TIMEOUT_SECONDS_DEFAULT,
        metavar="SECONDS",
        help="how long to wait, after the last was made, for payments to come to rest "
        f"({TIMEOUT_SECONDS_DEFAULT:g})",
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    parser.add_argument("--url", help="a running Sluice with a simulator (else one is started)")
    parser.add_argument("--key", default=os.environ.get("SLUICE_API_KEY"), help="its API key")
    parser.add_argument("--port", type=port_number, help="the one address of our own Sluice (any)")
    parser.add_argument(
        "--data-dir",
        dest="data_directory",
        type=Path,
        metavar="DIRECTORY",
        help="where our own Sluice keeps its data (else it is deleted at the end)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the payments, wait, compare, tell; return 0 only if both ledgers agree.

    Raises:
        LocalStackError: there is no stack, or it does not answer as it should.
    """
    profile = read_profile(arguments.profile, arguments.seed)
    transactions = plan(arguments.transactions, arguments.gateways, arguments.seed)
    stop_in_order_at_sigterm()
    # What is for a person goes elsewhere when the answer is for a machine.
    target = Console(stderr=True) if arguments.json else console()
    with _target(arguments, target) as sluice:
        outcome = asyncio.run(_load(arguments, target, sluice, profile, transactions))
    if arguments.json:
        print(orjson.dumps(as_json(outcome), option=orjson.OPT_INDENT_2).decode())
    else:
        render(target, outcome)
    return WELL if outcome.is_well else NOT_WELL


@contextmanager
def _target(arguments: argparse.Namespace, target: Console) -> Iterator[_Target]:
    """Start a Sluice of our own, or take the one that is named."""
    if arguments.url is not None:
        if not arguments.key:
            raise LoadError("--url needs --key, or SLUICE_API_KEY: an API key that may write")
        yield _Target(arguments.url.rstrip("/"), arguments.key, None)
        return
    with own_directory(arguments.data_directory, prefix="sluice-load-") as directory:
        target.print("Starting PostgreSQL, Redis and all services ...")
        with LocalStack(
            directory,
            arguments.port or free_ports(),
            split=True,
            environment=own_environment(os.environ, {**_SETTINGS, **dict(arguments.set)}),
        ) as stack:
            yield _Target(stack.url, stack.api_key, stack.environment)


async def _load(
    arguments: argparse.Namespace,
    target: Console,
    sluice: _Target,
    profile: Mapping[str, Any],
    transactions: Sequence[Transaction],
) -> Outcome:
    async with AsyncExitStack() as stack:
        merchant = Merchant(
            await stack.enter_async_context(open_client(sluice.url, sluice.api_key)),
            run=f"{time.time_ns():x}",
            creation=PROCESS_PATH if arguments.process else "/api/payments",
        )
        # Somebody else's Sluice is taken to have the made-up wallet, unless ours is named here.
        foreign = {**gateways_at_simulator(sluice.url, os.environ), **os.environ}
        name_of = NamesAtSimulator(foreign if sluice.environment is None else sluice.environment).of
        ledgers: Ledgers = AskedLedgers(merchant, name_of)
        if sluice.environment is not None:
            databases = await stack.enter_async_context(open_databases(sluice.environment))
            ledgers = StoredLedgers(databases, name_of)
        await merchant.call("PUT", "/simulator/profile", profile)
        stack.push_async_callback(merchant.call, "DELETE", "/simulator/profile")
        progress = stack.enter_context(_progress(target))
        making = progress.add_task("payments made", total=len(transactions))
        resting = progress.add_task("at rest", total=len(transactions))
        started = time.monotonic()
        all_made = await merchant.make_all(
            transactions,
            rate=arguments.rate,
            concurrency=arguments.concurrency,
            advance=lambda: progress.advance(making),
        )
        made_at = time.monotonic()
        books, verdicts = await _settle(
            merchant,
            ledgers,
            all_made,
            lambda count: progress.update(resting, completed=count),
            deadline=made_at + arguments.timeout,
        )
    is_clean = None
    if sluice.environment is not None:
        is_clean = audit.is_clean(await audit.audit(dict(sluice.environment)))
    return Outcome(
        profile,
        all_made,
        making_seconds=_last(
            (made.began_at + made.created_seconds for made in all_made if made.is_answered),
            otherwise=made_at,
        )
        - started,
        whole_seconds=_last(
            (
                made.began_at + made.settled_seconds
                for made in all_made
                if made.settled_seconds is not None
            ),
            otherwise=time.monotonic(),
        )
        - started,
        books=books,
        verdicts=verdicts,
        is_audit_clean=is_clean,
    )


async def _settle(
    merchant: Merchant,
    ledgers: Ledgers,
    all_made: Sequence[Made],
    show: Callable[[int], None],
    *,
    deadline: float,
) -> tuple[Books, list[Compared]]:
    """Look until both ledgers agree and nothing is left to happen, or the time is over."""
    for look in itertools.count(1):
        await merchant.look(all_made)
        still_open = sum(made.is_open for made in all_made)
        show(len(all_made) - still_open)
        is_over = time.monotonic() > deadline
        if is_over or not still_open or look % LOOKS_PER_COMPARISON == 0:
            books = await ledgers.read(all_made)
            verdicts = compare(books.payments, books.charges)
            is_well = all(each.verdict is Verdict.MATCH for each in verdicts)
            if is_over or (is_well and books.is_final and not any(m.is_retried for m in all_made)):
                return books, verdicts
        await asyncio.sleep(LOOK_SECONDS)
    raise AssertionError("counting has no end")


def _last(moments: Iterable[float], *, otherwise: float) -> float:
    return max(moments, default=otherwise)


def _progress(target: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=target)


def _gateways(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in GATEWAYS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(GATEWAYS)}")
    return names


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isupper():
        raise argparse.ArgumentTypeError(f"{text!r} is not like MAX_CONCURRENT_PAYMENTS=100")
    return name, value


N = TypeVar("N", int, float)


def _positive(kind: Callable[[str], N]) -> Callable[[str], N]:
    def read(text: str) -> N:
        try:
            number = kind(text)
        except ValueError:
            number = kind("0")
        if number <= 0 or not math.isfinite(number):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
        return number

    return read
