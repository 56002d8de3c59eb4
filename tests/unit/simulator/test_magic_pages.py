"""The pages about the simulated Stripe and x402 say what the code does."""

from __future__ import annotations

from typing import Any

import pytest

from services.simulator.stripe import scenarios as stripe_scenarios
from services.simulator.stripe.cards import CARDS, DECLINE_PREFIX
from services.simulator.stripe.routes import ENDPOINTS
from services.simulator.x402 import scenarios as x402_scenarios
from tests.support.modules import REPOSITORY


def page_of(name: str) -> str:
    return (REPOSITORY / "docs" / "simulator" / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scenarios", [stripe_scenarios, x402_scenarios])
def test_every_magic_amount_is_listed(scenarios: Any) -> None:
    page = page_of(scenarios.NAME)

    expected = {
        f"| `…{digits:02d}` | {each.description} |" for digits, each in scenarios.MAGIC.items()
    }
    assert {line for line in page.splitlines() if line.startswith("| `…")} == expected


@pytest.mark.parametrize("scenarios", [stripe_scenarios, x402_scenarios])
def test_every_operation_and_wish_is_named(scenarios: Any) -> None:
    page = page_of(scenarios.NAME)

    words = [*scenarios.BEHAVIOURS, *scenarios.WISHES]
    assert [word for word in words if f"`{word}`" not in page] == []


def test_every_test_card_and_endpoint_is_listed() -> None:
    page = page_of("stripe")

    names = [name for name in CARDS if not name.startswith(DECLINE_PREFIX)]
    paths = [path.replace("{subject}", "{id}") for _, path, _ in ENDPOINTS]
    assert [text for text in [*names, *paths] if f"`{text}`" not in page] == []
