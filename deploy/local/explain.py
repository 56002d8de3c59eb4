"""`sluice explain ID`: the story of a payment or subscription, in order, with times and reasons."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local import explain_subscription, subscription_story
from deploy.local.arguments import add_data_directory
from deploy.local.printing import console, plain
from deploy.local.service_databases import environment_of, open_databases
from deploy.local.story import Story, UnknownPaymentError, as_json, find_payment_id, tell
from deploy.local.story_words import Entry, moment, time_of_day
from deploy.local.subscription_story import UnknownSubscriptionError
from shared.identifiers import is_id

TOLD: Final = 0
UNKNOWN: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="of a payment, of its attempt (att_), enrollment (enr_) or job (job_), or of a "
        "subscription (sub_)",
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    add_data_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tell the story, and return 0, or 1 when there is no such payment or subscription.

    Raises:
        LocalStackError: there are no databases to look into, or they cannot be used.
        DatabaseUnavailableError: a server does not answer.
    """
    environment = environment_of(arguments.data_directory, os.environ)
    try:
        if is_id(arguments.id, "sub"):
            _tell_subscription(environment, arguments)
        else:
            _tell_payment(environment, arguments)
    except (UnknownPaymentError, UnknownSubscriptionError) as error:
        print(f"sluice: {error}", file=sys.stderr)
        return UNKNOWN
    return TOLD


def _tell_payment(environment: dict[str, str], arguments: argparse.Namespace) -> None:
    story = asyncio.run(explain(environment, arguments.id))
    if arguments.json:
        _print_json(as_json(story))
    else:
        render(console(), story)


def _tell_subscription(environment: dict[str, str], arguments: argparse.Namespace) -> None:
    story = asyncio.run(explain_subscription.explain_subscription(environment, arguments.id))
    if arguments.json:
        _print_json(subscription_story.as_json(story))
    else:
        explain_subscription.render(console(), story)


def _print_json(told: dict[str, Any]) -> None:
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())


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
    table.add_column("Time (UTC)", no_wrap=True)
    table.add_column("Service", no_wrap=True)
    table.add_column("What happened")
    state = None
    for entry in story.entries:
        sentence = _sentence(entry)
        if entry.state not in {None, state}:
            sentence = f"{f'{state} → ' if state else ''}{entry.state}: {sentence}"
            state = entry.state
        table.add_row(moment(entry.at), entry.service, Text(sentence))
    target.print(table)
    outlook = f"now: {story.now}; next: {plain(story.next)}, because {plain(story.because)}"
    target.print(Text(outlook, style="bold"))


def _sentence(entry: Entry) -> str:
    """Put what, why and what next into one line."""
    sentence = plain(entry.text)
    if entry.reason is not None:
        sentence += f", because: {plain(entry.reason)}"
    if entry.next_at is not None:
        is_same_day = entry.next_at.date() == entry.at.date()
        sentence += (
            f"; next at {time_of_day(entry.next_at) if is_same_day else moment(entry.next_at)}"
        )
    return sentence
