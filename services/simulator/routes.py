"""HTTP of SSLCommerz: the merchant's calls, and the pages that customers see."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from services.simulator import answers, checkout_page, faults, handlers, store
from services.simulator.control import control_routes
from services.simulator.domain import Behaviour, Status
from services.simulator.handlers import Runtime
from shared.errors import InvalidInputError, NotFoundError
from shared.web.routes import Route, read_body

FORM_FIELDS_MAX: Final = 100

#: The buttons of the checkout page.
ACTIONS: Final[Mapping[str, Status]] = MappingProxyType(
    {"pay": Status.VALID, "fail": Status.FAILED, "cancel": Status.CANCELLED}
)


def simulator_routes(runtime: Runtime) -> list[Route]:
    """Return every route of the simulator; none needs a key."""
    merchant, customer = _Merchant(runtime), _Customer(runtime)
    query_path = "/validator/api/merchantTransIDvalidationAPI.php"
    return [
        Route("POST", "/gwprocess/v4/api.php", merchant.open_session),
        Route("GET", "/validator/api/validationserverAPI.php", merchant.validate),
        Route("GET", query_path, merchant.query),
        Route("GET", "/EasyCheckOut/{session_key}", customer.see),
        Route("POST", "/EasyCheckOut/{session_key}/{action}", customer.act),
        *control_routes(runtime),
    ]


class _Merchant:
    """The calls that a merchant's server makes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def open_session(self, request: web.Request) -> web.StreamResponse:
        form = await _read_form(request)
        fault = await handlers.session_fault(self._runtime, form)
        return await faults.answer(
            request, fault, lambda: handlers.open_session(self._runtime, form)
        )

    async def validate(self, request: web.Request) -> web.StreamResponse:
        parameters = _parameters(request)
        fault = await handlers.validation_fault(self._runtime, parameters.get("val_id", ""))
        says_pending = fault is not None and fault.behaviour is Behaviour.PENDING
        return await faults.answer(
            request,
            fault,
            lambda: handlers.validate(self._runtime, parameters, says_pending=says_pending),
        )

    async def query(self, request: web.Request) -> web.StreamResponse:
        parameters = _parameters(request)
        fault = await handlers.query_fault(self._runtime, parameters)
        return await faults.answer(
            request, fault, lambda: handlers.query(self._runtime, parameters)
        )


class _Customer:
    """The pages in the customer's browser."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def see(self, request: web.Request) -> web.StreamResponse:
        """Show what is to be paid."""
        async with self._runtime.database.connection() as connection:
            session = await store.find_session(connection, _session_key(request))
        if session is None:
            return _page(checkout_page.unknown(), status=404)
        return _page(checkout_page.checkout(session))

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Do what a button says, and send the browser back to the merchant by a form.

        A second click on a session that has ended leads to the same place as the first.
        """
        wish = ACTIONS.get(request.match_info["action"])
        if wish is None:
            return _page(checkout_page.unknown(), status=404)
        try:
            decision = await handlers.decide(self._runtime, _session_key(request), wish)
        except NotFoundError:
            return _page(checkout_page.unknown(), status=404)
        password = self._runtime.store_password.get_secret_value()
        fields = answers.notice_form(decision.session, decision.element, password)
        address = answers.callback_url(decision.session, decision.element)
        return _page(checkout_page.way_back(address, fields, decision.element.status))


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


def _page(html: str, *, status: int = 200) -> web.Response:
    return web.Response(
        text=html, status=status, content_type="text/html", headers={"Cache-Control": "no-store"}
    )
