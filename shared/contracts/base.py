"""What every message has in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from shared.errors import PermanentError

CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3,5}$", description="ISO 4217, or USDC")]
MinorUnits = Annotated[int, Field(ge=0, description="Whole minor units, never a decimal")]
Reference = Annotated[str, Field(min_length=1, max_length=100)]


class MalformedMessageError(PermanentError):
    """A message does not fit its contract; no repetition will change that."""

    code = "malformed_message"


class Message(BaseModel):
    """A versioned message; orders are imperative, facts are past tense.

    Fields carry ids and values of the moment: no personal data, no card data.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True
    )

    #: `<owner>.<what>.v<n>`; a changed field is a new version.
    name: ClassVar[str]

    @classmethod
    def decode(cls, payload: Mapping[str, Any]) -> Self:
        """Read a payload.

        Raises:
            MalformedMessageError: names the fields that do not fit, not their values.
        """
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            fields = sorted({".".join(map(str, item["loc"])) for item in error.errors()})
            raise MalformedMessageError(
                f"{cls.name} has wrong fields: {', '.join(fields)}"
            ) from None

    def encode(self) -> str:
        """Write the payload as JSON."""
        return self.model_dump_json(by_alias=True)
