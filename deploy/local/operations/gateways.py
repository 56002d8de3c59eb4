"""`sluice breaker`: how gateways stand, and their breakers by hand."""

from __future__ import annotations

import argparse
from typing import Any, Final

from deploy.local.operations.output import compact, show, tabulate
from deploy.local.operations.service import Command, Service, segment

_TOP: Final = "/api/gateways"


def _declare(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument("gateway", metavar="GATEWAY", nargs="?", help="without it all are shown")
    parser.add_argument(
        "--force",
        choices=("open", "closed", "automatic"),
        help="open or close it by hand, or let it decide for itself again",
    )
    parser.add_argument("--reason", help="why; it is recorded with who and when")
    return ()


def _act(service: Service, arguments: argparse.Namespace) -> None:
    if arguments.force is None:
        if arguments.gateway is None:
            show(arguments, service.get(_TOP), lambda data: _render(data["gateways"]))
        else:
            path = f"{_TOP}/{segment(arguments.gateway)}"
            show(arguments, service.get(path), lambda data: _render([data]))
        return
    if arguments.gateway is None or not arguments.reason:
        raise argparse.ArgumentError(None, "--force needs GATEWAY and --reason")
    body = {"force": arguments.force, "reason": arguments.reason}
    path = f"{_TOP}/{segment(arguments.gateway)}/breaker"
    show(arguments, service.send("POST", path, body), lambda data: _render([data]))


def _render(gateways: list[Any]) -> None:
    rows = [
        [
            *(each["name"], each["breaker"]["state"], each["breaker"]["force"]),
            *(each["breaker"]["reason"], each["breaker"]["until"]),
            *(compact(each["limits"]), each["paused"]),
        ]
        for each in gateways
    ]
    columns = ["Gateway", "Breaker", "Force", "Why", "Until", "Limits", "Paused"]
    tabulate(columns, rows, "no gateway is on")


BREAKER: Final = Command(_declare, _act)
