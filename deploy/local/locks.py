"""Locks of the kernel on files: they end with their last holder, however that holder ends.

A data directory is guarded by these, never by process numbers in files: a number outlives its
process, above all in a container, where the next start hands out the same small numbers again.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from deploy.local.errors import DirectoryInUseError, UnreachableError


def try_lock(path: Path) -> int | None:
    """Lock a file, or return None when another open file holds the lock.

    Returns:
        A descriptor. The lock ends when it, and every copy that a child has inherited, is closed.

    Raises:
        UnreachableError: the file is another user's.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except PermissionError as error:
        raise UnreachableError(
            f"{path} belongs to another user: was Sluice run as root here before?"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def claim_directory(lock: Path, directory: Path) -> int:
    """Keep other runs of Sluice away from a data directory until `release` or our own end.

    Raises:
        DirectoryInUseError: another living run has it.
    """
    descriptor = try_lock(lock)
    if descriptor is None:
        raise DirectoryInUseError(f"another run of Sluice is using {directory}: stop it first")
    return descriptor


def release(descriptor: int) -> None:
    """Give up a claim at once, even if a child that is just being forked has a copy of it."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
