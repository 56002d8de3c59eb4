"""JSON-RPC to a node of the chain, and strict reading of what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from shared.gateways.http_client import HttpCallError
from shared.gateways.x402.json_calls import JsonCalls

#: What the calls are named in metrics.
OPERATIONS: Final = ("chain",)

#: Logs that are read of one answer; a payment leaves a handful.
LOGS_MAX: Final = 1_000

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_WORD: Final = re.compile(r"0x[0-9a-fA-F]{64}")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}")


class Block(NamedTuple):
    """A block's number and its time in Unix seconds."""

    number: int
    timestamp: int


class Log(NamedTuple):
    """An event of a contract; addresses, topics and hashes in small letters."""

    contract: str
    topics: tuple[str, ...]
    data: str
    block: int
    transaction: str


class Receipt(NamedTuple):
    """What a transaction did."""

    is_success: bool
    logs: tuple[Log, ...]


class Node:
    """Asks one node.

    Args:
        calls: To the node's origin.
        url: The node's whole address; providers put a key into its path or query.
    """

    def __init__(self, calls: JsonCalls, url: str) -> None:
        parts = urlsplit(url)
        self._calls = calls
        self._target = urlunsplit(("", "", parts.path or "/", parts.query, ""))

    async def chain_id(self) -> int:
        """Return which chain the node follows."""
        return quantity(await self._ask("eth_chainId"))

    async def block(self, which: str) -> Block:
        """Return a block by its number in hexadecimal or by a tag such as `finalized`."""
        fields = await self._ask("eth_getBlockByNumber", which, False)  # noqa: FBT003 - JSON-RPC's
        if not isinstance(fields, dict):
            raise HttpCallError("no_such_block")
        return Block(quantity(fields.get("number")), quantity(fields.get("timestamp")))

    async def read(self, contract: str, data: str, block: int) -> int:
        """Call a contract's view that returns one word, as of a block."""
        return whole_word(await self._ask("eth_call", {"to": contract, "data": data}, hex(block)))

    async def logs(
        self, contract: str, topics: Sequence[str | Sequence[str]], blocks: tuple[int, int]
    ) -> tuple[Log, ...]:
        """Return a contract's events in a range of blocks, its ends included."""
        wanted = {
            "address": contract,
            "topics": list(topics),
            "fromBlock": hex(blocks[0]),
            "toBlock": hex(blocks[1]),
        }
        return _logs(await self._ask("eth_getLogs", wanted))

    async def receipt(self, transaction: str) -> Receipt | None:
        """Return what a transaction did; None when it is in no block that the node knows."""
        fields = await self._ask("eth_getTransactionReceipt", transaction)
        if fields is None:
            return None
        if not isinstance(fields, dict):
            raise HttpCallError("wrong_shape")
        return Receipt(quantity(fields.get("status")) == 1, _logs(fields.get("logs")))

    def close(self) -> None:
        """Close kept connections."""
        self._calls.close()

    async def _ask(self, method: str, *parameters: Any) -> Any:
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(parameters)}
        answer = await self._calls.post("chain", self._target, request)
        if answer.get("id") != 1:
            raise HttpCallError("wrong_shape")
        if answer.get("error") is not None or "result" not in answer:
            raise HttpCallError("node_refused")
        return answer["result"]


def quantity(value: object) -> int:
    """Read a number of JSON-RPC: hexadecimal with `0x`.

    Raises:
        HttpCallError: it is none.
    """
    return int(_matching(_QUANTITY, value), 16)


def whole_word(value: object) -> int:
    """Read a number that fills 32 bytes.

    Raises:
        HttpCallError: it does not.
    """
    return int(_matching(_WORD, value), 16)


def word(data: bytes | str) -> str:
    """Write an address or bytes as a topic: 32 bytes, filled with zeros on the left."""
    digits = data.hex() if isinstance(data, bytes) else data.removeprefix("0x").lower()
    return f"0x{digits:0>64}"


def _logs(values: object) -> tuple[Log, ...]:
    if not isinstance(values, list) or len(values) > LOGS_MAX:
        raise HttpCallError("wrong_shape")
    # A log that a reorganization of the chain took back did not happen.
    return tuple(_log(value) for value in values if not _is_removed(value))


def _is_removed(value: object) -> bool:
    return isinstance(value, dict) and value.get("removed") is True


def _log(value: object) -> Log:
    if not isinstance(value, Mapping):
        raise HttpCallError("wrong_shape")
    topics, data = value.get("topics"), value.get("data")
    if not isinstance(topics, list) or not isinstance(data, str):
        raise HttpCallError("wrong_shape")
    return Log(
        _matching(_ADDRESS, value.get("address")),
        tuple(_matching(_WORD, topic) for topic in topics),
        data.lower(),
        quantity(value.get("blockNumber")),
        _matching(_WORD, value.get("transactionHash")),
    )


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise HttpCallError("wrong_shape")
    return value.lower()
