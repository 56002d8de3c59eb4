"""Drives the peer's load generator `lg`: builds its request file, runs it, reads its results.

The file formats are described at the head of the peer's `lib/lg.c`.
"""

from __future__ import annotations

import json
import struct
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.benchmark.errors import BenchmarkError, VerificationError

CONNECTIONS: Final = 64
LOAD_SECONDS_MAX: Final = 600
RECORD: Final = struct.Struct("<dddii")  # scheduled, sent, latency, status, padding

# (index, run) -> (event id, headers, body); the same id again means a duplicate delivery.
Maker = Callable[[int, str], tuple[str, Mapping[str, str], bytes]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request as it went; times are seconds since the epoch."""

    event_id: str
    scheduled_at: float
    sent_at: float
    answered_at: float


@dataclass(frozen=True, slots=True)
class Load:
    """Requests ready to be sent, each exactly once."""

    path: Path
    url: str
    event_ids: tuple[str, ...]

    @property
    def distinct(self) -> int:
        """How many different events the requests carry."""
        return len(set(self.event_ids))


def build(url: str, maker: Maker, run: str, count: int, path: Path) -> Load:
    """Write `count` requests to `path`, ahead of time so that signing them costs nothing later."""
    parts = urlsplit(url)
    event_ids = []
    with path.open("wb") as output:
        for index in range(count):
            event_id, headers, body = maker(index, run)
            event_ids.append(event_id)
            lines = [
                f"POST {parts.path} HTTP/1.1",
                f"Host: {parts.netloc}",
                *(f"{name}: {value}" for name, value in headers.items()),
                f"Content-Length: {len(body)}",
            ]
            request = "\r\n".join([*lines, "", ""]).encode() + body
            output.write(struct.pack("<I", len(request)))
            output.write(request)
    return Load(path=path, url=url, event_ids=tuple(event_ids))


def send(load: Load, generator: Path, *, per_second: float = 0) -> list[Delivery]:
    """Send the requests: as fast as the connections allow, or at an even rate.

    Raises:
        VerificationError: not every request was answered 200.
    """
    parts = urlsplit(load.url)
    results = load.path.with_suffix(".results")
    command = [str(generator), "127.0.0.1", str(parts.port), str(load.path), str(results)]
    command += [str(CONNECTIONS), str(per_second), str(LOAD_SECONDS_MAX)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if not finished.stdout:
        raise BenchmarkError(f"lg ended with {finished.returncode}: {finished.stderr}")
    records = list(_records(results, len(load.event_ids)))
    load.path.unlink()
    results.unlink()
    statuses = Counter(status for *_, status in records)
    if statuses != {200: len(records)}:
        raise VerificationError(
            f"not every delivery was acknowledged: answers by status {dict(statuses)}"
            f" (0 is none, -1 a broken connection); {json.loads(finished.stdout)}"
        )
    return [
        Delivery(
            event_id=event_id,
            scheduled_at=scheduled_at,
            sent_at=sent_at,
            answered_at=scheduled_at + latency_seconds,
        )
        for event_id, (scheduled_at, sent_at, latency_seconds, _) in zip(
            load.event_ids, records, strict=True
        )
    ]


def _records(path: Path, count: int) -> Iterator[tuple[float, float, float, int]]:
    data = path.read_bytes()
    for index in range(count):
        scheduled_at, sent_at, latency_seconds, status, _ = RECORD.unpack_from(
            data, index * RECORD.size
        )
        yield scheduled_at, sent_at, latency_seconds, status
