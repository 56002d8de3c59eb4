"""The facilitator and the token's contract: verify, settle, and what blocks take by themselves."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import structlog

from services.simulator import ledger
from services.simulator.behaviours import DELAY_SECONDS, Behaviour
from services.simulator.core import Treatment
from services.simulator.gateway import LAPSED_MAX
from services.simulator.ledger import Charge
from services.simulator.profiles import Plan
from services.simulator.x402 import store
from services.simulator.x402.networks import NETWORKS, Network
from services.simulator.x402.payment import NotReadableError, Payment
from services.simulator.x402.reasons import Reason
from services.simulator.x402.runtime import Runtime
from services.simulator.x402.scenarios import (
    CANCELLED,
    DECLINED,
    EXPIRED,
    INSUFFICIENT_FUNDS,
    LATE_SUCCESS,
    NAME,
    NEVER_CONFIRMS,
    PENDING,
    SETTLE,
    UNEXPECTED,
    VERIFY,
    scenario_of,
    wish_of,
)
from services.simulator.x402.store import State, Submitted
from services.simulator.x402.verification import SCHEME, objection_to
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.money import MINOR_UNITS_MAX, Money

log = structlog.get_logger()

Json: TypeAlias = dict[str, Any]

#: How long the facilitator remembers a settlement that is under way (the package's store).
REMEMBERED: Final = timedelta(seconds=300)

#: The facilitator's own address, which pays for the gas.
SIGNER: Final = "0x5f0000000000000000000000000000000000f00d"

#: Wishes that refuse, here and at `/verify`.
_REFUSALS: Final = {
    DECLINED: Reason.INSUFFICIENT_FUNDS,
    INSUFFICIENT_FUNDS: Reason.INSUFFICIENT_BALANCE,
    EXPIRED: Reason.VALID_BEFORE,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the facilitator says about a settlement."""

    payment: Payment
    reason: Reason | None = None
    transaction: str = ""

    def rendered(self) -> Json:
        """Return the JSON of `/settle`."""
        answer: Json = {
            "success": self.reason is None,
            "payer": self.payment.payer,
            "transaction": self.transaction,
            "network": self.payment.network_name,
        }
        if self.reason is None:
            return {**answer, "amount": str(self.payment.value)}
        return {**answer, "errorReason": self.reason}


def supported() -> Json:
    """Return what `/supported` lists."""
    kinds = [
        {"x402Version": version, "scheme": SCHEME, "network": name, "extra": {}}
        for network in NETWORKS.values()
        for version, name in ((2, network.caip), (1, network.v1_name))
        if name is not None
    ]
    return {"kinds": kinds, "extensions": [], "signers": {"eip155:*": [SIGNER]}}


def unreadable(error: NotReadableError, *, settles: bool) -> Json:
    """Answer a request that is none."""
    if settles:
        return {"success": False, "errorReason": error.reason, "transaction": "", "network": ""}
    return {"isValid": False, "invalidReason": error.reason}


async def verify_treatment(runtime: Runtime, payment: Payment) -> Treatment:
    """Return what is in store for a call of `/verify`."""
    async with runtime.core.database.connection() as connection:
        return await runtime.core.treatment(connection, NAME, VERIFY, payment.nonce)


async def settle_treatment(
    runtime: Runtime, payment: Payment, operation: str = SETTLE
) -> Treatment:
    """Return what is in store for a call that settles, and for its payment."""
    async with runtime.core.database.connection() as connection:
        usual = scenario_of(payment.value).call
        if usual is not None and not await store.claim_spoiling(connection, payment.nonce):
            usual = None
        return await runtime.core.treatment(
            connection, NAME, operation, payment.nonce, usual=usual, starts=True
        )


async def verify(runtime: Runtime, payment: Payment, plan: Plan | None) -> Json:
    """Say whether a payment could be settled now."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        reason = await _objection(connection, payment, now)
    if reason is None:
        reason = _REFUSALS.get(wish_of(payment.value, plan))
    if reason is not None:
        return {"isValid": False, "invalidReason": reason, "payer": payment.payer}
    return {"isValid": True, "payer": payment.payer}


async def settle(runtime: Runtime, payment: Payment, plan: Plan | None) -> Verdict:
    """Carry a payment to the chain, or say why not; the same one again is not carried twice."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        earlier = await _lock(connection, payment)
        if earlier is not None and earlier.state is State.BROADCAST and _is_due(earlier, now):
            earlier = await mine(connection, earlier, now)
        if earlier is not None and _is_same(earlier, payment):
            answer = await _remembered(connection, payment, earlier, now)
            if answer is not None:
                return answer
        reason = await _objection(connection, payment, now)
        wish = wish_of(payment.value, plan)
        reason = reason or _REFUSALS.get(wish)
        if reason is not None:
            return Verdict(payment, reason)
        verdict = await _submit(connection, payment, wish, now, plan)
    log.info("x402_settled", nonce=payment.nonce, reason=verdict.reason)
    return verdict


