"""Raw bodies go after a week, with the partition that holds them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from deploy.local.postgres_server import PostgresServer
from services.webhook import handlers
from services.webhook.runtime import make_runtime
from services.webhook.store import BODIES_KEPT_DAYS, PARTITIONED_TABLES
from shared import partitions
from shared.clock import system_clock
from shared.identifiers import new_id
from tests.integration.webhook.world import Webhook
from tests.support.databases import fresh_database
from tests.support.notices import notice
from tests.support.polling import eventually


@pytest.fixture
def new_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """Make a database of its own: these tests drop tables."""
    with fresh_database(postgres, template_database) as url:
        yield url


async def partitions_of(webhook: Webhook, table: str) -> list[str]:
    names = await webhook.sql(
        "SELECT array_agg(inhrelid::regclass::text) FROM pg_inherits"
        " WHERE inhparent = $1::regclass",
        table,
    )
    return sorted(names)


async def test_bodies_are_dropped_with_their_partition_and_the_duplicate_check_goes_on(
    webhook: Webhook,
) -> None:
    now = system_clock()
    reference = new_id("att", now)
    await webhook.notify(notice(reference))
    await webhook.sql("INSERT INTO return_address VALUES ($1, 'pay_1', 'https://shop/')", reference)
    where = await webhook.sql("SELECT tableoid::regclass::text FROM inbound_event")
    assert where == f"inbound_event_p{now:%Y%m%d}"

    keep = BODIES_KEPT_DAYS + 2
    last_day = (now + timedelta(days=keep)).date()
    await partitions.maintain(webhook.core.database, PARTITIONED_TABLES, last_day)
    assert len(await webhook.events()) == 1, "kept until its last day is old enough"
    assert (await webhook.notify(notice(reference))).status == 200
    assert len(await webhook.events()) == 1

    day_after = last_day + timedelta(days=1)
    await partitions.maintain(webhook.core.database, PARTITIONED_TABLES, day_after)
    assert await webhook.events() == []
    assert where not in await partitions_of(webhook, "inbound_event")
    assert await webhook.sql("SELECT count(*) FROM return_address") == 1, "these are kept longer"

    months_later = last_day + timedelta(days=100)
    await partitions.maintain(webhook.core.database, PARTITIONED_TABLES, months_later)
    assert await webhook.sql("SELECT count(*) FROM return_address") == 0
    assert "inbound_event_default" in await partitions_of(webhook, "inbound_event")


async def test_partitions_are_made_ahead_and_making_them_again_changes_nothing(
    webhook: Webhook,
) -> None:
    today = system_clock().date()
    before = await partitions_of(webhook, "inbound_event")
    await asyncio.gather(
        *(partitions.maintain(webhook.core.database, PARTITIONED_TABLES, today) for _ in range(3))
    )

    assert await partitions_of(webhook, "inbound_event") == before
    for days in range(-1, 8):
        assert f"inbound_event_p{today + timedelta(days=days):%Y%m%d}" in before


async def test_old_events_outside_the_partitions_are_deleted_too(webhook: Webhook) -> None:
    """A foreign reference with an odd date lies in the default partition, which stays."""
    await webhook.notify(notice("INV-1", tran_date="not a date"))
    await webhook.notify(notice("INV-2", tran_date="not a date"))
    old = datetime.now(UTC) - timedelta(days=BODIES_KEPT_DAYS, minutes=1)
    await webhook.sql(
        "UPDATE inbound_event SET received_at = $1 WHERE event_key LIKE 'INV-1:%'", old
    )
    runtime = make_runtime(webhook.core, {})
    forgetting = asyncio.create_task(handlers.forget_old_bodies(runtime))

    async def one_is_left() -> bool:
        return len(await webhook.events()) == 1

    await eventually(one_is_left)
    forgetting.cancel()
    await asyncio.gather(forgetting, return_exceptions=True)
