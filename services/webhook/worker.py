"""Composition root of the webhook service's worker process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from services.webhook import handlers
from services.webhook.runtime import make_runtime
from services.webhook.settings import WebhookSettings
from services.webhook.store import PARTITIONED_TABLES
from shared import partitions
from shared.contracts.payments import CheckoutOpened
from shared.messaging.consumption import consume
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys


@asynccontextmanager
async def worker_part(settings: WebhookSettings) -> AsyncIterator[Part]:
    """Consume the service's queues: checkouts that were opened, receipts for its notices."""
    async with open_core(settings, "webhook", settings.database_url) as core:
        runtime = make_runtime(core, {})
        async with consume(
            core,
            settings.redis_address(),
            handlers={CheckoutOpened: partial(handlers.remember_return_addresses, runtime)},
            priorities={"webhook.checkouts": 0},
            tasks=[
                partial(partitions.run, core.database, PARTITIONED_TABLES, core.clock),
                partial(handlers.forget_old_bodies, runtime),
                IdempotencyKeys(core.database, core.clock).forget_old_for_ever,
            ],
        ) as part:
            yield part