async def mine(connection: Connection, submitted: Submitted, now: datetime) -> Submitted:
    """Let a block take a locked authorization: the transfer, or nothing if it is void by now."""
    mined_at = submitted.mines_at or now
    mined = replace(submitted, state=State.USED, mined_at=mined_at, mines_at=None)
    if mined_at.timestamp() >= submitted.valid_before or not await _transfer(connection, mined):
        mined = replace(submitted, state=State.DROPPED, mines_at=None)
    await store.save_submitted(connection, mined)
    return mined


async def mine_due(runtime: Runtime) -> int:
    """Let blocks take what is due, and return how much that was.

    Each in a transaction of its own: two that move money for several payments could otherwise wait
    for each other's balances.
    """
    for count in range(LAPSED_MAX):
        now = runtime.core.clock()
        async with runtime.core.database.transaction() as connection:
            submitted = await store.claim_due(connection, now)
            if submitted is None:
                return count
            await mine(connection, submitted, now)
    return LAPSED_MAX


async def cancel(runtime: Runtime, payer: str, nonce: str) -> Submitted:
    """Let a payer cancel an authorization on the chain, whether it was submitted or not.

    Raises:
        ConflictError: it is used or cancelled.
    """
    now, network = runtime.core.clock(), runtime.network
    async with runtime.core.database.transaction() as connection:
        token = network.token.lower()
        earlier = await store.lock_submitted(connection, network.caip, token, payer, nonce)
        if earlier is None:
            unused = _unsubmitted(network, payer, nonce, now)
            if not await store.insert_submitted(connection, unused):
                raise ConflictError("the authorization is being submitted just now")
            return unused
        return await _cancel(connection, earlier, now)


