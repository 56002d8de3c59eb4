"""The chain as a node shows it: blocks by the clock, events as logs, words of 32 bytes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from services.simulator.x402.networks import Network
from services.simulator.x402.store import State, Submitted

Json: TypeAlias = dict[str, Any]

#: The first block of every chain here, and the seconds from one block to the next (Base has both).
GENESIS: Final = datetime.fromtimestamp(1_695_768_288, UTC)
BLOCK_SECONDS: Final = 2

#: How many blocks behind the newest one a block is final. The real ones take minutes.
FINALITY_BLOCKS: Final = 3

#: keccak256 of AuthorizationUsed(address,bytes32), AuthorizationCanceled(address,bytes32) and
#: Transfer(address,address,uint256).
USED: Final = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
CANCELED: Final = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81"
TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

#: First four bytes of keccak256 of authorizationState(address,bytes32) and balanceOf(address).
AUTHORIZATION_STATE: Final = "0xe94a0102"
BALANCE_OF: Final = "0x70a08231"


def block_at(moment: datetime) -> int:
    """Return the number of the newest block at a moment."""
    return int((moment - GENESIS).total_seconds()) // BLOCK_SECONDS


def time_of(number: int) -> datetime:
    """Return the moment from which on a block is the newest; it takes what comes until the next."""
    return GENESIS + timedelta(seconds=number * BLOCK_SECONDS)


def block(network: Network, number: int) -> Json:
    """Render a block without its transactions."""
    return {
        "number": hex(number),
        "hash": block_hash(network, number),
        "parentHash": block_hash(network, number - 1),
        "timestamp": hex(int(time_of(number).timestamp())),
        "transactions": [],
    }


def block_hash(network: Network, number: int) -> str:
    """Return a hash that is the same each time; nobody can check it against contents."""
    return "0x" + hashlib.sha256(f"{network.caip} {number}".encode()).hexdigest()


def logs_of(network: Network, submitted: Submitted) -> list[Json]:
    """Render the events of the transaction that a block has taken."""
    payer, nonce = address_word(submitted.payer), submitted.nonce
    if submitted.state is State.CANCELLED:
        return [_log(network, submitted, 0, [CANCELED, payer, nonce], "0x")]
    moved = [TRANSFER, payer, address_word(submitted.recipient)]
    return [
        _log(network, submitted, 0, [USED, payer, nonce], "0x"),
        _log(network, submitted, 1, moved, number_word(submitted.value)),
    ]


def receipt(network: Network, submitted: Submitted, signer: str) -> Json:
    """Render the receipt of the transaction that a block has taken."""
    number = block_at(_mined_at(submitted))
    return {
        "transactionHash": submitted.transaction_hash,
        "transactionIndex": "0x0",
        "blockNumber": hex(number),
        "blockHash": block_hash(network, number),
        "from": signer,
        "to": submitted.token,
        "status": "0x1",
        "cumulativeGasUsed": "0x15f90",
        "gasUsed": "0x15f90",
        "effectiveGasPrice": "0xf4240",
        "contractAddress": None,
        "logs": logs_of(network, submitted),
        "type": "0x2",
    }


def is_wanted(log: Json, topics: Sequence[str | Sequence[str] | None]) -> bool:
    """Tell whether a log has the topics of a filter: each a word, one of several, or any."""
    if len(topics) > len(log["topics"]):
        return False
    for wanted, topic in zip(topics, log["topics"], strict=False):
        if isinstance(wanted, str) and wanted.lower() != topic:
            return False
        if wanted is not None and not isinstance(wanted, str):
            words = {word.lower() for word in wanted}
            if words and topic not in words:
                return False
    return True


def address_word(address: str) -> str:
    """Write an address as a word."""
    return "0x" + address.removeprefix("0x").lower().rjust(64, "0")


def number_word(number: int) -> str:
    """Write a number as a word."""
    return f"0x{number:064x}"


def _log(network: Network, submitted: Submitted, index: int, topics: list[str], data: str) -> Json:
    number = block_at(_mined_at(submitted))
    return {
        "address": submitted.token,
        "topics": topics,
        "data": data,
        "blockNumber": hex(number),
        "blockHash": block_hash(network, number),
        "transactionHash": submitted.transaction_hash,
        "transactionIndex": "0x0",
        "logIndex": hex(index),
        "removed": False,
    }


def _mined_at(submitted: Submitted) -> datetime:
    assert submitted.mined_at is not None, "a block has taken it"
    return submitted.mined_at
