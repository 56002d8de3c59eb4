"""Campay as the simulator's core sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.simulator import mobile_money
from services.simulator.campay import answers, customers, store
from services.simulator.campay.domain import BEHAVIOURS, NAME, Transaction
from services.simulator.campay.routes import protocol_routes
from services.simulator.campay.runtime import Runtime
from services.simulator.core import Core
from services.simulator.gateway import Json
from services.simulator.mobile_money import CURRENCY
from services.simulator.settings import SimulatorSettings, first_secret
from shared.errors import NotFoundError
from shared.web.routes import Route

#: Transactions of one reference that are looked at: there are more only by a merchant's mistake.
OF_REFERENCE_MAX: Final = 100


class CampaySimulator:
    """One application at Campay."""

    name: Final = NAME
    operations: Final[Mapping[str, frozenset[str]]] = BEHAVIOURS
    wishes: Final = mobile_money.WISHES

    def __init__(self, core: Core, settings: SimulatorSettings) -> None:
        self._runtime = Runtime(
            core=core,
            username=settings.campay_username,
            password=settings.campay_password,
            permanent_token=settings.campay_token,
            webhook_key=first_secret(settings.campay_webhook_key),
            token_seconds=settings.campay_token_seconds,
            link_seconds=settings.link_seconds,
            prompt_seconds=settings.prompt_seconds,
            is_idempotent=settings.campay_is_idempotent,
            callback_form=settings.campay_callback,
            can_withdraw=settings.campay_withdraw,
        )

    def routes(self) -> Sequence[Route]:
        """Return the routes of the protocol, and the pages that customers see."""
        return protocol_routes(self._runtime)

    def overview(self) -> str:
        """Tell a person which numbers are magic."""
        return (
            "<h2>Campay</h2><p>The same amounts are magic as at Fapshi, and the same phones"
            " with the country code 237 before them.</p>"
        )

    async def act(self, reference: str, wish: str) -> Json:
        """Do what the buttons of the link's page or of the phone do.

        Of several transactions with one reference the newest that is open is meant.
        """
        found = await self._list(reference)
        if not found:
            raise NotFoundError("no transaction has this reference")
        chosen = next((each for each in found if each.is_open), found[0])
        return self._render(await customers.act(self._runtime, chosen.reference, wish))

    async def read_session(self, reference: str) -> Json | None:
        """Return every transaction of a reference, the newest first."""
        found = await self._list(reference)
        if not found:
            return None
        return {**self._render(found[0]), "transactions": [self._render(each) for each in found]}

    async def end_lapsed(self) -> int:
        """End links and prompts whose time is over."""
        return await customers.end_lapsed(self._runtime)

    async def _list(self, reference: str) -> Sequence[Transaction]:
        async with self._runtime.core.database.connection() as connection:
            return await store.list_of_reference(connection, reference, OF_REFERENCE_MAX)

    def _render(self, transaction: Transaction) -> Json:
        return {
            "reference": transaction.external_reference,
            "gatewayReference": str(transaction.reference),
            "kind": transaction.kind,
            "state": transaction.state,
            "amount": transaction.amount,
            "currency": CURRENCY,
            "charged": transaction.charged,
            "reason": transaction.reason,
            "pageUrl": answers.page_of(transaction, self._runtime.core.public_url),
            "noticeUrl": self._runtime.callback_url,
            "createdAt": transaction.created_at,
            "expiresAt": transaction.expires_at,
        }
