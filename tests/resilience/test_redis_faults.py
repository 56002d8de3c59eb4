"""Redis forgets everything, hangs, and is away, while customers are buying."""

from __future__ import annotations

from typing import Final

import redis

from tests.support.promises import settle
from tests.support.supervised_stack import SupervisedStack, outlast, supervised_stack
from tests.support.traffic import Traffic

OUTAGE_SECONDS: Final = 10.0

#: An acknowledgement needs PostgreSQL only. Without an outage it takes a few milliseconds.
ACKNOWLEDGE_SECONDS: Final = 2.0


def flush(stack: SupervisedStack) -> None:
    with stack.fault("FLUSHALL"), redis.Redis.from_url(stack.redis.url()) as client:
        client.flushall()


def test_a_redis_that_forgets_hangs_or_dies_loses_and_doubles_nothing() -> None:
    with (
        supervised_stack() as stack,
        Traffic(stack.local.url, stack.local.api_key, seed=2, per_second=15) as traffic,
    ):
        for _ in range(2):
            traffic.wait_for_more(30)
            flush(stack)

        traffic.wait_for_more(30)
        with stack.fault("Redis stopped for 10 s"):
            stack.redis.pause()
            work_on_unaffected(traffic)
            stack.redis.resume()

        traffic.wait_for_more(30)
        with stack.fault("Redis killed and away for 10 s"):
            stack.redis.kill()
            work_on_unaffected(traffic)
            stack.redis.start()
        traffic.wait_for_more(30)

        settle(stack, traffic)


def work_on_unaffected(traffic: Traffic) -> None:
    """Check, during an outage, that payments are created and notices acknowledged as always."""
    with outlast(OUTAGE_SECONDS) as outage:
        traffic.wait_for_more(60)
    replies = traffic.replies_in(outage)
    assert {reply.status for reply in replies if reply.step == "create"} == {201}
    notices = [reply for reply in replies if reply.step == "notice"]
    assert len(notices) >= 10
    assert {reply.status for reply in notices} == {200}
    assert max(reply.ended_at - reply.began_at for reply in notices) < ACKNOWLEDGE_SECONDS
