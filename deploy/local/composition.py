"""Putting parts of services into one process with one HTTP application."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterable, Sequence
from functools import partial

from aiohttp import web

from shared import process
from shared.clock import system_clock
from shared.process import Part, PartOpener
from shared.settings import ServiceSettings
from shared.web.application import build_application
from shared.web.health import health_routes
from shared.web.keys import ApiKey, Keyring, parse_keys
from shared.web.openapi.routes import documentation_routes
from shared.web.rate_limits import RateLimit


def run_parts(
    name: str,
    openers: Iterable[PartOpener],
    settings: ServiceSettings,
    arguments: argparse.Namespace,
) -> int:
    """Run parts at the address that `add_address` declared and return the exit code.

    Raises:
        SettingsError: the API keys cannot be read.
    """
    if arguments.stop_at_end_of_input:
        stop_at_end_of_input()
    make = partial(make_application, settings, parse_keys(settings.api_keys_text()))
    return process.run(name, openers, make, settings, host=arguments.host, port=arguments.port)


def make_application(
    settings: ServiceSettings, keys: Iterable[ApiKey], parts: Sequence[Part]
) -> web.Application:
    """Make the application that answers for the parts of one process."""
    routes = [
        *(route for part in parts for route in part.routes),
        *health_routes(parts, system_clock),
    ]
    return build_application(
        [*routes, *documentation_routes(routes)],
        keyring=Keyring(keys),
        rate_limit=RateLimit(settings.api_rate_limit_per_second),
    )


def stop_at_end_of_input() -> None:
    """Stop this process, as a SIGTERM would, when whoever holds the other end of its input ends."""

    def wait() -> None:
        # Nothing is ever written there; an end, however sudden, closes it.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()
