"""Reading what a buyer signed and what a seller asks for, in versions 1 and 2. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel

from services.simulator.x402.networks import NETWORKS, NETWORKS_V1, Network
from services.simulator.x402.reasons import Reason

#: Texts of a request are at most this long.
TEXT_MAX: Final = 2000

Address = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{40}$")]
Nonce = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$")]
#: Whole numbers travel as decimal text of at most 256 bits.
Digits = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,78}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]*$", max_length=TEXT_MAX)]
Text = Annotated[str, StringConstraints(max_length=TEXT_MAX)]


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


class Authorization(_Model):
    """What was signed: one transfer, once, within a window of Unix seconds."""

    payer: Address = Field(alias="from")
    to: Address
    value: Digits
    valid_after: Digits
    valid_before: Digits
    nonce: Nonce


class _Signed(_Model):
    signature: Hex
    authorization: Authorization


class _Accepted(_Model):
    scheme: Text
    network: Text


class _PayloadV1(_Model):
    scheme: Text
    network: Text
    payload: _Signed


class _PayloadV2(_Model):
    accepted: _Accepted
    payload: _Signed


class _Requirements(_Model):
    scheme: Text
    network: Text
    asset: Address
    pay_to: Address
    max_timeout_seconds: int = 0
    extra: dict[str, Any] | None = None


class _RequirementsV1(_Requirements):
    amount: Digits = Field(alias="maxAmountRequired")


class _RequirementsV2(_Requirements):
    amount: Digits


class NotReadableError(Exception):
    """The request cannot be checked at all; the reason says which part is wrong."""

    def __init__(self, reason: Reason, version: int = 2) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.version = version


@dataclass(frozen=True, slots=True)
class Payment:
    """A signed authorization next to what the seller wants for it.

    Addresses, nonce and signature are in lower case; `network_name` is the seller's word for the
    network in this version. `domain` is what the seller says about the token's EIP-712 domain.
    """

    version: int
    scheme: str
    wanted_scheme: str
    buyers_network: str
    network_name: str
    network: Network | None
    asset: str
    payer: str
    recipient: str
    value: int
    valid_after: int
    valid_before: int
    nonce: str
    signature: str
    pay_to: str
    amount: int
    domain: tuple[str, str] | None


def read_payment(request: Any) -> Payment:
    """Read the body of `/verify` and `/settle`.

    Raises:
        NotReadableError: it is not one.
    """
    if not isinstance(request, Mapping):
        raise NotReadableError(Reason.INVALID_PAYLOAD)
    version = request.get("x402Version")
    payload, wanted = request.get("paymentPayload"), request.get("paymentRequirements")
    if version not in (1, 2) or isinstance(version, bool):
        raise NotReadableError(Reason.INVALID_VERSION)
    if isinstance(payload, Mapping) and payload.get("x402Version") != version:
        raise NotReadableError(Reason.INVALID_VERSION, version)
    try:
        if version == 1:
            one = _PayloadV1.model_validate(payload)
            scheme, network, signed = one.scheme, one.network, one.payload
        else:
            two = _PayloadV2.model_validate(payload)
            scheme, network, signed = two.accepted.scheme, two.accepted.network, two.payload
    except ValidationError:
        raise NotReadableError(Reason.INVALID_PAYLOAD, version) from None
    model = _RequirementsV1 if version == 1 else _RequirementsV2
    try:
        requirements = model.model_validate(wanted)
    except ValidationError:
        raise NotReadableError(Reason.INVALID_REQUIREMENTS, version) from None
    known = NETWORKS_V1 if version == 1 else NETWORKS
    authorization = signed.authorization
    return Payment(
        version=version,
        scheme=scheme,
        wanted_scheme=requirements.scheme,
        buyers_network=network,
        network_name=requirements.network,
        network=known.get(requirements.network),
        asset=requirements.asset.lower(),
        payer=authorization.payer.lower(),
        recipient=authorization.to.lower(),
        value=int(authorization.value),
        valid_after=int(authorization.valid_after),
        valid_before=int(authorization.valid_before),
        nonce=authorization.nonce.lower(),
        signature=signed.signature.lower(),
        pay_to=requirements.pay_to.lower(),
        amount=int(requirements.amount),
        domain=_domain(requirements.extra),
    )


def _domain(extra: Mapping[str, Any] | None) -> tuple[str, str] | None:
    name, version = (extra or {}).get("name"), (extra or {}).get("version")
    if not isinstance(name, str) or not isinstance(version, str):
        return None
    return name, version
