"""`sluice explain PAYMENT`: the whole story of one payment, in order, with times and reasons."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local.arguments import add_data_directory
from deploy.local.printing import console, plain
from deploy.local.service_databases import environment_of, open_databases
from deploy.local.story import Story, UnknownPaymentError, as_json, find_payment_id, tell
from deploy.local.story_words import Entry, moment

TOLD: Final = 0
UNKNOWN: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "id", metavar="PAYMENT", help="id of a payment, of an attempt (att_) or enrollment (enr_)"
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    add_data_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell the story, and return 0, or 1 when there is no such payment.

    Raises:
        LocalStackError: there are no databases to look into, or they cannot be used.
        DatabaseUnavailableError: a server does not answer.
    """
    environment = environment_of(arguments.data_directory, os.environ)
    try:
        story = asyncio.run(explain(environment, arguments.id))
    except UnknownPaymentError as error:
        print(f"sluice: {error}", file=sys.stderr)
        return UNKNOWN
    if arguments.json:
        print(orjson.dumps(as_json(story), option=orjson.OPT_INDENT_2).decode())
    else:
        render(console(), story)
    return TOLD


async def explain(environment: dict[str, str], given: str) -> Story:
    """Tell the story of an id from the databases of an environment.

    Raises:
        UnknownPaymentError: no payment belongs to it.
    """
    async with open_databases(environment) as databases:
        return await tell(databases, await find_payment_id(databases, given))


def render(target: Console, story: Story) -> None:
    """Print the story as a table in the order of time, and how it stands."""
    target.print(Text(f"{story.payment_id}: {plain(story.summary)}", style="bold"))
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Time", no_wrap=True)
    table.add_column("Service", no_wrap=True)
    table.add_column("What happened")
    table.add_column("State", no_wrap=True)
    state = None
    for entry in story.entries:
        step = ""
        if entry.state is not None:
            step = entry.state if state in {None, entry.state} else f"{state} → {entry.state}"
            state = entry.state
        table.add_row(moment(entry.at), entry.service, Text(_sentence(entry)), step)
    target.print(table)
    target.print(
        Text(f"now: {story.now}, next: {plain(story.next)}, because: {plain(story.because)}")
    )


def _sentence(entry: Entry) -> str:
    """Put what, why and what next into one line."""
    parts = [plain(entry.text)]
    if entry.reason is not None:
        parts.append(f"because: {plain(entry.reason)}")
    if entry.next_at is not None:
        parts.append(f"again at {moment(entry.next_at)}")
    return "; ".join(parts)
