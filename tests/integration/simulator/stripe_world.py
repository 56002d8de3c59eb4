"""The official library against the simulated Stripe, and an endpoint that records its notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import stripe
from aiohttp import web

from deploy.local.ports import free_port
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.world import (
    Merchant,
    Simulator,
    eventually,
    running_simulator,
    serving,
)

SECRET_KEY = "sk_test_sluice_demo"
WEBHOOK_SECRET = "whsec_sluice_demo"


@dataclass(frozen=True)
class SignedNotice:
    """One delivery as it came."""

    body: bytes
    signature: str

    def event(self, secret: str = WEBHOOK_SECRET) -> stripe.Event:
        """Verify with the official library."""
        return stripe.Webhook.construct_event(self.body, self.signature, secret)  # type: ignore[no-any-return]


@dataclass
class Endpoint:
    """The merchant's endpoint for events."""

    url: str
    notices: list[SignedNotice] = field(default_factory=list)

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.notices.append(SignedNotice(body, request.headers["Stripe-Signature"]))
        return web.Response()

    async def until_received(self, count: int) -> list[SignedNotice]:
        async def enough() -> bool:
            return len(self.notices) >= count

        await eventually(enough)
        return self.notices


@dataclass
class StripeWorld:
    """A running simulator, the library pointed at it, and the merchant's endpoint."""

    simulator: Simulator
    client: stripe.StripeClient
    endpoint: Endpoint

    @property
    def api(self) -> str:
        return f"{self.simulator.url}/stripe/v1"

    async def pay(self, reference: str = "INV-1", **changes: Any) -> stripe.PaymentIntent:
        """Create and confirm an intent as a renewal does, with the reference as its key."""
        parameters = intent_parameters(reference, **changes)
        return await self.client.v1.payment_intents.create_async(
            parameters,  # type: ignore[arg-type]
            {"idempotency_key": reference},
        )

    async def post(
        self, path: str, form: Mapping[str, str], *, key: str | None = None
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        """Call without the library; return the status, the body and the headers."""
        headers = {"Authorization": f"Bearer {SECRET_KEY}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        async with self.simulator.client.post(
            self.api + path, data=form, headers=headers
        ) as response:
            return response.status, await response.json(), response.headers

    async def control(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, status: int = 0
    ) -> Any:
        address = f"{self.simulator.url}/simulator/stripe/{path}"
        async with self.simulator.client.request(method, address, json=body) as response:
            answer = await response.json()
            if status:
                assert status == response.status, answer
                return answer["error"]
            assert response.ok, answer
            return answer["data"]

    async def session(self, reference: str = "INV-1") -> dict[str, Any]:
        return dict(await self.control("GET", f"sessions/{reference}"))

    async def charges(self, reference: str = "INV-1") -> list[dict[str, Any]]:
        data = await self.control("GET", f"ledger?reference={reference}")
        return list(data["charges"])


def error_of(error: stripe.StripeError) -> dict[str, Any]:
    """Return the error object as it came."""
    body = error.json_body
    assert isinstance(body, dict)
    return dict(body["error"])


def intent_parameters(reference: str = "INV-1", **changes: Any) -> dict[str, Any]:
    return {
        "amount": 1999,
        "currency": "usd",
        "confirm": True,
        "customer": "cus_demo",
        "metadata": {"reference": reference},
        "off_session": True,
        "payment_method": "pm_card_visa",
        **changes,
    }


def intent_form(reference: str = "INV-1", **changes: str) -> dict[str, str]:
    return {
        "amount": "1999",
        "currency": "usd",
        "confirm": "true",
        "metadata[reference]": reference,
        "payment_method": "pm_card_visa",
        **changes,
    }


@asynccontextmanager
async def running_stripe(database_url: str, merchant: Merchant) -> AsyncIterator[StripeWorld]:
    port = free_port()
    endpoint = Endpoint(f"http://127.0.0.1:{port}")
    application = web.Application()
    application.router.add_post("/webhooks/stripe", endpoint.receive)
    settings = SimulatorSettings(
        database_url=database_url, public_url="http://gateway.example/", notice_url=endpoint.url
    )
    async with serving(application, port), running_simulator(settings, merchant) as simulator:
        http_client = stripe.AIOHTTPClient()
        client = stripe.StripeClient(
            SECRET_KEY,
            base_addresses={"api": f"{simulator.url}/stripe"},
            http_client=http_client,
        )
        try:
            yield StripeWorld(simulator, client, endpoint)
        finally:
            await http_client.close_async()  # type: ignore[no-untyped-call]
