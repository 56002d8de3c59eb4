"""The enrollment service's settings: defaults, and errors that name the variable."""

from __future__ import annotations

from datetime import timedelta

import pytest

from services.enrollment.settings import EnrollmentSettings
from shared.settings import SettingsError, load


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENROLLMENT_REVOCATION", "ENROLLMENT_REVOCATION_GRACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", "postgresql://nowhere")


def test_what_went_back_is_taken_away_at_once_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(EnrollmentSettings).revocation == "at_once"

    monkeypatch.setenv("ENROLLMENT_REVOCATION", "after_grace")
    monkeypatch.setenv("ENROLLMENT_REVOCATION_GRACE", "P7D")
    settings = load(EnrollmentSettings)
    assert (settings.revocation, settings.revocation_grace) == ("after_grace", timedelta(days=7))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENROLLMENT_REVOCATION", "sometimes"),
        ("ENROLLMENT_REVOCATION_GRACE", "soon"),
        ("ENROLLMENT_REVOCATION_GRACE", "0"),
        ("ENROLLMENT_REVOCATION_GRACE", "-1"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=name):
        load(EnrollmentSettings)
