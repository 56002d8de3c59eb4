"""Composition root of the webhook service's HTTP process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from services.webhook.routes import webhook_routes
from services.webhook.runtime import make_runtime
from services.webhook.settings import WebhookSettings
from services.webhook.store import PARTITIONED_TABLES
from shared.gateways.registry import notice_readers
from shared.migrations import MESSAGING, WEB, Component
from shared.process import Part, open_core
from shared.web.idempotency import IdempotencyKeys
from shared.web.message_routes import message_routes
from shared.web.operator_action_routes import action_routes

__all__ = ["MIGRATIONS", "PARTITIONED_TABLES", "http_part"]

MIGRATIONS: Final = (
    MESSAGING,
    WEB,
    Component("webhook", Path(__file__).resolve().parent / "migrations"),
)


@asynccontextmanager
async def http_part(settings: WebhookSettings) -> AsyncIterator[Part]:
    """Open the HTTP side. Redis may be away: what is stored is published later."""
    async with open_core(settings, "webhook", settings.database_url) as core:
        runtime = make_runtime(
            core, notice_readers(settings, core.clock), settings.priority_thresholds
        )
        keys = IdempotencyKeys(core.database, core.clock)
        yield Part(
            name="webhook-http",
            routes=[
                *webhook_routes(runtime),
                *message_routes(core, keys, "/api/webhooks"),
                *action_routes(core.database, "/api/webhooks/operator-actions"),
            ],
            ping_database=core.database.ping,
            ping_redis=core.ping_redis,
            measure=core.measure,
        )
        await runtime.inbox.drain()
