"""A scheduler that scans once: `python -m tests.benchmark.scanning_process DATABASE_URL REDIS_URL`.

It says when it is ready, scans when it reads a line, and then says how many subscriptions it took,
and its memory in bytes: before, at most, and after.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from services.scheduler.handlers import scan
from services.scheduler.runtime import Runtime
from services.scheduler.settings import SchedulerSettings
from shared import logs
from shared.process import open_core, tune_interpreter
from tests.benchmark.errors import BenchmarkError


async def main(database_url: str, redis_url: str) -> None:
    """Scan with what a worker process has."""
    settings = SchedulerSettings(database_url=database_url, redis_url=redis_url)
    async with open_core(settings, "scheduler", database_url) as core:
        tune_interpreter()
        before = _resident_bytes()
        most = [before]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        watching = asyncio.create_task(_watch_memory(most))
        taken = await scan.scan(Runtime(core, settings))
        watching.cancel()
        print(taken, before, max(most), _resident_bytes(), flush=True)


async def _watch_memory(most: list[int]) -> None:
    while True:
        most.append(_resident_bytes())
        await asyncio.sleep(0.1)


def _resident_bytes() -> int:
    """Return what this process holds in memory; Linux only, like the machine's other figures."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1_024
    raise BenchmarkError("the kernel does not tell a process its memory")


if __name__ == "__main__":
    logs.configure(level="ERROR", process="scan")
    uvloop.run(main(*sys.argv[1:]))
