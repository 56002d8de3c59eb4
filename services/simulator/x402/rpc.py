"""A node of the chain: JSON-RPC, as far as finding out about an authorization needs it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from services.simulator.x402 import chain, store
from services.simulator.x402.facilitator import SIGNER, mine_due
from services.simulator.x402.runtime import Runtime
from services.simulator.x402.store import Submitted
from shared.database import Connection

Json: TypeAlias = dict[str, Any]

#: Blocks of one question for logs; public nodes have limits like this one.
RANGE_MAX: Final = 10_000

#: Transactions that one answer is made of.
TRANSACTIONS_MAX: Final = 10_000

#: Questions in one request.
BATCH_MAX: Final = 100

METHOD_UNKNOWN: Final = -32601
PARAMETERS_INVALID: Final = -32602
REQUEST_INVALID: Final = -32600

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
_HASH: Final = re.compile(r"0x[0-9a-fA-F]{64}")
_WORD_DIGITS: Final = 64
_SELECTOR_LENGTH: Final = 10


class RefusedError(Exception):
    """A question that the node does not answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Node:
    """The chain as it is at a moment; a node that lags behind is given an earlier one."""

    def __init__(self, runtime: Runtime, connection: Connection, now: datetime) -> None:
        self._network = runtime.network
        self._token = runtime.network.token.lower()
        self._connection = connection
        self._latest = chain.block_at(now)

    async def answer(self, method: str, parameters: Sequence[Any]) -> Any:
        """Answer one question.

        Raises:
            RefusedError: it is unknown, or wrongly asked.
        """
        handler = _METHODS.get(method)
        if handler is None:
            raise RefusedError(
                METHOD_UNKNOWN, f"the method {method[:50]} does not exist/is not available"
            )
        return await handler(self, parameters)

    async def chain_id(self, _parameters: Sequence[Any]) -> str:
        """Return which chain this is."""
        return hex(self._network.chain_id)

    async def network_version(self, _parameters: Sequence[Any]) -> str:
        """Return the same in decimal digits."""
        return str(self._network.chain_id)

    async def block_number(self, _parameters: Sequence[Any]) -> str:
        """Return the newest block."""
        return hex(self._latest)

    async def block(self, parameters: Sequence[Any]) -> Json | None:
        """Return a block, or none if it is still to come."""
        number = self._number(_at(parameters, 0))
        return None if number > self._latest else chain.block(self._network, number)

    async def call(self, parameters: Sequence[Any]) -> str:
        """Answer for the token; other addresses have no code."""
        question, at = _at(parameters, 0), self._number(_at(parameters, 1, "latest"))
        if not isinstance(question, Mapping):
            raise _invalid("the call is no object")
        data = question.get("data", question.get("input"))
        if not isinstance(data, str) or str(question.get("to")).lower() != self._token:
            return "0x"
        selector, words = data[:_SELECTOR_LENGTH].lower(), data[_SELECTOR_LENGTH:].lower()
        if selector == chain.AUTHORIZATION_STATE and len(words) == 2 * _WORD_DIGITS:
            payer, nonce = "0x" + words[24:_WORD_DIGITS], "0x" + words[_WORD_DIGITS:]
            return chain.number_word(int(await self._is_used(payer, nonce, at)))
        if selector == chain.BALANCE_OF and len(words) == _WORD_DIGITS:
            balance = await store.find_balance(
                self._connection, self._network.caip, self._token, "0x" + words[24:]
            )
            return chain.number_word(balance)
        return "0x"

    async def logs(self, parameters: Sequence[Any]) -> list[Json]:
        """Return the events that a filter describes."""
        wish = _at(parameters, 0)
        if not isinstance(wish, Mapping):
            raise _invalid("the filter is no object")
        first, last = self._range(wish)
        addresses = wish.get("address") or [self._token]
        if isinstance(addresses, str):
            addresses = [addresses]
        if not isinstance(addresses, list):
            raise _invalid("the address is none")
        wanted = {str(address).lower() for address in addresses}
        if self._token not in wanted or first > self._latest:
            return []
        topics = _topics(wish.get("topics"))
        mined = await self._mined(topics, first, last)
        events = [log for each in mined for log in chain.logs_of(self._network, each)]
        return [log for log in events if chain.is_wanted(log, topics)]

    async def receipt(self, parameters: Sequence[Any]) -> Json | None:
        """Return what a transaction did, or none while no block has taken it."""
        transaction = _at(parameters, 0)
        if not isinstance(transaction, str) or _HASH.fullmatch(transaction) is None:
            raise _invalid("the transaction hash is none")
        found = await store.find_transaction(self._connection, transaction.lower())
        if found is None or found.network != self._network.caip or not self._has(found):
            return None
        return chain.receipt(self._network, found, SIGNER)

    def _range(self, wish: Mapping[str, Any]) -> tuple[int, int]:
        if "blockHash" in wish:
            raise _invalid("this node wants a range of blocks")
        first = self._number(wish.get("fromBlock", "latest"))
        last = self._number(wish.get("toBlock", "latest"))
        if first > last:
            raise _invalid("invalid block range")
        if last - first >= RANGE_MAX:
            raise _invalid(f"eth_getLogs is limited to a {RANGE_MAX} range")
        return first, last

    async def _mined(
        self, topics: Sequence[str | Sequence[str] | None], first: int, last: int
    ) -> list[Submitted]:
        """Return what the blocks have taken; of one nonce, if the filter has one."""
        payer = _only(topics, 1)
        kinds, third = topics[0] if topics else None, _only(topics, 2)
        wanted = {kinds} if isinstance(kinds, str) else set(kinds or ())
        if third is not None and wanted and chain.TRANSFER not in wanted:
            found = await store.list_of_nonce(self._connection, third, TRANSACTIONS_MAX)
            found = [each for each in found if each.network == self._network.caip]
        else:
            between = (chain.time_of(first), chain.time_of(min(last, self._latest) + 1))
            found = await store.list_mined(
                self._connection,
                self._network.caip,
                between,
                None if payer is None else "0x" + payer[-40:],
                TRANSACTIONS_MAX,
            )
        return [each for each in found if self._has(each, first, last)]

    async def _is_used(self, payer: str, nonce: str, at: int) -> bool:
        found = await store.list_of_nonce(self._connection, nonce, TRANSACTIONS_MAX)
        return any(
            each.payer == payer and each.network == self._network.caip and self._has(each, last=at)
            for each in found
        )

    def _has(self, submitted: Submitted, first: int = 0, last: int | None = None) -> bool:
        """Tell whether a block from `first` to `last`, and no later one, has taken it."""
        if submitted.mined_at is None:
            return False
        newest = self._latest if last is None else min(last, self._latest)
        return first <= chain.block_at(submitted.mined_at) <= newest

    def _number(self, text: Any) -> int:
        if text in ("latest", "pending"):
            return self._latest
        if text in ("finalized", "safe"):
            return max(0, self._latest - chain.FINALITY_BLOCKS)
        if text == "earliest":
            return 0
        if not isinstance(text, str) or _QUANTITY.fullmatch(text) is None:
            raise _invalid("the block is no number and no tag")
        return int(text, 16)


