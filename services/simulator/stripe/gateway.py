"""Stripe as the simulator's core sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import SecretStr

from services.simulator.core import Core
from services.simulator.gateway import Json
from services.simulator.settings import SimulatorSettings
from services.simulator.stripe import (
    answers,
    customers,
    dispute_store,
    idempotency,
    object_store,
    page,
    store,
)
from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.routes import protocol_routes
from services.simulator.stripe.runtime import Runtime
from services.simulator.stripe.scenarios import BEHAVIOURS, NAME, WISHES
from shared.errors import NotFoundError
from shared.web.routes import Route

#: Intents and refunds of one reference that are shown; a merchant makes few.
SHOWN_MAX: Final = 20


class StripeSimulator:
    """One account in test mode."""

    name: Final = NAME
    operations: Final[Mapping[str, frozenset[str]]] = BEHAVIOURS
    wishes: Final = WISHES

    def __init__(self, core: Core, settings: SimulatorSettings) -> None:
        # The merchant may list several secrets for its rotation; the first one is in force.
        secrets = settings.stripe_webhook_secret.get_secret_value().split(",")
        self._runtime = Runtime(
            core=core,
            secret_key=settings.stripe_secret_key,
            webhook_secret=SecretStr(secrets[0].strip()),
        )

    def routes(self) -> Sequence[Route]:
        """Return the routes of the protocol, and the pages that customers see."""
        return protocol_routes(self._runtime)

    def overview(self) -> str:
        """Tell a person which amounts and payment methods are magic."""
        return page.overview()

    async def act(self, reference: str, wish: str) -> Json:
        """Let the customer of the newest intent with this reference act."""
        intents = await self._list_intents(reference)
        if not intents:
            raise NotFoundError("no payment has this reference")
        intent = await customers.act(self._runtime, intents[0].id, wish)
        return {"reference": reference, **_render(intent, self._runtime.core.public_url)}

    async def read_session(self, reference: str) -> Json | None:
        """Return the newest intent with this reference, and all of its ids, refunds, disputes."""
        intents = await self._list_intents(reference)
        if not intents:
            return None
        newest = intents[0]
        async with self._runtime.core.database.connection() as connection:
            refunds = await object_store.list_refunds(connection, newest.id, None, None, SHOWN_MAX)
            disputes = await dispute_store.list_disputes_of_intent(connection, newest.id)
        return {
            "reference": reference,
            **_render(newest, self._runtime.core.public_url),
            "paymentIntents": [intent.id for intent in intents],
            "refunds": [answers.refund(refund) for refund in refunds],
            "disputes": [answers.dispute(dispute) for dispute in disputes],
        }

    async def end_lapsed(self) -> int:
        """Bring what is due to its end, and forget old idempotency keys."""
        async with self._runtime.core.database.connection() as connection:
            await idempotency.prune_keys(connection, self._runtime.core.clock())
        return await customers.move_on(self._runtime)

    async def _list_intents(self, reference: str) -> Sequence[Intent]:
        async with self._runtime.core.database.connection() as connection:
            return await store.list_intents_of_reference(connection, reference, SHOWN_MAX)


def _render(intent: Intent, public_url: str) -> Json:
    url = None
    if intent.status is IntentStatus.REQUIRES_ACTION:
        url = answers.authentication_url(intent, public_url)
    return {
        "paymentIntent": intent.id,
        "state": intent.status,
        "amount": intent.amount,
        "currency": intent.currency.upper(),
        "amountReceived": intent.amount_received,
        "amountRefunded": intent.amount_refunded,
        "checkoutUrl": url,
        "createdAt": intent.created_at,
    }
