"""Endpoints of payment intents: each reads its parameters and returns the work they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.stripe import answers, charging, payment_methods, store
from services.simulator.stripe.domain import (
    CANCELABLE,
    CANCELLATION_REASONS,
    CONFIRMABLE,
    Intent,
    IntentStatus,
)
from services.simulator.stripe.errors import ApiError, bad_request, missing, refused
from services.simulator.stripe.parameters import Parameters
from services.simulator.stripe.runtime import Call, Runtime, Work, new_id
from services.simulator.stripe.scenarios import (
    CANCEL,
    CAPTURE,
    CONFIRM,
    CREATE,
    LIST,
    RETRIEVE,
    SEARCH,
    STALE,
)
from services.simulator.stripe.search import QUERY_LENGTH_MAX, parse_query
from shared.database import Connection

_FUTURE_USAGES: Final = ("off_session", "on_session")
_CAPTURE_METHODS: Final = ("automatic", "automatic_async", "manual")

#: Parameters that Stripe has and that make no difference here.
_IGNORED: Final = (
    "automatic_payment_methods",
    "confirmation_method",
    "mandate_data",
    "payment_method_options",
    "payment_method_types",
    "receipt_email",
    "shipping",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "use_stripe_sdk",
)


@dataclass(frozen=True, slots=True)
class _Confirmation:
    """How an intent is to be confirmed."""

    payment_method: str | None
    return_url: str | None
    is_off_session: bool
    fails_on_action: bool


def create(runtime: Runtime, call: Call) -> Work:
    """Make an intent, and confirm it at once if the request says so."""
    parameters = Parameters(call.tree)
    currency = parameters.currency()
    intent = Intent(
        id=new_id("pi"),
        status=IntentStatus.REQUIRES_PAYMENT_METHOD,
        amount=parameters.amount(currency),
        currency=currency,
        client_secret="",
        created_at=runtime.core.clock(),
        customer=parameters.text("customer"),
        capture_method=parameters.choice("capture_method", _CAPTURE_METHODS) or "automatic",
        description=parameters.text("description", 1000),
        setup_future_usage=parameters.choice("setup_future_usage", _FUTURE_USAGES),
        metadata=parameters.metadata(),
        request_id=call.request_id,
        idempotency_key=call.idempotency_key,
    )
    intent = replace(intent, client_secret=new_id(f"{intent.id}_secret"))
    is_confirmed = parameters.truth("confirm") or False
    confirmation = _read_confirmation(parameters)
    expand = parameters.texts("expand")
    parameters.ignore(*_IGNORED)
    parameters.finish()
    if confirmation.is_off_session and not is_confirmed:
        raise bad_request(
            "You cannot set `off_session` unless `confirm` is `true`.", param="off_session"
        )

    async def run(connection: Connection, treatment: Treatment) -> Reply:
        payment_methods.check_customer(intent.customer)
        ready = await _with_method(connection, intent, confirmation, intent.created_at)
        if is_confirmed:
            return await _confirm(
                runtime, connection, ready, confirmation, treatment, before=None, expand=expand
            )
        if ready.payment_method is not None:
            ready = replace(ready, status=IntentStatus.REQUIRES_CONFIRMATION)
        await store.insert_intent(connection, ready)
        return Reply(answers.payment_intent(ready, runtime.core.public_url, expand))

    return Work(
        CREATE,
        run,
        reference=intent.metadata.get("reference"),
        amount=intent.amount,
        confirms=is_confirmed,
    )


def confirm(runtime: Runtime, call: Call) -> Work:
    """Confirm an intent."""
    parameters = Parameters(call.tree)
    confirmation = _read_confirmation(parameters)
    expand = parameters.texts("expand")
    parameters.ignore(*_IGNORED, "capture_method", "setup_future_usage")
    parameters.finish()

    async def run(connection: Connection, treatment: Treatment) -> Reply:
        intent = await _lock(connection, call.subject)
        _require(runtime, intent, CONFIRMABLE, "confirm")
        ready = replace(
            await _with_method(connection, intent, confirmation, runtime.core.clock()),
            request_id=call.request_id,
            idempotency_key=call.idempotency_key,
        )
        return await _confirm(
            runtime,
            connection,
            ready,
            confirmation,
            treatment,
            before=intent.status,
            expand=expand,
        )

    return Work(CONFIRM, run, intent_id=call.subject, confirms=True)


def cancel(runtime: Runtime, call: Call) -> Work:
    """Cancel an intent that has not ended."""
    parameters = Parameters(call.tree)
    reason = parameters.choice("cancellation_reason", CANCELLATION_REASONS)
    expand = parameters.texts("expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        intent = await _lock(connection, call.subject)
        _require(runtime, intent, CANCELABLE, "cancel")
        now = runtime.core.clock()
        canceled = charging.cancel(intent, reason, now)
        await charging.record(runtime, connection, canceled, intent.status, now)
        return Reply(answers.payment_intent(canceled, runtime.core.public_url, expand))

    return Work(CANCEL, run, intent_id=call.subject)


def capture(runtime: Runtime, call: Call) -> Work:
    """Take the money, or a part of it, of an intent that is captured by hand."""
    parameters = Parameters(call.tree)
    amount = parameters.integer("amount_to_capture", minimum=1, maximum=10**18)
    expand = parameters.texts("expand")
    parameters.ignore("metadata", "statement_descriptor")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        intent = await _lock(connection, call.subject)
        _require(runtime, intent, {IntentStatus.REQUIRES_CAPTURE}, "capture")
        if amount is not None and amount > intent.amount:
            raise refused(
                "Amount to capture is greater than the amount that can be captured.",
                code="amount_too_large",
                param="amount_to_capture",
            )
        captured = replace(
            intent, status=IntentStatus.SUCCEEDED, amount_received=amount or intent.amount
        )
        now = runtime.core.clock()
        await charging.record(runtime, connection, captured, intent.status, now)
        return Reply(answers.payment_intent(captured, runtime.core.public_url, expand))

    return Work(CAPTURE, run, intent_id=call.subject)


def retrieve(runtime: Runtime, call: Call) -> Work:
    """Show an intent."""
    parameters = Parameters(call.tree)
    expand = parameters.texts("expand")
    parameters.ignore("client_secret")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        intent = await store.find_intent(connection, call.subject)
        if intent is None:
            raise missing("payment_intent", call.subject, "intent")
        return Reply(answers.payment_intent(intent, runtime.core.public_url, expand))

    return Work(RETRIEVE, run, intent_id=call.subject)


def list_all(runtime: Runtime, call: Call) -> Work:
    """List intents, the newest first: all, or those of a customer."""
    parameters = Parameters(call.tree)
    customer = parameters.text("customer")
    created, page = parameters.range("created"), parameters.page()
    expand = parameters.texts("expand")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        position = None
        for name, intent_id in (("starting_after", page.after), ("ending_before", page.before)):
            if intent_id is not None:
                position = await store.find_position(connection, intent_id)
                if position is None:
                    raise missing("payment_intent", intent_id, name)
        intents, has_more = await store.list_intents(connection, customer, created, page, position)
        data = _render(runtime, intents, expand)
        return Reply(answers.page_of("/v1/payment_intents", data, has_more=has_more))

    return Work(LIST, run)


def search(runtime: Runtime, call: Call) -> Work:
    """Find intents by their metadata."""
    parameters = Parameters(call.tree)
    query = parse_query(parameters.required("query")[:QUERY_LENGTH_MAX])
    size = parameters.page().size
    expand = parameters.texts("expand")
    parameters.ignore("page")
    parameters.finish()

    async def run(connection: Connection, treatment: Treatment) -> Reply:
        now = runtime.core.clock()
        if treatment.fault is not None and treatment.is_told(STALE):
            now -= timedelta(seconds=treatment.fault.delay_seconds)
        intents = await store.search_intents(connection, query, now, size + 1)
        data = _render(runtime, intents[:size], expand)
        path = "/v1/payment_intents/search"
        return Reply(answers.search_result(path, data, has_more=len(intents) > size))

    return Work(SEARCH, run, reference=query.metadata.get("reference"))


def _render(
    runtime: Runtime, intents: Sequence[Intent], expand: Sequence[str]
) -> list[answers.Json]:
    return [
        answers.payment_intent(intent, runtime.core.public_url, expand, prefix="data.")
        for intent in intents
    ]


def _read_confirmation(parameters: Parameters) -> _Confirmation:
    # Documented as a boolean or one of two words.
    off_session = parameters.choice("off_session", ("true", "false", "one_off", "recurring"))
    return _Confirmation(
        payment_method=parameters.text("payment_method"),
        return_url=parameters.text("return_url"),
        is_off_session=off_session not in (None, "false"),
        fails_on_action=parameters.truth("error_on_requires_action") or False,
    )


async def _with_method(
    connection: Connection, intent: Intent, confirmation: _Confirmation, now: datetime
) -> Intent:
    """Return the intent with the payment method and the address that the request gives it."""
    if confirmation.return_url is not None:
        intent = replace(intent, return_url=confirmation.return_url)
    if confirmation.payment_method is None:
        return intent
    method = await payment_methods.resolve(
        connection, confirmation.payment_method, intent.customer, now
    )
    return replace(intent, payment_method=method.id, card_name=method.card_name)


async def _confirm(
    runtime: Runtime,
    connection: Connection,
    intent: Intent,
    confirmation: _Confirmation,
    treatment: Treatment,
    *,
    before: IntentStatus | None,
    expand: Sequence[str],
) -> Reply:
    if intent.card is None:
        raise refused(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can"
            " either update the PaymentIntent with a payment method and then confirm it again, or"
            " confirm it again directly with a payment method or ConfirmationToken.",
            code="payment_intent_unexpected_state",
        )
    plan, now = treatment.plan, runtime.core.clock()
    is_alone = confirmation.is_off_session or confirmation.fails_on_action
    intent = replace(intent, is_off_session=is_alone)
    wish = charging.wish_of(intent, plan)
    if plan is None:
        after, decline = charging.charge(intent, wish, now)
    else:
        after, decline = charging.charge(intent, wish, now, late_seconds=plan.late_seconds)
    await charging.record(runtime, connection, after, before, now)
    if after.status is IntentStatus.REQUIRES_ACTION:
        await runtime.core.let_customer_act(connection, "stripe", after.reference, plan)
    public_url = runtime.core.public_url
    if decline is not None:
        return Reply({"error": answers.card_error(after, decline, public_url)}, status=402)
    return Reply(answers.payment_intent(after, public_url, expand))


async def _lock(connection: Connection, intent_id: str) -> Intent:
    intent = await store.lock_intent_now(connection, intent_id)
    if intent is None:
        raise missing("payment_intent", intent_id, "intent")
    return intent


def _require(
    runtime: Runtime, intent: Intent, allowed: AbstractSet[IntentStatus], verb: str
) -> None:
    if intent.status not in allowed:
        raise _unexpected(runtime, intent, allowed, verb)


def _unexpected(
    runtime: Runtime, intent: Intent, allowed: AbstractSet[IntentStatus], verb: str
) -> ApiError:
    listed = ", ".join(sorted(allowed))
    return refused(
        f"You cannot {verb} this PaymentIntent because it has a status of {intent.status}. Only a"
        f" PaymentIntent with one of the following statuses may be used: {listed}.",
        code="payment_intent_unexpected_state",
        payment_intent=answers.payment_intent(intent, runtime.core.public_url),
    )
