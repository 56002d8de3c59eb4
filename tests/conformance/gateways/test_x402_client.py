"""Whatever a facilitator answers, or does not, becomes the right outcome: never an exception.

The other side is a script of raw bytes, so that it can misbehave as no HTTP server would.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from x402.schemas.responses import SettleRequest
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from shared.gateways.http_client import HttpAnswer, HttpClient
from shared.gateways.interface import (
    Declined,
    FailureKind,
    Outcome,
    Paid,
    Unknown,
)
from shared.gateways.x402.client import X402Gateway
from shared.gateways.x402.reasons import REFUSALS
from tests.support.blocking import run_blocking
from tests.support.clocks import ManualClock
from tests.support.scripted_server import (
    Script,
    ScriptedServer,
    scripted_server,
    sends_and_closes,
)
from tests.support.x402 import (
    PAYER,
    RECIPIENT,
    REFERENCE,
    STARTED_AT,
    TOKEN,
    TRANSACTION,
    VALID,
    FakeWorld,
    invalid,
    order,
    settled,
    supported,
    unsettled,
)
from tests.support.x402_gateway import (
    NONCE,
    NONCE_USED,
    PAID,
    SILENCES,
    gateway_at,
    look_up,
    quiet_gateway,
    start,
)


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
async def server(world: FakeWorld) -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        server.then(*[world] * 200)
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(STARTED_AT + timedelta(seconds=1))


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[X402Gateway]:
    """A client without a node of the chain."""
    async with quiet_gateway(server.url, clock) as gateway:
        yield gateway


async def test_a_payment_is_verified_then_settled_with_the_same_payload(
    world: FakeWorld, gateway: X402Gateway, server: ScriptedServer
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID)
    world.then("/settle", settled())

    assert await start(gateway) == PAID

    assert world.paths == ["/supported", "/verify", "/settle"]
    verified, sent = world.asked[1][1], world.asked[2][1]
    assert verified == sent
    request = SettleRequest.model_validate(sent)
    assert request.x402_version == 2
    assert request.payment_payload.accepted == request.payment_requirements
    authorization = request.payment_payload.payload["authorization"]
    assert authorization == {
        "from": PAYER,
        "to": RECIPIENT,
        "value": "10000",
        "validAfter": "0",
        "validBefore": str(int(STARTED_AT.timestamp()) + 300),
        "nonce": f"0x{NONCE.hex()}",
    }
    assert recovered(sent, authorization) == PAYER
    assert all(b"\r\nAuthorization: Bearer a-bearer-secret\r\n" in r for r in server.requests)


def recovered(body: dict[str, Any], authorization: dict[str, str]) -> str:
    """Recover the signer of what was sent, as a facilitator does."""
    types = [("from", "address"), ("to", "address"), ("value", "uint256")]
    types += [("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32")]
    message = encode_typed_data(
        body["paymentRequirements"]["extra"] | {"chainId": 84_532, "verifyingContract": TOKEN},
        {"TransferWithAuthorization": [{"name": name, "type": kind} for name, kind in types]},
        authorization
        | {name: int(authorization[name]) for name in ("value", "validAfter", "validBefore")},
    )
    signature = body["paymentPayload"]["payload"]["signature"]
    return str(Account.recover_message(message, signature=signature))


async def test_a_facilitator_that_offers_only_version_1_is_spoken_to_in_version_1(
    world: FakeWorld, gateway: X402Gateway
) -> None:
    world.then("/supported", supported(1, "base-sepolia"))
    world.then("/verify", VALID)
    world.then("/settle", settled(network="base-sepolia"))

    assert await start(gateway) == PAID

    sent = world.asked[2][1]
    payload = PaymentPayloadV1.model_validate(sent["paymentPayload"])
    wanted = PaymentRequirementsV1.model_validate(sent["paymentRequirements"])
    authorization = payload.payload["authorization"]
    assert (sent["x402Version"], payload.network, wanted.network) == (1, *["base-sepolia"] * 2)
    assert wanted.max_amount_required == "10000"
    assert authorization["validAfter"] == str(int(STARTED_AT.timestamp()) - 600)
    assert authorization["nonce"] == f"0x{NONCE.hex()}"
    assert recovered(sent, authorization) == PAYER


async def test_version_2_is_preferred_and_what_is_supported_is_remembered_for_an_hour(
    world: FakeWorld, gateway: X402Gateway, clock: ManualClock
) -> None:
    both = supported(1, "base-sepolia")
    both["kinds"] += supported()["kinds"]
    world.then("/supported", both, both)
    world.then("/settle", *[settled()] * 3)

    await look_up(gateway)
    await look_up(gateway)
    clock.advance(3_601)
    await look_up(gateway, order(started_at=clock.now))

    assert world.paths == ["/supported", "/settle", "/settle", "/supported", "/settle"]
    assert {body["x402Version"] for path, body in world.asked if path == "/settle"} == {2}


@pytest.mark.parametrize(
    "kinds",
    [
        [],
        supported(network="eip155:8453")["kinds"],
        supported(scheme="upto")["kinds"],
        supported(3)["kinds"],
        supported(1)["kinds"],
        [None, 7, {}, {"x402Version": [2], "scheme": "exact", "network": {}}],
    ],
)
async def test_a_facilitator_without_our_network_is_a_mistake_of_ours_before_anything_is_signed(
    world: FakeWorld, gateway: X402Gateway, kinds: list[Any]
) -> None:
    world.then("/supported", *[{"kinds": kinds}] * 2)

    outcome = await start(gateway)

    reason = "network_not_supported_by_facilitator"
    assert outcome == Declined(reason, FailureKind.CONFIGURATION, is_final=True)
    assert await look_up(gateway) == Unknown(reason)
    assert world.paths == ["/supported", "/supported"]


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
@pytest.mark.parametrize("path", ["/supported", "/verify", "/settle"])
async def test_an_answer_that_says_nothing_is_unknown_and_asked_for_once(
    world: FakeWorld, gateway: X402Gateway, path: str, script: Script, reason: str
) -> None:
    answers: dict[str, Script | dict[str, Any]] = {
        "/supported": supported(),
        "/verify": VALID,
        "/settle": settled(),
    }
    paths = list(answers)[: list(answers).index(path) + 1]
    for earlier in paths[:-1]:
        world.then(earlier, answers[earlier])
    world.then(path, script)

    outcome = await start(gateway)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in reason.split("|")
    assert world.paths == paths


async def test_a_facilitator_that_cannot_be_reached_is_unknown(clock: ManualClock) -> None:
    gateway = gateway_at("http://127.0.0.1:1", clock, X402_RPC_URL="http://127.0.0.1:1/v3/key?a=b")

    assert await start(gateway) == Unknown("connect_failed")
    assert await look_up(gateway) == Unknown("connect_failed; chain: connect_failed")
    assert await gateway.confirm(REFERENCE, TRANSACTION) == Unknown("connect_failed")
    await gateway.close()


@pytest.mark.parametrize(("reason", "kind"), REFUSALS.items())
async def test_a_refusal_before_any_settlement_is_final(
    world: FakeWorld, gateway: X402Gateway, reason: str, kind: FailureKind
) -> None:
    world.then("/supported", supported())
    world.then("/verify", invalid(reason))

    assert await start(gateway) == Declined(reason, kind, is_final=True)
    assert world.paths == ["/supported", "/verify"]


REFUSAL_KINDS = {
    "insufficient_funds": FailureKind.INSUFFICIENT_FUNDS,
    "invalid_exact_evm_insufficient_balance": FailureKind.INSUFFICIENT_FUNDS,
    "invalid_exact_evm_payload_authorization_valid_before": FailureKind.PROCESSING_ERROR,
    "invalid_exact_evm_payload_authorization_valid_after": FailureKind.PROCESSING_ERROR,
    "invalid_exact_evm_payload_signature": FailureKind.CONFIGURATION,
    "invalid_network": FailureKind.CONFIGURATION,
    "missing_eip712_domain": FailureKind.CONFIGURATION,
    "invalid_scheme": FailureKind.CONFIGURATION,
    "invalid_payload": FailureKind.CONFIGURATION,
}

#: Reasons that do not say that nothing moved, or nothing we know.
DOUBTS = {
    NONCE_USED: NONCE_USED,
    "settlement_pending": "settlement_pending",
    "transaction_failed": "transaction_failed",
    "unexpected_verify_error": "unexpected_verify_error",
    "unexpected_settle_error": "unexpected_settle_error",
    "invalid_transaction_state": "invalid_transaction_state",
    "invalid_exact_evm_transaction_simulation_failed": (
        "invalid_exact_evm_transaction_simulation_failed"
    ),
    "invalid_exact_evm_failed_to_verify_signature": "invalid_exact_evm_failed_to_verify_signature",
    "invalid_exact_evm_transfer_event_mismatch": "invalid_exact_evm_transfer_event_mismatch",
    "permit2_allowance_required": "permit2_allowance_required",
    "a_reason_of_next_year": "a_reason_of_next_year",
    "Facilitator settle failed (500): insufficient_funds": "unreadable_reason",
    "ab" * 32: "unreadable_reason",
    f"signature_{'ab' * 32}": "unreadable_reason",
    "": "no_reason_given",
    None: "no_reason_given",
}


def test_reasons_are_mapped_by_group() -> None:
    assert REFUSAL_KINDS.items() <= REFUSALS.items()
    assert not DOUBTS.keys() & REFUSALS.keys()


@pytest.mark.parametrize(("reason", "said"), DOUBTS.items())
async def test_a_doubtful_refusal_to_verify_is_unknown_and_nothing_is_settled(
    world: FakeWorld, gateway: X402Gateway, reason: str | None, said: str
) -> None:
    world.then("/supported", supported())
    world.then("/verify", invalid(reason))

    assert await start(gateway) == Unknown(said)
    assert world.paths == ["/supported", "/verify"]


@pytest.mark.parametrize(
    ("reason", "said"), [*DOUBTS.items(), *((reason, reason) for reason in REFUSALS)]
)
async def test_no_refusal_to_settle_is_final_by_itself(
    world: FakeWorld, gateway: X402Gateway, reason: str | None, said: str
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID)
    world.then("/settle", *[unsettled(reason)] * 2)

    assert await start(gateway) == Unknown(said)
    assert await look_up(gateway) == Unknown(said)


SETTLEMENTS: dict[str, tuple[dict[str, Any], Outcome]] = {
    "as asked": (settled(), PAID),
    "with the amount": (settled(amount="10000"), PAID),
    "with unknown members": (settled(extensions={}, extra={"a": [1]}), PAID),
    "a hash in capitals": (settled(transaction="0x" + "AB" * 32), PAID),
    "a payer in small letters": (settled(payer=PAYER.lower()), PAID),
    "no payer": (settled(payer=None), PAID),
    "another payer": (settled(payer=RECIPIENT), Unknown("payer_differs")),
    "another network": (settled(network="eip155:8453"), Unknown("network_differs")),
    "the network's other name": (settled(network="base"), Unknown("network_differs")),
    "no network": (settled(network=None), Unknown("network_differs")),
    "another amount": (settled(amount="9999"), Unknown("amount_differs")),
    "an amount in dollars": (settled(amount="0.01"), Unknown("amount_differs")),
    "no hash": (settled(transaction=""), Unknown("unreadable_transaction")),
    "a null hash": (settled(transaction=None), Unknown("unreadable_transaction")),
    "half a hash": (settled(transaction="0xabab"), Unknown("unreadable_transaction")),
    "a hash and a line": (
        settled(transaction=f"{TRANSACTION}\n"),
        Unknown("unreadable_transaction"),
    ),
    "a number for the amount": (settled(amount=10_000), Unknown("wrong_shape")),
}


@pytest.mark.parametrize(("fields", "expected"), SETTLEMENTS.values(), ids=SETTLEMENTS)
async def test_a_settlement_is_believed_only_if_all_of_it_is_ours(
    world: FakeWorld, gateway: X402Gateway, fields: dict[str, Any], expected: Outcome
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID)
    world.then("/settle", fields)

    assert await start(gateway) == expected


async def test_a_verification_of_another_payer_is_not_settled(
    world: FakeWorld, gateway: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID | {"payer": RECIPIENT})

    assert await start(gateway) == Unknown("payer_differs")
    assert world.paths == ["/supported", "/verify"]


async def test_a_payment_whose_answer_was_lost_is_settled_again_with_the_same_bytes(
    world: FakeWorld, gateway: X402Gateway, server: ScriptedServer, clock: ManualClock
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID)
    world.then("/settle", sends_and_closes(b""), settled())

    assert await start(gateway) == Unknown("connection_reset")
    clock.advance(60)
    assert await look_up(gateway) == PAID

    first, second = (r for r in server.requests if r.startswith(b"POST /settle "))
    assert first == second


async def test_a_process_started_after_a_crash_signs_the_same_bytes(
    world: FakeWorld, gateway: X402Gateway, server: ScriptedServer, clock: ManualClock
) -> None:
    clock.advance(17.3)
    after_a_crash = gateway_at(server.url, clock)
    world.then("/supported", supported(), supported())
    world.then("/settle", unsettled("settlement_pending", transaction=TRANSACTION), settled())

    assert await look_up(gateway) == Unknown("settlement_pending")
    assert await look_up(after_a_crash) == PAID
    await after_a_crash.close()

    first, second = (body for path, body in world.asked if path == "/settle")
    assert orjson.dumps(first) == orjson.dumps(second)


@pytest.mark.parametrize(("seconds", "is_open"), [(293, True), (293.9, True), (294.5, False)])
async def test_nothing_is_settled_in_the_last_six_seconds_of_the_window_and_later(
    world: FakeWorld,
    gateway: X402Gateway,
    clock: ManualClock,
    seconds: float,
    is_open: bool,  # noqa: FBT001
) -> None:
    clock.now = STARTED_AT + timedelta(seconds=seconds)
    world.then("/supported", supported())
    world.then("/settle", settled())

    assert await look_up(gateway) == (PAID if is_open else Unknown("window_is_over"))


class AnyFacilitator(HttpClient):
    """Supports us, and answers the rest with whatever it was given."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://127.0.0.1:1")
        self._body = body

    async def get(self, target: str, headers: Any = None) -> HttpAnswer:
        return HttpAnswer(200, orjson.dumps(supported()))

    async def post(self, target: str, body: bytes, headers: Any) -> HttpAnswer:
        return HttpAnswer(200, self._body)


TEXTS = st.sampled_from([PAYER, RECIPIENT, TRANSACTION, "eip155:84532", "10000", *REFUSALS])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
MEMBERS = ["isValid", "invalidReason", "success", "errorReason", "payer", "transaction", "network"]
ANSWERS = st.dictionaries(st.sampled_from([*MEMBERS, "amount"]), VALUES)


@given(st.binary(max_size=100) | ANSWERS.map(orjson.dumps))
def test_any_answer_becomes_an_outcome_and_money_only_in_its_own_words(body: bytes) -> None:
    gateway = gateway_at("http://127.0.0.1:1", ManualClock(STARTED_AT))
    gateway._facilitator._calls._client = AnyFacilitator(body)

    started = run_blocking(gateway.start(order()))
    looked_up = run_blocking(gateway.look_up(order()))

    assert started == PAID or not isinstance(started, Paid)
    assert not isinstance(started, Declined) or b'"isValid":false' in body
    assert looked_up == PAID or isinstance(looked_up, Unknown)
    assert looked_up != PAID or b'"success":true' in body
