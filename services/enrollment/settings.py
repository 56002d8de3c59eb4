"""What the enrollment service reads from the environment."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from shared.settings import ServiceSettings


class EnrollmentSettings(ServiceSettings):
    """Settings of both processes of the enrollment service."""

    database_url: str = Field(
        validation_alias=AliasChoices("ENROLLMENT_DATABASE_URL", "DATABASE_URL"), repr=False
    )
