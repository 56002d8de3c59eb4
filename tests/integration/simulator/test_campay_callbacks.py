"""Callbacks of Campay: another library verifies the good ones, and refuses each of the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import jwt
import pytest

from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.campay_world import (
    Application,
    claims_of,
    fields_of,
    running_application,
)
from tests.integration.simulator.world import Merchant


@pytest.fixture
async def campay(settings: SimulatorSettings, merchant: Merchant) -> AsyncIterator[Application]:
    async with running_application(settings, merchant) as application:
        yield application


@pytest.mark.parametrize(
    ("form", "method", "content_type"),
    [
        ("json", "POST", "application/json"),
        ("form", "POST", "application/x-www-form-urlencoded"),
        ("get", "GET", "application/octet-stream"),
    ],
)
async def test_a_callback_comes_as_the_settings_say(
    settings: SimulatorSettings, merchant: Merchant, form: str, method: str, content_type: str
) -> None:
    async with running_application(settings, merchant, campay_callback=form) as campay:
        started = await campay.collect(external_user="a & b = ü")
        await campay.pay(started["external_reference"])
        (callback,) = await campay.inbox.until(1)

    fields = fields_of(callback)
    assert (callback.method, callback.path) == (method, "/webhooks/campay")
    assert callback.content_type == content_type
    assert (fields["status"], fields["amount"], fields["currency"]) == ("SUCCESSFUL", "5000", "XAF")
    assert fields["reference"] == started["reference"]
    assert fields["external_reference"] == started["external_reference"]
    assert (fields["endpoint"], fields["external_user"]) == ("collect", "a & b = ü")
    claims = claims_of(callback)
    assert claims["source"] == "CamPay"
    assert claims["exp"] - claims["iat"] == 300


async def test_a_failure_is_called_back_too(campay: Application) -> None:
    started = await campay.collect()

    await campay.pay(started["external_reference"], "insufficient_funds")

    (callback,) = await campay.inbox.until(1)
    claims_of(callback)
    fields = fields_of(callback)
    assert (fields["status"], fields["reason"]) == ("FAILED", "Insufficient funds")


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ("expired_token", jwt.ExpiredSignatureError),
        ("alg_none", jwt.InvalidAlgorithmError),
        ("badly_signed", jwt.InvalidSignatureError),
        ("wrong_secret", jwt.InvalidSignatureError),
    ],
)
async def test_a_bad_signature_is_refused_by_another_library(
    campay: Application, behaviour: str, error: type[Exception]
) -> None:
    started = await campay.collect()
    await campay.script("notice", behaviour)
    await campay.pay(started["external_reference"])

    (callback,) = await campay.inbox.until(1)

    with pytest.raises(error):
        claims_of(callback)


@pytest.mark.parametrize(
    ("digits", "error"), [(7, jwt.InvalidSignatureError), (21, jwt.InvalidSignatureError)]
)
async def test_magic_amounts_spoil_the_signature(
    campay: Application, digits: int, error: type[Exception]
) -> None:
    started = await campay.collect(amount=2_000 + digits)
    await campay.pay(started["external_reference"])

    (callback,) = await campay.inbox.until(1)

    with pytest.raises(error):
        claims_of(callback)


async def test_a_good_signature_does_not_prove_the_fields(campay: Application) -> None:
    started = await campay.collect()
    await campay.script("notice", "altered_fields")
    await campay.pay(started["external_reference"], "declined")

    (callback,) = await campay.inbox.until(1)

    claims_of(callback)
    fields = fields_of(callback)
    assert (fields["status"], fields["amount"]) == ("SUCCESSFUL", "50000")
    assert (await campay.status(started["reference"]))["status"] == "FAILED"


@pytest.mark.parametrize(("behaviour", "method"), [("by_get", "GET"), ("by_form", "POST")])
async def test_one_callback_can_come_in_another_form(
    campay: Application, behaviour: str, method: str
) -> None:
    started = await campay.collect()
    await campay.script("notice", behaviour)
    await campay.pay(started["external_reference"])

    (callback,) = await campay.inbox.until(1)

    assert callback.method == method
    claims_of(callback)


@pytest.mark.parametrize(("digits", "count"), [(5, 0), (6, 5)])
async def test_callbacks_can_be_missing_or_repeated(
    campay: Application, digits: int, count: int
) -> None:
    started = await campay.collect(amount=2_000 + digits)

    await campay.pay(started["external_reference"])

    assert len((await campay.session(started["external_reference"]))["notices"]) == count
    received = await campay.inbox.until(count)
    assert received == received[:1] * count


async def test_an_older_callback_can_come_last(campay: Application) -> None:
    started = await campay.collect(amount=2_012)
    await campay.pay(started["external_reference"])

    received = await campay.inbox.until(2)

    assert [fields_of(each)["status"] for each in received] == ["SUCCESSFUL", "PENDING"]


async def test_a_callback_can_be_late(campay: Application) -> None:
    started = await campay.collect(amount=2_008)
    await campay.pay(started["external_reference"])

    (notice,) = (await campay.session(started["external_reference"]))["notices"]

    assert notice["sentAt"] is None
    await campay.simulator.execute("UPDATE notice SET due_at = due_at - interval '20 s'")
    await campay.until_sent(started["external_reference"], 1)
