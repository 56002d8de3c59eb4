"""`sluice demo`: payments and subscriptions through a Sluice of its own, and how they end."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deploy.local import audit, explain
from deploy.local.arguments import port_number
from deploy.local.demo_fates import FATES, Order, count_min, plan_orders
from deploy.local.demo_subscriptions import Subscribed, Subscribers, count_all, table_of
from deploy.local.demo_traffic import DemoError, Made, Shop, open_client
from deploy.local.invariants.findings import Result
from deploy.local.load_plan import GATEWAYS
from deploy.local.own_stack import own_directory, own_environment, stop_in_order_at_sigterm
from deploy.local.printing import console
from deploy.local.simulator_names import NamesAtSimulator
from deploy.local.stack import LocalStack, free_ports
from deploy.local.story import Story

PAYMENTS_DEFAULT: Final = 240

#: Longest wait after the last payment was made. The reconciler finds lost ones after 10 s.
FOLLOW_SECONDS: Final = 45.0

ALL_WELL: Final = 0
WRONG_END: Final = 1

#: The demonstration is one caller with everybody's requests. The reconciler's first look comes
#: sooner than by default (30 s), and a call that hangs costs less, so that it is over sooner.
_SETTINGS: Final = {
    "API_RATE_LIMIT_PER_SECOND": "1000",
    "PAYMENT_FIRST_CHECK_AFTER": "PT10S",
    "GATEWAY_TIMEOUT_SECONDS": "3",
}

_WHOLE_WAY: Final = "enrollment_whole_way_duration_seconds"

#: Whose story is told in full: a long one.
_TOLD_FATE: Final = "broken"


@dataclass(frozen=True, slots=True)
class Performance:
    """What was seen of one demonstration."""

    all_made: Sequence[Made]
    subscribed: Sequence[Subscribed]
    #: Seconds from notice to enrollment: (up to, how many), the last one for all.
    buckets: Sequence[tuple[float, float]]
    results: Sequence[Result]
    story: Story

    @property
    def is_well(self) -> bool:
        """Whether everything is at its end and every invariant holds."""
        return self.wrong_count == 0 and audit.is_clean(self.results)

    @property
    def wrong_count(self) -> int:
        """How many payments and subscriptions are not where they belong."""
        wrong = sum(not made.is_at_its_end for made in self.all_made)
        return wrong + sum(not each.is_at_its_end for each in self.subscribed)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--payments",
        type=int,
        default=PAYMENTS_DEFAULT,
        metavar="COUNT",
        help=f"how many payments to make ({PAYMENTS_DEFAULT}; at least {count_min()})",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other amounts (1)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="leave out the payments that only the reconciler finds, 10 s after their creation",
    )
    parser.add_argument("--port", type=port_number, help="the one address for all paths (any)")
    parser.add_argument(
        "--data-dir",
        dest="data_directory",
        type=Path,
        metavar="DIRECTORY",
        help="where to keep the data (else it is deleted at the end)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Start a Sluice, drive payments through it, show what happened, stop it.

    Raises:
        LocalStackError: it cannot be started, or does not answer as it should.
    """
    started = time.monotonic()
    if arguments.payments < count_min():
        raise DemoError(f"--payments must be at least {count_min()}, so that every fate occurs")
    stop_in_order_at_sigterm()
    target = console()
    with own_directory(arguments.data_directory, prefix="sluice-demo-") as directory:
        target.print("Starting PostgreSQL, Redis and all services ...")
        with LocalStack(
            directory,
            arguments.port or free_ports(),
            split=False,
            environment=own_environment(os.environ, _SETTINGS),
        ) as stack:
            target.print(f"Sluice runs at {stack.url} after {time.monotonic() - started:.1f} s.")
            orders = plan_orders(arguments.payments, arguments.seed, quick=arguments.quick)
            seen = asyncio.run(_perform(target, stack, orders))
            _render(target, seen)
        seconds = time.monotonic() - started
        if seen.is_well:
            ending = Text(
                "\nEvery payment and subscription is where it belongs, "
                f"after {seconds:.1f} s in all."
            )
            target.print(ending)
            return ALL_WELL
        wrong = f"{seen.wrong_count} payments and subscriptions are not where they belong"
        print(f"sluice: {wrong}", file=sys.stderr)
        return WRONG_END


