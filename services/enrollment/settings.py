"""What the enrollment service reads from the environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import AliasChoices, Field

from shared.settings import ServiceSettings


class EnrollmentSettings(ServiceSettings):
    """Settings of both processes of the enrollment service."""

    database_url: str = Field(
        validation_alias=AliasChoices("ENROLLMENT_DATABASE_URL", "DATABASE_URL"), repr=False
    )
    #: When an enrollment is taken away whose payment was refunded in full or lost in a dispute.
    revocation: Literal["at_once", "after_grace", "never"] = Field(
        default="at_once", alias="ENROLLMENT_REVOCATION"
    )
    #: Of `after_grace`: time to object, or to pay again.
    revocation_grace: timedelta = Field(
        default=timedelta(days=3), gt=timedelta(0), alias="ENROLLMENT_REVOCATION_GRACE"
    )
