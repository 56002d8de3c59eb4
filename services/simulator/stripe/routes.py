"""HTTP of Stripe: the API, the page of the customer's bank, and what only the simulator has."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from services.simulator import pages
from services.simulator.stripe import (
    calls,
    customers,
    disputes,
    idempotency,
    intents,
    object_store,
    page,
    payment_methods,
    refunds,
    store,
)
from services.simulator.stripe.calls import PREFIX, Endpoint
from services.simulator.stripe.domain import Dispute, DisputeStatus, Intent
from services.simulator.stripe.parameters import AMOUNT_MAX
from services.simulator.stripe.runtime import Runtime
from services.simulator.stripe.scenarios import FAILED, PAID
from shared.errors import ConflictError, NotFoundError
from shared.web.routes import Answer, Route, parse, read_body

#: Every endpoint of the API that there is here. Fixed words go before `{subject}`.
ENDPOINTS: Final[tuple[tuple[str, str, Endpoint], ...]] = (
    ("POST", "/v1/payment_intents", intents.create),
    ("GET", "/v1/payment_intents", intents.list_all),
    ("GET", "/v1/payment_intents/search", intents.search),
    ("GET", "/v1/payment_intents/{subject}", intents.retrieve),
    ("POST", "/v1/payment_intents/{subject}/confirm", intents.confirm),
    ("POST", "/v1/payment_intents/{subject}/cancel", intents.cancel),
    ("POST", "/v1/payment_intents/{subject}/capture", intents.capture),
    ("POST", "/v1/refunds", refunds.create),
    ("GET", "/v1/refunds", refunds.list_all),
    ("GET", "/v1/refunds/{subject}", refunds.retrieve),
    ("GET", "/v1/disputes", disputes.list_all),
    ("GET", "/v1/disputes/{subject}", disputes.retrieve),
    ("POST", "/v1/disputes/{subject}/close", disputes.close),
    ("GET", "/v1/events", refunds.list_events),
    ("GET", "/v1/events/{subject}", refunds.retrieve_event),
    ("POST", "/v1/customers", payment_methods.create_customer),
    ("GET", "/v1/customers/{subject}", payment_methods.retrieve_customer),
    ("GET", "/v1/customers/{subject}/payment_methods", payment_methods.list_all),
    ("POST", "/v1/payment_methods", payment_methods.create),
    ("GET", "/v1/payment_methods", payment_methods.list_all),
    ("GET", "/v1/payment_methods/{subject}", payment_methods.retrieve),
    ("POST", "/v1/payment_methods/{subject}/attach", payment_methods.attach),
    ("POST", "/v1/payment_methods/{subject}/detach", payment_methods.detach),
)

#: The buttons of the bank's page.
ACTIONS: Final[Mapping[str, str]] = MappingProxyType({"authenticate": PAID, "fail": FAILED})

CONTROL: Final = "/simulator/stripe"


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class DisputeRequest(_Body):
    """Let the customer's bank take a payment back."""

    reference: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
    reason: Annotated[str, Field(pattern=r"^[a-z_]{1,50}$")] = "fraudulent"
    #: Minor units; without it, what was not refunded.
    amount: Annotated[int, Field(ge=1, le=AMOUNT_MAX)] | None = None
    #: The bank only asks for now, and takes nothing.
    is_inquiry: bool = False


class DecisionRequest(_Body):
    """Bring the last dispute of a payment on: to `won`, `lost` or another status of Stripe's."""

    reference: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
    status: DisputeStatus


class DisputeAnswer(TypedDict):
    """A dispute, in short."""

    id: str
    paymentIntent: str
    charge: str
    amount: Annotated[int, Field(description="Minor units")]
    currency: str
    reason: str
    status: DisputeStatus


class AgeRequest(_Body):
    """Let time pass for the idempotency keys."""

    seconds: Annotated[int, Field(ge=0, le=10_000_000)]


class RollRequest(_Body):
    """Sign notices with a second secret too, as while one is being rolled."""

    secret: Annotated[SecretStr, Field(min_length=1, max_length=200)]


