"""A small load from start to end: five gateways, answers that are lost, and equal ledgers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson

from deploy.local import load
from deploy.local.load_plan import GATEWAYS

RUN_SECONDS = 180.0

COUNT = 60

#: The rough profile with more of what is resolved within seconds, and nothing that takes minutes.
PROFILE = {
    "customersAct": True,
    "latencyMs": {"p50": 20, "p99": 200},
    "fates": {"timeout_after": 15, "error_500": 10, "reset": 5},
    "notices": {"duplicate": 10, "never": 5},
    "timeoutSeconds": 3,
}


def test_both_ledgers_are_equal_after_a_small_load(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_bytes(orjson.dumps(PROFILE))

    done = subprocess.run(
        [
            *(sys.executable, "-m", "deploy.local", "load", "--json"),
            *("--transactions", str(COUNT), "--profile", str(profile), "--seed", "7"),
        ],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=RUN_SECONDS,
    )

    assert done.returncode == load.WELL, done.stdout.decode() + done.stderr.decode()
    figures = orjson.loads(done.stdout)
    assert figures["well"]
    assert figures["profile"] == {**PROFILE, "seed": 7}
    assert figures["ledgers"] == {
        "match": COUNT,
        "mismatch": 0,
        "missing": 0,
        "duplicate": 0,
        "conflicting duplicate": 0,
    }
    assert figures["auditClean"]
    assert (figures["notMade"], figures["open"]) == (0, 0)
    assert figures["latencySeconds"].keys() == set(GATEWAYS)
    fates = {each["fate"]: each for each in figures["fates"]}
    assert fates["paid"]["askedPercent"] == 70
    assert sum(each["reached"] for each in fates.values()) == COUNT
    assert {state for each in fates.values() for state in each["states"]} == {"succeeded"}
    assert list(tmp_path.glob("sluice-load-*")) == []
