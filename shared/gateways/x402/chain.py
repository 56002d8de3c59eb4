"""What the chain says of an authorization: the truth that no facilitator can change.

The token's contract keeps which nonces were used (`authorizationState`) and writes an event for
each use or cancellation, next to the transfer itself (EIP-3009).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Final, NamedTuple

from shared.gateways.http_client import HttpCallError
from shared.gateways.x402.networks import Network
from shared.gateways.x402.payload import Authorization
from shared.gateways.x402.rpc import Block, Log, Node, whole_word, word

#: First four bytes of keccak256("authorizationState(address,bytes32)").
AUTHORIZATION_STATE: Final = "0xe94a0102"

#: keccak256 of the events' signatures: AuthorizationUsed(address,bytes32),
#: AuthorizationCanceled(address,bytes32), Transfer(address,address,uint256).
USED: Final = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
CANCELED: Final = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81"
TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"

#: How far the chain's clock may be behind ours when the first block is sought.
_CLOCKS_DIFFER_BY: Final = timedelta(minutes=10)

#: Blocks by which a range of logs may begin too early or end too late: a few dozen headers less to
#: ask for. Providers refuse ranges of more than about 10,000; the fastest network has 4 a second.
_SLACK_BLOCKS: Final = 64


class Unsettled(Enum):
    """An authorization that moved no money."""

    #: Nobody has used it so far.
    UNUSED = "nonce_unused_so_far"
    #: Nobody has, and by its own terms nobody can any more.
    OVER = "authorization_expired_unused"
    CANCELED = "authorization_canceled"


@dataclass(frozen=True, slots=True)
class Transferred:
    """The transaction that carried an authorization out."""

    transaction: str


class Transfer(NamedTuple):
    """A transfer of the token, in small letters and atomic units."""

    payer: str
    recipient: str
    value: int


class Chain:
    """Reads one network's token through one node."""

    def __init__(self, node: Node, network: Network) -> None:
        self._node = node
        self._network = network
        self._token = network.token.lower()
        self._is_right_chain = False

    async def fate(
        self, authorization: Authorization, started_at: datetime
    ) -> Transferred | Unsettled:
        """Return what became of an authorization that was signed after a moment.

        Raises:
            HttpCallError: the node did not say, or not without doubt.
        """
        await self._check_chain()
        latest = await self._node.block("latest")
        if await self._is_used(authorization, latest.number):
            return await self._use(authorization, started_at, latest)
        # It can be used only in a block before `validBefore`. A final block after that moment is
        # part of every later chain, so what is unused in a descendant of it stays unused.
        final = await self._node.block("finalized")
        is_over = final.timestamp > authorization.valid_before and final.number <= latest.number
        return Unsettled.OVER if is_over else Unsettled.UNUSED

    async def transfers(
        self, transaction: str, payer: str, nonce: bytes
    ) -> tuple[Transfer, ...] | None:
        """Return the payer's transfers in a transaction that used a nonce.

        None when the transaction is not known, failed, or did not use the nonce.

        Raises:
            HttpCallError: the node did not say.
        """
        await self._check_chain()
        receipt = await self._node.receipt(transaction)
        if receipt is None or not receipt.is_success:
            return None
        logs = [log for log in receipt.logs if log.contract == self._token]
        if not any(log.topics == (USED, word(payer), word(nonce)) for log in logs):
            return None
        found = (_transfer(log) for log in logs)
        return tuple(one for one in found if one is not None and one.payer == payer.lower())

    def close(self) -> None:
        """Close kept connections."""
        self._node.close()

    async def _check_chain(self) -> None:
        # On another chain every nonce of ours looks unused, and every payment failed.
        if not self._is_right_chain:
            if await self._node.chain_id() != self._network.chain_id:
                raise HttpCallError("node_of_another_chain")
            self._is_right_chain = True

    async def _is_used(self, authorization: Authorization, block: int) -> bool:
        payer, nonce = word(authorization.payer), word(authorization.nonce)
        data = f"{AUTHORIZATION_STATE}{payer[2:]}{nonce[2:]}"
        state = await self._node.read(self._token, data, block)
        if state not in {0, 1}:
            raise HttpCallError("wrong_shape")
        return state == 1

    async def _use(
        self, authorization: Authorization, started_at: datetime, latest: Block
    ) -> Transferred | Unsettled:
        blocks = await self._blocks(authorization, started_at, latest)
        topics = ([USED, CANCELED], word(authorization.payer), word(authorization.nonce))
        wanted = {(event, *topics[1:]) for event in (USED, CANCELED)}
        events = [
            log
            for log in await self._node.logs(self._token, topics, blocks)
            if log.contract == self._token and log.topics in wanted
        ]
        used = [log for log in events if log.topics[0] == USED]
        if used:
            return await self._transferred(authorization, used[0])
        if not events:
            raise HttpCallError("use_not_found_yet")
        final = await self._node.block("finalized")
        if events[0].block > final.number:
            raise HttpCallError("cancellation_not_final_yet")
        return Unsettled.CANCELED

    async def _transferred(self, authorization: Authorization, used: Log) -> Transferred:
        wanted = Transfer(
            authorization.payer.lower(), authorization.recipient.lower(), authorization.value
        )
        topics = (TRANSFER, word(wanted.payer), word(wanted.recipient))
        logs = await self._node.logs(self._token, topics, (used.block, used.block))
        if not any(
            log.contract == self._token
            and log.transaction == used.transaction
            and _transfer(log) == wanted
            for log in logs
        ):
            raise HttpCallError("transfer_differs")
        return Transferred(used.transaction)

    async def _blocks(
        self, authorization: Authorization, started_at: datetime, latest: Block
    ) -> tuple[int, int]:
        """Return the first and last block in which the authorization can have been used."""
        since = int((started_at - _CLOCKS_DIFFER_BY).timestamp())
        first, _ = await self._around(since, latest)
        if latest.timestamp <= authorization.valid_before:
            return first, latest.number
        _, last = await self._around(authorization.valid_before, latest)
        return first, last

    async def _around(self, moment: int, latest: Block) -> tuple[int, int]:
        """Return a block before a moment and one not before it, at most the slack apart.

        Steps back in growing strides, then halves: the number of headers asked for grows with the
        logarithm of the distance.
        """
        low = high = latest.number
        stride = _SLACK_BLOCKS
        while low > 0:
            low = max(0, low - stride)
            if (await self._node.block(hex(low))).timestamp < moment:
                break
            high, stride = low, stride * 2
        while high - low > _SLACK_BLOCKS:
            middle = (low + high) // 2
            if (await self._node.block(hex(middle))).timestamp < moment:
                low = middle
            else:
                high = middle
        return low, high


def _transfer(log: Log) -> Transfer | None:
    if len(log.topics) != 3 or log.topics[0] != TRANSFER:  # noqa: PLR2004 - event, from, to
        return None
    return Transfer(f"0x{log.topics[1][-40:]}", f"0x{log.topics[2][-40:]}", whole_word(log.data))