def protocol_routes(runtime: Runtime) -> list[Route]:
    """Return the routes of the protocol; the API wants the account's key."""
    bank, control = _Bank(runtime), _Control(runtime)
    return [
        *(
            Route(method, PREFIX + path, calls.serve(runtime, endpoint))
            for method, path, endpoint in ENDPOINTS
        ),
        Route("*", PREFIX + "/v1/{rest:.*}", calls.unknown),
        Route("GET", PREFIX + "/authenticate/{intent}/{secret}", bank.see),
        Route("POST", PREFIX + "/authenticate/{intent}/{secret}/{action}", bank.act),
        Route(
            "POST",
            CONTROL + "/dispute",
            control.dispute,
            body=DisputeRequest,
            answer=DisputeAnswer,
            status=201,
            errors=(NotFoundError, ConflictError),
        ),
        Route(
            "POST",
            CONTROL + "/dispute/decide",
            control.decide,
            body=DecisionRequest,
            answer=DisputeAnswer,
            errors=(NotFoundError, ConflictError),
        ),
        Route("POST", CONTROL + "/age", control.age),
        Route("PUT", CONTROL + "/roll", control.roll),
        Route("DELETE", CONTROL + "/roll", control.end_roll),
    ]


class _Bank:
    """The page where a customer authenticates."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def see(self, request: web.Request) -> web.StreamResponse:
        intent = await self._find(request)
        if intent is None:
            return pages.respond(pages.unknown(), status=404)
        return pages.respond(page.authentication(intent))

    async def act(self, request: web.Request) -> web.StreamResponse:
        """Do what a button says, and send the browser back to the merchant."""
        wish, intent = ACTIONS.get(request.match_info["action"]), await self._find(request)
        if wish is None or intent is None:
            return pages.respond(pages.unknown(), status=404)
        # A second click on what has ended leads to the same place as the first.
        with contextlib.suppress(ConflictError):
            intent = await customers.act(self._runtime, intent.id, wish)
        if intent.return_url is None:
            return pages.respond(page.done(intent))
        return web.Response(status=303, headers={"Location": page.way_back(intent)})

    async def _find(self, request: web.Request) -> Intent | None:
        """Read the intent that the address names, if the secret in it is that intent's."""
        intent_id, secret = request.match_info["intent"], request.match_info["secret"]
        if not intent_id.isprintable():  # PostgreSQL could not even compare with it.
            return None
        async with self._runtime.core.database.connection() as connection:
            intent = await store.find_intent(connection, intent_id)
        if intent is None or not hmac.compare_digest(
            secret.encode(), intent.client_secret.encode()
        ):
            return None
        return intent


class _Control:
    """What the control API has for Stripe alone."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def dispute(self, request: web.Request) -> web.StreamResponse:
        """Open a dispute about a payment."""
        wish = parse(DisputeRequest, await read_body(request))
        intent = await self._newest(wish.reference)
        dispute = await disputes.open_dispute(
            self._runtime, intent.id, wish.reason, amount=wish.amount, is_inquiry=wish.is_inquiry
        )
        if dispute is None:
            raise ConflictError("nothing was charged", details={"state": intent.status})
        return Answer(_render(dispute), status=201).response()

    async def decide(self, request: web.Request) -> web.StreamResponse:
        """Bring the last dispute of a payment to a status."""
        wish = parse(DecisionRequest, await read_body(request))
        intent = await self._newest(wish.reference)
        dispute = await disputes.decide(self._runtime, intent.id, wish.status)
        if dispute is None:
            raise NotFoundError("the payment has no dispute")
        return Answer(_render(dispute)).response()

    async def _newest(self, reference: str) -> Intent:
        async with self._runtime.core.database.connection() as connection:
            found = await store.list_intents_of_reference(connection, reference, 1)
        if not found:
            raise NotFoundError("no payment has this reference")
        return found[0]

    async def age(self, request: web.Request) -> web.StreamResponse:
        """Make every idempotency key older, and prune those that are over 24 hours old."""
        wish = parse(AgeRequest, await read_body(request))
        async with self._runtime.core.database.transaction() as connection:
            aged = await idempotency.age_keys(connection, timedelta(seconds=wish.seconds))
            pruned = await idempotency.prune_keys(connection, self._runtime.core.clock())
        return Answer({"aged": aged, "pruned": pruned}).response()

    async def roll(self, request: web.Request) -> web.StreamResponse:
        wish = parse(RollRequest, await read_body(request))
        async with self._runtime.core.database.connection() as connection:
            await object_store.save_roll(connection, wish.secret.get_secret_value())
        return Answer({"rolling": True}).response()

    async def end_roll(self, _request: web.Request) -> web.StreamResponse:
        async with self._runtime.core.database.connection() as connection:
            await object_store.clear_roll(connection)
        return Answer({"rolling": False}).response()


def _render(dispute: Dispute) -> DisputeAnswer:
    return {
        "id": dispute.id,
        "paymentIntent": dispute.intent_id,
        "charge": dispute.charge,
        "amount": dispute.amount,
        "currency": dispute.currency,
        "reason": dispute.reason,
        "status": dispute.status,
    }
