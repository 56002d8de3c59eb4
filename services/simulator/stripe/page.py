"""The page on which a customer authenticates, and the table of magic for a person to read."""

from __future__ import annotations

from html import escape
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from services.simulator import pages
from services.simulator.stripe.cards import CARDS, DECLINE_PREFIX, Authentication, Card
from services.simulator.stripe.domain import Intent, IntentStatus
from services.simulator.stripe.scenarios import MAGIC, PLAIN
from shared.money import Money

#: What is shown instead of the buttons when there is nothing to do.
_SETTLED: Final = {
    IntentStatus.SUCCEEDED: "This payment is done.",
    IntentStatus.REQUIRES_CAPTURE: "This payment is done.",
    IntentStatus.PROCESSING: "This payment is under way.",
    IntentStatus.CANCELED: "This payment was canceled.",
}


def authentication(intent: Intent) -> str:
    """Show what is to be paid, with the two buttons while they mean something."""
    price = escape(str(Money(intent.amount, intent.currency.upper())))
    settled = _SETTLED.get(intent.status)
    if settled is not None:
        choice = f"<p>{settled}</p>"
    else:
        address = f"{escape(intent.client_secret)}"
        choice = f"""
<form method="post" action="{address}/authenticate">
<button class="go">Authenticate and pay</button></form>
<form method="post" action="{address}/fail"><button class="stop">Fail</button></form>"""
    body = f"""
<h1>Your bank asks: is this you?</h1>
<p class="amount">{price}</p>
<dl><dt>Payment</dt><dd>{escape(intent.reference)}</dd></dl>
{choice}
{pages.NO_MONEY}"""
    return pages.page(f"Authenticate {price}", body)


def done(intent: Intent) -> str:
    """Tell a customer who has nowhere to go back to what came of it."""
    text = _SETTLED.get(intent.status, "The authentication has failed. You can try again.")
    return pages.page("Done", f"<h1>{text}</h1>{pages.NO_MONEY}")


def way_back(intent: Intent) -> str:
    """Return where the browser goes after the authentication, as Stripe completes it."""
    assert intent.return_url is not None, "there is a page only with a way back"
    parts = urlsplit(intent.return_url)
    has_failed = intent.status in (
        IntentStatus.REQUIRES_PAYMENT_METHOD,
        IntentStatus.CANCELED,
    )
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("payment_intent", intent.id),
        ("payment_intent_client_secret", intent.client_secret),
        ("redirect_status", "failed" if has_failed else "succeeded"),
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))


def overview() -> str:
    """Tell a person which amounts and payment methods are magic."""
    amounts = [("any other", PLAIN.description)]
    amounts += [(f"…{digits:02d}", each.description) for digits, each in sorted(MAGIC.items())]
    methods = [
        (name, _describe(card))
        for name, card in CARDS.items()
        if not name.startswith(DECLINE_PREFIX)
    ]
    methods.append((f"{DECLINE_PREFIX}<code>", "declined with any of the 50 decline codes"))
    return f"""
<h2>Stripe</h2>
<p>The last two digits of an amount in minor units choose what happens; calls go wrong once.
A payment method that declines or wants an authentication goes before the amount.</p>
{pages.table(("Amount", "What happens"), amounts)}
{pages.table(("Payment method", "What happens"), methods)}"""


def _describe(card: Card) -> str:
    if card.decline is not None:
        return f"declined: {card.decline.decline_code or card.decline.code}"
    if card.authentication is not Authentication.NEVER:
        return "wants an authentication at each payment"
    return f"paid; risk {card.risk_level}, a refund {card.refund.value.replace('_', ' ')}"
