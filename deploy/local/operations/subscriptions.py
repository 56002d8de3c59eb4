"""`sluice subscriptions, clocks`: subscriptions and test clocks by hand.

Who did what is a line of the subscription's history; there is no reason to give.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from deploy.local.operations.output import say, show, tabulate
from deploy.local.operations.service import Command, Service, segment

_TOP: Final = "/api/subscriptions"
_CLOCKS: Final = "/api/test-clocks"

#: Verbs that need nothing but the subscription, and what each does.
_PLAIN_VERBS: Final = {
    "pause": "bill nothing until it is resumed",
    "resume": "bill a paused one again",
    "trigger-payment": "charge the present period now, if it is unpaid",
    "clear-problem": "try again what one was set aside for",
}


def _declare(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parser.add_argument("--customer", help="only those of this customer")
    parser.add_argument("--state", help="only those in this state")
    parser.add_argument(
        "--attention",
        choices=["set_aside", "catch_up_asked"],
        help="only those that a person must look at",
    )
    parser.add_argument("--limit", default="50", help="at most so many (50)")
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    parsers.add_parser("list", help="show them, the newest first (without a verb too)")
    for verb, purpose in {"show": "show one, with its charges", **_PLAIN_VERBS}.items():
        _with_id(parsers.add_parser(verb, help=purpose))
    cancelling = _with_id(parsers.add_parser("cancel", help="end one"))
    cancelling.add_argument(
        "--at-period-end", action="store_true", help="when its period is over, not at once"
    )
    catching_up = _with_id(parsers.add_parser("catch-up", help="say which periods are billed"))
    catching_up.add_argument(
        "--bill", required=True, choices=["every", "current"], help="of those that went by"
    )
    return list(parsers.choices.values())


def _with_id(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("id", metavar="SUBSCRIPTION")
    return parser


def _act(service: Service, arguments: argparse.Namespace) -> None:
    if arguments.verb in {None, "list"}:
        query = {
            "customerId": arguments.customer,
            "state": arguments.state,
            "attention": arguments.attention,
            "limit": arguments.limit,
        }
        show(arguments, service.get(_TOP, query), _render_list)
        return
    one = f"{_TOP}/{segment(arguments.id)}"
    match arguments.verb:
        case "show":
            jobs = service.get(f"/api/jobs/subscription/{segment(arguments.id)}")
            show(arguments, {**service.get(one), **jobs}, _render_with_jobs)
        case "cancel":
            body: dict[str, Any] = {"atPeriodEnd": arguments.at_period_end}
            show(arguments, service.send("POST", f"{one}/cancel", body), _render)
        case "catch-up":
            body = {"bill": arguments.bill}
            show(arguments, service.send("POST", f"{one}/catch-up", body), _render)
        case "trigger-payment":
            data = service.send("POST", f"{one}/trigger-payment")
            show(arguments, data, lambda ordered: say(f"{ordered['jobId']} charges it"))
        case verb:
            show(arguments, service.send("POST", f"{one}/{verb}"), _render)


def _render_list(data: Any) -> None:
    rows = [
        [
            *(each["id"], each["customerId"], each["state"], each["reason"]),
            *(each["nextDueAt"], each["attention"]),
        ]
        for each in data["subscriptions"]
    ]
    columns = ["Id", "Customer", "State", "Why", "Next due", "Attention"]
    tabulate(columns, rows, "there are no such subscriptions")


def _render(one: Any) -> None:
    due = "" if one["nextDueAt"] is None else f"; next due at {one['nextDueAt']}"
    charge = "" if one["charge"] is None else f"; charging {one['charge']['paymentId']}"
    problem = "" if one["problem"] is None else f"; set aside: {one['problem']}"
    say(f"{one['id']} is {one['state']}, because: {one['reason']}{due}{charge}{problem}")


def _render_with_jobs(data: Any) -> None:
    _render(data)
    rows = [
        [
            *(job["id"], job["status"], f"{job['progress']} %", job["attemptsMade"]),
            *(job["waitsFor"], job["failedReason"], job["nextRetryAt"]),
        ]
        for job in data["jobs"]
    ]
    columns = ["Job", "Status", "Progress", "Tries", "Waits for", "Failed", "Again at"]
    tabulate(columns, rows, "nothing was charged for it")


def _declare_clocks(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    parsers.add_parser("list", help="show them, the newest first (without a verb too)")
    for verb, purpose in {
        "show": "show how far its subscriptions have come",
        "advance": "let it become later; what is due until then happens",
        "freeze": "let it stand",
        "run": "let it go with the real time",
    }.items():
        subparser = parsers.add_parser(verb, help=purpose)
        subparser.add_argument("id", metavar="CLOCK")
        if verb == "advance":
            subparser.add_argument("--to", required=True, metavar="TIME", help="RFC 3339")
    return list(parsers.choices.values())


def _act_on_clock(service: Service, arguments: argparse.Namespace) -> None:
    if arguments.verb in {None, "list"}:
        show(arguments, service.get(_CLOCKS), _render_clocks)
        return
    one = f"{_CLOCKS}/{segment(arguments.id)}"
    match arguments.verb:
        case "show":
            data = service.get(one)
        case "advance":
            data = service.send("POST", f"{one}/advance", {"to": arguments.to})
        case verb:
            data = service.send("POST", f"{one}/{verb}")
    show(arguments, data, _render_clock)


def _render_clocks(data: Any) -> None:
    rows = [[each["id"], each["name"], each["state"], each["now"]] for each in data["testClocks"]]
    tabulate(["Id", "Name", "State", "Now"], rows, "there are no test clocks")


def _render_clock(clock: Any) -> None:
    progress = clock["progress"]
    say(
        f"{clock['id']} is {clock['state']} at {clock['now']}; of {progress['subscriptions']} "
        f"subscriptions {progress['behind']} are behind and {progress['charging']} are charged"
    )
    rows = [
        [each["subscriptionId"], each["paymentId"], each["since"]] for each in clock["waitingFor"]
    ]
    tabulate(["Waits for", "Payment", "Since"], rows, "it waits for no charge")


SUBSCRIPTIONS: Final = Command(_declare, _act)
CLOCKS: Final = Command(_declare_clocks, _act_on_clock)
