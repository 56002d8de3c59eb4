"""The control API: scripting misbehaviour, acting as the customer, reading the ledger."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from services.simulator import answers, checkout_page, handlers, notice_store, store
from services.simulator.answers import Json
from services.simulator.domain import (
    BEHAVIOURS,
    FATES,
    Behaviour,
    Element,
    Operation,
    Session,
    Status,
    fault,
)
from services.simulator.handlers import Runtime
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.web.pages import SIZE_MAX
from shared.web.routes import Answer, Route, parse, parse_query, read_body

TIMES_MAX: Final = 1_000_000
DELAY_SECONDS_MAX: Final = 600

Reference = Annotated[str, StringConstraints(min_length=1, max_length=30, pattern=r"^[!-~]+$")]


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class ScriptRequest(_Body):
    """Make the next calls of an operation misbehave."""

    operation: Operation
    behaviour: Behaviour
    times: Annotated[int, Field(ge=1, le=TIMES_MAX)] = 1
    delay_seconds: Annotated[float, Field(ge=0, le=DELAY_SECONDS_MAX)] | None = None
    reference: Reference | None = None


class PayRequest(_Body):
    """Act as the customer."""

    reference: Reference
    fate: Literal["paid", "failed", "cancelled", "expired", "unattempted"] = "paid"


class LedgerQuery(_Body):
    """Which part of the ledger to read."""

    reference: Reference | None = None


def control_routes(runtime: Runtime) -> list[Route]:
    """Return the routes below /simulator."""
    control = _Control(runtime)
    base = "/simulator/sslcommerz"
    return [
        Route("GET", "/simulator", control.overview),
        Route("GET", "/simulator/", control.overview),
        Route("POST", f"{base}/script", control.script),
        Route("DELETE", f"{base}/script", control.clear_scripts),
        Route("POST", f"{base}/pay", control.pay),
        Route("GET", f"{base}/ledger", control.ledger),
        Route("GET", f"{base}/sessions/{{reference}}", control.session),
    ]


class _Control:
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def overview(self, _request: web.Request) -> web.StreamResponse:
        """Tell a person what this is and which amounts are magic."""
        return web.Response(text=checkout_page.overview(), content_type="text/html")

    async def script(self, request: web.Request) -> web.StreamResponse:
        wish = parse(ScriptRequest, await read_body(request))
        if wish.behaviour not in BEHAVIOURS[wish.operation]:
            known = ", ".join(sorted(BEHAVIOURS[wish.operation]))
            raise InvalidInputError(
                f"the operation '{wish.operation}' has the behaviours {known}",
                details={"behaviour": "not one of this operation"},
            )
        chosen = fault(wish.behaviour, wish.delay_seconds)
        async with self._runtime.database.connection() as connection:
            await notice_store.insert_script(
                connection, wish.operation, chosen, tran_id=wish.reference, times=wish.times
            )
        data = wish.model_dump(mode="json", by_alias=True)
        return Answer({**data, "delaySeconds": chosen.delay_seconds}, status=201).response()

    async def clear_scripts(self, _request: web.Request) -> web.StreamResponse:
        """Forget all scripts; magic amounts keep working."""
        async with self._runtime.database.connection() as connection:
            cleared = await notice_store.clear_scripts(connection)
        return Answer({"cleared": cleared}).response()

    async def pay(self, request: web.Request) -> web.StreamResponse:
        """Do what the buttons of the checkout page do, and return the browser's callback."""
        wish = parse(PayRequest, await read_body(request))
        session = await self._find_session(wish.reference)
        decision = await handlers.decide(self._runtime, session.session_key, FATES[wish.fate])
        if not decision.is_new:
            raise ConflictError(
                f"the session is {decision.session.state}",
                details={"state": decision.session.state},
            )
        password = self._runtime.store_password.get_secret_value()
        return Answer(
            {
                "reference": wish.reference,
                **_render_element(decision.element),
                "callback": {
                    "url": answers.callback_url(decision.session, decision.element),
                    "fields": answers.notice_form(decision.session, decision.element, password),
                },
            }
        ).response()

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """List charges, the newest first, and count them all."""
        reference = parse_query(LedgerQuery, request).reference
        async with self._runtime.database.connection() as connection:
            charges = await store.list_charges(connection, reference, SIZE_MAX)
            count = await store.count_charges(connection, reference)
        rendered = [
            {
                "reference": charge.tran_id,
                "valId": charge.val_id,
                "bankTranId": charge.bank_tran_id,
                "amount": charge.charge.minor_units,
                "currency": charge.charge.currency,
                "priceAmount": charge.price.minor_units,
                "priceCurrency": charge.price.currency,
                "riskLevel": charge.risk_level,
                "chargedAt": charge.charged_at,
            }
            for charge in charges
        ]
        return Answer({"charges": rendered, "count": count}).response()

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Tell everything about one session: its attempts and its notices."""
        session = await self._find_session(request.match_info["reference"])
        async with self._runtime.database.connection() as connection:
            elements = await store.list_elements(connection, session.session_key)
            notices = await notice_store.list_notices(connection, session.tran_id)
        return Answer(
            {
                "reference": session.tran_id,
                "sessionKey": session.session_key,
                "state": session.state,
                "amount": session.price.minor_units,
                "currency": session.price.currency,
                "checkoutUrl": f"{self._runtime.public_url}/EasyCheckOut/{session.session_key}",
                "noticeUrl": session.ipn_url,
                "createdAt": session.created_at,
                "expiresAt": session.expires_at,
                "elements": [_render_element(element) for element in elements],
                "notices": [
                    {
                        "status": notice.status,
                        "dueAt": notice.due_at,
                        "sentAt": notice.sent_at,
                        "responseStatus": notice.response_status,
                        "error": notice.error,
                    }
                    for notice in notices
                ],
            }
        ).response()

    async def _find_session(self, reference: str) -> Session:
        session = None
        if reference.isprintable():
            async with self._runtime.database.connection() as connection:
                session = await store.find_session_of(connection, reference)
        if session is None:
            raise NotFoundError("no session has this reference")
        return session


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
