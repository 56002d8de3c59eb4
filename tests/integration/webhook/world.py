"""A running webhook service: its HTTP side as its process serves it, and what it stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from prometheus_client import REGISTRY

from services.webhook.app import http_part
from services.webhook.settings import WebhookSettings
from shared.gateways.registration import GatewayKeys
from shared.process import Core, Part, open_core
from tests.support.http_api import Api, Reply, serving
from tests.support.queues import items_on
from tests.support.settings import gateways_of_tests, service_settings

REFERENCE = "att_01KE70EHG0JY1QREBD77BRA2Z8"
PAYMENT_ID = "pay_01KE70EHG0JY1QREBD77BRA2Z7"

FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


def webhook_settings(
    database_url: str, redis_url: str, gateways: Mapping[str, GatewayKeys] | None = None
) -> WebhookSettings:
    return WebhookSettings(
        database_url=database_url,
        redis_url=redis_url,
        gateways=gateways_of_tests() if gateways is None else gateways,
    )


def rejected(reason: str, gateway: str = "sslcommerz") -> float:
    labels = {"gateway": gateway, "reason": reason}
    return REGISTRY.get_sample_value("webhook_rejected_total", labels) or 0.0


@dataclass
class Webhook:
    """A client of the service, and a look into its database and its queues."""

    api: Api
    part: Part
    core: Core

    async def post(self, path: str, body: Any) -> Reply:
        return await self.api.call("POST", path, body, key=None, headers=FORM_HEADERS)

    async def notify(self, body: Any, gateway: str = "sslcommerz") -> Reply:
        return await self.post(f"/webhooks/{gateway}", body)

    async def events(self) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch("SELECT * FROM inbound_event ORDER BY event_key")

    async def sql(self, statement: str, *values: Any) -> Any:
        async with self.core.database.connection() as connection:
            return await connection.fetchval(statement, *values)

    async def outbox_payloads(self) -> list[asyncpg.Record]:
        async with self.core.database.connection() as connection:
            return await connection.fetch(
                "SELECT id, queue, payload::text, traceparent FROM outbox ORDER BY id"
            )

    async def published(self) -> list[dict[str, Any]]:
        """Return what lies on the queues of payments."""
        levels = ("high", "medium", "normal")
        return [
            item
            for level in levels
            for item in await items_on(self.core.redis, f"payments.{level}")
        ]


@asynccontextmanager
async def running_webhook(
    database_url: str,
    redis_url: str,
    *,
    direct_database_url: str | None = None,
    direct_redis_url: str | None = None,
    gateways: Mapping[str, GatewayKeys] | None = None,
) -> AsyncIterator[Webhook]:
    """Run the service; the direct URLs are how the test looks, past any proxy."""
    observer = open_core(
        service_settings(direct_redis_url or redis_url),
        "webhook",
        direct_database_url or database_url,
    )
    async with (
        observer as core,
        http_part(webhook_settings(database_url, redis_url, gateways)) as part,
        serving(parts=[part]) as api,
    ):
        yield Webhook(api, part, core)
