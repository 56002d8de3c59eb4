"""The JWTs of Campay are what another library makes of the same claims, and reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import jwt
import pytest

from services.simulator.campay import tokens

KEY = "demo-campay-webhook-key-0123456789abcdef"
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
CLAIMS = {"source": "CamPay", "iat": 1_767_614_400, "exp": 1_767_614_700}

#: Made with another library, from a key and claims that were made up.
GOOD = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJzb3VyY2UiOiJDYW1QYXkiLCJpYXQiOjE3Njc2MTQ0MDAsImV4cCI6MTc2NzYxNDcwMH0."
    "EG5eLqMFRROPymn-QLSDbawvKAdzzG5dtMOQD73kRgo"
)
UNSIGNED = (
    "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0."
    "eyJzb3VyY2UiOiJDYW1QYXkiLCJpYXQiOjE3Njc2MTQ0MDAsImV4cCI6MTc2NzYxNDcwMH0."
)


def test_known_claims_make_the_known_token() -> None:
    assert tokens.encode(CLAIMS, KEY) == GOOD
    assert tokens.encode(CLAIMS, KEY, "none") == UNSIGNED


def test_a_callback_is_signed_for_five_minutes() -> None:
    token = tokens.callback_signature(KEY, NOW)

    claims = jwt.decode(token, KEY, algorithms=["HS256"], options={"verify_exp": False})
    assert claims == {**CLAIMS, "iat": NOW.timestamp(), "exp": NOW.timestamp() + 300}


def test_an_access_token_is_valid_until_it_expires() -> None:
    token = tokens.access_token("demo", KEY, NOW, 3600)

    assert tokens.is_valid(token, KEY, NOW)
    assert tokens.is_valid(token, KEY, NOW + timedelta(seconds=3599))
    assert not tokens.is_valid(token, KEY, NOW + timedelta(seconds=3600))


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", UNSIGNED, GOOD + "x", f"{GOOD}."])
def test_what_we_have_not_signed_is_not_valid(token: str) -> None:
    assert not tokens.is_valid(token, KEY, NOW)


def test_a_token_of_another_key_is_not_valid() -> None:
    assert not tokens.is_valid(tokens.access_token("demo", "other", NOW, 3600), KEY, NOW)
