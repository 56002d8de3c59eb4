"""`sluice look-up, hold, release`: one payment by hand."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from deploy.local.operations.output import say, show
from deploy.local.operations.service import Command, Service, add_reason, segment


def _declare(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument("id", metavar="PAYMENT", help="id of a payment")
    add_reason(parser)
    return ()


def _act(what: str, render: Callable[[Any], None]) -> Callable[..., None]:
    def act(service: Service, arguments: argparse.Namespace) -> None:
        path = f"/api/payments/{segment(arguments.id)}/{what}"
        show(arguments, service.send("POST", path, {"reason": arguments.reason}), render)

    return act


def _render_look_up(data: Any) -> None:
    reason = "" if data["reason"] is None else f" ({data['reason']})"
    say(f"the gateway says: {data['outcome']}{reason}")
    _render_payment(data["payment"])


def _render_payment(payment: Any) -> None:
    reason = "" if payment["reason"] is None else f", because: {payment['reason']}"
    due = "" if payment["nextCheckAt"] is None else f"; looked at next at {payment['nextCheckAt']}"
    say(f"{payment['id']} is {payment['state']}{reason}{due}")


LOOK_UP: Final = Command(_declare, _act("look-up", _render_look_up))
HOLD: Final = Command(_declare, _act("hold", _render_payment))
RELEASE: Final = Command(_declare, _act("release", _render_payment))
