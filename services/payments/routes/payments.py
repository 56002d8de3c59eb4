"""The HTTP side of the payments service."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import InitErrorDetails
from typing_extensions import TypedDict

from services.payments.domain.model import PaymentState
from services.payments.handlers import orders
from services.payments.handlers.orders import Purchase
from services.payments.runtime import Runtime
from services.payments.store import payment_views
from services.payments.store.payment_views import PaymentView
from shared.errors import (
    GatewayRefusedError,
    GatewayUnavailableError,
    NotAcceptingError,
    SpendingLimitError,
)
from shared.gateways.interface import Card, Checkout, Method, MethodKind, Prompt, Wallet
from shared.money import MINOR_UNITS_MAX, Money
from shared.web.application import CALLER
from shared.web.bodies import Body, LongText, ShortText, TimeText, WebAddress, time_text
from shared.web.idempotency import IdempotencyKeys
from shared.web.pages import PageQuery
from shared.web.routes import (
    Answer,
    PageOf,
    Route,
    Scope,
    parse,
    parse_query,
    read_body,
)

METADATA_ENTRIES_MAX: Final = 20


_EXAMPLE: Final[dict[str, JsonValue]] = {
    "gateway": "sslcommerz",
    "amount": 150_000,
    "currency": "BDT",
    "customer": {"id": "customer-1", "name": "Rahim Uddin", "email": "rahim@example.com"},
    "product": {"id": "course-1", "name": "Bangla for beginners"},
    "returnUrl": "https://example.com/paid",
    "metadata": {"order": "7"},
}


class CustomerBody(Body):
    """Who pays. The gateway's page asks for what is left out."""

    id: ShortText
    name: ShortText = "Customer"
    email: ShortText = "customer@example.com"
    phone: ShortText = "00000000000"


class ProductBody(Body):
    """What is paid for."""

    id: ShortText
    name: ShortText | None = None


class CheckoutBody(Body):
    """The customer pays on the gateway's page."""

    type: Literal["checkout"]

    def method(self) -> Method:
        """Return it as gateways know it."""
        return Checkout()


class PromptBody(Body):
    """The customer confirms on the phone."""

    type: Literal["prompt"]
    phone: Annotated[
        str,
        StringConstraints(pattern=r"^[1-9][0-9]{7,14}$"),
        Field(description="In international form, digits only: country code and number"),
    ]

    def method(self) -> Method:
        """Return it as gateways know it."""
        return Prompt(self.phone)


class CardBody(Body):
    """A card that the gateway keeps for us is charged."""

    type: Literal["card"]
    payment_method: ShortText
    gateway_customer: ShortText | None = None
    off_session: bool = False

    def method(self) -> Method:
        """Return it as gateways know it."""
        return Card(self.payment_method, self.gateway_customer, self.off_session)


class WalletBody(Body):
    """Our own wallet pays."""

    type: Literal["wallet"]
    recipient: Annotated[
        str,
        StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$"),
        Field(description="An address on the configured network"),
    ]

    def method(self) -> Method:
        """Return it as gateways know it."""
        return Wallet(self.recipient)


