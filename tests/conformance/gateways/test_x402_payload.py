"""What we sign and send is what the protocol's own vectors and the x402 package say it must be."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
import x402.http.utils as package_headers
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st
from x402.schemas import PaymentPayload, PaymentRequired, PaymentRequirements
from x402.schemas.responses import SettleRequest
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from shared.gateways.x402.addresses import checksummed
from shared.gateways.x402.chain import AUTHORIZATION_STATE, CANCELED, TRANSFER, USED
from shared.gateways.x402.headers import (
    UnreadableHeaderError,
    payment_header,
    read_header,
    receipt_header,
    required_header,
)
from shared.gateways.x402.networks import NETWORKS, Network
from shared.gateways.x402.payload import (
    Authorization,
    Resource,
    SignedAuthorization,
    nonce_of,
    payment_payload,
    payment_requirements,
    sign,
    window_of,
)
from shared.gateways.x402.signer import LocalSigner, SigningError, TypedData
from shared.money import Money
from tests.support import x402 as vectors

BASE = NETWORKS["eip155:8453"]
BASE_SEPOLIA = NETWORKS["eip155:84532"]
RESOURCE = Resource("https://api.example.com/v1/invoices/inv_123/pay", "Invoice inv_123")
SIGNER = LocalSigner(vectors.PRIVATE_KEY)


def authorization(**changes: Any) -> Authorization:
    values: dict[str, Any] = {
        "payer": vectors.PAYER,
        "recipient": vectors.RECIPIENT,
        "value": 10_000,
        "valid_after": 0,
        "valid_before": vectors.VALID_BEFORE,
        "nonce": vectors.NONCE,
    }
    return Authorization(**(values | changes))


@dataclasses.dataclass(frozen=True)
class Vector:
    network: Network
    value: int
    domain_separator: str
    struct_hash: str
    digest: str
    signature: str


VECTORS = {
    "Base Sepolia": Vector(
        BASE_SEPOLIA,
        10_000,
        "71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
        "3dfe10ec4d3f7563789c6b964c29accc7de55df2484f69f0c690288714398d84",
        "d68f3908cf27ba06205caa6c759e3020e234f2647a0cc62ebdd7edf3fa9d570d",
        vectors.SIGNATURE_ON_BASE_SEPOLIA,
    ),
    "Base": Vector(
        BASE,
        19_990_000,
        "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f",
        "bff8be208d97a164ab48d6c8ec11e9d4e7f9e87bd0418b3f31ebe223d4bfb8aa",
        "d77e6b723eb74a239b08ddcb7d4a0b5d9ecee993ace0f331bf758dc2ec86d07a",
        vectors.SIGNATURE_ON_BASE,
    ),
}


@pytest.mark.parametrize("vector", VECTORS.values(), ids=VECTORS)
async def test_hashes_and_signature_are_those_of_the_vectors(vector: Vector) -> None:
    ours = authorization(value=vector.value)
    typed_data = ours.typed_data(vector.network)

    signed = await sign(SIGNER, vector.network, ours)

    assert typed_data.signable().header.hex() == vector.domain_separator
    assert typed_data.signable().body.hex() == vector.struct_hash
    assert typed_data.digest().hex() == vector.digest
    assert signed.signature == vector.signature


def test_the_wallet_is_the_address_of_its_key() -> None:
    assert SIGNER.address == vectors.PAYER
    assert LocalSigner(f"0x{'02' * 32}").address == vectors.RECIPIENT


def test_constants_are_the_hashes_of_what_they_name() -> None:
    def hashed(signature: str) -> str:
        return f"0x{keccak(text=signature).hex()}"

    assert hashed("authorizationState(address,bytes32)")[:10] == AUTHORIZATION_STATE
    assert hashed("AuthorizationUsed(address,bytes32)") == USED == vectors.USED
    assert hashed("AuthorizationCanceled(address,bytes32)") == CANCELED == vectors.CANCELED
    assert hashed("Transfer(address,address,uint256)") == TRANSFER == vectors.TRANSFER
    assert keccak(text="invoice:inv_123:attempt:1") == vectors.NONCE


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
async def test_on_every_network_the_signer_can_be_recovered_from_what_we_send(
    network: Network,
) -> None:
    signed = await sign(SIGNER, network, authorization())
    payload = payment_payload(2, network, signed, RESOURCE)["payload"]

    # Rebuilt from what travels, as a facilitator does.
    full: dict[str, Any] = {
        "domain": {
            "name": network.domain_name,
            "version": network.domain_version,
            "chainId": network.chain_id,
            "verifyingContract": network.token,
        },
        "primaryType": "TransferWithAuthorization",
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "TransferWithAuthorization": [
                {"name": "from", "type": "address"},
                {"name": "to", "type": "address"},
                {"name": "value", "type": "uint256"},
                {"name": "validAfter", "type": "uint256"},
                {"name": "validBefore", "type": "uint256"},
                {"name": "nonce", "type": "bytes32"},
            ],
        },
        "message": payload["authorization"],
    }
    message = encode_typed_data(full_message=full)
    recovered = Account.recover_message(message, signature=payload["signature"])

    assert recovered == vectors.PAYER


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_networks_token_is_a_checksummed_address_with_room_for_our_decimals(
    network: Network,
) -> None:
    assert checksummed(network.token) == network.token
    assert network.money(network.units(Money(1, "USDC"))) == Money(1, "USDC")


def test_a_token_with_more_decimals_than_usdc_is_written_and_read_exactly() -> None:
    network = dataclasses.replace(BASE_SEPOLIA, decimals=18)

    assert network.units(Money(19_990_000, "USDC")) == 19_990_000 * 10**12
    assert network.money(19_990_000 * 10**12) == Money(19_990_000, "USDC")
    assert network.money(19_990_000 * 10**12 + 1) is None
    assert network.money(10**40) is None


def requirements() -> dict[str, Any]:
    return payment_requirements(2, BASE_SEPOLIA, authorization(), RESOURCE)


async def payload(version: Any) -> dict[str, Any]:
    signed = await sign(SIGNER, BASE_SEPOLIA, authorization())
    return payment_payload(version, BASE_SEPOLIA, signed, RESOURCE)


async def test_the_payload_of_version_2_is_the_vectors() -> None:
    assert await payload(2) == {
        "x402Version": 2,
        "resource": {
            "url": "https://api.example.com/v1/invoices/inv_123/pay",
            "description": "Invoice inv_123",
            "mimeType": "application/json",
        },
        "accepted": {
            "scheme": "exact",
            "network": "eip155:84532",
            "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c",
            "maxTimeoutSeconds": 300,
            "extra": {"name": "USDC", "version": "2"},
        },
        "payload": {
            "signature": vectors.SIGNATURE_ON_BASE_SEPOLIA,
            "authorization": {
                "from": "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1",
                "to": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c",
                "value": "10000",
                "validAfter": "0",
                "validBefore": "1767614700",
                "nonce": "0x5cc48071bb9d31e10945df544c3b8b8bd23674bf588a3a13ebf42844b22b8e74",
            },
        },
    }


async def test_headers_are_the_vectors_byte_for_byte() -> None:
    receipt = {
        "success": True,
        "payer": vectors.PAYER,
        "transaction": vectors.TRANSACTION,
        "network": "eip155:84532",
    }

    error = "PAYMENT-SIGNATURE header is required"
    assert required_header(error, RESOURCE, [requirements()]) == (
        "PAYMENT-REQUIRED",
        vectors.PAYMENT_REQUIRED_VALUE,
    )
    assert payment_header(await payload(2)) == (
        "PAYMENT-SIGNATURE",
        vectors.PAYMENT_SIGNATURE_VALUE,
    )
    assert payment_header(await payload(1)) == ("X-PAYMENT", vectors.X_PAYMENT_VALUE)
    assert receipt_header(2, receipt) == ("PAYMENT-RESPONSE", vectors.PAYMENT_RESPONSE_VALUE)
    assert receipt_header(1, receipt).name == "X-PAYMENT-RESPONSE"
    assert read_header(vectors.PAYMENT_RESPONSE_VALUE) == receipt
    assert read_header(vectors.PAYMENT_SIGNATURE_VALUE) == await payload(2)
    assert read_header(vectors.PAYMENT_REQUIRED_VALUE)["accepts"] == [requirements()]


async def test_the_packages_models_take_version_2_as_we_write_it() -> None:
    ours = await payload(2)

    assert PaymentPayload.model_validate(ours).model_dump(exclude_none=True) == ours
    model = PaymentRequirements.model_validate(requirements())
    assert model.model_dump(exclude_none=True) == requirements()
    body = {"x402Version": 2, "paymentPayload": ours, "paymentRequirements": requirements()}
    assert SettleRequest.model_validate(body).model_dump(exclude_none=True) == body


async def test_the_packages_models_take_version_1_as_we_write_it() -> None:
    ours = await payload(1)
    wanted = payment_requirements(1, BASE_SEPOLIA, authorization(), RESOURCE)

    assert PaymentPayloadV1.model_validate(ours).model_dump(exclude_none=True) == ours
    model = PaymentRequirementsV1.model_validate(wanted)
    assert model.model_dump(exclude_none=True) == wanted
    assert (model.network, model.max_amount_required) == ("base-sepolia", "10000")


async def test_the_packages_codec_reads_our_headers() -> None:
    required = package_headers.decode_payment_required_header(
        required_header("pay", RESOURCE, [requirements()]).value
    )
    second = package_headers.decode_payment_signature_header(payment_header(await payload(2)).value)
    first = package_headers.decode_payment_signature_header(payment_header(await payload(1)).value)
    receipt = package_headers.decode_payment_response_header(
        receipt_header(2, vectors.unsettled("insufficient_funds")).value
    )

    assert isinstance(required, PaymentRequired)
    assert required.accepts[0].pay_to == vectors.RECIPIENT
    assert isinstance(second, PaymentPayload)
    assert second.payload["signature"] == vectors.SIGNATURE_ON_BASE_SEPOLIA
    assert isinstance(first, PaymentPayloadV1)
    assert first.payload == second.payload
    assert receipt.error_reason == "insufficient_funds"


async def test_we_read_the_headers_that_the_package_writes() -> None:
    model = PaymentPayload.model_validate(await payload(2))

    assert read_header(package_headers.encode_payment_signature_header(model)) == await payload(2)


@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_header_is_read_or_refused_with_the_one_error(value: str) -> None:
    with contextlib.suppress(UnreadableHeaderError):
        assert isinstance(read_header(value), dict)


@pytest.mark.parametrize(
    "value", ["", "e30", "bnVsbA==", "W10=", "e30=\n", "A" * 20_000, "é", "eyI="]
)
def test_a_header_that_is_no_base64_of_an_object_is_refused(value: str) -> None:
    with pytest.raises(UnreadableHeaderError):
        read_header(value)


def nonce(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "key": b"a key of sixteen",
        "network": BASE_SEPOLIA,
        "payer": vectors.PAYER,
        "reference": "att_1",
    }
    return nonce_of(**(values | changes))


def test_a_nonce_is_the_same_for_the_same_payment_and_for_no_other() -> None:
    nonces = [
        nonce(),
        nonce(key=b"a key of eighteen!"),
        nonce(network=BASE),
        nonce(network=dataclasses.replace(BASE_SEPOLIA, token=BASE.token)),
        nonce(payer=vectors.RECIPIENT),
        nonce(reference="att_2"),
    ]

    assert nonce() == nonce()
    assert nonce(payer=vectors.PAYER.lower()) == nonce()
    assert len(set(nonces)) == len(nonces)
    assert {len(one) for one in nonces} == {32}


def test_the_nonce_never_changes_from_release_to_release() -> None:
    """A payment in flight while a release is rolled out would be made twice."""
    # HMAC-SHA256 of "x402|eip155:84532|0x036c…|0x1a64…|att_1", computed with another tool.
    assert nonce().hex() == "93887c8bde9e447f68c077993f9147576c4882ee9c2f00ea893a4b7a47731bea"


@pytest.mark.parametrize(
    ("version", "window"), [(2, (0, 1_767_614_700)), (1, (1_767_613_800, 1_767_614_700))]
)
def test_a_window_ends_five_minutes_after_the_order_was_begun(
    version: Any, window: tuple[int, int]
) -> None:
    started_at = datetime(2026, 1, 5, 12, 0, 0, 999_999, tzinfo=UTC)

    assert window_of(version, started_at) == window


def test_a_nonce_of_another_length_is_never_signed() -> None:
    with pytest.raises(AssertionError):
        authorization(nonce=vectors.NONCE[:31]).typed_data(BASE_SEPOLIA)


def test_neither_key_nor_signature_is_shown() -> None:
    signed = SignedAuthorization(authorization(), vectors.SIGNATURE_ON_BASE_SEPOLIA)

    assert vectors.SIGNATURE_ON_BASE_SEPOLIA[4:40] not in repr(signed)
    assert repr(SIGNER) == f"LocalSigner({vectors.PAYER})"
    assert "01" * 16 not in repr(vars(SIGNER))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01" * 31,
        "01" * 33,
        "0x" + "zz" * 32,
        "00" * 32,
        "ff" * 32,
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        "01" * 32 + "\n",
        "twelve words that would be a mnemonic",
    ],
)
def test_what_is_no_private_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="32 bytes in hexadecimal") as raised:
        LocalSigner(text)

    assert not text or text not in str(raised.value)
    assert raised.value.__context__ is None


class WrongSigner:
    """A key service that answers in another form."""

    address = vectors.PAYER

    def __init__(self, signature: bytes) -> None:
        self._signature = signature

    async def sign(self, typed_data: TypedData) -> bytes:
        return self._signature


@pytest.mark.parametrize("signature", [b"", b"\x01" * 64, b"\x01" * 64 + b"\x00", b"\x1b" * 70])
async def test_a_signature_in_another_form_is_not_sent(signature: bytes) -> None:
    with pytest.raises(SigningError):
        await sign(WrongSigner(signature), BASE_SEPOLIA, authorization())


ADDRESSES = {
    vectors.RECIPIENT: vectors.RECIPIENT,
    vectors.RECIPIENT.lower(): vectors.RECIPIENT,
    vectors.RECIPIENT.upper(): None,
    "0x" + vectors.RECIPIENT[2:].upper(): None,
    "0x5050a4F4b3f9338C3472dcC01A87C76A144b3c9c": None,
    vectors.RECIPIENT[2:]: None,
    vectors.RECIPIENT[:-1]: None,
    vectors.RECIPIENT + "0": None,
    vectors.RECIPIENT + "\n": None,
    "0x" + "\N{FULLWIDTH DIGIT ONE}" * 40: None,
    "someone.eth": None,
    "": None,
}


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items())
def test_an_address_carries_its_checksum_or_none(text: str, address: str | None) -> None:
    assert checksummed(text) == address


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = checksummed(text)

    assert address is None or address.lower() == text.lower()
