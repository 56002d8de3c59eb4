"""The command: `python -m tests.benchmark`, run from the root of the repository."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from tests.benchmark import report
from tests.benchmark.errors import BenchmarkError
from tests.benchmark.machine import description
from tests.benchmark.peer import Peer, PeerFiles, TunedPeer, prepare_files
from tests.benchmark.scenarios import SCENARIOS, Sample, Size, run_scenario
from tests.benchmark.servers import Servers
from tests.benchmark.side import Side
from tests.benchmark.sluice import Sluice

SIDES = (Sluice.name, Peer.name, TunedPeer.name)
QUICK_SIZE = Size(events=2_000, latency_seconds=4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 0; 1 when a goal was missed, 2 when nothing can be said."""
    options = _parser().parse_args(arguments)
    size = QUICK_SIZE if options.quick else Size(events=options.events)
    repetitions = 1 if options.quick else options.repetitions
    names = [name for name in SCENARIOS if not options.only or name.startswith(tuple(options.only))]
    if not names:
        print(f"no scenario begins with {options.only}; there are {', '.join(SCENARIOS)}")
        return 2
    sides = [side for side in SIDES if not options.side or side in options.side]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        samples, versions = _measure(names, sides, size, repetitions)
    except BenchmarkError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is reported", file=sys.stderr)
        return 130
    lines = report.lines(samples)
    print(f"\n{report.table(lines, sides)}\n\n{report.disturbances(samples)}")
    if options.json is not None:
        document = {
            "measured_at": datetime.now(tz=UTC).isoformat(timespec="seconds"),
            "machine": description(),
            "versions": versions,
            "events": size.events,
            "repetitions": repetitions,
            **report.as_json(lines, samples),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    missed = report.missed(lines)
    for goal in missed:
        print(f"goal missed: {goal}")
    # A short run shows that everything works; its figures say little.
    return 1 if missed and not options.quick else 0


def _measure(
    names: Sequence[str], sides: Sequence[str], size: Size, repetitions: int
) -> tuple[list[Sample], dict[str, str]]:
    """Run every scenario on every side in turn, as often as asked."""
    files = prepare_files()
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="sluice-benchmark-") as temporary:
        directory = Path(temporary)
        # PostgreSQL may run as another user, who must be able to pass through.
        directory.chmod(0o711)
        with Servers(directory) as servers:
            versions = {**servers.versions(), **files.versions()}
            for repetition in range(1, repetitions + 1):
                for name in names:
                    for side in sides:
                        if side not in SCENARIOS[name].sides:
                            continue
                        sample = run_scenario(
                            name,
                            _make_side(side, servers, directory, files),
                            servers=servers,
                            generator=files.generator,
                            directory=directory,
                            size=size,
                            repetition=repetition,
                        )
                        samples.append(sample)
                        print(_progress(sample), flush=True)
    return samples, versions


def _interrupt_once(number: int, _frame: FrameType | None) -> None:
    """Begin to stop at the first signal, and let no other one cut the stopping short.

    Two come close together when a whole process group is signalled, as `timeout` does.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _make_side(name: str, servers: Servers, directory: Path, files: PeerFiles) -> Side:
    if name == Sluice.name:
        return Sluice(servers, directory)
    peer = Peer if name == Peer.name else TunedPeer
    return peer(servers, directory, files)


def _progress(sample: Sample) -> str:
    values = ", ".join(
        f"{name.partition('/')[2]} {value:,.2f}" for name, value in sample.values.items()
    )
    note = "" if report.undisturbed(sample) else " (disturbed)"
    return f"{sample.repetition} {sample.scenario}, {sample.side}: {values}{note}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, metavar="N")
    parser.add_argument("--events", type=int, default=20_000, metavar="N")
    parser.add_argument(
        "--only",
        action="append",
        metavar="SCENARIO",
        help="a scenario or the beginning of its name, may be repeated: " + ", ".join(SCENARIOS),
    )
    parser.add_argument(
        "--side", action="append", choices=SIDES, help="one side only, may be repeated"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here as well")
    parser.add_argument(
        "--quick", action="store_true", help="one small repetition, to see that everything works"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
