"""x402 for tests: vectors with known hashes, and a second reading of facilitator and chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from shared.gateways.interface import Customer, Order, Wallet
from shared.money import Money
from tests.support.scripted_server import Exchange, Script, answer

#: Publicly known; whatever is sent to it is gone.
PRIVATE_KEY = "01" * 32
PAYER = "0x1a642f0E3c3aF545E7AcBD38b07251B3990914F1"
RECIPIENT = "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"
TOKEN = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"

#: keccak256("invoice:inv_123:attempt:1").
NONCE = bytes.fromhex("5cc48071bb9d31e10945df544c3b8b8bd23674bf588a3a13ebf42844b22b8e74")
VALID_BEFORE = 1_767_614_700

SIGNATURE_ON_BASE_SEPOLIA = (
    "0x69ad505da349e76bb30e9101aa6753bd4ef4dbdfa806686c376755618ccc698156cfbaab7c6f3e6c60cfd64bec"
    "42655b74e5119ca682a77182ed2e3a456377f91b"
)
SIGNATURE_ON_BASE = (
    "0xd22d4a48869d2d3ad0bb30edcca55ec64962ad91e31b0aca64321971e0b691d077b682457184d4865f79974de2"
    "21c9109cb1f5be5b1be440e2a049f7b01b1f0a1c"
)

PAYMENT_REQUIRED_VALUE = (
    "eyJ4NDAyVmVyc2lvbiI6MiwiZXJyb3IiOiJQQVlNRU5ULVNJR05BVFVSRSBoZWFkZXIgaXMgcmVxdWlyZWQiLCJyZXNv"
    "dXJjZSI6eyJ1cmwiOiJodHRwczovL2FwaS5leGFtcGxlLmNvbS92MS9pbnZvaWNlcy9pbnZfMTIzL3BheSIsImRlc2Ny"
    "aXB0aW9uIjoiSW52b2ljZSBpbnZfMTIzIiwibWltZVR5cGUiOiJhcHBsaWNhdGlvbi9qc29uIn0sImFjY2VwdHMiOlt7"
    "InNjaGVtZSI6ImV4YWN0IiwibmV0d29yayI6ImVpcDE1NTo4NDUzMiIsImFtb3VudCI6IjEwMDAwIiwiYXNzZXQiOiIw"
    "eDAzNkNiRDUzODQyYzU0MjY2MzRlNzkyOTU0MWVDMjMxOGYzZENGN2UiLCJwYXlUbyI6IjB4NTA1MEE0RjRiM2Y5MzM4"
    "QzM0NzJkY0MwMUE4N0M3NkExNDRiM2M5YyIsIm1heFRpbWVvdXRTZWNvbmRzIjozMDAsImV4dHJhIjp7Im5hbWUiOiJV"
    "U0RDIiwidmVyc2lvbiI6IjIifX1dfQ=="
)
PAYMENT_SIGNATURE_VALUE = (
    "eyJ4NDAyVmVyc2lvbiI6MiwicmVzb3VyY2UiOnsidXJsIjoiaHR0cHM6Ly9hcGkuZXhhbXBsZS5jb20vdjEvaW52b2lj"
    "ZXMvaW52XzEyMy9wYXkiLCJkZXNjcmlwdGlvbiI6Ikludm9pY2UgaW52XzEyMyIsIm1pbWVUeXBlIjoiYXBwbGljYXRp"
    "b24vanNvbiJ9LCJhY2NlcHRlZCI6eyJzY2hlbWUiOiJleGFjdCIsIm5ldHdvcmsiOiJlaXAxNTU6ODQ1MzIiLCJhbW91"
    "bnQiOiIxMDAwMCIsImFzc2V0IjoiMHgwMzZDYkQ1Mzg0MmM1NDI2NjM0ZTc5Mjk1NDFlQzIzMThmM2RDRjdlIiwicGF5"
    "VG8iOiIweDUwNTBBNEY0YjNmOTMzOEMzNDcyZGNDMDFBODdDNzZBMTQ0YjNjOWMiLCJtYXhUaW1lb3V0U2Vjb25kcyI6"
    "MzAwLCJleHRyYSI6eyJuYW1lIjoiVVNEQyIsInZlcnNpb24iOiIyIn19LCJwYXlsb2FkIjp7InNpZ25hdHVyZSI6IjB4"
    "NjlhZDUwNWRhMzQ5ZTc2YmIzMGU5MTAxYWE2NzUzYmQ0ZWY0ZGJkZmE4MDY2ODZjMzc2NzU1NjE4Y2NjNjk4MTU2Y2Zi"
    "YWFiN2M2ZjNlNmM2MGNmZDY0YmVjNDI2NTViNzRlNTExOWNhNjgyYTc3MTgyZWQyZTNhNDU2Mzc3ZjkxYiIsImF1dGhv"
    "cml6YXRpb24iOnsiZnJvbSI6IjB4MWE2NDJmMEUzYzNhRjU0NUU3QWNCRDM4YjA3MjUxQjM5OTA5MTRGMSIsInRvIjoi"
    "MHg1MDUwQTRGNGIzZjkzMzhDMzQ3MmRjQzAxQTg3Qzc2QTE0NGIzYzljIiwidmFsdWUiOiIxMDAwMCIsInZhbGlkQWZ0"
    "ZXIiOiIwIiwidmFsaWRCZWZvcmUiOiIxNzY3NjE0NzAwIiwibm9uY2UiOiIweDVjYzQ4MDcxYmI5ZDMxZTEwOTQ1ZGY1"
    "NDRjM2I4YjhiZDIzNjc0YmY1ODhhM2ExM2ViZjQyODQ0YjIyYjhlNzQifX19"
)
PAYMENT_RESPONSE_VALUE = (
    "eyJzdWNjZXNzIjp0cnVlLCJwYXllciI6IjB4MWE2NDJmMEUzYzNhRjU0NUU3QWNCRDM4YjA3MjUxQjM5OTA5MTRGMSIs"
    "InRyYW5zYWN0aW9uIjoiMHhhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFiYWJhYmFi"
    "YWJhYmFiYWJhYmFiIiwibmV0d29yayI6ImVpcDE1NTo4NDUzMiJ9"
)
X_PAYMENT_VALUE = (
    "eyJ4NDAyVmVyc2lvbiI6MSwic2NoZW1lIjoiZXhhY3QiLCJuZXR3b3JrIjoiYmFzZS1zZXBvbGlhIiwicGF5bG9hZCI6"
    "eyJzaWduYXR1cmUiOiIweDY5YWQ1MDVkYTM0OWU3NmJiMzBlOTEwMWFhNjc1M2JkNGVmNGRiZGZhODA2Njg2YzM3Njc1"
    "NTYxOGNjYzY5ODE1NmNmYmFhYjdjNmYzZTZjNjBjZmQ2NGJlYzQyNjU1Yjc0ZTUxMTljYTY4MmE3NzE4MmVkMmUzYTQ1"
    "NjM3N2Y5MWIiLCJhdXRob3JpemF0aW9uIjp7ImZyb20iOiIweDFhNjQyZjBFM2MzYUY1NDVFN0FjQkQzOGIwNzI1MUIz"
    "OTkwOTE0RjEiLCJ0byI6IjB4NTA1MEE0RjRiM2Y5MzM4QzM0NzJkY0MwMUE4N0M3NkExNDRiM2M5YyIsInZhbHVlIjoi"
    "MTAwMDAiLCJ2YWxpZEFmdGVyIjoiMCIsInZhbGlkQmVmb3JlIjoiMTc2NzYxNDcwMCIsIm5vbmNlIjoiMHg1Y2M0ODA3"
    "MWJiOWQzMWUxMDk0NWRmNTQ0YzNiOGI4YmQyMzY3NGJmNTg4YTNhMTNlYmY0Mjg0NGIyMmI4ZTc0In19fQ=="
)

REFERENCE = "att_01KE70EHG0JY1QREBD77BRA2Z8"
STARTED_AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
TRANSACTION = f"0x{'ab' * 32}"
NONCE_KEY = "a-nonce-key-for-tests-only"


def order(**changes: Any) -> Order:
    """Return an order of 0.01 USDC."""
    values: dict[str, Any] = {
        "reference": REFERENCE,
        "amount": Money(10_000, "USDC"),
        "method": Wallet(RECIPIENT),
        "customer": Customer("cus_1", "Ada Søn", "ada@shop.example", "23700000000"),
        "product_name": "Course",
        "started_at": STARTED_AT,
    }
    return Order(**(values | changes))


def supported(version: int = 2, network: str = "eip155:84532", **changes: Any) -> dict[str, Any]:
    """Return what a facilitator says of itself."""
    kind = {"x402Version": version, "scheme": "exact", "network": network, "extra": {}}
    return {"kinds": [kind | changes], "extensions": [], "signers": {"eip155:*": [RECIPIENT]}}


VALID = {"isValid": True, "payer": PAYER}


def invalid(reason: str | None, **changes: Any) -> dict[str, Any]:
    """Return a facilitator's refusal to verify."""
    return {"isValid": False, "invalidReason": reason, "payer": PAYER} | changes


