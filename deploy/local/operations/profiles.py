"""`sluice profiles`: named sets of limits, and which one is in force."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.local.errors import LocalStackError
from deploy.local.operations.output import compact, say, show, tabulate
from deploy.local.operations.service import Command, Service, add_reason, segment

_TOP: Final = "/api/operations/profiles"


class NoProfileFileError(LocalStackError):
    """A file with a profile cannot be read, or is no JSON object."""


def _declare(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    parsers = parser.add_subparsers(dest="verb", metavar="VERB")
    parsers.add_parser("list", help="show all of them, and which is in force (without a verb too)")
    parsers.add_parser("history", help="show which one came into force when and why")
    setting = parsers.add_parser("set", help="write one, in place of an earlier one of its name")
    setting.add_argument("name", metavar="NAME")
    setting.add_argument(
        "--file", type=Path, required=True, help="its JSON as the API takes it, without the reason"
    )
    add_reason(setting)
    for verb, purpose in (
        ("activate", "bring one into force until further notice"),
        ("delete", "delete one that is not in force"),
    ):
        named = parsers.add_parser(verb, help=purpose)
        named.add_argument("name", metavar="NAME")
        add_reason(named)
    add_reason(parsers.add_parser("automatic", help="let schedule and load decide again"))
    return list(parsers.choices.values())


def _act(service: Service, arguments: argparse.Namespace) -> None:
    match arguments.verb:
        case None | "list":
            data = service.get(_TOP)
        case "history":
            show(arguments, service.get("/api/operations/profile-switches"), _render_history)
            return
        case "set":
            body = _read(arguments.file) | {"reason": arguments.reason}
            data = service.send("PUT", f"{_TOP}/{segment(arguments.name)}", body)
        case "delete":
            path = f"{_TOP}/{segment(arguments.name)}"
            data = service.send("DELETE", path, query={"reason": arguments.reason})
        case "automatic":
            data = service.send("POST", f"{_TOP}/automatic", {"reason": arguments.reason})
        case _:
            path = f"{_TOP}/{segment(arguments.name)}/activate"
            data = service.send("POST", path, {"reason": arguments.reason})
    show(arguments, data, _render)


def _read(file: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        profile = orjson.loads(text)
    except (OSError, orjson.JSONDecodeError) as error:
        raise NoProfileFileError(f"{file}: {error}") from error
    if not isinstance(profile, dict):
        raise NoProfileFileError(f"{file} holds no JSON object")
    return profile


def _render(data: Any) -> None:
    rows = [
        [
            *(each["name"], each["rank"], compact(each["limits"])),
            *(compact(each["schedule"]), compact(each["load"]), each["minimumStaySeconds"]),
        ]
        for each in data["profiles"]
    ]
    columns = ["Profile", "Rank", "Limits", "Schedule", "Load", "Stays (s)"]
    tabulate(columns, rows, "there are no profiles: the settings hold")
    present = data["inForce"]
    say(f"in force: {present['name']} ({present['mode']}, by {present['cause']})")
    say(f"time zone of the schedules: {data['timeZone']}")


def _render_history(data: Any) -> None:
    rows = [
        [each["at"], each["profile"], each["cause"], each["queueLength"], each["by"]]
        for each in data["switches"]
    ]
    tabulate(["At", "Profile", "Cause", "Queue", "By"], rows, "no profile ever came into force")


PROFILES: Final = Command(_declare, _act)
