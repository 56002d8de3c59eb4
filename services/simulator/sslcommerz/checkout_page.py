"""The pages of the gateway that a customer sees."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from services.simulator import pages
from services.simulator.sslcommerz.domain import (
    MAGIC,
    MAGIC_REFUNDS,
    PLAIN,
    Session,
    SessionState,
    Status,
    scenario_of,
)

#: What the customer reads after an attempt.
_VERDICTS: Final[Mapping[Status, str]] = {
    Status.VALID: "Payment received",
    Status.FAILED: "Payment declined",
    Status.CANCELLED: "Payment cancelled",
    Status.UNATTEMPTED: "Nothing was paid",
    Status.EXPIRED: "The time to pay is over",
}

#: What is shown instead of the buttons when a session has ended.
_ENDED: Final[Mapping[SessionState, str]] = {
    SessionState.PAID: "This order is paid already.",
    SessionState.EXPIRED: "The time to pay this order is over.",
}


def checkout(session: Session) -> str:
    """Show what is to be paid, with the three buttons while it can be."""
    price = escape(f"{session.price.currency} {session.price.decimal_text()}")
    charge = ""
    if session.charge != session.price:
        charge = f"<dt>Charged</dt><dd>{escape(str(session.charge))}</dd>"
    body = f"""
<h1>{escape(session.product_name)}</h1>
<p class="amount">{price}</p>
<dl>
<dt>Shop</dt><dd>{escape(session.store_id)}</dd>
<dt>Order</dt><dd>{escape(session.tran_id)}</dd>
{charge}
</dl>
{_buttons(session)}
{pages.NO_MONEY}"""
    return pages.page(f"Pay {price}", body)


def way_back(address: str, fields: Mapping[str, str], status: Status) -> str:
    """Send the browser back to the merchant: at once with JavaScript, by a button without."""
    inputs = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in fields.items()
    )
    body = f"""
<h1>{_VERDICTS[status]}</h1>
<p>You are being sent back to the shop.</p>
<form method="post" action="{escape(address)}">
{inputs}
<button class="go">Return to the shop</button>
</form>
<script>document.forms[0].submit()</script>"""
    return pages.page(_VERDICTS[status], body)


def overview() -> str:
    """Tell a person which amounts are magic."""
    rows = [("any other", PLAIN.description)]
    rows += [(f"….{decimals:02d}", each.description) for decimals, each in sorted(MAGIC.items())]
    refunds = [
        (f"….{decimals:02d}", "refused" if end is None else f"stays or becomes {end}")
        for decimals, end in sorted(MAGIC_REFUNDS.items())
    ]
    return f"""
<h2>SSLCommerz</h2>
<p>The decimals of an amount choose what happens when the customer presses Pay.</p>
{pages.table(("Amount", "What happens"), rows)}
<p>The decimals of a refund choose how it ends; any other is refunded at the second question.</p>
{pages.table(("Refund", "What happens"), refunds)}"""


def _buttons(session: Session) -> str:
    ended = _ENDED.get(session.state)
    if ended is not None:
        return f"<p>{ended}</p>"
    key = escape(session.session_key)
    hint = ""
    scenario = scenario_of(session.price)
    if scenario is not PLAIN:
        hint = f"<p><small>Magic amount: {escape(scenario.description)}.</small></p>"
    return f"""
<form method="post" action="{key}/pay"><button class="go">Pay</button></form>
<form method="post" action="{key}/fail"><button class="stop">Decline</button></form>
<form method="post" action="{key}/cancel"><button>Cancel</button></form>
{hint}"""
