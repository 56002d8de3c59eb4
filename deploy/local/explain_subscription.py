"""How `sluice explain sub_…` is shown: what happened, periods, charges, and what comes next."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local.printing import plain
from deploy.local.service_databases import open_databases
from deploy.local.story_words import moment
from deploy.local.subscription_story import SubscriptionStory, tell_subscription
from shared.money import Money


async def explain_subscription(
    environment: Mapping[str, str], subscription_id: str
) -> SubscriptionStory:
    """Tell the story of a subscription from the databases of an environment.

    Raises:
        UnknownSubscriptionError: there is none of this id.
    """
    async with open_databases(environment) as databases:
        return await tell_subscription(databases, subscription_id)


def render(target: Console, story: SubscriptionStory) -> None:
    """Print what happened in the order of time, the last periods and charges, how it stands."""
    target.print(Text(f"{story.subscription_id}: {plain(story.summary)}", style="bold"))
    if story.is_cut_off:
        target.print(Text(f"Only the last {len(story.lines)} things that happened:"))
    target.print(_happened(story))
    if story.periods:
        target.print(_periods(story))
    if story.charges:
        target.print(_charges(story))
    now, what, because = (plain(words) for words in story.outlook)
    target.print(Text(f"now: {now}; next: {what}, because {because}", style="bold"))


def _happened(story: SubscriptionStory) -> Table:
    table = _table("Time (UTC)")
    if story.is_on_clock:
        table.add_column("On its clock", no_wrap=True)
    table.add_column("Service", no_wrap=True)
    table.add_column("What happened")
    state = None
    for line in story.lines:
        entry = line.entry
        sentence = plain(entry.text)
        if entry.state not in {None, state}:
            sentence = f"{f'{state} → ' if state else ''}{entry.state}: {sentence}"
            state = entry.state
            if entry.reason is not None:
                sentence += f", because: {plain(entry.reason)}"
        times = [moment(entry.at)]
        if story.is_on_clock:
            times.append("" if line.own_time is None else moment(line.own_time)[:-4])
        table.add_row(*times, entry.service, Text(sentence))
    return table


def _periods(story: SubscriptionStory) -> Table:
    table = _table("Period")
    for heading in ("From", "To", "Amount", "Is", "Payment"):
        table.add_column(heading, no_wrap=True)
    for row in story.periods:
        last = row["number"] + row["periods"] - 1
        number = f"{row['number']}" if row["periods"] == 1 else f"{row['number']} to {last}"
        state = row["state"] if row["reason"] is None else f"{row['state']} ({row['reason']})"
        table.add_row(
            number,
            f"{row['period_start']:%Y-%m-%d %H:%M}",
            f"{row['period_end']:%Y-%m-%d %H:%M}",
            f"{Money(row['amount'], row['currency'])}",
            Text(plain(state)),
            row["payment_id"] or "",
        )
    return table


def _charges(story: SubscriptionStory) -> Table:
    table = _table("Charge")
    for heading in ("Ordered (UTC)", "Is", "At the gateway"):
        table.add_column(heading)
    for row in story.charges:
        state = row["state"] if row["reason"] is None else f"{row['state']} ({row['reason']})"
        reference = plain(row["gateway_payment_id"] or "")
        table.add_row(row["id"], moment(row["created_at"]), Text(plain(state)), Text(reference))
    return table


def _table(first: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
    return table