def settled(**changes: Any) -> dict[str, Any]:
    """Return a facilitator's word that a payment was made."""
    fields = {"success": True, "payer": PAYER, "transaction": TRANSACTION}
    return fields | {"network": "eip155:84532"} | changes


def unsettled(reason: str | None, **changes: Any) -> dict[str, Any]:
    """Return a facilitator's word that a payment was not made."""
    fields = {"success": False, "errorReason": reason, "payer": PAYER, "transaction": ""}
    return fields | {"network": "eip155:84532"} | changes


def reply(fields: object) -> bytes:
    return answer(orjson.dumps(fields))


@dataclass
class FakeChain:
    """A chain with a block every two seconds, answering the methods of JSON-RPC that we use.

    `events` are (block, topics, data, transaction); they are all the token's.
    """

    latest: int = 1_000
    finalized: int = 900
    genesis: int = int((STARTED_AT - timedelta(seconds=1_400)).timestamp())
    chain_id: int = 84_532
    is_used: bool = False
    events: list[tuple[int, list[str], str, str]] = field(default_factory=list)
    #: Replaces the whole result of a method.
    results: dict[str, Any] = field(default_factory=dict)
    calls: list[tuple[str, list[Any]]] = field(default_factory=list)

    def time_of(self, number: int) -> int:
        return self.genesis + 2 * number

    def block_at(self, moment: datetime) -> int:
        """Return the first block that is not before a moment."""
        return -((self.genesis - int(moment.timestamp())) // 2)

    def use(
        self,
        nonce: bytes,
        block: int,
        *,
        value: int = 10_000,
        recipient: str = RECIPIENT,
        payer: str = PAYER,
        transferred_in: str = TRANSACTION,
    ) -> None:
        """Carry an authorization out."""
        self.is_used = True
        data = f"0x{value:064x}"
        self.events.append((block, [USED, topic(payer), f"0x{nonce.hex()}"], "0x", TRANSACTION))
        transfer = [TRANSFER, topic(payer), topic(recipient)]
        self.events.append((block, transfer, data, transferred_in))

    def cancel(self, nonce: bytes, block: int) -> None:
        """Cancel an authorization."""
        self.is_used = True
        topics = [CANCELED, topic(PAYER), f"0x{nonce.hex()}"]
        self.events.append((block, topics, "0x", TRANSACTION))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, parameters = request["method"], request["params"]
        self.calls.append((method, parameters))
        if method in self.results:
            result = self.results[method]
        else:
            methods: dict[str, Callable[..., Any]] = {
                "eth_chainId": lambda: hex(self.chain_id),
                "eth_getBlockByNumber": self._block,
                "eth_call": self._call,
                "eth_getLogs": self._logs,
                "eth_getTransactionReceipt": self._receipt,
            }
            result = methods[method](*parameters)
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}

    def _block(self, which: str, _with_transactions: bool) -> dict[str, str] | None:  # noqa: FBT001
        tags = {"latest": self.latest, "finalized": self.finalized}
        number = tags[which] if which in tags else int(which, 16)
        if number > self.latest:
            return None
        return {"number": hex(number), "timestamp": hex(self.time_of(number)), "hash": "0x00"}

    def _call(self, call: dict[str, str], block: str) -> str:
        assert call["to"].lower() == TOKEN.lower()
        assert call["data"].startswith("0xe94a0102")
        assert call["data"][10:74] == topic(PAYER)[2:]
        assert int(block, 16) == self.latest
        return f"0x{int(self.is_used):064x}"

    def _logs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        assert wanted["address"].lower() == TOKEN.lower()
        low, high = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        assert high - low <= 2_000, "as much as a careful provider allows"
        return [
            self._log(*event)
            for event in self.events
            if low <= event[0] <= high and _is_wanted(event[1], wanted["topics"])
        ]

    def _receipt(self, transaction: str) -> dict[str, Any] | None:
        if transaction != TRANSACTION:
            return None
        return {"status": "0x1", "logs": [self._log(*event) for event in self.events]}

    def _log(self, block: int, topics: list[str], data: str, transaction: str) -> dict[str, Any]:
        return {
            "address": TOKEN.lower(),
            "topics": topics,
            "data": data,
            "blockNumber": hex(block),
            "transactionHash": transaction,
            "logIndex": "0x0",
            "removed": False,
        }


