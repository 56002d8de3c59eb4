"""SSLCommerz as the simulator's core sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.simulator.core import Core
from services.simulator.gateway import Json
from services.simulator.settings import SimulatorSettings
from services.simulator.sslcommerz import answers, checkout_page, handlers, refund_store, store
from services.simulator.sslcommerz.domain import BEHAVIOURS, FATES, NAME, Element, Session, Status
from services.simulator.sslcommerz.handlers import Runtime
from services.simulator.sslcommerz.routes import protocol_routes
from shared.errors import ConflictError, NotFoundError
from shared.web.routes import Route


class SslcommerzSimulator:
    """The store of one merchant."""

    name: Final = NAME
    operations: Final[Mapping[str, frozenset[str]]] = BEHAVIOURS
    wishes: Final = frozenset(FATES)

    def __init__(self, core: Core, settings: SimulatorSettings) -> None:
        self._runtime = Runtime(
            core=core,
            store_id=settings.sslcommerz_store_id,
            store_password=settings.sslcommerz_store_password,
            session_seconds=settings.session_seconds,
        )

    def routes(self) -> Sequence[Route]:
        """Return the routes of the protocol, and the pages that customers see."""
        return protocol_routes(self._runtime)

    def overview(self) -> str:
        """Tell a person which amounts are magic."""
        return checkout_page.overview()

    async def act(self, reference: str, wish: str) -> Json:
        """Do what the buttons of the checkout page do, and return the browser's callback."""
        session = await self._find_session(reference)
        if session is None:
            raise NotFoundError("no session has this reference")
        decision = await handlers.decide(self._runtime, session.session_key, wish)
        if not decision.is_new:
            raise ConflictError(
                f"the session is {decision.session.state}",
                details={"state": decision.session.state},
            )
        password = self._runtime.store_password.get_secret_value()
        return {
            "reference": reference,
            **_render_element(decision.element),
            "callback": {
                "url": answers.callback_url(decision.session, decision.element),
                "fields": answers.notice_form(decision.session, decision.element, password),
            },
        }

    async def read_session(self, reference: str) -> Json | None:
        """Return a session and its attempts."""
        session = await self._find_session(reference)
        if session is None:
            return None
        async with self._runtime.core.database.connection() as connection:
            elements = await store.list_elements(connection, session.session_key)
            refunds = await refund_store.list_refunds(connection, session.tran_id)
        return {
            "reference": session.tran_id,
            "sessionKey": session.session_key,
            "state": session.state,
            "amount": session.price.minor_units,
            "currency": session.price.currency,
            "checkoutUrl": (f"{self._runtime.core.public_url}/EasyCheckOut/{session.session_key}"),
            "noticeUrl": session.ipn_url,
            "createdAt": session.created_at,
            "expiresAt": session.expires_at,
            "elements": [_render_element(element) for element in elements],
            "refunds": [
                {
                    "refundTransId": refund.refund_trans_id,
                    "refundRefId": refund.refund_ref_id,
                    "amount": refund.amount.minor_units,
                    "state": refund.state,
                    "initiatedAt": refund.initiated_on,
                    "endedAt": refund.ended_on,
                }
                for refund in refunds
            ],
        }

    async def end_lapsed(self) -> int:
        """End sessions whose time is over."""
        return await handlers.end_lapsed_sessions(self._runtime)

    async def _find_session(self, reference: str) -> Session | None:
        async with self._runtime.core.database.connection() as connection:
            return await store.find_session_of(connection, reference)


def _render_element(element: Element) -> Json:
    return {
        "status": element.status,
        "valId": element.val_id,
        "bankTranId": element.bank_tran_id,
        "amount": element.charge.minor_units if element.status is Status.VALID else 0,
        "riskLevel": element.risk_level,
        "createdAt": element.created_at,
        "validatedAt": element.validated_at,
    }
