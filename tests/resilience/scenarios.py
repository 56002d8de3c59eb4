"""Short scenarios that need one guard each. With it they end well, without it they do not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

import asyncpg
import redis

from deploy.local.environment import SIMULATOR_ACCOUNTS
from deploy.local.postgres_server import PostgresServer
from services.simulator.sslcommerz.signing import sign
from tests.support.blocking import execute, run_blocking
from tests.support.polling import eventually_blocking
from tests.support.promises import keep_promises
from tests.support.supervised_stack import SupervisedStack, outlast
from tests.support.traffic import Order, Traffic

#: Well before the reconciler's first look, which would find what a lost notice was about.
SETTLED_SECONDS: Final = 12.0

#: A receipt is on its way for a few milliseconds.
RECEIPT_SECONDS: Final = 0.5

_PAYMENT_STATES: Final = "SELECT count(*) FROM payments.payment WHERE state = 'succeeded'"
_NOTICES_UNDER_WAY: Final = "SELECT count(*) FROM webhook.outbox"

#: Connections of the enrollment service that wait for a lock.
GRANTS_THAT_WAIT: Final = """
    SELECT count(*)
      FROM pg_stat_activity
     WHERE application_name = 'sluice-enrollment' AND wait_event_type = 'Lock'
"""


@dataclass(frozen=True, slots=True)
class World:
    """A running unified stack, its traffic, and the servers that it stands on."""

    stack: SupervisedStack
    traffic: Traffic
    postgres: PostgresServer
    redis_url: str

    @property
    def database_url(self) -> str:
        return self.stack.local.database_url

    def count(self, query: str) -> int:
        return run_blocking(count_rows(self.database_url, query))

    def resend_after(self, seconds: float) -> None:
        """Shorten the wait before the first resend, so that a scenario takes seconds."""
        for service in ("webhook", "payments"):
            execute(
                self.database_url,
                f"ALTER TABLE {service}.outbox ALTER COLUMN send_again_at"
                f" SET DEFAULT clock_timestamp() + interval '{seconds} seconds'",
            )

    def acknowledge(self, orders: list[Order]) -> None:
        for order in orders:
            self.traffic.run(self.traffic.acknowledge(order))

    def settle(self) -> None:
        deadline = time.monotonic() + SETTLED_SECONDS
        keep_promises(self.stack.local.environment, self.traffic.finish(deadline), deadline)


async def count_rows(url: str, query: str) -> int:
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval(query)
    finally:
        await connection.close()
    return count


@contextmanager
def pushes_refused(redis_url: str) -> Iterator[None]:
    """Let Redis refuse every message until the context ends, and at least one before that."""
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command("ACL", "LOG", "RESET")
        client.execute_command("ACL", "SETUSER", "default", "-rpush")
        try:
            yield
            eventually_blocking(lambda: client.execute_command("ACL", "LOG"))
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+rpush")


def redis_refuses(world: World) -> None:
    """Lose messages between their commit and Redis: only the outbox still knows them."""
    world.resend_after(4)
    orders = world.traffic.buy(20)
    with pushes_refused(world.redis_url):
        world.acknowledge(orders)
    world.settle()


def two_payments_for_one_product(world: World) -> None:
    """Let a customer pay twice for the same product: one enrollment and one further payment."""
    world.acknowledge(world.traffic.buy(2, customer_id=f"eager-{time.time_ns()}"))
    world.settle()


def one_notice_five_times(world: World) -> None:
    """Post a notice again after it was acknowledged: it is stored once."""
    world.acknowledge(world.traffic.buy(1) * 5)
    world.settle()


def two_notices_race(world: World) -> None:
    """Let two different notices of one payment be confirmed at the same time: it succeeds once."""
    (order,) = world.traffic.buy(1)
    for seconds in (0.5, 1.0):
        script = {"operation": "validate", "behaviour": "slow", "delaySeconds": seconds}
        world.traffic.control("script", script | {"reference": order.reference})
    for body in (order.notice, with_status(order.notice, "VALIDATED")):
        assert world.traffic.post(body).status == 200
    eventually_blocking(lambda: world.count(_NOTICES_UNDER_WAY) == 0)
    world.settle()


def notices_while_postgres_is_away(world: World) -> None:
    """Post notices that cannot be stored: whoever was told OK must not come again in vain."""
    orders = world.traffic.buy(5)
    world.postgres.stop()
    try:
        for order in orders:
            order.is_acknowledged = world.traffic.post(order.notice).status == 200
    finally:
        world.postgres.start()
    world.acknowledge([order for order in orders if not order.is_acknowledged])
    world.settle()


def death_before_the_commit(world: World) -> None:
    """Kill the receiver while its commit waits: the sender must still have the message."""
    world.resend_after(6)
    orders = world.traffic.buy(3)
    succeeded = world.count(_PAYMENT_STATES) + len(orders)
    lock = world.traffic.run(lock_enrollments(world.database_url))
    world.acknowledge(orders)
    eventually_blocking(lambda: world.count(_PAYMENT_STATES) == succeeded)
    eventually_blocking(lambda: world.count(GRANTS_THAT_WAIT) > 0)
    with outlast(RECEIPT_SECONDS):
        pass
    world.stack.kill("unified")
    world.traffic.run(lock.close())
    world.settle()


async def lock_enrollments(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Keep everybody from enrolling until the connection is closed."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN; LOCK TABLE enrollment.enrollment IN ACCESS EXCLUSIVE MODE")
    return connection


def with_status(notice: bytes, status: str) -> bytes:
    """Return another notice of the same money, as the gateway would sign it."""
    fields = dict(parse_qsl(notice.decode(), keep_blank_values=True)) | {"status": status}
    password = SIMULATOR_ACCOUNTS["sslcommerz"]["SSLCOMMERZ_STORE_PASSWORD"]
    return urlencode(fields | sign(fields, fields["verify_key"].split(","), password)).encode()
