"""Endpoints of payment methods and customers, as far as charging a stored card needs them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.stripe import answers, object_store
from services.simulator.stripe.cards import CARDS
from services.simulator.stripe.domain import PaymentMethod, StripeCustomer
from services.simulator.stripe.errors import ApiError, bad_request, missing, refused
from services.simulator.stripe.parameters import Parameters
from services.simulator.stripe.runtime import Call, Runtime, Work, new_id
from services.simulator.stripe.scenarios import OTHER
from shared.database import Connection

#: A customer exists as soon as it is named: merchants keep ids for longer than the simulator's
#: database lives.
_CUSTOMER: Final = re.compile(r"cus_[A-Za-z0-9_]{1,200}")

#: The numbers of test cards (testing page of Stripe), for making a payment method from a card.
_CARD_OF_NUMBER: Final = {
    "4242424242424242": "pm_card_visa",
    "5555555555554444": "pm_card_mastercard",
    "378282246310005": "pm_card_amex",
    "4000000000000341": "pm_card_chargeCustomerFail",
    "4000000000000002": "pm_card_visa_chargeDeclined",
    "4000000000009995": "pm_card_visa_chargeDeclinedInsufficientFunds",
    "4000002760003184": "pm_card_authenticationRequired",
}

#: Parameters with personal data, which nobody needs here.
_PERSONAL: Final = ("address", "email", "name", "phone", "shipping", "description")


def check_customer(customer: str | None) -> None:
    """Refuse what cannot be a customer's id."""
    if customer is not None and _CUSTOMER.fullmatch(customer) is None:
        raise missing("customer", customer, "customer")


async def resolve(
    connection: Connection, method_id: str, customer: str | None, now: datetime
) -> PaymentMethod:
    """Return the payment method to charge: a stored one, or a new copy of a test one.

    Raises:
        ApiError: there is none, or it is another customer's.
    """
    if method_id in CARDS:
        copy = PaymentMethod(new_id("pm"), method_id, None, now)
        await object_store.insert_payment_method(connection, copy)
        return copy
    method = await _find(connection, method_id, "payment_method")
    if method.customer not in (None, customer):
        raise refused(
            f"The provided PaymentMethod cannot be used: it belongs to the Customer"
            f" {method.customer}. Please include the Customer in the `customer` parameter on the"
            " PaymentIntent.",
            param="payment_method",
        )
    return method


def create_customer(runtime: Runtime, call: Call) -> Work:
    """Make a customer; of personal data nothing is kept."""
    parameters = Parameters(call.tree)
    customer = StripeCustomer(new_id("cus"), parameters.metadata(), runtime.core.clock())
    parameters.ignore(*_PERSONAL, "expand", "invoice_settings", "payment_method")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        await object_store.insert_customer(connection, customer)
        return Reply(answers.customer(customer))

    return Work(OTHER, run)


def retrieve_customer(runtime: Runtime, call: Call) -> Work:
    """Show a customer."""

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        check_customer(call.subject)
        customer = await object_store.find_customer(connection, call.subject)
        if customer is None:
            customer = StripeCustomer(call.subject, {}, runtime.core.clock())
            await object_store.insert_customer(connection, customer)
        return Reply(answers.customer(customer))

    return Work(OTHER, run)


def create(runtime: Runtime, call: Call) -> Work:
    """Make a payment method from the number of a test card."""
    parameters = Parameters(call.tree)
    parameters.choice("type", ("card",))
    card = call.tree.get("card", {})
    number = card.get("number") if isinstance(card, dict) else None
    token = card.get("token") if isinstance(card, dict) else None
    card_name = _CARD_OF_NUMBER.get(number) if isinstance(number, str) else None
    if token == "tok_visa":  # noqa: S105 - the name of a test token
        card_name = "pm_card_visa"
    if card_name is None:
        raise bad_request("Your card number is incorrect.", code="incorrect_number", param="card")
    parameters.ignore("card", "billing_details", "metadata", "allow_redisplay", "expand")
    parameters.finish()
    method = PaymentMethod(new_id("pm"), card_name, None, runtime.core.clock())

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        await object_store.insert_payment_method(connection, method)
        return Reply(answers.payment_method(method))

    return Work(OTHER, run)


def retrieve(runtime: Runtime, call: Call) -> Work:
    """Show a payment method."""

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        if call.subject in CARDS:
            shown = PaymentMethod(call.subject, call.subject, None, runtime.core.clock())
            return Reply(answers.payment_method(shown))
        method = await _find(connection, call.subject, "payment_method")
        return Reply(answers.payment_method(method))

    return Work(OTHER, run)


def attach(runtime: Runtime, call: Call) -> Work:
    """Give a payment method to a customer; cards that decline at once cannot be attached."""
    parameters = Parameters(call.tree)
    customer = parameters.required("customer")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        check_customer(customer)
        method = await resolve(connection, call.subject, customer, runtime.core.clock())
        card = CARDS[method.card_name]
        if card.decline is not None and not card.can_be_attached:
            error = {
                "type": "card_error",
                "code": card.decline.code,
                "decline_code": card.decline.decline_code,
                "message": card.decline.message,
            }
            raise ApiError(402, error, is_stored=True)
        if not await object_store.attach_payment_method(connection, method.id, customer):
            raise refused(
                "The payment method you provided has already been attached to a customer.",
                code="payment_method_customer_mismatch",
            )
        attached = await _find(connection, method.id, "payment_method")
        return Reply(answers.payment_method(attached))

    return Work(OTHER, run)


def detach(_runtime: Runtime, call: Call) -> Work:
    """Take a payment method from its customer."""

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        await _find(connection, call.subject, "payment_method")
        await object_store.detach_payment_method(connection, call.subject)
        return Reply(
            answers.payment_method(await _find(connection, call.subject, "payment_method"))
        )

    return Work(OTHER, run)


def list_all(_runtime: Runtime, call: Call) -> Work:
    """List the cards of a customer: the one in the path or in the parameters."""
    parameters = Parameters(call.tree)
    customer = call.subject or parameters.required("customer")
    size = parameters.page().size
    parameters.ignore("type", "expand", "allow_redisplay")
    parameters.finish()

    async def run(connection: Connection, _treatment: Treatment) -> Reply:
        check_customer(customer)
        methods = await object_store.list_payment_methods(connection, customer, size + 1)
        data = [answers.payment_method(method) for method in methods[:size]]
        return Reply(answers.page_of("/v1/payment_methods", data, has_more=len(methods) > size))

    return Work(OTHER, run)


async def _find(connection: Connection, method_id: str, param: str) -> PaymentMethod:
    method = await object_store.find_payment_method(connection, method_id)
    if method is None:
        raise missing("PaymentMethod", method_id, param)
    return method
