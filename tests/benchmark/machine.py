"""What the machine is and does: CPU time of process trees, and whether it is quiet."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLOCK_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
QUIET_WINDOW_SECONDS: Final = 0.5
# Of all cores together. An idle embedded PostgreSQL, Redis and a shell stay below 1 %.
QUIET_BUSY_SHARE_MAX: Final = 0.05
# One quiet window can be the gap between two jobs of a compiler.
QUIET_WINDOWS_NEEDED: Final = 3
QUIET_WAIT_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds so far, at one moment."""

    monotonic_seconds: float
    machine_busy_seconds: float
    measured_seconds: float
    benchmark_seconds: float


def usage(measured_roots: Iterable[int]) -> Usage:
    """Read what the measured process trees, this benchmark's whole tree and the machine used."""
    return Usage(
        monotonic_seconds=time.monotonic(),
        machine_busy_seconds=_machine_times()[0],
        measured_seconds=cpu_seconds(measured_roots),
        benchmark_seconds=cpu_seconds([os.getpid()]),
    )


def foreign_share(before: Usage, after: Usage) -> float:
    """Share of all cores that processes outside this benchmark took between two readings."""
    elapsed_seconds = max(after.monotonic_seconds - before.monotonic_seconds, 1e-9)
    busy_seconds = after.machine_busy_seconds - before.machine_busy_seconds
    own_seconds = after.benchmark_seconds - before.benchmark_seconds
    capacity_seconds = elapsed_seconds * (os.cpu_count() or 1)
    return max(0.0, busy_seconds - own_seconds) / capacity_seconds


def cpu_seconds(roots: Iterable[int]) -> float:
    """User and system time of the trees under `roots`, with the children they have reaped.

    A process that ends between two readings is not lost: its time moves into its parent's
    account of reaped children (cutime, cstime). That is how PostgreSQL's short-lived
    autovacuum workers and backends are counted.
    """
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended since the listing; its parent has the time
        # The name in parentheses may itself contain spaces and parentheses.
        fields = text[text.rindex(")") + 2 :].split()
        process = int(entry.name)
        children.setdefault(int(fields[1]), []).append(process)
        ticks[process] = sum(int(field) for field in fields[11:15])
    total_ticks = 0
    waiting = list(dict.fromkeys(roots))
    seen: set[int] = set()
    while waiting:
        process = waiting.pop()
        if process in seen:
            continue
        seen.add(process)
        total_ticks += ticks.get(process, 0)
        waiting.extend(children.get(process, ()))
    return total_ticks / CLOCK_TICKS_PER_SECOND


def wait_until_quiet(wait_seconds_max: float = QUIET_WAIT_SECONDS_MAX) -> bool:
    """Wait until hardly anything runs; false when the machine did not come to rest in time."""
    deadline = time.monotonic() + wait_seconds_max
    quiet_windows = 0
    while quiet_windows < QUIET_WINDOWS_NEEDED:
        if time.monotonic() > deadline:
            return False
        busy_before, all_before = _machine_times()
        time.sleep(QUIET_WINDOW_SECONDS)
        busy_after, all_after = _machine_times()
        busy_share = (busy_after - busy_before) / max(all_after - all_before, 1e-9)
        quiet_windows = quiet_windows + 1 if busy_share <= QUIET_BUSY_SHARE_MAX else 0
    return True


def parent_of(process: int) -> int:
    """Return the parent's process id."""
    text = Path(f"/proc/{process}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[1])


def description() -> Mapping[str, str | int]:
    """Describe the hardware and the kernel for the report."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "cores": os.cpu_count() or 1,
        "processor": model,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def _machine_times() -> tuple[float, float]:
    """Busy and total seconds of all cores since boot; time stolen by the host is busy."""
    first_line = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, first_line.split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy / CLOCK_TICKS_PER_SECOND, (busy + idle + iowait) / CLOCK_TICKS_PER_SECOND
