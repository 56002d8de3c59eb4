"""The x402 package's client and models drive the simulated facilitator and its chain."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import asyncpg
import pytest
from x402.http.utils import (
    decode_payment_required_header,
    decode_payment_response_header,
    encode_payment_signature_header,
)
from x402.schemas import PaymentPayload
from x402.schemas.v1 import PaymentRequiredV1

from services.simulator.x402.chain import CANCELED, TRANSFER, USED
from tests.integration.simulator.world import Merchant, eventually
from tests.integration.simulator.x402_world import (
    X402World,
    fresh_authorization,
    fresh_request,
    nonce_of,
    running_x402,
)
from tests.unit.simulator.x402_payments import (
    PAY_TO,
    PAYER,
    USDC,
    request_v1,
    request_v2,
    requirements,
    sign,
)

NONCE_USED = "invalid_exact_evm_nonce_already_used"


@pytest.fixture
async def world(new_database: str, merchant: Merchant) -> AsyncIterator[X402World]:
    async with running_x402(new_database, merchant) as world:
        yield world


def word(address: str) -> str:
    return "0x" + address[2:].lower().rjust(64, "0")


async def is_used(world: X402World, nonce: str, block: str = "latest") -> bool:
    data = f"0xe94a0102{word(PAYER)[2:]}{nonce[2:]}"
    return int(await world.ask("eth_call", {"to": USDC, "data": data}, block), 16) == 1


async def logs(world: X402World, *topics: Any, first: str = "latest") -> list[dict[str, Any]]:
    wish = {"address": USDC, "topics": list(topics), "fromBlock": first, "toBlock": "latest"}
    found = await world.ask("eth_getLogs", wish)
    assert isinstance(found, list)
    return found


async def recently(world: X402World) -> str:
    return hex(int(await world.ask("eth_blockNumber"), 16) - 50)


async def test_the_facilitator_lists_both_versions(world: X402World) -> None:
    listed = await asyncio.to_thread(world.client.get_supported)

    kinds = {(kind.x402_version, kind.network) for kind in listed.kinds}
    assert {(2, "eip155:84532"), (1, "base-sepolia"), (2, "eip155:8453"), (1, "base")} <= kinds
    assert {kind.scheme for kind in listed.kinds} == {"exact"}


@pytest.mark.parametrize("version", [1, 2])
async def test_a_payment_is_verified_and_settled_once(world: X402World, version: int) -> None:
    signed = fresh_authorization()
    request = request_v1(signed) if version == 1 else request_v2(signed)
    before = await world.balance()

    verified = await world.verify(request)
    settled = await world.settle(request)
    again = await world.settle(request)

    (charge,) = await world.charges(signed["nonce"])
    assert verified.is_valid
    assert settled.success
    assert settled.payer == PAYER.lower()
    assert settled.network == ("base-sepolia" if version == 1 else "eip155:84532")
    assert (again.success, again.error_reason) == (False, NONCE_USED)
    assert charge["gatewayPaymentId"] == settled.transaction
    assert (charge["amount"], charge["currency"]) == (10_000, "USDC")
    assert await world.balance() == before - 10_000


async def test_the_same_payment_at_once_is_transferred_once(world: X402World) -> None:
    request = fresh_request()

    settled = await asyncio.gather(*(world.settle(request) for _ in range(8)))

    assert [each.error_reason for each in settled if not each.success] == [NONCE_USED] * 7
    assert len(await world.charges(nonce_of(request))) == 1


async def test_many_payments_at_once_add_up(world: X402World) -> None:
    before = await world.balance()

    settled = await asyncio.gather(*(world.settle(fresh_request()) for _ in range(8)))

    assert all(each.success for each in settled)
    assert await world.balance() == before - 80_000
    assert await world.balance(PAY_TO) - 80_000 == before


async def test_the_chain_tells_what_a_resolver_asks(world: X402World) -> None:
    request = fresh_request()
    nonce = nonce_of(request)
    assert not await is_used(world, nonce)

    settled = await world.settle(request)

    assert await is_used(world, nonce)
    assert not await is_used(world, nonce, await recently(world))
    first = await recently(world)
    (used,) = await logs(world, [USED, CANCELED], word(PAYER), nonce, first=first)
    moved = await logs(world, TRANSFER, word(PAYER), word(PAY_TO), first=first)
    receipt = await world.ask("eth_getTransactionReceipt", settled.transaction)
    assert used["topics"] == [USED, word(PAYER), nonce]
    assert [int(log["data"], 16) for log in moved] == [10_000]
    assert used["transactionHash"] == moved[0]["transactionHash"] == settled.transaction
    assert (receipt["status"], receipt["logs"]) == ("0x1", [used, *moved])
    assert await logs(world, USED, word(PAY_TO), first=first) == []
    assert int(await world.ask("eth_chainId"), 16) == 84532


async def test_blocks_go_with_the_clock_and_become_final(world: X402World) -> None:
    latest = await world.block("latest")
    final = await world.block("finalized")
    number = int(latest["number"], 16)

    before = await world.block(hex(number - 1))
    to_come = await world.block(hex(number + 1000))

    assert int(latest["timestamp"], 16) - int(before["timestamp"], 16) == 2
    assert latest["parentHash"] == before["hash"]
    assert 0 < number - int(final["number"], 16) < 10
    assert to_come is None


async def test_the_node_refuses_what_real_ones_refuse(world: X402World) -> None:
    wide = {"address": USDC, "topics": [], "fromBlock": "0x0", "toBlock": "latest"}

    assert await world.refusal("eth_getLogs", wide) == -32602
    assert await world.refusal("eth_sendRawTransaction", "0x") == -32601
    assert await world.refusal("eth_getBlockByNumber", "newest") == -32602
    assert await world.refusal("eth_getLogs", {"address": 7}) == -32602
    far = hex(2**60)
    assert await world.ask("eth_getLogs", {"fromBlock": far, "toBlock": far}) == []
    status, batch = await world.post(
        "rpc", [{"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"}, "nonsense"]
    )
    assert status == 200
    assert [each.get("result") for each in batch] == [hex(84532), None]


async def test_a_pending_settlement_is_said_to_have_succeeded_when_asked_again(
    world: X402World,
) -> None:
    request = fresh_request(10_005)

    first = await world.settle(request)
    second = await world.settle(request)
    third = await world.settle(request)

    assert (first.success, first.error_reason) == (False, "settlement_pending")
    assert first.transaction.startswith("0x")
    assert second.success
    assert second.transaction == first.transaction
    assert third.error_reason == NONCE_USED
    assert len(await world.charges(nonce_of(request))) == 1


async def test_a_late_settlement_is_in_a_block_when_it_is_due(world: X402World) -> None:
    request = fresh_request(10_004)
    nonce = nonce_of(request)
    first = await world.settle(request)
    second = await world.settle(request)
    assert (first.error_reason, second.error_reason) == ("settlement_pending",) * 2
    assert not await is_used(world, nonce)
    assert await world.ask("eth_getTransactionReceipt", first.transaction) is None

    await world.simulator.execute("UPDATE x402_authorization SET mines_at = now()")

    async def mined() -> bool:
        return bool(await world.charges(nonce))

    await eventually(mined)
    assert await is_used(world, nonce)
    assert (await world.settle(request)).success


async def test_a_settlement_that_no_block_takes_in_time_is_void(world: X402World) -> None:
    request = fresh_request(10_003)
    assert (await world.settle(request)).error_reason == "settlement_pending"

    await world.simulator.execute(
        "UPDATE x402_authorization"
        " SET mines_at = now(), valid_before = extract(epoch FROM now())::bigint - 10"
    )

    async def dropped() -> bool:
        session = await world.control("GET", f"sessions/{nonce_of(request)}")
        return bool(session["state"] == "dropped")

    await eventually(dropped)
    assert await world.charges(nonce_of(request)) == []
    assert not await is_used(world, nonce_of(request))


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (10_001, "insufficient_funds"),
        (10_002, "invalid_exact_evm_insufficient_balance"),
        (10_012, "invalid_exact_evm_payload_authorization_valid_before"),
    ],
)
async def test_magic_amounts_refuse_at_both_calls(
    world: X402World, amount: int, reason: str
) -> None:
    request = fresh_request(amount)

    verified, settled = await world.verify(request), await world.settle(request)

    assert (verified.is_valid, verified.invalid_reason) == (False, reason)
    assert (settled.success, settled.error_reason) == (False, reason)
    assert not await is_used(world, nonce_of(request))
    assert await world.charges(nonce_of(request)) == []


async def test_an_unexpected_error_may_hide_a_transfer(world: X402World) -> None:
    request = fresh_request(10_013)

    settled = await world.settle(request)

    assert (settled.error_reason, settled.transaction) == ("unexpected_settle_error", "")
    assert len(await world.charges(nonce_of(request))) == 1


async def test_a_500_after_the_transfer_leaves_a_used_nonce(world: X402World) -> None:
    request = fresh_request(10_018)

    with pytest.raises(ValueError, match=r"settle failed \(500\)"):
        await world.settle(request)

    assert await is_used(world, nonce_of(request))
    assert (await world.settle(request)).error_reason == NONCE_USED
    assert len(await world.charges(nonce_of(request))) == 1


async def test_a_call_refused_before_the_work_can_be_repeated(world: X402World) -> None:
    for amount, status in ((10_014, 500), (10_019, 429), (10_020, 409)):
        request = fresh_request(amount)
        address = f"{world.simulator.url}/x402/settle"
        async with world.simulator.client.post(address, json=request) as response:
            assert response.status == status
            assert ("Retry-After" in response.headers) == (status == 429)
        assert await world.charges(nonce_of(request)) == []

        assert (await world.settle(request)).success


async def test_the_answer_can_be_lost_after_the_transfer(world: X402World) -> None:
    for amount in (10_015, 10_022):
        request = fresh_request(amount)

        with pytest.raises(aiohttp.ClientError):
            await world.post("settle", request)

        assert len(await world.charges(nonce_of(request))) == 1


async def test_a_payer_may_cancel_what_is_not_used(world: X402World) -> None:
    request = fresh_request()
    nonce = nonce_of(request)

    await world.control("POST", "cancel", {"payer": PAYER, "nonce": nonce})

    (log,) = await logs(world, [USED, CANCELED], word(PAYER), nonce, first=await recently(world))
    assert log["topics"][0] == CANCELED
    assert await is_used(world, nonce)
    assert (await world.verify(request)).invalid_reason == NONCE_USED
    assert (await world.settle(request)).error_reason == NONCE_USED
    await world.control("POST", "cancel", {"payer": PAYER, "nonce": nonce}, status=409)
    await world.settle(other := fresh_request())
    await world.control("POST", "cancel", {"payer": PAYER, "nonce": nonce_of(other)}, status=409)


async def test_postgres_itself_refuses_a_nonce_that_is_used_twice(world: X402World) -> None:
    await world.settle(fresh_request())

    with pytest.raises(asyncpg.CheckViolationError, match="x402 has no step"):
        await world.simulator.execute(
            "UPDATE x402_authorization SET state = 'broadcast', mined_at = NULL"
        )


async def test_a_payer_can_only_give_what_it_has(world: X402World) -> None:
    await world.control("PUT", "balance", {"address": PAYER, "amount": 15_000})

    first, second = await world.settle(fresh_request()), await world.settle(fresh_request())

    assert first.success
    assert second.error_reason == "invalid_exact_evm_insufficient_balance"
    assert await world.balance() == 5_000


async def test_the_balance_never_falls_below_zero_at_once(world: X402World) -> None:
    await world.control("PUT", "balance", {"address": PAYER, "amount": 35_000})

    bodies = await asyncio.gather(*(world.post("settle", fresh_request()) for _ in range(8)))

    assert sum(body.get("success") is True for _, body in bodies) == 3
    assert await world.balance() == 5_000


async def test_a_wrong_domain_name_is_refused(world: X402World) -> None:
    signed = fresh_authorization()
    wrong = {"name": "USD Coin", "version": "2"}
    request = request_v2(signed, signature=sign(signed, domain=wrong))

    verified = await world.verify(request)

    assert verified.invalid_reason == "invalid_exact_evm_payload_signature"


async def test_a_node_can_lag_behind(world: X402World) -> None:
    request = fresh_request()
    await world.settle(request)
    script = {"operation": "rpc", "behaviour": "lagging", "delaySeconds": 60}
    await world.control("POST", "script", script)

    assert not await is_used(world, nonce_of(request))
    assert await is_used(world, nonce_of(request))


async def test_what_is_no_json_is_a_bad_request(world: X402World) -> None:
    address = f"{world.simulator.url}/x402/settle"
    async with world.simulator.client.post(address, data=b"{") as response:
        assert response.status == 400


async def test_a_profile_decides_the_same_for_the_same_nonce(world: X402World) -> None:
    profile = {"seed": 7, "fates": {"late_success": 100}, "lateSeconds": 600}
    async with world.simulator.client.put(
        f"{world.simulator.url}/simulator/profile", json=profile
    ) as response:
        assert response.ok
    request = fresh_request()

    settled = await world.settle(request)

    session = await world.control("GET", f"sessions/{nonce_of(request)}")
    assert settled.error_reason == "settlement_pending"
    assert session["fate"]["fate"] == "late_success"
    acted = await world.control("POST", "pay", {"reference": nonce_of(request)})
    assert acted["state"] == "used"
    assert len(await world.charges(nonce_of(request))) == 1


async def test_the_resource_sells_to_a_buyer_of_version_2(world: X402World) -> None:
    address = f"{world.simulator.url}/x402/resource"
    async with world.simulator.client.get(address) as response:
        assert response.status == 402
        wanted = decode_payment_required_header(response.headers["PAYMENT-REQUIRED"])
    accepted = wanted.accepts[0]
    signed = fresh_authorization()
    payload = PaymentPayload(
        accepted=accepted, payload={"signature": sign(signed), "authorization": signed}
    )
    header = {"PAYMENT-SIGNATURE": encode_payment_signature_header(payload)}

    async with world.simulator.client.get(address, headers=header) as response:
        assert response.status == 200
        receipt = decode_payment_response_header(response.headers["PAYMENT-RESPONSE"])
    async with world.simulator.client.get(address, headers=header) as response:
        assert response.status == 402
        again = decode_payment_required_header(response.headers["PAYMENT-REQUIRED"])

    assert receipt.success
    assert again.error == NONCE_USED
    assert len(await world.charges(signed["nonce"])) == 1


async def test_the_resource_sells_to_a_buyer_of_version_1(world: X402World) -> None:
    address = f"{world.simulator.url}/x402/resource"
    async with world.simulator.client.get(address, params={"amount": "20000"}) as response:
        assert response.status == 402
        wanted = PaymentRequiredV1.model_validate(await response.json())
    assert wanted.accepts[0].max_amount_required == "20000"
    signed = fresh_authorization(value="20000")
    payload = {**request_v1(signed)["paymentPayload"]}
    header = {"X-PAYMENT": base64.b64encode(json.dumps(payload).encode()).decode()}

    async with world.simulator.client.get(
        address, params={"amount": "20000"}, headers=header
    ) as response:
        assert response.status == 200
        receipt = json.loads(base64.b64decode(response.headers["X-PAYMENT-RESPONSE"]))

    assert receipt["success"] is True
    assert receipt["network"] == "base-sepolia"


async def test_the_resource_refuses_what_it_did_not_ask_for(world: X402World) -> None:
    address = f"{world.simulator.url}/x402/resource"
    other = request_v2(fresh_authorization(), wanted=requirements(payTo=PAYER))
    cheap = base64.b64encode(json.dumps(other["paymentPayload"]).encode()).decode()

    for header, status in ((cheap, 402), ("%%%", 400)):
        async with world.simulator.client.get(
            address, headers={"PAYMENT-SIGNATURE": header}
        ) as response:
            assert response.status == status


async def test_a_seller_may_call_a_transfer_a_failure(world: X402World) -> None:
    address = f"{world.simulator.url}/x402/resource"
    request = fresh_request(10_018)
    header = base64.b64encode(json.dumps(request["paymentPayload"]).encode()).decode()

    async with world.simulator.client.get(
        address, params={"amount": "10018"}, headers={"PAYMENT-SIGNATURE": header}
    ) as response:
        assert response.status == 402
        receipt = decode_payment_response_header(response.headers["PAYMENT-RESPONSE"])

    assert not receipt.success
    assert receipt.error_reason is not None
    assert receipt.error_reason.startswith("Facilitator settle failed (500)")
    assert len(await world.charges(nonce_of(request))) == 1
