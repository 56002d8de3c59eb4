"""What is measured: one scenario on one side, verified to have enrolled every event once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tests.benchmark.errors import BenchmarkError, VerificationError
from tests.benchmark.load_generator import Delivery, Load, build, send
from tests.benchmark.machine import Usage, foreign_share, usage, wait_until_quiet
from tests.benchmark.makers import with_duplicates
from tests.benchmark.servers import Servers
from tests.benchmark.side import Announced, Gateway, Side

# Sent before the clock starts: Node compiles its hot functions, everybody opens connections.
WARM_UP_EVENTS: Final = 1_000
DUPLICATES_DELIVERIES: Final = 2_000
# Where payments are known before their webhook: customers need a while on the gateway's page.
PAYMENTS_AGE_SECONDS: Final = 20 * 60
# Counting costs PostgreSQL some milliseconds; results are taken from the rows' times, so that
# asking seldom costs no precision.
COUNT_EVERY_SECONDS: Final = 0.25
# After the last enrollment: what is left of the work (receipts, finished jobs) belongs to the CPU
# time, and a doubled enrollment would show.
SETTLE_SECONDS: Final = 1.5
ENROLLED_SECONDS_MAX: Final = 600.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much load; smaller to try the benchmark itself out."""

    events: int = 20_000
    latency_seconds: int = 20


@dataclass(frozen=True, slots=True)
class Run:
    """One side, ready for one scenario."""

    side: Side
    servers: Servers
    generator: Path
    directory: Path
    size: Size
    gateway: Gateway


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run gave, by metric, and how far the machine was undisturbed."""

    scenario: str
    side: str
    repetition: int
    values: Mapping[str, float]
    began_quiet: bool
    foreign_cpu_share: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of a run, with the readings around it."""

    values: Mapping[str, float]
    before: Usage
    after: Usage
    began_quiet: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to load a side."""

    measure: Callable[[Run], Measured]
    sides: Sequence[str]
    gateway: Gateway = field(default_factory=Gateway)


def run_scenario(
    name: str,
    side: Side,
    *,
    servers: Servers,
    generator: Path,
    directory: Path,
    size: Size,
    repetition: int,
) -> Sample:
    """Run a scenario once on one side and stop the side's processes again.

    Raises:
        VerificationError: events were refused, lost or enrolled twice.
    """
    scenario = SCENARIOS[name]
    run = Run(
        side=side,
        servers=servers,
        generator=generator,
        directory=directory,
        size=size,
        gateway=scenario.gateway,
    )
    try:
        measured = scenario.measure(run)
    finally:
        side.stop()
    return Sample(
        scenario=name,
        side=side.name,
        repetition=repetition,
        values={f"{name}/{metric}": value for metric, value in measured.values.items()},
        began_quiet=measured.began_quiet,
        foreign_cpu_share=foreign_share(measured.before, measured.after),
    )


def measure_backlog(run: Run) -> Measured:
    """Fill the queues with the workers stopped, then start the workers."""
    warm_up, load = _prepare(run, run.size.events, duplicates=False)
    run.side.start_receiver()
    send(warm_up, run.generator)
    began_quiet = wait_until_quiet()
    before = _usage(run)
    sent = send(load, run.generator)
    workers_started_at = time.time()
    run.side.start_workers()
    total = warm_up.distinct + load.distinct
    enrolled_at = _verified_enrollments(run, total, [warm_up, load])
    after = _usage(run)
    first, last = min(enrolled_at.values()), max(enrolled_at.values())
    return Measured(
        values={
            "acknowledged_per_second": _rate(sent),
            # From the first enrollment on, so that nobody's start-up time counts.
            "drained_per_second": total / (last - first),
            "drained_with_start_up_per_second": total / (last - workers_started_at),
        },
        before=before,
        after=after,
        began_quiet=began_quiet,
    )


def measure_end_to_end(run: Run) -> Measured:
    """Send as fast as the connections allow with everything running."""
    return _measure_stream(run, run.size.events, duplicates=False)


def measure_duplicates(run: Run) -> Measured:
    """Send a few deliveries of which every tenth is a duplicate."""
    return _measure_stream(run, DUPLICATES_DELIVERIES, duplicates=True)


def measure_latency_at(events_per_second: int) -> Callable[[Run], Measured]:
    """Make the measurement at an even rate, from the scheduled sending to the enrollment."""

    def measure(run: Run) -> Measured:
        count = events_per_second * run.size.latency_seconds
        warm_up, load = _prepare(run, count, duplicates=False)
        began_quiet = _warm_up(run, warm_up)
        before = _usage(run)
        sent = send(load, run.generator, per_second=events_per_second)
        enrolled_at = _verified_enrollments(run, warm_up.distinct + count, [warm_up, load])
        after = _usage(run)
        latencies = sorted((enrolled_at[d.event_id] - d.scheduled_at) * 1_000 for d in sent)
        acknowledged = sorted((d.answered_at - d.scheduled_at) * 1_000 for d in sent)
        return Measured(
            values={
                "p50_milliseconds": _percentile(latencies, 50),
                "p99_milliseconds": _percentile(latencies, 99),
                "max_milliseconds": latencies[-1],
                "acknowledge_p50_milliseconds": _percentile(acknowledged, 50),
                "acknowledge_p99_milliseconds": _percentile(acknowledged, 99),
            },
            before=before,
            after=after,
            began_quiet=began_quiet,
        )

    return measure


_ALL: Final = ("sluice", "peer", "tuned peer")
_PLAIN: Final = ("sluice", "peer")
_SLOW: Final = Gateway(delay_milliseconds=50)
_TAIL: Final = Gateway(delay_milliseconds=50, tail_share=0.01, tail_milliseconds=2_000)

SCENARIOS: Final[Mapping[str, Scenario]] = MappingProxyType(
    {
        "backlog-0ms": Scenario(measure_backlog, _ALL),
        "backlog-50ms": Scenario(measure_backlog, _ALL, _SLOW),
        "end-to-end-0ms": Scenario(measure_end_to_end, _ALL),
        "end-to-end-50ms": Scenario(measure_end_to_end, _ALL, _SLOW),
        # 1 % of the gateway's answers take 2 s, the others 50 ms.
        "end-to-end-tail": Scenario(measure_end_to_end, _PLAIN, _TAIL),
        "latency-50": Scenario(measure_latency_at(50), _PLAIN),
        "latency-300": Scenario(measure_latency_at(300), _PLAIN),
        "duplicates-0ms": Scenario(measure_duplicates, _PLAIN),
        "duplicates-50ms": Scenario(measure_duplicates, _PLAIN, _SLOW),
    }
)


def _measure_stream(run: Run, count: int, *, duplicates: bool) -> Measured:
    warm_up, load = _prepare(run, count, duplicates=duplicates)
    began_quiet = _warm_up(run, warm_up)
    before = _usage(run)
    sent = send(load, run.generator)
    enrolled_at = _verified_enrollments(run, warm_up.distinct + load.distinct, [warm_up, load])
    after = _usage(run)
    last = max(enrolled_at[event_id] for event_id in set(load.event_ids))
    seconds = last - min(delivery.sent_at for delivery in sent)
    cpu_seconds = after.measured_seconds - before.measured_seconds
    return Measured(
        values={
            "events_per_second": load.distinct / seconds,
            "seconds": seconds,
            "cpu_seconds_per_1000": cpu_seconds * 1_000 / load.distinct,
            "acknowledged_per_second": _rate(sent),
        },
        before=before,
        after=after,
        began_quiet=began_quiet,
    )


def _prepare(run: Run, count: int, *, duplicates: bool) -> tuple[Load, Load]:
    """Make the database and the requests, and start the gateway's stub."""
    side = run.side
    # A run's name says when its payments were created, one each millisecond.
    created_milliseconds = int((time.time() - PAYMENTS_AGE_SECONDS) * 1_000)
    names = [f"warm-{created_milliseconds - WARM_UP_EVENTS}", f"load-{created_milliseconds}"]
    side.prepare([Announced(names[0], WARM_UP_EVENTS), Announced(names[1], count)])
    maker = with_duplicates(side.maker) if duplicates else side.maker
    warm_up_path, load_path = (run.directory / f"{name}.requests" for name in names)
    warm_up = build(side.url, side.maker, names[0], WARM_UP_EVENTS, warm_up_path)
    load = build(side.url, maker, names[1], count, load_path)
    side.start_gateway(run.gateway)
    return warm_up, load


