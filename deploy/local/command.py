"""The command line `sluice`: a table of subcommands, each a module of this package."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple, NoReturn, Protocol, cast

from deploy.local.errors import LocalStackError
from shared.errors import SluiceError

#: The exit code of a run that could not begin: wrong arguments, settings, addresses.
REFUSED: Final = 2

#: In a container that is us. Signals without a handler do nothing to it, so one that comes before a
#: process has its own, or to a command that has none, would be waited for in vain.
FIRST_PROCESS: Final = 1

#: What shells report for a program that a Ctrl-C has ended.
INTERRUPTED: Final = 130


class Subcommand(Protocol):
    """What the module of a subcommand offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code."""


class Entry(NamedTuple):
    """One subcommand: its module, or `module:NAME` in one of several, and what it is for."""

    module: str
    purpose: str


SUBCOMMANDS: Final[Mapping[str, Entry]] = MappingProxyType(
    {
        "up": Entry("up", "start everything on this machine, and stop it with Ctrl-C"),
        "demo": Entry("demo", "drive payments of every fate through Sluice and show what happened"),
        "load": Entry("load", "send many payments, and compare both ledgers one by one"),
        "simulate": Entry("simulate", "let a year of subscriptions pass in a minute, and check it"),
        "audit": Entry("audit", "check on live data that nothing is lost and nothing is doubled"),
        "explain": Entry("explain", "tell the whole story of one payment or subscription"),
        "controls": Entry(
            "operations.controls:CONTROLS", "show what is paused, and which limits hold"
        ),
        "pause": Entry("operations.controls:PAUSE", "pause all payments, a gateway or a priority"),
        "resume": Entry("operations.controls:RESUME", "end a pause, or a drain"),
        "drain": Entry("operations.controls:DRAIN", "accept no new payments, finish the others"),
        "limits": Entry("operations.controls:LIMITS", "show limits, set or drop them by hand"),
        "profiles": Entry("operations.profiles:PROFILES", "show, write and choose sets of limits"),
        "breaker": Entry("operations.gateways:BREAKER", "show breakers, open or close one by hand"),
        "look-up": Entry("operations.payments:LOOK_UP", "ask a payment's gateway at once"),
        "hold": Entry("operations.payments:HOLD", "put a payment on hold"),
        "release": Entry("operations.payments:RELEASE", "release a payment that is on hold"),
        "subscriptions": Entry(
            "operations.subscriptions:SUBSCRIPTIONS", "show subscriptions, and steer one by hand"
        ),
        "clocks": Entry("operations.subscriptions:CLOCKS", "show test clocks, and move one"),
        "dead-letters": Entry(
            "operations.dead_letters:DEAD_LETTERS", "show, repeat, put off, discard dead letters"
        ),
        "parked-messages": Entry(
            "operations.parked_messages:PARKED_MESSAGES", "show and send on what was sent in vain"
        ),
        "purge": Entry("operations.controls:PURGE", "clear Redis of what no worker takes up again"),
        "actions": Entry("operations.controls:ACTIONS", "show what operators did, and why"),
        "migrate": Entry("migrate", "bring the databases up to date"),
        "serve": Entry("serve", "run the HTTP process of one service"),
        "worker": Entry("worker", "run the worker process of one service"),
        "unified": Entry("unified", "run every part of every service in one process"),
        "front-door": Entry("front_door", "offer the services' processes at one address"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code."""
    if os.getpid() == FIRST_PROCESS:
        signal.signal(signal.SIGTERM, _end)
    given = list(sys.argv[1:] if argv is None else argv)
    parser = _parser(given[0] if given else None)
    arguments = parser.parse_args(given)
    try:
        return _load(arguments.subcommand).run(arguments)
    except argparse.ArgumentError as error:  # Arguments that are right alone, and not together.
        parser.error(str(error))
    except _expected_errors() as error:  # Only called when there is one.
        print(f"sluice: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _expected_errors() -> tuple[type[Exception], ...]:
    """Return the errors whose message is all that a person needs."""
    # Whoever reads settings has imported it; to the others it would cost 0.1 s.
    from shared.settings import SettingsError  # noqa: PLC0415

    return (LocalStackError, SettingsError, SluiceError)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Make the parser; only the chosen subcommand is imported, because that takes time."""
    parser = argparse.ArgumentParser(
        prog="sluice", description="Carries each payment, exactly once, to what was paid for."
    )
    parsers = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True)
    for name, entry in SUBCOMMANDS.items():
        subparser = parsers.add_parser(name, help=entry.purpose, description=entry.purpose)
        if name == chosen:
            _load(name).add_arguments(subparser)
    return parser


def _load(name: str) -> Subcommand:
    path, _, attribute = SUBCOMMANDS[name].module.partition(":")
    module = importlib.import_module(f"deploy.local.{path}")
    return cast("Subcommand", getattr(module, attribute) if attribute else module)
