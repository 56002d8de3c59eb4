"""Directories for whole stacks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Return a directory that PostgreSQL can enter also when root runs the tests.

    pytest's own lies where only its owner may enter, so PostgreSQL's data would be put elsewhere
    and stay there.
    """
    directory = Path(tempfile.mkdtemp(prefix="sluice-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
