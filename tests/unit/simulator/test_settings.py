"""The simulator runs with nothing set, and its page tells of everything that can be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from services.simulator.behaviours import Behaviour
from services.simulator.profiles import Fate, NoticeFate
from services.simulator.settings import SimulatorSettings, first_secret

PAGE = (Path(__file__).parents[3] / "docs" / "simulator" / "README.md").read_text(encoding="utf-8")


def test_only_the_database_must_be_given() -> None:
    settings = SimulatorSettings(database_url="postgresql:///simulator")

    assert settings.notice_url is None
    assert first_secret(settings.campay_webhook_key)
    assert first_secret(settings.fapshi_webhook_secret)


def test_the_first_of_several_secrets_signs() -> None:
    assert first_secret(SecretStr("new , old")) == "new"


@pytest.mark.parametrize(
    "name",
    [
        field.alias
        for field in SimulatorSettings.model_fields.values()
        if field.alias is not None and field.alias.startswith("SIMULATOR_")
    ],
)
def test_every_setting_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("word", sorted({*Behaviour, *Fate, *NoticeFate} - {"paid", "on_time"}))
def test_every_word_of_scripts_and_profiles_is_on_the_page(word: str) -> None:
    assert f"`{word}`" in PAGE
