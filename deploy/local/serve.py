"""`sluice serve SERVICE`: one service's HTTP process."""

from __future__ import annotations

import argparse
from functools import partial

from deploy.local.arguments import add_address
from deploy.local.composition import run_parts
from deploy.local.services import SERVICE_NAMES, load_service
from shared.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("service", choices=SERVICE_NAMES, metavar="SERVICE")
    add_address(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    service = load_service(arguments.service)
    settings = load(service.settings)
    name = f"{service.name}-http"
    return run_parts(name, [partial(service.http_part, settings)], settings, arguments)
