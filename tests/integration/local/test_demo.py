"""The demonstration: its plan, its figures, and one small run from start to end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from deploy.local import demo
from deploy.local.demo_fates import FATES, count_min, plan_orders
from deploy.local.load_plan import GATEWAYS
from deploy.local.own_stack import own_environment
from shared.gateways.registry import REGISTRY

RUN_SECONDS = 120.0


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan_orders(240, 1) == plan_orders(240, 1)
    assert plan_orders(240, 1) != plan_orders(240, 2)


@pytest.mark.parametrize("count", [count_min(), 100, 200, 240, 1_000])
def test_every_fate_occurs_in_a_plan_of_any_size(count: int) -> None:
    orders = plan_orders(count, seed=1)

    assert len(orders) == count
    assert Counter(order.fate for order in orders).keys() == FATES.keys()


def test_a_quick_plan_waits_for_no_reconciler() -> None:
    orders = plan_orders(240, seed=1, quick=True)

    assert len(orders) == 240
    assert not any(FATES[order.fate].is_slow for order in orders)


def test_amounts_have_the_digits_of_their_fate() -> None:
    for order in plan_orders(240, seed=1):
        assert order.amount % 100 == FATES[order.fate].digits
        # Of mobile money smaller amounts are never magic to the simulator.
        assert order.currency != "XAF" or order.amount > 1_000


def test_every_gateway_of_the_registry_is_shown() -> None:
    assert {fate.gateway for fate in FATES.values()} == REGISTRY.keys() == set(GATEWAYS)


def test_who_pays_twice_pays_for_the_same_product() -> None:
    orders = [order for order in plan_orders(240, seed=1) if order.fate == "again"]

    pairs = Counter((order.customer, order.product) for order in orders)

    assert set(pairs.values()) == {2}
    others = [order.customer for order in plan_orders(240, seed=1) if order.fate != "again"]
    assert len(set(others)) == len(others)


def test_nothing_of_a_real_installation_reaches_the_demonstration() -> None:
    given = {
        "PATH": "/bin",
        "DATABASE_URL": "postgresql://production/",
        "REDIS_HOST": "production",
        "SSLCOMMERZ_STORE_PASSWORD": "real",
        "API_KEYS": "real",
    }

    kept = own_environment(given, {})

    assert kept.pop("PATH") == "/bin"
    assert not kept.keys() & given.keys()


@pytest.mark.parametrize(
    ("share", "seconds"),
    [
        pytest.param(0.5, 1.0, id="at the end of a bucket"),
        pytest.param(0.25, 0.5, id="in the middle of the first"),
        pytest.param(0.75, 1.5, id="in the middle of another"),
        pytest.param(1.0, 2.0, id="the slowest"),
    ],
)
def test_a_quantile_is_estimated_within_its_bucket(share: float, seconds: float) -> None:
    buckets = [(1.0, 50.0), (2.0, 100.0), (float("inf"), 100.0)]

    assert demo.quantile(buckets, share) == pytest.approx(seconds)


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert demo.quantile([(1.0, 0.0), (float("inf"), 3.0)], 0.5) == pytest.approx(1.0)


@pytest.mark.parametrize("buckets", [[], [(1.0, 0.0), (float("inf"), 0.0)]])
def test_nothing_measured_has_no_quantile(buckets: list[tuple[float, float]]) -> None:
    assert demo.quantile(buckets, 0.5) is None


def test_buckets_are_read_from_the_metrics() -> None:
    metrics = (
        "# TYPE enrollment_whole_way_duration_seconds histogram\n"
        'enrollment_whole_way_duration_seconds_bucket{le="0.5"} 3.0\n'
        'enrollment_whole_way_duration_seconds_bucket{le="+Inf"} 4.0\n'
        "enrollment_whole_way_duration_seconds_count 4.0\n"
        "# TYPE other gauge\n"
        "other 1.0\n"
    )

    assert demo.whole_way_buckets(metrics) == [(0.5, 3.0), (float("inf"), 4.0)]


def test_everything_of_a_small_run_ends_where_it_belongs(tmp_path: Path) -> None:
    count = count_min()

    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "demo", "--quick", "--payments", str(count)],
        env={"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )

    assert done.returncode == demo.ALL_WELL, done.stdout + done.stderr
    assert "The audit is clean." in done.stdout
    assert "no money: retried, dunned, cancelled" in done.stdout
    assert "processing → succeeded" in done.stdout
    assert list(tmp_path.glob("sluice-demo-*")) == []


def test_too_few_payments_are_refused() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "deploy.local", "demo", "--payments", "3"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS,
    )

    assert refused.returncode == 2
    assert f"--payments must be at least {count_min()}" in refused.stderr
