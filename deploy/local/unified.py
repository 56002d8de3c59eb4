"""`sluice unified`: every part of every service in one process, at one address."""

from __future__ import annotations

import argparse
from functools import partial

from deploy.local.arguments import add_address
from deploy.local.composition import run_parts
from deploy.local.services import SERVICE_NAMES, load_service
from shared.process import PartOpener
from shared.settings import ServiceSettings, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_address(parser)
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="SERVICE-http|SERVICE-worker",
        help="a part that has a process of its own",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve and work until a signal comes."""
    openers: list[PartOpener] = []
    for service in map(load_service, SERVICE_NAMES):
        settings = load(service.settings)
        if f"{service.name}-http" not in arguments.without:
            openers.append(partial(service.http_part, settings))
        if service.worker_part is not None and f"{service.name}-worker" not in arguments.without:
            openers.append(partial(service.worker_part, settings))
    return run_parts("unified", openers, load(ServiceSettings), arguments)
