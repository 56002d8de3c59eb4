"""Clients of x402 for tests, and the ways in which the other side can say nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog

from shared.gateways.http_client import ANSWER_BYTES_MAX
from shared.gateways.interface import Order, Outcome, Paid
from shared.gateways.registration import Surroundings
from shared.gateways.x402.building import gateway_of
from shared.gateways.x402.client import X402Gateway
from shared.gateways.x402.keys import X402Keys
from shared.gateways.x402.networks import NETWORKS
from shared.gateways.x402.payload import nonce_of
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.scripted_server import (
    Script,
    answer,
    says_nothing,
    sends,
    sends_and_closes,
    sends_and_resets,
)
from tests.support.x402 import (
    NONCE_KEY,
    PAYER,
    PRIVATE_KEY,
    REFERENCE,
    TRANSACTION,
    order,
    reply,
)

TIMEOUT_SECONDS = 1.0
TOKEN_OF_FACILITATOR = "a-bearer-secret"

NONCE = nonce_of(NONCE_KEY.encode(), NETWORKS["eip155:84532"], PAYER, REFERENCE)
PAID = Paid(REFERENCE, Money(10_000, "USDC"), TRANSACTION, TRANSACTION)
NONCE_USED = "invalid_exact_evm_nonce_already_used"

_SIGNATURE = re.compile("[0-9a-fA-F]{128}")

#: How a call can fail without saying anything about the payment.
SILENCES: dict[str, tuple[Script, str]] = {
    "closed without an answer": (sends_and_closes(b""), "connection_reset"),
    "reset in mid-body": (
        sends_and_resets(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"success":true'),
        "answer_cut_short|connection_reset",  # A reset may overtake what was sent before it.
    ),
    "never answered": (says_nothing, "timeout"),
    "500": (sends(answer(b"", status="500 Internal Server Error")), "http_500"),
    "500 with a proper refusal": (
        sends(
            answer(
                b'{"success":false,"isValid":false,"errorReason":"insufficient_funds",'
                b'"invalidReason":"insufficient_funds"}',
                status="500 Internal Server Error",
            )
        ),
        "http_500",
    ),
    "400 with a proper refusal": (
        sends(
            answer(
                b'{"success":false,"isValid":false,"errorReason":"insufficient_funds",'
                b'"invalidReason":"insufficient_funds"}',
                status="400 Bad Request",
            )
        ),
        "http_400",
    ),
    "502 with HTML": (
        sends(answer(b"<html><h1>Bad Gateway</h1></html>", status="502 Bad Gateway")),
        "http_502",
    ),
    "200 with HTML": (sends(answer(b"<html>maintenance</html>")), "not_json"),
    "429": (
        sends(answer(b"", status="429 Too Many Requests", headers="Retry-After: 3\r\n")),
        "http_429",
    ),
    "401": (sends(answer(b"{}", status="401 Unauthorized")), "http_401"),
    "empty": (sends(answer(b"")), "not_json"),
    "truncated JSON": (
        sends(answer(b'{"success":true,"isValid":true,"transaction":"0x')),
        "not_json",
    ),
    "bytes that are no UTF-8": (sends(answer(b'{"success":"\xff"}')), "not_json"),
    "a list": (sends(answer(b"[]")), "not_an_object"),
    "null": (sends(answer(b"null")), "not_an_object"),
    "very deep JSON": (sends(answer(b"[" * 100_000)), "not_json"),
    "an empty object": (sends(reply({})), "wrong_shape"),
    "texts for booleans": (
        sends(reply({"success": "true", "isValid": "true", "kinds": "all"})),
        "wrong_shape",
    ),
    "numbers for texts": (
        sends(
            reply(
                {"success": True, "isValid": True, "payer": 7, "transaction": 7, "kinds": {"a": 1}}
            )
        ),
        "wrong_shape",
    ),
    "a redirect": (
        sends(answer(b"", status="302 Found", headers="Location: /elsewhere\r\n")),
        "http_302",
    ),
    "a huge body": (sends_and_closes(answer(b" " * (ANSWER_BYTES_MAX + 1))), "answer_too_large"),
    "not HTTP": (sends_and_closes(b"SSH-2.0-OpenSSH_9.2\r\n"), "not_http"),
}


def gateway_at(url: str, clock: ManualClock, **changes: Any) -> X402Gateway:
    values: dict[str, Any] = {
        "X402_FACILITATOR_URL": url,
        "X402_FACILITATOR_TOKEN": TOKEN_OF_FACILITATOR,
        "X402_NETWORK": "eip155:84532",
        "X402_PRIVATE_KEY": PRIVATE_KEY,
        "X402_NONCE_KEY": NONCE_KEY,
    }
    surroundings = Surroundings("https://pay.example", TIMEOUT_SECONDS, 8, clock)
    return gateway_of(X402Keys(**(values | changes)), surroundings)


@asynccontextmanager
async def quiet_gateway(url: str, clock: ManualClock, **changes: Any) -> AsyncIterator[X402Gateway]:
    """Return a client; what is logged while it is used holds no secret."""
    gateway = gateway_at(url, clock, **changes)
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert_no_secret(lines)


def assert_no_secret(shown: object) -> None:
    text = repr(shown)
    assert PRIVATE_KEY[:16] not in text
    assert NONCE_KEY not in text
    assert TOKEN_OF_FACILITATOR not in text
    assert _SIGNATURE.search(text) is None


async def start(gateway: X402Gateway, asked: Order | None = None) -> Outcome:
    outcome = await gateway.start(asked or order())
    assert_no_secret(outcome)
    return outcome


async def look_up(gateway: X402Gateway, asked: Order | None = None) -> Outcome:
    outcome = await gateway.look_up(asked or order())
    assert_no_secret(outcome)
    return outcome
