"""HTTP of SSLCommerz: the merchant's calls, and the pages that customers see."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from services.simulator import faults, pages
from services.simulator.faults import Reply
from services.simulator.sslcommerz import answers, checkout_page, handlers, refunds, store
from services.simulator.sslcommerz.domain import PENDING
from services.simulator.sslcommerz.handlers import Runtime
from shared.errors import ConflictError, InvalidInputError, NotFoundError
from shared.web.routes import Route, read_body

FORM_FIELDS_MAX: Final = 100

#: The buttons of the checkout page.
ACTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"pay": "paid", "fail": "failed", "cancel": "cancelled"}
)


def protocol_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of the protocol; none needs a key."""
    merchant, customer = _Merchant(runtime), _Customer(runtime)
    query_path = "/validator/api/merchantTransIDvalidationAPI.php"
    return [
        Route("POST", "/gwprocess/v4/api.php", merchant.open_session),
        Route("GET", "/validator/api/validationserverAPI.php", merchant.validate),
        Route("GET", query_path, merchant.query),
        Route("GET", "/EasyCheckOut/{session_key}", customer.see),
        Route("POST", "/EasyCheckOut/{session_key}/{action}", customer.act),
    ]


class _Merchant:
    """The calls that a merchant's server makes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def open_session(self, request: web.Request) -> web.StreamResponse:
        form = await _read_form(request)
        treatment = await handlers.session_treatment(self._runtime, form)

        async def work() -> Reply:
            return Reply(await handlers.open_session(self._runtime, form, treatment.plan))

        return await faults.answer(request, treatment, work)

    async def validate(self, request: web.Request) -> web.StreamResponse:
        parameters = _parameters(request)
        treatment = await handlers.validation_treatment(self._runtime, parameters.get("val_id", ""))

        async def work() -> Reply:
            says_pending = treatment.is_told(PENDING)
            return Reply(
                await handlers.validate(self._runtime, parameters, says_pending=says_pending)
            )

        return await faults.answer(request, treatment, work)

    async def query(self, request: web.Request) -> web.StreamResponse:
        parameters = _parameters(request)
        if any(parameters.get(name) for name in refunds.PARAMETERS):
            return await self._refund(request, parameters)
        treatment = await handlers.query_treatment(self._runtime, parameters)

        async def work() -> Reply:
            return Reply(await handlers.query(self._runtime, parameters))

        return await faults.answer(request, treatment, work)

    async def _refund(
        self, request: web.Request, parameters: Mapping[str, str]
    ) -> web.StreamResponse:
        treatment = await refunds.treatment(self._runtime, parameters)

        async def work() -> Reply:
            return Reply(await refunds.answer(self._runtime, parameters))

        return await faults.answer(request, treatment, work)


class _Customer:
    """The pages in the customer's browser."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def see(self, request: web.Request) -> web.StreamResponse:
        """Show what is to be paid."""
        async with self._runtime.core.database.connection() as connection:
            session = await store.find_session(connection, _session_key(request))
        if session is None:
            return pages.respond(pages.unknown(), status=404)
        return pages.respond(checkout_page.checkout(session))

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Do what a button says, and send the browser back to the merchant by a form.

        A second click on a session that has ended leads to the same place as the first.
        """
        wish = ACTIONS.get(request.match_info["action"])
        if wish is None:
            return pages.respond(pages.unknown(), status=404)
        try:
            decision = await handlers.decide(self._runtime, _session_key(request), wish)
        except NotFoundError:
            return pages.respond(pages.unknown(), status=404)
        except ConflictError as error:
            return pages.respond(pages.refused(error.message), status=409)
        password = self._runtime.store_password.get_secret_value()
        fields = answers.notice_form(decision.session, decision.element, password)
        address = answers.callback_url(decision.session, decision.element)
        return pages.respond(checkout_page.way_back(address, fields, decision.element.status))


async def _read_form(request: web.Request) -> dict[str, str]:
    """Read an urlencoded form; another kind has no fields, as with the real gateway."""
    body = await read_body(request)
    if request.content_type != "application/x-www-form-urlencoded":
        return {}
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError:
        raise InvalidInputError(f"the form has more than {FORM_FIELDS_MAX} fields") from None
    return dict(pairs)


def _session_key(request: web.Request) -> str:
    """Read the key in the path; one that PostgreSQL could not even compare with is unknown."""
    key = request.match_info["session_key"]
    return key if key.isprintable() else ""


def _parameters(request: web.Request) -> dict[str, str]:
    """Read the query string, without what PostgreSQL could not even compare with."""
    return {name: value for name, value in request.query.items() if value.isprintable()}
