"""`sluice controls, pause, resume, drain, limits, purge, actions`: the hands on the wheel."""

from __future__ import annotations

import argparse
from typing import Any, Final

from deploy.local.operations.output import compact, say, show, tabulate
from deploy.local.operations.service import Command, Service, add_reason

_TOP: Final = "/api/operations"

_TARGETS: Final = "all, gateway:NAME or priority:high|medium|normal"


def _declare_nothing(_parser: argparse.ArgumentParser) -> tuple[()]:
    return ()


def _declare_reason(parser: argparse.ArgumentParser) -> tuple[()]:
    add_reason(parser)
    return ()


def _show_controls(service: Service, arguments: argparse.Namespace) -> None:
    show(arguments, service.get(f"{_TOP}/controls"), render)


def _declare_pause(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument("target", metavar="TARGET", help=_TARGETS)
    add_reason(parser)
    return ()


def _declare_resume(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument("target", metavar="TARGET", help=f"{_TARGETS}; `new` ends a drain")
    add_reason(parser)
    return ()


def _pause(service: Service, arguments: argparse.Namespace) -> None:
    body = {"target": arguments.target, "reason": arguments.reason}
    show(arguments, service.send("POST", f"{_TOP}/pause", body), render)


def _resume(service: Service, arguments: argparse.Namespace) -> None:
    body = {"target": arguments.target, "reason": arguments.reason}
    show(arguments, service.send("POST", f"{_TOP}/resume", body), render)


def _drain(service: Service, arguments: argparse.Namespace) -> None:
    body = {"reason": arguments.reason}
    show(arguments, service.send("POST", f"{_TOP}/drain", body), render)


def _declare_limits(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument(
        "--max-concurrent-payments", type=int, metavar="N", help="charges at once in each worker"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="payments taken up together")
    parser.add_argument(
        "--gateway",
        dest="gateways",
        action="append",
        default=[],
        type=gateway_limit,
        metavar="NAME:concurrency=N,calls-per-second=X",
        help="what all processes together may do at one gateway; may be repeated",
    )
    parser.add_argument("--reset", action="store_true", help="drop what was set by hand")
    parser.add_argument("--reason", help="why; it is recorded with who and when")
    return ()


def gateway_limit(text: str) -> tuple[str, dict[str, float]]:
    """Read `NAME:concurrency=N,calls-per-second=X`.

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    name, _, values = text.partition(":")
    limit: dict[str, float] = {}
    try:
        for value in values.split(","):
            field, _, number = value.partition("=")
            key = {"concurrency": "concurrency", "calls-per-second": "callsPerSecond"}[field]
            limit[key] = int(number) if key == "concurrency" else float(number)
    except (KeyError, ValueError):
        limit = {}
    if not name or not limit:
        problem = f"{text!r} is not NAME:concurrency=N,calls-per-second=X"
        raise argparse.ArgumentTypeError(problem)
    return name, limit


def _limits(service: Service, arguments: argparse.Namespace) -> None:
    limits: dict[str, Any] = {
        "maxConcurrentPayments": arguments.max_concurrent_payments,
        "batchSize": arguments.batch_size,
        "gateways": dict(arguments.gateways),
    }
    given = {name: value for name, value in limits.items() if value not in (None, {})}
    if not given and not arguments.reset:
        data = service.get(f"{_TOP}/controls")
    elif given and arguments.reset:
        raise argparse.ArgumentError(None, "--reset goes without other limits")
    elif not arguments.reason:
        raise argparse.ArgumentError(None, "say why: --reason")
    elif arguments.reset:
        data = service.send("DELETE", f"{_TOP}/limits", query={"reason": arguments.reason})
    else:
        data = service.send("PUT", f"{_TOP}/limits", given | {"reason": arguments.reason})
    show(arguments, data["limits"], _render_limits)


def _purge(service: Service, arguments: argparse.Namespace) -> None:
    data = service.send("POST", f"{_TOP}/purge", {"reason": arguments.reason})
    show(arguments, data, _render_purge)


def _declare_actions(parser: argparse.ArgumentParser) -> tuple[()]:
    parser.add_argument("--target", help="only what was done to this, a payment's id for example")
    parser.add_argument("--action", help="only actions of this name")
    parser.add_argument("--limit", default="50", help="at most so many (50)")
    return ()


def _actions(service: Service, arguments: argparse.Namespace) -> None:
    query = {
        "target": arguments.target,
        "action": arguments.action,
        "limit": arguments.limit,
    }
    show(arguments, service.get(f"{_TOP}/actions", query), _render_actions)


def render(data: Any) -> None:
    """Print what holds now."""
    decisions = [[f"paused: {each['target']}", *_decided(each)] for each in data["paused"]]
    if data["drain"] is not None:
        decisions.append(["no new payments", *_decided(data["drain"])])
    tabulate(["What", "Why", "By", "At"], decisions, "nothing is paused")
    hand = data["inHand"]
    payments = ", ".join(f"{count} {state}" for state, count in sorted(hand["payments"].items()))
    say(f"in hand: {payments or 'no payments'}; {hand['messages']} messages to be confirmed")
    _render_limits(data["limits"])
    profile = data["profile"]
    say(f"profile: {profile['name']} ({profile['mode']}, by {profile['cause']})")


def _decided(decision: Any) -> list[str]:
    return [decision["reason"], decision["by"], decision["at"]]


def _render_limits(limits: Any) -> None:
    operator = limits["operator"]
    rows = [
        ["in force", compact(limits["inForce"])],
        ["by hand", compact(None if operator is None else operator["limits"])],
        ["profile", compact(limits["profile"])],
        ["settings", compact(limits["settings"])],
    ]
    tabulate(["Limits", ""], rows, "")


def _render_purge(data: Any) -> None:
    say(f"cleared {data['deadLetters']} dead letters and {data['orphanedBodies']} orphaned bodies")


def _render_actions(data: Any) -> None:
    rows = [
        [
            *(each["at"], each["actor"], each["action"], each["target"], each["reason"]),
            *(compact(each["before"]), compact(each["after"])),
        ]
        for each in data["actions"]
    ]
    columns = ["At", "By", "Action", "Target", "Why", "Before", "After"]
    tabulate(columns, rows, "nothing was done by hand")


CONTROLS: Final = Command(_declare_nothing, _show_controls)
PAUSE: Final = Command(_declare_pause, _pause)
RESUME: Final = Command(_declare_resume, _resume)
DRAIN: Final = Command(_declare_reason, _drain)
LIMITS: Final = Command(_declare_limits, _limits)
PURGE: Final = Command(_declare_reason, _purge)
ACTIONS: Final = Command(_declare_actions, _actions)