async def _perform(target: Console, stack: LocalStack, orders: Sequence[Order]) -> Performance:
    async with open_client(stack.url, stack.api_key) as client:
        run = f"{int(time.time()):x}"
        shop = Shop(client, run, NamesAtSimulator(stack.environment).of)
        with _progress(target) as progress:
            sending = progress.add_task("payments made", total=len(orders))
            ending = progress.add_task("at their end", total=len(orders))
            living = progress.add_task("subscriptions", total=count_all())
            all_made = await shop.make_all(orders, lambda: progress.advance(sending))
            _, subscribed = await asyncio.gather(
                shop.follow(
                    all_made,
                    lambda reached: progress.update(ending, completed=reached),
                    timeout_seconds=FOLLOW_SECONDS,
                ),
                Subscribers(client, run).live(
                    lambda reached: progress.update(living, completed=reached)
                ),
            )
        buckets = whole_way_buckets(await shop.metrics())
    told = next(made for made in all_made if made.order.fate == _TOLD_FATE)
    return Performance(
        all_made,
        subscribed,
        buckets,
        await audit.audit(stack.environment),
        await explain.explain(stack.environment, told.payment_id),
    )


def _progress(target: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=target)


def whole_way_buckets(metrics: str) -> list[tuple[float, float]]:
    """Read from a process's metrics how many payments took how long from notice to enrollment."""
    return [
        (float(sample.labels["le"]), sample.value)
        for family in text_string_to_metric_families(metrics)
        if family.name == _WHOLE_WAY
        for sample in family.samples
        if sample.name.endswith("_bucket")
    ]


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """Return the time within which a share of all was done, estimated as Prometheus does.

    Within a bucket values are taken to be spread evenly; beyond the last bound it is that bound.
    """
    if not buckets or buckets[-1][1] == 0:
        return None
    rank = share * buckets[-1][1]
    lower, below = 0.0, 0.0
    for upper, count in buckets:
        if count >= rank:
            if upper == float("inf"):
                return lower
            return lower + (upper - lower) * (rank - below) / (count - below)
        lower, below = upper, count
    return lower


def _render(target: Console, seen: Performance) -> None:
    target.print(_table(seen.all_made))
    target.print(table_of(seen.subscribed))
    p50, p99 = (quantile(seen.buckets, share) for share in (0.5, 0.99))
    if p50 is not None and p99 is not None:
        target.print(
            "From the notice, or the look that found the money, to the enrollment: "
            f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, slow gateway answers included.\n"
        )
    target.print(f"One of them, as `sluice explain` tells it ({FATES[_TOLD_FATE].story}):")
    explain.render(target, seen.story)
    target.print()
    audit.render(target, seen.results)


def _table(all_made: Sequence[Made]) -> Table:
    table = Table(title="Payments", title_justify="left", show_footer=True)
    ended = [made for made in all_made if made.is_at_its_end]
    enrolled = {made.enrollment_id for made in all_made} - {None}
    table.add_column("Gateway", "all")
    table.add_column("Fate", "")
    table.add_column("Sent", f"{len(all_made)}", justify="right")
    table.add_column("Must end", "")
    table.add_column("Reached", f"{len(ended)}", justify="right")
    table.add_column("Enrollments", f"{len(enrolled)}", justify="right")
    for name, fate in sorted(FATES.items(), key=lambda item: list(GATEWAYS).index(item[1].gateway)):
        made_so = [made for made in all_made if made.order.fate == name]
        if not made_so:
            continue
        reached = sum(made.is_at_its_end for made in made_so)
        enrollments = {made.enrollment_id for made in made_so} - {None}
        table.add_row(
            fate.gateway,
            fate.story,
            f"{len(made_so)}",
            f"{fate.state}{', enrolled' if fate.is_enrolled else ''}",
            Text(f"{reached}", style="green" if reached == len(made_so) else "bold red"),
            f"{len(enrollments)}",
        )
    return table