USED = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5"
CANCELED = "0x1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81"
TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def topic(address: str) -> str:
    """Write an address as a topic of an event."""
    return "0x" + "0" * 24 + address[2:].lower()


def _is_wanted(topics: Sequence[str], wanted: Sequence[str | Sequence[str]]) -> bool:
    return len(topics) >= len(wanted) and all(
        have in ([want] if isinstance(want, str) else want)
        for have, want in zip(topics, wanted, strict=False)
    )


def answering(respond: Callable[[bytes], bytes]) -> Script:
    """Answer a request by what it says."""

    async def script(exchange: Exchange) -> bool:
        exchange.writer.write(respond(exchange.request))
        await exchange.writer.drain()
        return True

    return script


def path_of(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode()


def body_of(request: bytes) -> Any:
    return orjson.loads(request.partition(b"\r\n\r\n")[2])


@dataclass
class FakeWorld:
    """A facilitator whose answers are queued by path, and a chain at `/rpc`."""

    chain: FakeChain = field(default_factory=FakeChain)
    queues: dict[str, list[Script | bytes]] = field(default_factory=dict)
    #: Paths and bodies, in order; those of the chain are in its `calls`.
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def then(self, path: str, *scripts: Script | bytes | dict[str, Any]) -> None:
        """Queue what the next calls to a path get: an object is answered with status 200."""
        queue = self.queues.setdefault(path, [])
        queue += [reply(script) if isinstance(script, dict) else script for script in scripts]

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    async def __call__(self, exchange: Exchange) -> bool:
        path = path_of(exchange.request)
        if path == "/rpc" and not self.queues.get(path):
            exchange.writer.write(reply(self.chain.answer(body_of(exchange.request))))
            await exchange.writer.drain()
            return True
        is_post = exchange.request.startswith(b"POST")
        self.asked.append((path, body_of(exchange.request) if is_post else None))
        script = self.queues[path].pop(0)
        if isinstance(script, bytes):
            exchange.writer.write(script)
            await exchange.writer.drain()
            return True
        done: Awaitable[bool] = script(exchange)
        return await done
