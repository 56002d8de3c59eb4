"""Stored means of payment over HTTP: the routes under /api/payment-methods."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import ConfigDict, Field, JsonValue, WrapValidator
from typing_extensions import TypedDict

from services.payments.domain.payment_methods import (
    ID_PREFIX,
    Chargeable,
    Means,
    StoredKind,
    StoredMethod,
    hint_of,
)
from services.payments.handlers import payment_methods
from services.payments.routes.payments import (
    CustomerBody,
    PromptBody,
    WalletBody,
    named_by_field,
)
from services.payments.runtime import Runtime
from services.payments.store import payment_methods as method_store
from shared.gateways.interface import Card, Customer, Prompt, Wallet
from shared.web.application import CALLER
from shared.web.bodies import Body, ShortText, TimeText, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse, parse_query, read_body

_EXAMPLE: Final[dict[str, JsonValue]] = {
    "gateway": "stripe",
    "customer": {"id": "customer-1", "name": "Rahim Uddin", "email": "rahim@example.com"},
    "method": {"type": "card", "paymentMethod": "pm_card_visa", "gatewayCustomer": "cus_1"},
}


class StoredCardBody(Body):
    """A card that the gateway keeps for us, to be charged without the customer."""

    type: Literal["card"]
    payment_method: ShortText
    gateway_customer: Annotated[
        ShortText,
        Field(description="Whose card it is at the gateway: without one it is charged once only"),
    ]


StoredMethodBody = Annotated[
    Annotated[PromptBody | StoredCardBody | WalletBody, Field(discriminator="type")],
    WrapValidator(named_by_field),
]


class PaymentMethodBody(Body):
    """Body of `POST /api/payment-methods`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    gateway: ShortText
    customer: CustomerBody
    method: StoredMethodBody

    def means(self) -> Means:
        """Return what is stored of it."""
        return Means(Customer(**self.customer.model_dump()), _chargeable(self.method))


class PaymentMethodsQuery(PageQuery):
    """Query of `GET /api/payment-methods`."""

    customer_id: ShortText | None = None
    removed: Annotated[bool, Field(description="Whether removed ones are listed too")] = False


class PaymentMethodAnswer(TypedDict):
    """A stored means of payment; what it is made of is never shown."""

    id: Annotated[str, Field(examples=["pmt_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    gateway: str
    customerId: str
    type: StoredKind
    hint: Annotated[
        str | None,
        Field(
            description="Tells a customer's methods apart; null once it is removed",
            examples=["…0000"],
        ),
    ]
    createdAt: TimeText
    removedAt: Annotated[TimeText | None, Field(description="Since when nobody can charge it")]


def payment_method_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes of stored means of payment."""
    routes = _PaymentMethods(runtime, idempotency)
    all_, one = "/api/payment-methods", "/api/payment-methods/{payment_method_id}"
    answer = PaymentMethodAnswer
    return [
        Route(
            "POST",
            all_,
            routes.create,
            Scope.WRITE,
            body=PaymentMethodBody,
            answer=answer,
            status=201,
        ),
        Route(
            "GET",
            all_,
            routes.list_,
            Scope.READ,
            query=PaymentMethodsQuery,
            answer=PageOf("paymentMethods", answer),
        ),
        Route("GET", one, routes.read, Scope.READ, answer=answer),
        Route("DELETE", one, routes.remove, Scope.WRITE, answer=answer),
    ]


class _PaymentMethods:
    def __init__(self, runtime: Runtime, idempotency: IdempotencyKeys) -> None:
        self._runtime = runtime
        self._idempotency = idempotency

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Store how a customer is charged without being there, for subscriptions.

        Nothing is charged. A gateway that takes payments on its page only is refused, and so is
        what it could not charge.
        """
        raw = await read_body(request)
        body = parse(PaymentMethodBody, raw)
        gateway, means = body.gateway, body.means()

        async def work(method_id: str) -> Answer:
            method = await payment_methods.store_method(self._runtime, method_id, gateway, means)
            return Answer(render(method), status=201)

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=ID_PREFIX, work=work
        )

    async def read(self, request: web.Request) -> web.StreamResponse:
        """Read a stored means of payment, a removed one too."""
        method_id = request.match_info["payment_method_id"]
        method = await payment_methods.read_method(self._runtime, method_id)
        return Answer(render(method)).response()

    async def list_(self, request: web.Request) -> web.StreamResponse:
        """List stored means of payment, the newest first."""
        query = parse_query(PaymentMethodsQuery, request)
        query.require_cursor_of(ID_PREFIX)
        async with self._runtime.core.database.connection() as connection:
            found = await method_store.list_methods(
                connection,
                customer_id=query.customer_id,
                with_removed=query.removed,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        answer = query.page("paymentMethods", found, id_of=lambda method: method.id, render=render)
        return answer.response()

    async def remove(self, request: web.Request) -> web.StreamResponse:
        """Erase a means of payment. Its id stays, and subscriptions that name it are not charged.

        Payments that were made from it go on. Repeating it changes nothing.
        """
        raw = await read_body(request)

        async def work(_id: str) -> Answer:
            method_id = request.match_info["payment_method_id"]
            return Answer(render(await payment_methods.remove_method(self._runtime, method_id)))

        return await self._idempotency.run(
            request, raw, caller=request[CALLER], prefix=ID_PREFIX, work=work
        )


def _chargeable(body: PromptBody | StoredCardBody | WalletBody) -> Chargeable:
    match body:
        case PromptBody(phone=phone):
            return Prompt(phone)
        case StoredCardBody(payment_method=card, gateway_customer=customer):
            return Card(card, customer, off_session=True)
        case WalletBody(recipient=recipient):
            return Wallet(recipient)


def render(method: StoredMethod) -> PaymentMethodAnswer:
    """Return a stored means of payment as the API shows it; personal data is left out."""
    return {
        "id": method.id,
        "gateway": method.gateway,
        "customerId": method.customer_id,
        "type": method.kind,
        "hint": None if method.means is None else hint_of(method.means.method),
        "createdAt": time_text(method.created_at),
        "removedAt": time_text(method.removed_at),
    }