async def act(runtime: Runtime, nonce: str, wish: str) -> Submitted:
    """Let the chain take or the payer cancel what was broadcast.

    Raises:
        NotFoundError: nothing with this nonce was submitted.
        ConflictError: it is used, cancelled or void.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        found = await store.list_of_nonce(connection, nonce, 1)
        if not found:
            raise NotFoundError("no payment has this reference")
        one = found[0]
        locked = await store.lock_submitted(
            connection, one.network, one.token, one.payer, one.nonce
        )
        assert locked is not None, "none is ever deleted"
        if wish == CANCELLED:
            return await _cancel(connection, locked, now)
        if locked.state is not State.BROADCAST:
            raise ConflictError(
                f"the authorization is {locked.state}", details={"state": locked.state}
            )
        return await mine(connection, replace(locked, mines_at=now), now)


async def _objection(connection: Connection, payment: Payment, now: datetime) -> Reason | None:
    """Return why a payment cannot be settled, by itself or by the state of the chain."""
    reason = objection_to(payment, int(now.timestamp()))
    if reason is not None:
        return reason
    network = _network(payment)
    earlier = await _lock(connection, payment)
    if earlier is not None and earlier.state is not State.DROPPED:
        return Reason.NONCE_USED
    balance = await store.find_balance(connection, network.caip, payment.asset, payment.payer)
    # The ledger holds no more, so that nobody can have more to give at once either.
    return Reason.INSUFFICIENT_BALANCE if payment.value > min(balance, MINOR_UNITS_MAX) else None


async def _remembered(
    connection: Connection, payment: Payment, earlier: Submitted, now: datetime
) -> Verdict | None:
    """Answer for a settlement that is under way, or that was when it was last asked for."""
    if earlier.state is State.BROADCAST:
        return Verdict(payment, Reason.PENDING, earlier.transaction_hash)
    is_known = now < earlier.submitted_at + REMEMBERED
    if earlier.state is State.USED and not earlier.is_settled and is_known:
        await store.save_submitted(connection, replace(earlier, is_settled=True))
        return Verdict(payment, None, earlier.transaction_hash)
    return None


async def _submit(
    connection: Connection, payment: Payment, wish: str, now: datetime, plan: Plan | None
) -> Verdict:
    late_seconds = DELAY_SECONDS[Behaviour.LATE] if plan is None else plan.late_seconds
    is_waiting = wish in (LATE_SUCCESS, NEVER_CONFIRMS)
    due_at = now + timedelta(seconds=late_seconds) if wish == LATE_SUCCESS else None
    submitted = Submitted(
        network=_network(payment).caip,
        token=payment.asset,
        payer=payment.payer,
        nonce=payment.nonce,
        state=State.BROADCAST,
        recipient=payment.recipient,
        value=payment.value,
        valid_before=payment.valid_before,
        transaction_hash=_new_hash(),
        is_settled=wish not in (LATE_SUCCESS, NEVER_CONFIRMS, PENDING, UNEXPECTED),
        submitted_at=now,
        mines_at=due_at if is_waiting else now,
    )
    if not await store.insert_submitted(connection, submitted):
        # Somebody was faster, or a block has taken it before without a transfer.
        earlier = await _lock(connection, payment)
        is_void = earlier is not None and earlier.state is State.DROPPED
        return Verdict(payment, Reason.TRANSACTION_FAILED if is_void else Reason.NONCE_USED)
    if is_waiting:
        return Verdict(payment, Reason.PENDING, submitted.transaction_hash)
    if wish == CANCELLED:
        await _cancel(connection, submitted, now)
        return Verdict(payment, Reason.NONCE_USED)
    mined = await mine(connection, submitted, now)
    if mined.state is not State.USED:
        return Verdict(payment, Reason.INSUFFICIENT_BALANCE)
    if wish == UNEXPECTED:
        return Verdict(payment, Reason.UNEXPECTED_SETTLE)
    reason = Reason.PENDING if wish == PENDING else None
    return Verdict(payment, reason, mined.transaction_hash)


async def _transfer(connection: Connection, mined: Submitted) -> bool:
    """Move the money and write the ledger; tell whether there was enough."""
    # In the order of the addresses, so that two transfers cannot wait for each other.
    changes = sorted([(mined.payer, -mined.value), (mined.recipient, mined.value)])
    balance = await store.find_balance(connection, mined.network, mined.token, mined.payer)
    if balance < mined.value:
        return False
    for address, difference in changes:
        changed = await store.change_balance(
            connection, mined.network, mined.token, address, difference
        )
        if not changed:
            raise ConflictError("the balance was spent just now")
    price = Money(mined.value, "USDC")
    assert mined.mined_at is not None, "a block has taken it"
    await ledger.insert_charge(
        connection,
        Charge(
            gateway=NAME,
            reference=mined.nonce,
            gateway_payment_id=mined.transaction_hash,
            charge=price,
            price=price,
            charged_at=mined.mined_at,
        ),
    )
    return True


async def _cancel(connection: Connection, earlier: Submitted, now: datetime) -> Submitted:
    if earlier.state in (State.USED, State.CANCELLED):
        raise ConflictError(
            f"the authorization is {earlier.state}", details={"state": earlier.state}
        )
    cancelled = replace(earlier, state=State.CANCELLED, mines_at=None, mined_at=now)
    await store.save_submitted(connection, cancelled)
    return cancelled


async def _lock(connection: Connection, payment: Payment) -> Submitted | None:
    if payment.network is None:
        return None
    return await store.lock_submitted(
        connection, payment.network.caip, payment.asset, payment.payer, payment.nonce
    )


def _is_due(submitted: Submitted, now: datetime) -> bool:
    return submitted.mines_at is not None and submitted.mines_at <= now


def _is_same(earlier: Submitted, payment: Payment) -> bool:
    """Tell whether a payment is what was submitted, and not another with its nonce."""
    return (earlier.recipient, earlier.value, earlier.valid_before) == (
        payment.recipient,
        payment.value,
        payment.valid_before,
    )


def _unsubmitted(network: Network, payer: str, nonce: str, now: datetime) -> Submitted:
    return Submitted(
        network=network.caip,
        token=network.token.lower(),
        payer=payer,
        nonce=nonce,
        state=State.CANCELLED,
        recipient="0x" + "0" * 40,
        value=0,
        valid_before=0,
        transaction_hash=_new_hash(),
        is_settled=True,
        submitted_at=now,
        mined_at=now,
    )


def _network(payment: Payment) -> Network:
    assert payment.network is not None, "it is checked before"
    return payment.network


def _new_hash() -> str:
    return f"0x{secrets.token_hex(32)}"
