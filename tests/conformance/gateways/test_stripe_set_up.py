"""What a Stripe account is set up with is checked at start, and its calls stay within their bounds:

the right host over verified TLS, nothing logged, nothing told about this machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import stripe
from prometheus_client import REGISTRY
from pydantic import ValidationError

from shared.gateways.interface import Declined, FailureKind, Paid, Unknown
from shared.gateways.registration import Surroundings
from shared.gateways.stripe.keys import REGISTRATION, StripeKeys
from shared.money import Money
from tests.support.clocks import ManualClock
from tests.support.scripted_server import scripted_server
from tests.support.stripe_answers import (
    INTENT,
    REFERENCE,
    SECRET_KEY,
    WEBHOOK_SECRET,
    card_error,
    event,
    gateway_at,
    intent,
    order_of,
    reply,
    signature,
)

RIGHT = {"STRIPE_SECRET_KEY": SECRET_KEY, "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET}

PAID = Paid(REFERENCE, Money(1_999, "USD"), INTENT, INTENT)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Empty the environment of Stripe's variables, and set the right ones."""
    for name in os.environ:
        if name.startswith("STRIPE_"):
            monkeypatch.delenv(name)
    for name, value in RIGHT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.parametrize(
    ("key", "is_live"),
    [
        (SECRET_KEY, False),
        ("rk_test_1234", False),
        ("sk_live_1234", True),
        ("rk_live_1234", True),
    ],
)
def test_a_key_says_whether_money_is_real(
    environment: pytest.MonkeyPatch,
    key: str,
    is_live: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    environment.setenv("STRIPE_SECRET_KEY", key)

    keys = StripeKeys()

    assert keys.is_live is is_live
    assert keys.stripe_base_url == "https://api.stripe.com"


WRONG = {
    "no key": ("STRIPE_SECRET_KEY", ""),
    "a publishable key": ("STRIPE_SECRET_KEY", "pk_test_hidden"),
    "a key with a space": ("STRIPE_SECRET_KEY", "sk_test_hidden "),
    "a key of no world": ("STRIPE_SECRET_KEY", "sk_hidden"),
    "two keys": ("STRIPE_SECRET_KEY", "sk_test_hidden,sk_test_hidden2"),
    "no webhook secret": ("STRIPE_WEBHOOK_SECRET", ""),
    "only a comma": ("STRIPE_WEBHOOK_SECRET", ","),
    "a webhook secret of another sort": ("STRIPE_WEBHOOK_SECRET", "sk_test_hidden"),
    "only the prefix": ("STRIPE_WEBHOOK_SECRET", "whsec_"),
    "a space after the comma": ("STRIPE_WEBHOOK_SECRET", "whsec_hidden, whsec_hidden2"),
    "an address without a scheme": ("STRIPE_BASE_URL", "hidden.example"),
    "an address with a query": ("STRIPE_BASE_URL", "https://hidden.example/?a=b"),
    "a log of bodies": ("STRIPE_LOG", "debug"),
}


@pytest.mark.parametrize(("name", "value"), WRONG.values(), ids=WRONG)
def test_a_wrong_variable_is_named_and_not_shown(
    environment: pytest.MonkeyPatch, name: str, value: str
) -> None:
    environment.setenv(name, value)

    with pytest.raises(ValidationError) as caught:
        StripeKeys()

    problems = caught.value.errors(include_url=False, include_input=False, include_context=False)
    assert [problem["loc"] for problem in problems] == [(name,)]
    assert "hidden" not in repr(problems)


def test_real_money_goes_over_tls_only(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STRIPE_SECRET_KEY", "sk_live_1234")
    environment.setenv("STRIPE_BASE_URL", "http://127.0.0.1:9999/stripe")

    with pytest.raises(ValidationError, match="STRIPE_BASE_URL must be https with a live key"):
        StripeKeys()


@pytest.mark.usefixtures("environment")
def test_no_secret_is_shown_with_the_settings() -> None:
    assert SECRET_KEY not in repr(StripeKeys())
    assert WEBHOOK_SECRET not in repr(StripeKeys())


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [({}, False), ({"STRIPE_SECRET_KEY": ""}, False), (RIGHT, True)],
    ids=["none", "empty", "set"],
)
def test_the_secret_key_switches_the_gateway_on(
    variables: dict[str, str],
    is_on: bool,  # noqa: FBT001 - a parameter of the table above
) -> None:
    assert REGISTRATION.is_on(variables) is is_on


async def test_both_sides_are_built_from_the_variables(environment: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    environment.setenv("STRIPE_WEBHOOK_SECRET", f"whsec_new,{WEBHOOK_SECRET}")
    async with scripted_server() as server:
        environment.setenv("STRIPE_BASE_URL", f"{server.url}/stripe/")
        server.then(reply(intent()))
        keys = StripeKeys()
        client = REGISTRATION.client(keys, Surroundings("https://pay.example", 5, 8, clock))

        assert await client.start(order_of()) == PAID
        assert server.requests[0].startswith(b"POST /stripe/v1/payment_intents ")
        await client.close()

    assert REGISTRATION.notices is not None
    reader = REGISTRATION.notices(keys, clock)
    body = (
        b'{"object":"event","id":"evt_1","created":1,"livemode":false,"data":{"object":{"id":"a"}}}'
    )
    header = signature(body, int(clock().timestamp()))
    assert reader.read({"stripe-signature": header}, body).event_key == event("", None)["id"]


def test_a_process_that_makes_no_calls_does_not_load_the_library() -> None:
    check = "import sys, shared.gateways.stripe.keys; sys.exit('stripe' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


async def test_nothing_that_is_sent_or_answered_is_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with scripted_server() as server:
        gateway = gateway_at(server.url)
        notice = "Stripe-Notice: upgrade now\r\n"  # The library would warn of it.
        server.then(
            reply(intent(), headers=notice), reply(card_error("lost_card"), "402 Payment Required")
        )

        assert await gateway.start(order_of()) == PAID
        assert await gateway.start(order_of()) == Declined(
            "generic_decline", FailureKind.CARD_DECLINED, is_final=True, handle=INTENT
        )
        await gateway.close()

    assert not [record for record in caplog.records if record.name.startswith("stripe")]
    printed = "".join(capfd.readouterr())
    assert SECRET_KEY not in printed + caplog.text
    assert "_secret_value" not in printed + caplog.text


def entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_nothing_about_this_machine_is_kept_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # Where an installation id would be kept.
    async with scripted_server() as server:
        gateway = gateway_at(server.url)
        server.then(reply(intent()), reply(intent()))
        await gateway.start(order_of())
        await gateway.start(order_of())
        await gateway.close()

    assert stripe.enable_telemetry is False
    assert entries(tmp_path) == []
    assert b"telemetry" not in b"".join(server.requests).lower()


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    async with scripted_server() as server:
        gateway = gateway_at(server.url)
        server.then(reply(intent()))

        assert await gateway.start(order_of()) == PAID
        await gateway.close()


async def test_a_call_is_measured_by_what_it_was_and_whether_it_was_answered() -> None:
    def counted(outcome: str) -> float:
        labels = {"gateway": "stripe", "operation": "charge", "outcome": outcome}
        name = "gateway_request_duration_seconds_count"
        return REGISTRY.get_sample_value(name, labels) or 0

    async with scripted_server() as server:
        gateway = gateway_at(server.url)
        before = {outcome: counted(outcome) for outcome in ("answered", "failed")}
        server.then(reply(intent()), reply(card_error("lost_card"), "402 Payment"), b"HTTP/1.1 2")
        for _ in range(3):
            await gateway.start(order_of())
        await gateway.close()

    assert counted("answered") - before["answered"] == 2
    assert counted("failed") - before["failed"] == 1


@pytest.fixture
def untrusted(tmp_path: Path) -> ssl.SSLContext:
    """Return what a server needs for TLS with a certificate that nobody has signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    arguments = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *arguments, *subject, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def test_a_host_that_cannot_prove_who_it_is_is_told_nothing(
    untrusted: ssl.SSLContext,
) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1_000))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=untrusted)
    async with server:
        port = server.sockets[0].getsockname()[1]
        gateway = gateway_at(f"https://localhost:{port}")

        assert await gateway.start(order_of()) == Unknown("tls_error")
        await gateway.close()
    assert not any(heard)
