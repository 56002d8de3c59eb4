"""`sluice worker SERVICE`: one service's worker process; its port serves health and metrics."""

from __future__ import annotations

import argparse
from functools import partial

from deploy.local.arguments import add_address
from deploy.local.composition import run_parts
from deploy.local.services import WORKER_NAMES, load_service
from shared.settings import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("service", choices=WORKER_NAMES, metavar="SERVICE")
    add_address(parser)


def run(arguments: argparse.Namespace) -> int:
    """Work until a signal comes."""
    service = load_service(arguments.service)
    settings = load(service.settings)
    assert service.worker_part is not None, f"{service.name} is in WORKER_NAMES"
    name = f"{service.name}-worker"
    return run_parts(name, [partial(service.worker_part, settings)], settings, arguments)
