"""What a test needs that no Python package brings."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(*binaries: str) -> None:
    """Skip the calling test when a program is missing; in CI (`CI=true`) fail it instead."""
    missing = [name for name in binaries if shutil.which(name) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)} on the PATH"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and in CI nothing is skipped")
    pytest.skip(reason)
