"""The simulated chain as a node shows it: blocks by the clock, logs and the words in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.simulator.x402 import chain
from services.simulator.x402.networks import NETWORKS
from services.simulator.x402.resource import Offer, decode, encode
from services.simulator.x402.store import State, Submitted

NETWORK = NETWORKS["eip155:84532"]
MINED_AT = datetime(2026, 11, 20, 12, 0, 1, tzinfo=UTC)
PAYER = "0x" + "1a" * 20
RECIPIENT = "0x" + "50" * 20
NONCE = "0x" + "5c" * 32


def submitted(state: State = State.USED) -> Submitted:
    return Submitted(
        network=NETWORK.caip,
        token=NETWORK.token.lower(),
        payer=PAYER,
        nonce=NONCE,
        state=state,
        recipient=RECIPIENT,
        value=10_000,
        valid_before=2**40,
        transaction_hash="0x" + "ab" * 32,
        is_settled=True,
        submitted_at=MINED_AT,
        mined_at=MINED_AT,
    )


def test_a_block_takes_what_comes_until_the_next() -> None:
    number = chain.block_at(MINED_AT)

    start = chain.time_of(number)
    assert start <= MINED_AT < start + timedelta(seconds=2)
    assert chain.block_at(start) == number
    assert chain.block_at(start - timedelta(microseconds=1)) == number - 1


def test_blocks_hang_together() -> None:
    one, two = chain.block(NETWORK, 100), chain.block(NETWORK, 101)

    assert two["parentHash"] == one["hash"]
    assert int(two["timestamp"], 16) == int(one["timestamp"], 16) + 2
    assert chain.block(NETWORKS["eip155:1"], 100)["hash"] != one["hash"]


def test_a_transfer_has_two_events_and_a_cancellation_one() -> None:
    used, moved = chain.logs_of(NETWORK, submitted())
    (cancelled,) = chain.logs_of(NETWORK, submitted(State.CANCELLED))

    assert used["topics"] == [chain.USED, chain.address_word(PAYER), NONCE]
    assert moved["topics"][1:] == [chain.address_word(PAYER), chain.address_word(RECIPIENT)]
    assert moved["data"] == "0x" + "2710".rjust(64, "0")
    assert cancelled["topics"][0] == chain.CANCELED
    assert [used["logIndex"], moved["logIndex"]] == ["0x0", "0x1"]


@pytest.mark.parametrize(
    ("topics", "expected"),
    [
        ([], True),
        ([chain.USED], True),
        ([chain.USED.upper().replace("X", "x")], True),
        ([[chain.CANCELED, chain.USED]], True),
        ([None, chain.address_word(PAYER)], True),
        ([[], None, NONCE], True),
        ([chain.TRANSFER], False),
        ([None, chain.address_word(RECIPIENT)], False),
        ([chain.USED, chain.address_word(PAYER), NONCE, None], False),
    ],
)
def test_filters_go_by_position(topics: list[str | list[str] | None], expected: bool) -> None:  # noqa: FBT001 - a parameter
    used, _ = chain.logs_of(NETWORK, submitted())

    assert chain.is_wanted(used, topics) is expected


def test_an_offer_speaks_both_versions() -> None:
    body, header = Offer(NETWORK, "http://shop.example/page", 20_000).wanted("pay")

    (first,) = body["accepts"]
    second = decode(header)
    assert second is not None
    (wanted,) = second["accepts"]
    assert (first["maxAmountRequired"], first["network"]) == ("20000", "base-sepolia")
    assert (wanted["amount"], wanted["network"]) == ("20000", "eip155:84532")
    assert first["extra"] == wanted["extra"] == {"name": "USDC", "version": "2"}


def test_a_network_without_a_name_in_version_1_is_offered_in_version_2() -> None:
    body, header = Offer(NETWORKS["eip155:1"], "http://shop.example/page").wanted("pay")

    second = decode(header)
    assert body["accepts"] == []
    assert second is not None
    assert len(second["accepts"]) == 1


@pytest.mark.parametrize("header", ["", "%%%", "e30", "W10=", "//8="])
def test_what_is_no_header_is_read_as_none(header: str) -> None:
    assert decode(header) is None


def test_headers_are_read_as_written() -> None:
    assert decode(encode({"a": [1, "ö"]})) == {"a": [1, "ö"]}
