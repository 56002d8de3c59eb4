"""`sluice dead-letters`: messages that could not be handled, of each service."""

from __future__ import annotations

import argparse
from typing import Any, Final

from deploy.local.operations.output import say, show, tabulate
from deploy.local.operations.service import Command, Service, add_reason, segment

#: Where each service that receives messages lists them.
_BASES: Final = {
    "payments": "/api/payments",
    "webhook": "/api/webhooks",
    "enrollment": "/api/enrollments",
    "scheduler": "/api/subscriptions",
}


def _declare(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parser.add_argument(
        "--service", choices=sorted(_BASES), default="payments", help="whose (payments)"
    )
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    parsers.add_parser("list", help="show those that wait (without a verb too)")
    showing = parsers.add_parser("show", help="show one, with its payload")
    showing.add_argument("id", metavar="ID")
    retrying = parsers.add_parser("retry", help="handle one again, or without an ID all that wait")
    retrying.add_argument("id", metavar="ID", nargs="?")
    add_reason(retrying)
    moving = parsers.add_parser("move", help="set when one is handled again")
    moving.add_argument("id", metavar="ID")
    moving.add_argument(
        "--retry-at", required=True, metavar="TIME", help="RFC 3339; `never`: only by hand"
    )
    add_reason(moving)
    discarding = parsers.add_parser("discard", help="give one up for good")
    discarding.add_argument("id", metavar="ID")
    add_reason(discarding)
    return list(parsers.choices.values())


def _act(service: Service, arguments: argparse.Namespace) -> None:
    top = f"{_BASES[arguments.service]}/dead-letters"
    match arguments.verb:
        case None | "list":
            show(arguments, service.get(top), _render_list)
        case "show":
            show(arguments, service.get(f"{top}/{segment(arguments.id)}"), _render)
        case "retry" if arguments.id is None:
            data = service.send("POST", f"{top}/retry", {"reason": arguments.reason})
            show(arguments, data, _render_count)
        case "retry":
            path = f"{top}/{segment(arguments.id)}/retry"
            show(arguments, service.send("POST", path, {"reason": arguments.reason}), _render)
        case "move":
            due = None if arguments.retry_at == "never" else arguments.retry_at
            body = {"retryAt": due, "reason": arguments.reason}
            path = f"{top}/{segment(arguments.id)}"
            show(arguments, service.send("PATCH", path, body), _render)
        case _:
            path = f"{top}/{segment(arguments.id)}"
            query = {"reason": arguments.reason}
            show(arguments, service.send("DELETE", path, query=query), _render)


def _render_list(data: Any) -> None:
    rows = [
        [each["id"], each["storedAt"], each["messageName"], each["reason"], each["retryAt"]]
        for each in data["deadLetters"]
    ]
    columns = ["Id", "Stored", "Message", "Why", "Handled again"]
    tabulate(columns, rows, "no message waits here")


def _render(letter: Any) -> None:
    rows = [[name, value] for name, value in letter.items()]
    tabulate(["Field", "Value"], rows, "")


def _render_count(data: Any) -> None:
    say(f"{data['count']} messages will be handled again")


DEAD_LETTERS: Final = Command(_declare, _act)
