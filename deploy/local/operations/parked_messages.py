"""`sluice parked-messages`: messages that were sent too often in vain, of each service."""

from __future__ import annotations

import argparse
from typing import Any, Final

from deploy.local.operations.output import say, show, tabulate
from deploy.local.operations.service import Command, Service, add_reason, segment

#: Where each service that sends messages lists them.
_BASES: Final = {
    "payments": "/api/payments",
    "webhook": "/api/webhooks",
    "scheduler": "/api/subscriptions",
}


def _declare(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parser.add_argument(
        "--service", choices=sorted(_BASES), default="payments", help="whose (payments)"
    )
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    parsers.add_parser("list", help="show them (without a verb too)")
    resuming = parsers.add_parser("resume", help="send one again, or without an ID all")
    resuming.add_argument("id", metavar="ID", nargs="?")
    add_reason(resuming)
    return list(parsers.choices.values())


def _act(service: Service, arguments: argparse.Namespace) -> None:
    top = f"{_BASES[arguments.service]}/parked-messages"
    if arguments.verb in {None, "list"}:
        show(arguments, service.get(top), _render_list)
        return
    path = f"{top}/resume" if arguments.id is None else f"{top}/{segment(arguments.id)}/resume"
    show(arguments, service.send("POST", path, {"reason": arguments.reason}), _render_count)


def _render_list(data: Any) -> None:
    rows = [
        [each["id"], each["parkedAt"], each["messageName"], each["queue"], each["sends"]]
        for each in data["parkedMessages"]
    ]
    tabulate(["Id", "Parked", "Message", "Queue", "Sent"], rows, "no message is parked here")


def _render_count(data: Any) -> None:
    say(f"messages sent again: {data['count']}")


PARKED_MESSAGES: Final = Command(_declare, _act)
