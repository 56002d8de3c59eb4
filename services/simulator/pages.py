"""What all pages that a person sees have in common: plain HTML that works without JavaScript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

import orjson
from aiohttp import web

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
h1, h2 { margin: 0 0 .25rem; font-size: 1.1rem; font-weight: 600; }
h2 { margin-top: 2rem; }
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

#: For every page on which one seems to pay.
NO_MONEY: Final = "<p><small>This is a simulator. No money moves.</small></p>"


def page(title: str, body: str, *, layout: str = "narrow") -> str:
    """Put the body of a page, which is HTML, into its frame; the title is HTML too."""
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


def payment(
    *,
    title: str,
    amount: str,
    facts: Iterable[tuple[str, str]],
    buttons: Iterable[tuple[str, str, str]],
    hint: str = "",
) -> str:
    """Show what is to be paid.

    Args:
        title: What it is for; like all of these, text and not HTML.
        amount: With its currency.
        facts: What is known about it: names and values.
        buttons: Label, address of the form, and one of the classes `go`, `stop` and empty.
        hint: A line below the buttons.
    """
    terms = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    forms = "\n".join(
        f'<form method="post" action="{escape(address)}">'
        f'<button class="{escape(kind)}">{escape(label)}</button></form>'
        for label, address, kind in buttons
    )
    return page(
        f"Pay {escape(amount)}",
        f"""
<h1>{escape(title)}</h1>
<p class="amount">{escape(amount)}</p>
<dl>
{terms}
</dl>
{forms}
<p><small>{escape(hint)}</small></p>
{NO_MONEY}""",
    )


def done(verdict: str, address: str) -> str:
    """Say what came of it, and send the browser back to the merchant if there is an address."""
    back = ""
    if address:
        # JSON inside a script must not hold the end of the script.
        script = orjson.dumps(address).decode().replace("<", "\\u003c")
        back = f"""
<p>You are being sent back to the shop.</p>
<p><a href="{escape(address)}">Return to the shop</a></p>
<script>location.replace({script})</script>"""
    return page(escape(verdict), f"<h1>{escape(verdict)}</h1>{back}")


def respond(html: str, *, status: int = 200) -> web.Response:
    """Answer with a page."""
    return web.Response(
        text=html, status=status, content_type="text/html", headers={"Cache-Control": "no-store"}
    )


def unknown() -> str:
    """Say that there is no such session."""
    return page(
        "Not found", "<h1>Nothing to pay here</h1><p>This address belongs to no open order.</p>"
    )


def refused(reason: str) -> str:
    """Say why a button did nothing."""
    return page("Nothing happened", f"<h1>Nothing happened</h1><p>{escape(reason)}</p>")


def overview(sections: Iterable[str]) -> str:
    """Tell a person what the simulator is, one section of HTML for each gateway."""
    return page(
        "Payment gateway simulator",
        f"<h1>Payment gateway simulator</h1>{''.join(sections)}{NO_MONEY}",
        layout="wide",
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a table of text; the first column is code."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "\n".join(
        f"<tr><td><code>{escape(first)}</code></td>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table>\n<tr>{titles}</tr>\n{lines}\n</table>"
