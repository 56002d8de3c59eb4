"""The x402 package against the simulated facilitator, chain and resource."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import requests
from x402.http import FacilitatorConfig, HTTPFacilitatorClientSync
from x402.schemas import PaymentPayload, PaymentRequirements, SettleResponse, VerifyResponse
from x402.schemas.v1 import PaymentPayloadV1, PaymentRequirementsV1

from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.world import Merchant, Simulator, running_simulator
from tests.unit.simulator.x402_payments import PAYER, authorization, request_v2, requirements

#: What a buyer signs for, in seconds from now.
WINDOW_SECONDS = 300


def fresh_authorization(**changes: str) -> dict[str, str]:
    """Return an authorization that nobody has submitted, valid from now on."""
    now = int(time.time())
    return authorization(
        **{
            "nonce": "0x" + secrets.token_hex(32),
            "validBefore": str(now + WINDOW_SECONDS),
            **changes,
        }
    )


def fresh_request(amount: int = 10_000, **changes: str) -> dict[str, Any]:
    """Return the body of `/settle` for a new payment."""
    signed = fresh_authorization(value=str(amount), **changes)
    return request_v2(signed, wanted=requirements(amount=str(amount)))


def nonce_of(request: Mapping[str, Any]) -> str:
    return str(request["paymentPayload"]["payload"]["authorization"]["nonce"])


@dataclass
class X402World:
    """A running simulator, and the package's facilitator client pointed at it."""

    simulator: Simulator
    client: HTTPFacilitatorClientSync

    async def verify(self, request: Mapping[str, Any]) -> VerifyResponse:
        """Ask with the package's client; its models read the answer."""
        return await asyncio.to_thread(self.client.verify, *_models(request))

    async def settle(self, request: Mapping[str, Any]) -> SettleResponse:
        return await asyncio.to_thread(self.client.settle, *_models(request))

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.simulator.client.post(
            f"{self.simulator.url}/x402/{path}", json=body
        ) as response:
            return response.status, await response.json()

    async def ask(self, method: str, *parameters: Any) -> Any:
        """Ask the node; return the result."""
        status, answer = await self.post("rpc", _question(method, parameters))
        assert status == 200
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", 7)
        return answer["result"]

    async def block(self, which: str) -> Any:
        return await self.ask("eth_getBlockByNumber", which, False)  # noqa: FBT003 - JSON-RPC's

    async def refusal(self, method: str, *parameters: Any) -> int:
        """Ask the node; return the code of its error."""
        _, answer = await self.post("rpc", _question(method, parameters))
        return int(answer["error"]["code"])

    async def control(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, status: int = 0
    ) -> Any:
        address = f"{self.simulator.url}/simulator/x402/{path}"
        async with self.simulator.client.request(method, address, json=body) as response:
            answer = await response.json()
            if status:
                assert status == response.status, answer
                return answer["error"]
            assert response.ok, answer
            return answer["data"]

    async def charges(self, nonce: str) -> list[dict[str, Any]]:
        return list((await self.control("GET", f"ledger?reference={nonce}"))["charges"])

    async def balance(self, address: str = PAYER) -> int:
        return int((await self.control("GET", f"balance?address={address}"))["amount"])


def _models(request: Mapping[str, Any]) -> tuple[Any, Any]:
    payload, wanted = request["paymentPayload"], request["paymentRequirements"]
    if request["x402Version"] == 1:
        return (
            PaymentPayloadV1.model_validate(payload),
            PaymentRequirementsV1.model_validate(wanted),
        )
    return PaymentPayload.model_validate(payload), PaymentRequirements.model_validate(wanted)


def _question(method: str, parameters: tuple[Any, ...]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(parameters)}


@asynccontextmanager
async def running_x402(database_url: str, merchant: Merchant) -> AsyncIterator[X402World]:
    settings = SimulatorSettings(database_url=database_url, public_url="http://gateway.example/")
    async with running_simulator(settings, merchant) as simulator:
        with requests.Session() as session:
            config = FacilitatorConfig(url=f"{simulator.url}/x402", http_client=session)
            yield X402World(simulator, HTTPFacilitatorClientSync(config))
