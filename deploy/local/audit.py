"""`sluice audit`: check on live data that nothing is lost, doubled or stuck."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.local.arguments import add_data_directory
from deploy.local.invariants.catalogue import check_all
from deploy.local.invariants.findings import Result
from deploy.local.printing import console, plain
from deploy.local.service_databases import environment_of, open_databases
from shared.clock import system_clock
from shared.web.bodies import time_text

CLEAN: Final = 0
VIOLATED: Final = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="answer in JSON, for machines")
    add_data_directory(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, tell, and return 0 if clean, 1 if an invariant is violated.

    Raises:
        LocalStackError: there are no databases to check, or they cannot be used.
        DatabaseUnavailableError: a server does not answer.
    """
    environment = environment_of(arguments.data_directory, os.environ)
    results = asyncio.run(audit(environment))
    if arguments.json:
        print(orjson.dumps(as_json(results), option=orjson.OPT_INDENT_2).decode())
    else:
        render(console(), results)
    return CLEAN if is_clean(results) else VIOLATED


async def audit(environment: dict[str, str]) -> list[Result]:
    """Check every invariant on the databases of an environment."""
    async with open_databases(environment) as databases:
        return await check_all(databases)


def is_clean(results: Sequence[Result]) -> bool:
    """Tell whether every invariant holds; warnings do not count."""
    return not any(result.is_violated for result in results)


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return what a machine wants to know."""
    return {
        "clean": is_clean(results),
        "checkedAt": time_text(system_clock()),
        "invariants": [
            {
                "name": result.invariant.name,
                "sentence": result.invariant.sentence,
                "status": _status(result),
                "skipped": result.skipped,
                "checked": result.findings.checked,
                "waiting": result.findings.waiting,
                "violations": result.findings.violations,
                "classes": dict(result.findings.classes),
                "examples": [example._asdict() for example in result.findings.examples],
                "hint": result.invariant.hint,
            }
            for result in results
        ],
    }


#: How each status is shown.
_STYLES: Final = {"holds": "green", "violated": "bold red", "warning": "yellow", "skipped": "dim"}


def render(target: Console, results: Sequence[Result]) -> None:
    """Print a table of the invariants, then what was found and what to do about it."""
    table = Table(title="Invariants", title_justify="left")
    table.add_column("Invariant")
    for heading in ("Checked", "Waiting", "Violations"):
        table.add_column(heading, justify="right")
    table.add_column("Status")
    for result in results:
        findings, status = result.findings, _status(result)
        table.add_row(
            result.invariant.sentence,
            *(f"{count:,}" for count in (findings.checked, findings.waiting, findings.violations)),
            Text(status, style=_STYLES[status]),
        )
    target.print(table)
    for result in results:
        _render_details(target, result)
    if is_clean(results):
        target.print(Text("The audit is clean.", style="bold green"))
    else:
        count = sum(result.is_violated for result in results)
        target.print(Text(f"{count} of {len(results)} invariants are violated.", style="bold red"))


def _render_details(target: Console, result: Result) -> None:
    name, findings = result.invariant.name, result.findings
    if result.skipped is not None:
        target.print(Text(f"{name} was skipped: {result.skipped}.", style="dim"))
    if findings.classes:
        classes = ", ".join(f"{count:,} {kind}" for kind, count in findings.classes.most_common())
        target.print(Text(f"{name}: {classes}."))
    if not findings.violations:
        return
    target.print(Text(f"\n{name}: {result.invariant.sentence}", style="bold"))
    for example in findings.examples:
        target.print(Text(f"  {plain(example.subject)} {plain(example.problem)}"))
    if (more := findings.violations - len(findings.examples)) > 0:
        target.print(Text(f"  and {more:,} more"))
    target.print(Text(f"  To do: {result.invariant.hint}\n"))


def _status(result: Result) -> str:
    if result.skipped is not None:
        return "skipped"
    if not result.findings.violations:
        return "holds"
    return "warning" if result.invariant.is_warning else "violated"
