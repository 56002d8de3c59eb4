"""A Sluice of a command's own: nothing of a real installation reaches it, nothing of it stays."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: What the processes get of our environment. Not more: settings that are meant for a real
#: installation, its databases and its accounts at gateways, must not reach a demonstration.
ENVIRONMENT_KEPT: Final = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}
)


def own_environment(given: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of such a Sluice: what every program needs, and its settings."""
    kept = {
        name: value
        for name, value in given.items()
        if name in ENVIRONMENT_KEPT or name.startswith("PYTHON")
    }
    return kept | dict(settings)


@contextmanager
def own_directory(given: Path | None, *, prefix: str) -> Iterator[Path]:
    """Give a directory for the data: the one that is given, else one that is deleted at the end."""
    if given is not None:
        yield given
        return
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    directory.chmod(0o755)  # As root, PostgreSQL runs as a user who must get in.
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def stop_in_order_at_sigterm() -> None:
    """Let a SIGTERM stop the servers in order, as a Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