def named_by_field(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """Let errors name a field as the caller wrote it: pydantic puts the tag of a union between."""
    try:
        return validate(value)
    except ValidationError as error:
        problems: list[InitErrorDetails] = [
            {
                "type": item["type"],
                "loc": item["loc"][1:] or (("type",) if isinstance(value, dict) else ()),
                "ctx": item.get("ctx", {}),
                "input": item["input"],
            }
            for item in error.errors(include_url=False)
        ]
        raise ValidationError.from_exception_data("method", problems) from None


MethodBody = Annotated[
    Annotated[CheckoutBody | PromptBody | CardBody | WalletBody, Field(discriminator="type")],
    WrapValidator(named_by_field),
]


class PaymentBody(Body):
    """Body of `POST /api/payments`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    gateway: ShortText
    method: MethodBody | None = None
    amount: Annotated[int, Field(gt=0, le=MINOR_UNITS_MAX, description="Minor units")]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3,5}$")]
    customer: CustomerBody
    product: ProductBody
    return_url: WebAddress | None = None
    metadata: Annotated[
        dict[ShortText, LongText], Field(max_length=METADATA_ENTRIES_MAX, default_factory=dict)
    ]

    def purchase(self) -> Purchase:
        """Return what the body asks for.

        Raises:
            InvalidInputError: the currency is unknown.
        """
        return Purchase(
            gateway=self.gateway,
            method=None if self.method is None else self.method.method(),
            amount=Money(self.amount, self.currency),
            customer=self.customer.model_dump(),
            product={"id": self.product.id, "name": self.product.name or self.product.id},
            return_url=self.return_url,
            metadata=dict(self.metadata),
        )


class PaymentsQuery(PageQuery):
    """Query of `GET /api/payments`."""

    customer_id: ShortText | None = None
    product_id: ShortText | None = None
    state: PaymentState | None = None
    gateway: ShortText | None = None
    subscription_id: ShortText | None = None


class MethodAnswer(TypedDict):
    """How a payment is paid."""

    type: MethodKind


class PaymentAnswer(TypedDict):
    """A payment; personal data of the customer is left out."""

    id: Annotated[str, Field(examples=["pay_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    state: PaymentState
    reason: Annotated[str | None, Field(description="Why it is in this state: `kind:code`")]
    gateway: str
    method: MethodAnswer
    gatewayReference: Annotated[str, Field(description="What the gateway knows this try by")]
    gatewayPaymentId: Annotated[str | None, Field(description="The gateway's name for the charge")]
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    refundedAmount: Annotated[int, Field(description="What has been given back of it")]
    customerId: str
    productId: str
    subscriptionId: Annotated[
        str | None, Field(description="The subscription that it was charged for")
    ]
    checkoutUrl: Annotated[str | None, Field(description="Where the customer pays")]
    returnUrl: str | None
    metadata: dict[str, str]
    nextCheckAt: Annotated[TimeText | None, Field(description="When the gateway is asked next")]
    createdAt: TimeText
    updatedAt: TimeText
    expiresAt: TimeText


def payment_routes(runtime: Runtime, idempotency: IdempotencyKeys) -> list[Route]:
    """Return the routes under /api/payments."""

    async def create(request: web.Request) -> web.StreamResponse:
        """Create a payment and ask the gateway for the money.

        A charge that the gateway declined is a payment with `state` `failed` and a `reason`.
        After 502 `gateway_unavailable` it is asked what became of it; the same request, repeated
        with the same key, carries on.
        """
        body = await read_body(request)
        purchase = parse(PaymentBody, body).purchase()

        async def work(payment_id: str) -> Answer:
            view = await orders.create_payment(runtime, payment_id, purchase)
            return Answer(render(view), status=201)

        return await idempotency.run(request, body, caller=request[CALLER], prefix="pay", work=work)

    async def read(request: web.Request) -> web.StreamResponse:
        """Read a payment: its state, the reason, and when it is looked at next."""
        view = await orders.read_payment(runtime, request.match_info["payment_id"])
        return Answer(render(view)).response()

    async def list_(request: web.Request) -> web.StreamResponse:
        """List payments, the newest first."""
        query = parse_query(PaymentsQuery, request)
        query.require_cursor_of("pay")
        async with runtime.core.database.connection() as connection:
            views = await payment_views.list_views(
                connection,
                customer_id=query.customer_id,
                product_id=query.product_id,
                state=query.state,
                gateway=query.gateway,
                subscription_id=query.subscription_id,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        answer = query.page("payments", views, id_of=lambda view: view.payment.id, render=render)
        return answer.response()

    return [
        Route(
            "POST",
            "/api/payments",
            create,
            Scope.WRITE,
            body=PaymentBody,
            answer=PaymentAnswer,
            status=201,
            errors=(
                GatewayRefusedError,
                SpendingLimitError,
                GatewayUnavailableError,
                NotAcceptingError,
            ),
        ),
        Route(
            "GET",
            "/api/payments",
            list_,
            Scope.READ,
            query=PaymentsQuery,
            answer=PageOf("payments", PaymentAnswer),
        ),
        Route("GET", "/api/payments/{payment_id}", read, Scope.READ, answer=PaymentAnswer),
    ]


def render(view: PaymentView) -> PaymentAnswer:
    """Return a payment as the API shows it; personal data of the customer is left out."""
    payment = view.payment
    return {
        "id": payment.id,
        "state": payment.state,
        "reason": payment.reason,
        "gateway": payment.gateway,
        "method": {"type": payment.method},
        "gatewayReference": payment.reference,
        "gatewayPaymentId": payment.gateway_payment_id,
        "amount": payment.amount.minor_units,
        "currency": payment.amount.currency,
        "refundedAmount": view.refunded_amount,
        "customerId": payment.customer_id,
        "productId": payment.product_id,
        "subscriptionId": payment.subscription_id,
        "checkoutUrl": view.checkout_url,
        "returnUrl": view.return_url,
        "metadata": view.metadata,
        "nextCheckAt": time_text(payment.next_check_at),
        "createdAt": time_text(payment.created_at),
        "updatedAt": time_text(view.updated_at),
        "expiresAt": time_text(payment.expires_at),
    }
