"""The pages a person sees: plain HTML in one piece that works without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Final

from services.simulator.domain import MAGIC, PLAIN, Session, SessionState, Status, scenario_of

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #16212b; --soft: #5b6b79; --line: #d9e0e6;
        --card: #fff; --back: #eef2f5; --go: #0b7a4b; --stop: #a32a2a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eef3; --soft: #9aabb9; --line: #33424f; --card: #1b252e; --back: #10171d;
          --go: #14945d; --stop: #c04a4a; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
       background: var(--back); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 26rem; padding: 2rem; background: var(--card);
       border: 1px solid var(--line); border-radius: .75rem; }
main.wide { max-width: 46rem; }
h1 { margin: 0 0 .25rem; font-size: 1.1rem; font-weight: 600; }
p { margin: .5rem 0; color: var(--soft); overflow-wrap: anywhere; }
.amount { margin: 1rem 0; color: var(--ink); font-size: 2.25rem; font-weight: 700;
          line-height: 1.1; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 1rem 0;
     padding: 1rem 0; border: solid var(--line); border-width: 1px 0; }
dt { color: var(--soft); } dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
button { width: 100%; margin-top: .5rem; padding: .75rem; border: 1px solid var(--line);
         border-radius: .5rem; background: none; color: inherit; font: inherit; cursor: pointer; }
button:focus-visible { outline: 3px solid var(--go); outline-offset: 2px; }
button.go { border-color: var(--go); background: var(--go); color: #fff; font-weight: 600; }
button.stop { color: var(--stop); }
table { width: 100%; border-collapse: collapse; }
td, th { padding: .35rem .5rem; border-bottom: 1px solid var(--line); text-align: left; }
code { white-space: nowrap; }
small { color: var(--soft); }
"""

_NO_MONEY: Final = "<p><small>This is a simulator. No money moves.</small></p>"

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
{_NO_MONEY}"""
    return _page(f"Pay {price}", body)


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
    return _page(_VERDICTS[status], body)


def unknown() -> str:
    """Say that there is no such session."""
    return _page(
        "Not found", "<h1>Nothing to pay here</h1><p>This address belongs to no open order.</p>"
    )


def overview() -> str:
    """Tell a person what the simulator is and which amounts are magic."""
    rows = "\n".join(
        f"<tr><td><code>….{decimals:02d}</code></td><td>{escape(scenario.description)}</td></tr>"
        for decimals, scenario in sorted(MAGIC.items())
    )
    body = f"""
<h1>Payment gateway simulator: SSLCommerz</h1>
<p>The decimals of an amount choose what happens when the customer presses Pay.</p>
<table>
<tr><th>Amount</th><th>What happens</th></tr>
<tr><td>any other</td><td>{escape(PLAIN.description)}</td></tr>
{rows}
</table>
{_NO_MONEY}"""
    return _page("Payment gateway simulator", body, layout="wide")


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


def _page(title: str, body: str, *, layout: str = "narrow") -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_STYLE}</style>
</head>
<body><main class="{layout}">{body}</main></body>
</html>
"""
