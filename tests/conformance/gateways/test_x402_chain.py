"""The chain decides what no facilitator says, and only when it is certain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import Declined, FailureKind, Unknown
from shared.gateways.x402.chain import Chain, Transferred, Unsettled
from shared.gateways.x402.client import X402Gateway
from shared.gateways.x402.json_calls import JsonCalls
from shared.gateways.x402.networks import NETWORKS
from shared.gateways.x402.payload import Authorization
from shared.gateways.x402.rpc import Node
from shared.money import Money
from tests.support.blocking import run_blocking
from tests.support.clocks import ManualClock
from tests.support.scripted_server import Script, ScriptedServer, answer, scripted_server
from tests.support.x402 import (
    CANCELED,
    PAYER,
    RECIPIENT,
    REFERENCE,
    STARTED_AT,
    TOKEN,
    TRANSACTION,
    TRANSFER,
    USED,
    VALID,
    VALID_BEFORE,
    FakeWorld,
    answering,
    body_of,
    invalid,
    reply,
    supported,
    topic,
    unsettled,
)
from tests.support.x402_gateway import (
    NONCE,
    NONCE_USED,
    PAID,
    SILENCES,
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
        server.then(*[world] * 500)
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(STARTED_AT + timedelta(seconds=1))


@pytest.fixture
async def with_chain(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[X402Gateway]:
    """A client that also asks a node of the chain."""
    async with quiet_gateway(server.url, clock, X402_RPC_URL=f"{server.url}/rpc") as gateway:
        yield gateway


async def test_a_used_nonce_is_looked_for_on_the_chain_at_once(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/verify", VALID, invalid(NONCE_USED))
    world.then("/settle", unsettled(NONCE_USED))
    world.chain.use(NONCE, 703)

    assert await start(with_chain) == PAID
    assert await start(with_chain) == PAID


async def test_a_refusal_to_settle_stays_unknown_while_the_nonce_is_unused(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/settle", unsettled("insufficient_funds"))
    world.chain.finalized = world.chain.block_at(STARTED_AT)

    assert await look_up(with_chain) == Unknown("insufficient_funds; chain: nonce_unused_so_far")


async def test_what_was_never_used_is_declined_for_good_once_its_window_is_finally_over(
    world: FakeWorld, with_chain: X402Gateway, clock: ManualClock
) -> None:
    over = world.chain.block_at(STARTED_AT + timedelta(seconds=300))
    world.chain.latest = over + 100
    clock.advance(600)

    world.chain.finalized = over
    assert await look_up(with_chain) == Unknown("window_is_over; chain: nonce_unused_so_far")
    world.chain.finalized = over + 1
    assert await look_up(with_chain) == Declined(
        "authorization_expired_unused", FailureKind.PROCESSING_ERROR, is_final=True
    )
    assert world.asked == []


async def test_a_payment_is_found_on_the_chain_when_the_facilitator_is_away(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.then("/supported", supported())
    world.then("/settle", answer(b"", status="503 Service Unavailable"))
    world.chain.use(NONCE, 703)

    assert await look_up(with_chain) == PAID


async def test_a_payment_is_confirmed_by_its_transaction(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.use(NONCE, 703, value=19_990_000)

    confirmed = await with_chain.confirm(REFERENCE, TRANSACTION)

    assert confirmed == replace(PAID, amount=Money(19_990_000, "USDC"))


@pytest.mark.parametrize(
    ("reference", "handle", "reason"),
    [
        ("att_other", TRANSACTION, "reference_differs"),
        (REFERENCE, f"0x{'cd' * 32}", "reference_differs"),
        (REFERENCE, "0xabab", "unreadable_transaction"),
        (REFERENCE, "", "unreadable_transaction"),
    ],
)
async def test_a_transaction_that_is_not_ours_confirms_nothing(
    world: FakeWorld, with_chain: X402Gateway, reference: str, handle: str, reason: str
) -> None:
    world.chain.use(NONCE, 703)

    assert await with_chain.confirm(reference, handle) == Unknown(reason)


@pytest.fixture
def over(world: FakeWorld, clock: ManualClock) -> int:
    """Let the window be over for good; return its first block after the end."""
    clock.advance(3_600)
    block = world.chain.block_at(STARTED_AT + timedelta(seconds=301))
    world.chain.latest, world.chain.finalized = block + 1_800, block + 900
    return block


#: What is asked of a node, and whether the nonce must be used for it to be asked.
METHODS = [
    ("eth_chainId", False),
    ("eth_getBlockByNumber", False),
    ("eth_getBlockByNumber", True),
    ("eth_call", False),
    ("eth_call", True),
    ("eth_getLogs", True),
]


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_a_node_that_says_nothing_leaves_the_payment_unknown(
    world: FakeWorld, with_chain: X402Gateway, script: Script, reason: str
) -> None:
    world.then("/rpc", script, script)

    outcome = await look_up(with_chain)
    confirmed = await with_chain.confirm(REFERENCE, TRANSACTION)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in {f"window_is_over; chain: {one}" for one in reason.split("|")}
    assert isinstance(confirmed, Unknown)
    assert confirmed.reason in reason.split("|")


#: What a node may answer to any method, and never should.
SHAPES: list[Any] = [
    None,
    True,
    7,
    "",
    "0x",
    "0xzz",
    "0x" + "1" * 65,
    "0x" + "0" * 63 + "2",
    [],
    [None],
    [{}],
    [{"address": TOKEN, "topics": "all", "data": "0x"}],
    [{"address": TOKEN, "topics": [7], "data": "0x"}],
    [{}] * 1_001,
    {},
    {"number": 7, "timestamp": 8},
    {"number": "0x1"},
    {"status": "0x1", "logs": {}},
]


@pytest.mark.parametrize(("method", "is_used"), METHODS)
async def test_a_node_that_answers_in_another_shape_decides_nothing(
    world: FakeWorld,
    with_chain: X402Gateway,
    over: int,
    method: str,
    is_used: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    if is_used:
        world.chain.use(NONCE, over - 100)
    for shape in SHAPES:
        world.chain.results = {method: shape}

        assert isinstance(await look_up(with_chain), Unknown), shape

    world.chain.results = {}
    assert not isinstance(await look_up(with_chain), Unknown)


async def test_a_receipt_in_another_shape_confirms_nothing(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.use(NONCE, 703)
    for shape in SHAPES:
        world.chain.results = {"eth_getTransactionReceipt": shape}

        assert isinstance(await with_chain.confirm(REFERENCE, TRANSACTION), Unknown), shape


REFUSALS = {
    "an error": (
        {"id": 1, "error": {"code": -32000, "message": "header not found"}},
        "node_refused",
    ),
    "an error and a result": ({"id": 1, "error": {"code": 1}, "result": "0x1"}, "node_refused"),
    "neither": ({"id": 1, "jsonrpc": "2.0"}, "node_refused"),
    "an answer to another call": ({"id": 2, "result": "0x14a34"}, "wrong_shape"),
}


@pytest.mark.usefixtures("over")
@pytest.mark.parametrize(("fields", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_a_node_that_refuses_leaves_the_payment_unknown(
    world: FakeWorld, with_chain: X402Gateway, fields: dict[str, Any], reason: str
) -> None:
    world.then("/rpc", fields)

    assert await look_up(with_chain) == Unknown(f"window_is_over; chain: {reason}")


@pytest.mark.usefixtures("over")
async def test_a_node_of_another_chain_where_every_nonce_is_unused_decides_nothing(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.chain_id = 8_453

    assert await look_up(with_chain) == Unknown("window_is_over; chain: node_of_another_chain")
    assert await with_chain.confirm(REFERENCE, TRANSACTION) == Unknown("node_of_another_chain")


async def test_a_node_whose_newest_block_is_behind_the_final_one_decides_nothing(
    world: FakeWorld, with_chain: X402Gateway, over: int
) -> None:
    """Two nodes behind one address: the one that was asked for the nonce had not seen its use."""
    world.chain.finalized = world.chain.latest
    block = {"number": hex(over + 1_801), "timestamp": hex(world.chain.time_of(over + 1_801))}
    world.then("/rpc", *[answering_chain(world)] * 3, {"id": 1, "result": block})

    assert await look_up(with_chain) == Unknown("window_is_over; chain: nonce_unused_so_far")


def answering_chain(world: FakeWorld) -> Script:
    return answering(lambda request: reply(world.chain.answer(body_of(request))))


@pytest.mark.parametrize(
    "changes",
    [
        {"value": 9_999},
        {"value": 10_001},
        {"recipient": PAYER},
        {"recipient": TOKEN},
        {"transferred_in": f"0x{'cd' * 32}"},
    ],
)
async def test_a_use_with_another_transfer_is_not_ours(
    world: FakeWorld, with_chain: X402Gateway, over: int, changes: dict[str, Any]
) -> None:
    world.chain.use(NONCE, over - 100, **changes)

    assert await look_up(with_chain) == Unknown("window_is_over; chain: transfer_differs")


@pytest.mark.parametrize("changes", [{"nonce": b"\x01" * 32}, {"payer": RECIPIENT}])
async def test_the_use_of_another_authorization_is_not_ours(
    world: FakeWorld, with_chain: X402Gateway, over: int, changes: dict[str, Any]
) -> None:
    values: dict[str, Any] = {"nonce": NONCE, "block": over - 100}
    world.chain.use(**(values | changes))

    assert await look_up(with_chain) == Unknown("window_is_over; chain: use_not_found_yet")


async def test_a_log_of_another_contract_or_one_taken_back_is_nothing(
    world: FakeWorld, with_chain: X402Gateway, over: int
) -> None:
    world.chain.use(NONCE, over - 100)
    for change in ({"address": RECIPIENT}, {"removed": True}):
        logs = [world.chain._log(*event) | change for event in world.chain.events]
        world.chain.results = {
            "eth_getLogs": logs,
            "eth_getTransactionReceipt": {"status": "0x1", "logs": logs},
        }

        assert await look_up(with_chain) == Unknown("window_is_over; chain: use_not_found_yet")
        assert await with_chain.confirm(REFERENCE, TRANSACTION) == Unknown("reference_differs")


async def test_a_cancelled_authorization_is_declined_once_its_block_is_final(
    world: FakeWorld, with_chain: X402Gateway, over: int
) -> None:
    world.chain.cancel(NONCE, over - 100)

    world.chain.finalized = over - 101
    assert await look_up(with_chain) == Unknown("window_is_over; chain: cancellation_not_final_yet")
    world.chain.finalized = over - 100
    assert await look_up(with_chain) == Declined(
        "authorization_canceled", FailureKind.CANCELLED, is_final=True
    )


@pytest.mark.parametrize("latest", [1_000, 5_000, 43_200 + 700, 1_000_000])
@pytest.mark.parametrize("block", [700, 701, 849])
async def test_a_payment_is_found_however_late_it_is_sought(
    world: FakeWorld, with_chain: X402Gateway, clock: ManualClock, latest: int, block: int
) -> None:
    """From the first block of the window to its last, with ranges that any provider allows."""
    clock.advance(3_600)
    world.chain.latest, world.chain.finalized = latest, latest - 10
    world.chain.use(NONCE, block)

    assert await look_up(with_chain) == PAID
    assert len(world.chain.calls) < 60


async def test_a_chain_younger_than_the_payment_is_searched_from_its_first_block(
    world: FakeWorld, with_chain: X402Gateway, clock: ManualClock
) -> None:
    clock.advance(3_600)
    world.chain.genesis = int(STARTED_AT.timestamp())
    world.chain.latest, world.chain.finalized = 400, 300
    world.chain.use(NONCE, 1)

    assert await look_up(with_chain) == PAID


async def test_a_node_is_called_at_its_whole_address(
    server: ScriptedServer, clock: ManualClock, world: FakeWorld
) -> None:
    world.then("/v3/key/?a=b", {"id": 1, "result": "0x1"})
    url = f"{server.url}/v3/key/?a=b"
    async with quiet_gateway(server.url, clock, X402_RPC_URL=url) as gateway:
        outcome = await gateway.confirm(REFERENCE, TRANSACTION)

    assert outcome == Unknown("node_of_another_chain")
    assert world.paths == ["/v3/key/?a=b"]
    assert b"Authorization" not in server.requests[0]


async def test_a_transaction_that_failed_or_moved_more_than_once_confirms_nothing(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.use(NONCE, 703)
    logs = [world.chain._log(*event) for event in world.chain.events]

    world.chain.results = {"eth_getTransactionReceipt": {"status": "0x0", "logs": logs}}
    assert await with_chain.confirm(REFERENCE, TRANSACTION) == Unknown("reference_differs")
    world.chain.results = {"eth_getTransactionReceipt": {"status": "0x1", "logs": logs * 2}}
    assert await with_chain.confirm(REFERENCE, TRANSACTION) == Unknown("several_transfers")
    world.chain.results = {}
    world.chain.events.clear()
    world.chain.use(NONCE, 703, value=2**256 - 1)
    assert await with_chain.confirm(REFERENCE, TRANSACTION) == Unknown("unreadable_amount")


async def test_a_transfer_of_somebody_else_in_the_same_transaction_is_not_counted(
    world: FakeWorld, with_chain: X402Gateway
) -> None:
    world.chain.use(NONCE, 703)
    world.chain.use(b"\x01" * 32, 703, payer=RECIPIENT, value=77)

    assert await with_chain.confirm(REFERENCE, TRANSACTION) == PAID


async def test_without_a_node_nothing_is_decided_after_the_window(
    server: ScriptedServer, clock: ManualClock
) -> None:
    clock.advance(86_400)
    async with quiet_gateway(server.url, clock) as gateway:
        assert await look_up(gateway) == Unknown("window_is_over")

    assert server.requests == []


class AnyNode(JsonCalls):
    """Answers each call with the next of the results it was given."""

    def __init__(self, results: list[Any]) -> None:
        self.results = results

    async def post(self, operation: str, target: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if not self.results:
            raise HttpCallError("no_more")
        return {"id": 1, "result": self.results.pop(0)}


def words_of(nonce: bytes) -> list[str]:
    return [USED, CANCELED, TRANSFER, topic(PAYER), topic(RECIPIENT), f"0x{nonce.hex()}"]


QUANTITIES = st.integers(0, 2_000_000_000).map(hex) | st.text(max_size=4)
LOGS = st.fixed_dictionaries(
    {
        "address": st.sampled_from([TOKEN, TOKEN.lower(), RECIPIENT]),
        "topics": st.lists(st.sampled_from(words_of(NONCE)), max_size=4),
        "data": st.sampled_from([f"0x{10_000:064x}", f"0x{9_999:064x}", "0x", "0x_1"]),
        "blockNumber": QUANTITIES,
        "transactionHash": st.sampled_from([TRANSACTION, "0xabab"]),
    }
)
RESULTS = (
    st.sampled_from(["0x14a34", f"0x{0:064x}", f"0x{1:064x}"])
    | st.fixed_dictionaries({"number": QUANTITIES, "timestamp": QUANTITIES})
    | st.lists(LOGS, max_size=3)
    | st.fixed_dictionaries({"status": st.just("0x1"), "logs": st.lists(LOGS, max_size=3)})
    | st.none()
    | st.text(max_size=5)
)


@given(st.lists(RESULTS, max_size=8))
def test_whatever_a_node_answers_a_payment_is_found_only_with_its_own_events(
    results: list[Any],
) -> None:
    network = NETWORKS["eip155:84532"]
    authorization = Authorization(PAYER, RECIPIENT, 10_000, 0, VALID_BEFORE, NONCE)
    answers = ["0x14a34", *results]
    seen = orjson.dumps(answers)
    chain = Chain(Node(AnyNode(answers), "http://node.example"), network)

    try:
        fate = run_blocking(chain.fate(authorization, STARTED_AT))
    except HttpCallError:
        return
    if isinstance(fate, Transferred):
        assert f'"{USED}"'.encode() in seen
        assert f"0x{10_000:064x}".encode() in seen
    if fate is Unsettled.CANCELED:
        assert f'"{CANCELED}"'.encode() in seen