_METHODS: Final[Mapping[str, Callable[[Node, Sequence[Any]], Awaitable[Any]]]] = MappingProxyType(
    {
        "eth_chainId": Node.chain_id,
        "net_version": Node.network_version,
        "eth_blockNumber": Node.block_number,
        "eth_getBlockByNumber": Node.block,
        "eth_call": Node.call,
        "eth_getLogs": Node.logs,
        "eth_getTransactionReceipt": Node.receipt,
    }
)


async def respond(runtime: Runtime, request: Any, now: datetime) -> Any:
    """Answer a request: one question, or a list of them."""
    await mine_due(runtime)
    async with runtime.core.database.connection() as connection:
        node = Node(runtime, connection, now)
        if isinstance(request, list) and 0 < len(request) <= BATCH_MAX:
            return [await _respond(node, each) for each in request]
        return await _respond(node, request)


async def _respond(node: Node, question: Any) -> Json:
    answer: Json = {"jsonrpc": "2.0", "id": None}
    method = question.get("method") if isinstance(question, Mapping) else None
    if not isinstance(method, str):
        return {**answer, "error": {"code": REQUEST_INVALID, "message": "invalid request"}}
    answer["id"] = question.get("id")
    parameters = question.get("params", [])
    try:
        if not isinstance(parameters, list):
            raise _invalid("the parameters are no list")
        return {**answer, "result": await node.answer(method, parameters)}
    except RefusedError as error:
        return {**answer, "error": {"code": error.code, "message": error.message}}


def _topics(value: Any) -> Sequence[str | Sequence[str] | None]:
    topics = [] if value is None else value
    if not isinstance(topics, list):
        raise _invalid("the topics are no list")
    for topic in topics:
        words = topic if isinstance(topic, list) else [topic]
        if topic is not None and not all(
            isinstance(word, str) and _HASH.fullmatch(word) for word in words
        ):
            raise _invalid("a topic is no word of 32 bytes")
    return topics


def _only(topics: Sequence[str | Sequence[str] | None], position: int) -> str | None:
    topic = topics[position] if position < len(topics) else None
    return topic.lower() if isinstance(topic, str) else None


def _at(parameters: Sequence[Any], position: int, otherwise: Any = None) -> Any:
    return parameters[position] if position < len(parameters) else otherwise


def _invalid(message: str) -> RefusedError:
    return RefusedError(PARAMETERS_INVALID, message)