def _warm_up(run: Run, warm_up: Load) -> bool:
    """Start everything, send the warm-up through it and wait for rest; false if none came."""
    run.side.start_receiver()
    run.side.start_workers()
    send(warm_up, run.generator)
    _wait_for_enrollments(run, warm_up.distinct)
    return wait_until_quiet()


def _usage(run: Run) -> Usage:
    return usage([*run.side.process_ids(), *run.servers.process_ids()])


def _wait_for_enrollments(run: Run, expected: int) -> None:
    deadline = time.monotonic() + ENROLLED_SECONDS_MAX
    count = run.side.enrolled_count()
    while count < expected:
        if time.monotonic() > deadline:
            raise VerificationError(
                f"{run.side.name}: {count} of {expected} events enrolled"
                f" after {ENROLLED_SECONDS_MAX} s"
            )
        run.side.raise_if_ended()
        time.sleep(COUNT_EVERY_SECONDS)
        count = run.side.enrolled_count()


def _verified_enrollments(run: Run, expected: int, loads: Sequence[Load]) -> Mapping[str, float]:
    """Wait for the last enrollment and a moment longer, then see that each event has one."""
    _wait_for_enrollments(run, expected)
    time.sleep(SETTLE_SECONDS)
    count = run.side.enrolled_count()
    enrolled_at = run.side.enrolled_at()
    sent = {event_id for load in loads for event_id in load.event_ids}
    assert len(sent) == expected
    if count != expected or set(enrolled_at) != sent:
        raise VerificationError(
            f"{run.side.name}: {expected} distinct events, {count} enrollments,"
            f" {len(sent - set(enrolled_at))} events without one,"
            f" {len(set(enrolled_at) - sent)} enrollments without an event"
        )
    if any(moment > time.time() for moment in enrolled_at.values()):
        raise BenchmarkError("the database's clock is ahead of ours: latencies would be wrong")
    return enrolled_at


def _rate(sent: Sequence[Delivery]) -> float:
    return len(sent) / (max(d.answered_at for d in sent) - min(d.sent_at for d in sent))


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
