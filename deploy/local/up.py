"""`sluice up`: everything on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from deploy.local.arguments import (
    HOST_DEFAULT,
    PORT_DEFAULT,
    PORT_MAX,
    add_data_directory,
    port_number,
)
from deploy.local.environment import without_password
from deploy.local.errors import LocalStackError
from deploy.local.stack import PORT_COUNT, LocalStack
from deploy.local.supervisor import Restartable, Supervisor

#: How long a death goes unnoticed; looking costs microseconds.
CHECK_SECONDS: Final = 0.1

#: Ctrl-C, `kill`, and the end of the terminal.
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EXAMPLE_PAYMENT: Final = (
    '{"gateway": "sslcommerz", "amount": 150000, "currency": "BDT",'
    ' "customer": {"id": "customer-1", "name": "Rahim Uddin", "email": "rahim@example.com",'
    ' "phone": "01711111111"},'
    ' "product": {"id": "course-1", "name": "Bangla for beginners"},'
    ' "returnUrl": "https://example.com/paid"}'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--split", action="store_true", help="one process per service and kind, as on Kubernetes"
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=PORT_DEFAULT,
        help=f"the one address for all paths; the {PORT_COUNT - 1} ports after it are used too "
        f"({PORT_DEFAULT})",
    )
    parser.add_argument(
        "--host", default=HOST_DEFAULT, help=f"address to listen on ({HOST_DEFAULT})"
    )
    add_data_directory(parser)
    parser.add_argument(
        "--api-key", metavar="KEY", help="a key with every scope (else one is made and kept)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start, supervise until the first signal, stop.

    Raises:
        LocalStackError: it cannot be started; the message says what to do.
    """
    if arguments.port > PORT_MAX - PORT_COUNT + 1:
        raise LocalStackError(f"--port must be at most {PORT_MAX - PORT_COUNT + 1}")
    stack = LocalStack(
        arguments.data_directory,
        arguments.port,
        split=arguments.split,
        environment=os.environ,
        host=arguments.host,
        api_key=arguments.api_key,
    )
    _raise_at_first_signal()
    try:
        _say("Starting ...")
        stack.start()
        _say(_describe(stack))
        _supervise(stack, _say)
    except KeyboardInterrupt:
        _say("\nStopping ...")
    finally:
        killed = stack.stop()
    _say(f"Stopped; had to kill {', '.join(killed)}." if killed else "Stopped.")
    return 0


def _raise_at_first_signal() -> None:
    """Let the first signal that asks to stop raise `KeyboardInterrupt`, and later ones nothing."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        # Under nohup the end of the terminal is nothing to us. A SIGINT may be ignored because a
        # script has started us in the background; there it still means what it says.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, interrupt)


def _supervise(stack: LocalStack, report: Callable[[str], None]) -> None:
    subjects: dict[str, Restartable] = {}
    if stack.postgres is not None:
        subjects["PostgreSQL"] = stack.postgres
    if stack.redis is not None:
        subjects["Redis"] = stack.redis
    subjects |= stack.processes
    supervisor = Supervisor(subjects, report)
    while True:
        supervisor.check()
        time.sleep(CHECK_SECONDS)


def _describe(stack: LocalStack) -> str:
    """Say where everything is and what to do next."""
    lines = {
        "PostgreSQL": without_password(stack.database_url),
        "Redis": without_password(stack.redis_url),
        "Data": str(stack.data_directory),
        "Logs": str(stack.data_directory / "logs"),
        "API key": stack.api_key,
    }
    metrics = {name: f"{process.url}/metrics" for name, process in stack.processes.items()}
    table = "\n".join(f"  {name:<18} {place}" for name, place in (metrics | lines).items())
    return (
        f"Sluice is running at {stack.public_url} (Ctrl-C stops it).\n\n{table}\n\n"
        "Make a payment, then open its checkoutUrl:\n\n"
        f"  curl -s {stack.url}/api/payments \\\n"
        f"    -H 'Authorization: Bearer {stack.api_key}' \\\n"
        "    -H 'Content-Type: application/json' \\\n"
        f"    -d '{EXAMPLE_PAYMENT}'\n"
    )


def _say(text: str) -> None:
    print(text, flush=True)
