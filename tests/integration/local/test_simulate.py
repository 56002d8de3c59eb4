"""A small simulation from start to end: every way to charge without a page, and all is checked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson

from deploy.local import simulate

RUN_SECONDS = 180.0


def simulated(directory: Path, *arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "simulate", "--json", *arguments],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(directory)},
        capture_output=True,
        check=False,
        timeout=RUN_SECONDS,
    )
    assert done.stdout, done.stderr.decode()
    return done.returncode, orjson.loads(done.stdout)


def test_weeks_pass_at_every_gateway_and_all_is_well(tmp_path: Path) -> None:
    code, figures = simulated(
        tmp_path,
        *("--subscriptions", "12", "--for", "3w", "--interval", "week,3day"),
        *("--gateways", "stripe,x402,fapshi,campay", "--from", "2026-03-09"),
    )

    assert code == simulate.WELL, figures
    assert figures["well"]
    assert (figures["from"], figures["to"]) == ("2026-03-09T00:00:00Z", "2026-03-30T00:00:00Z")
    assert figures["states"] == {"active": 12}
    paid = figures["periods"]["paid"]
    assert figures["ledgers"]["match"] == paid
    # Eight of them weekly, and four each third day, all begun within the first two days.
    assert 8 * 3 + 4 * 7 <= paid <= 8 * 4 + 4 * 8
    gateways = {each["gateway"] for each in figures["analytics"]["byGateway"]}
    assert gateways == {"stripe", "x402", "fapshi", "campay"}
    assert not figures["violatedInvariants"]
