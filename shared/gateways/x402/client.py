"""Pays from our own wallet: sign an authorization, have it checked, have it settled.

Gasless for the payer by construction (EIP-3009): the wallet signs and the facilitator sends the
transaction. A nonce derived from the order makes every repetition the same payment, and the chain
is asked what a facilitator does not say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, assert_never

from shared.clock import Clock
from shared.gateways.http_client import HttpCallError
from shared.gateways.interface import (
    Declined,
    DisputeOutcome,
    FailureKind,
    Limits,
    Listing,
    Order,
    Outcome,
    Paid,
    RefundFailed,
    RefundOrder,
    RefundOutcome,
    Refusal,
    Unknown,
    Wallet,
    refusal_of,
)
from shared.gateways.x402.addresses import checksummed
from shared.gateways.x402.capabilities import CAPABILITIES
from shared.gateways.x402.chain import Chain, Transfer, Transferred, Unsettled
from shared.gateways.x402.facilitator import Facilitator, Settlement
from shared.gateways.x402.networks import CURRENCY, Network
from shared.gateways.x402.payload import (
    Authorization,
    Resource,
    Version,
    nonce_of,
    payment_payload,
    payment_requirements,
    sign,
    window_of,
    wire_name,
)
from shared.gateways.x402.reasons import NONCE_USED, REFUSALS, readable
from shared.gateways.x402.signer import Signer, SigningError

#: Facilitators take nothing that ends within six seconds (x402 package, 2.25.0).
_LAST_MOMENT: Final = timedelta(seconds=6)

_TRANSACTION: Final = re.compile(r"0x[0-9a-fA-F]{64}")
_NOWHERE: Final = f"0x{'0' * 40}"


@dataclass(frozen=True, slots=True)
class SpendingRules:
    """From which wallet we pay, to whom, and how much at most.

    Attributes:
        nonce_key: Keys the nonces; whoever has it can tell which payment is whose.
        recipients: With the capitals of their checksums; empty allows any.
        max_per_payment: In minor units.
        since: Orders that were begun before belong to another wallet, key or network.
    """

    signer: Signer
    nonce_key: bytes
    recipients: frozenset[str]
    max_per_payment: int
    since: datetime | None

    def __repr__(self) -> str:
        return f"SpendingRules({self.signer!r})"


class X402Gateway:
    """One wallet on one network, through one facilitator."""

    name = "x402"

    def __init__(
        self,
        facilitator: Facilitator,
        chain: Chain | None,
        *,
        network: Network,
        rules: SpendingRules,
        public_url: str,
        clock: Clock,
    ) -> None:
        self._facilitator = facilitator
        self._chain = chain
        self._network = network
        self._rules = rules
        self._signer = rules.signer
        # The same for every payment: a facilitator need not know what is paid for.
        self._resource = Resource(public_url)
        self._clock = clock
        limits = {CURRENCY: Limits(1, rules.max_per_payment)}
        self.capabilities = replace(CAPABILITIES, limits=limits)

    def refusal(self, order: Order) -> Refusal | None:
        """Return which field of an order we do not sign for, or None."""
        refused = refusal_of(self.name, self.capabilities, order)
        if refused is not None:
            return refused
        assert isinstance(order.method, Wallet)
        problem = self._objection(order.method.recipient)
        return None if problem is None else Refusal("method.recipient", problem)

    async def start(self, order: Order) -> Outcome:
        """Have the payment checked, then settled.

        What is refused before anything was sent, or by the check before any settlement, is final.
        """
        refused = self._refused_unsigned(order)
        if refused is not None:
            return refused
        outcome = await self._checked_and_settled(order)
        is_used = outcome == Unknown(NONCE_USED)
        return await self._resolved(order, outcome) if is_used else outcome

    async def look_up(self, order: Order) -> Outcome:
        """Settle the same payment again while it can be, and ask the chain what became of it.

        Not for an order that `start` has finally refused: a try after that might be a payment.
        """
        if not _is_payable(order):
            return Unknown("not_an_order_of_ours")
        if self._is_foreign(order):
            return Unknown("order_is_older_than_the_keys")
        outcome = await self._settled_again(order)
        return outcome if isinstance(outcome, Paid) else await self._resolved(order, outcome)

    async def confirm(self, reference: str, handle: str) -> Outcome:
        """Ask the chain whether a transaction, named by its hash, carried out our payment."""
        if self._chain is None:
            return Unknown("no_chain_configured")
        if _TRANSACTION.fullmatch(handle) is None:
            return Unknown("unreadable_transaction")
        payer = self._signer.address
        nonce = nonce_of(self._rules.nonce_key, self._network, payer, reference)
        try:
            transfers = await self._chain.transfers(handle, payer, nonce)
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        return self._confirmed(reference, handle.lower(), transfers)

    async def cancel(self, order: Order) -> Outcome:
        """Say that nothing can be cancelled: an authorization ends by itself within minutes."""
        return Unknown("not_supported")

    async def refund(self, order: RefundOrder) -> RefundOutcome:
        """Say that there are no refunds: the recipient sends a transfer back."""
        return RefundFailed("not_supported")

    async def look_up_refund(self, order: RefundOrder) -> RefundOutcome:
        """Say that there are no refunds."""
        return RefundFailed("not_supported")

    async def look_up_dispute(self, handle: str) -> DisputeOutcome:
        """Say that there are no disputes: nobody takes a transfer back."""
        return Unknown("not_supported")

    async def list_paid(self, day: date, cursor: str | None = None) -> Listing:
        """Say that a chain lists by blocks, and does not tell our transfers from others."""
        return Unknown("not_supported")

    async def close(self) -> None:
        """Close kept connections."""
        self._facilitator.close()
        if self._chain is not None:
            self._chain.close()

    def _objection(self, recipient: str) -> str | None:
        address = checksummed(recipient)
        if address is None:
            return "it is no EVM address, or its capitals are not its checksum"
        if address in {_NOWHERE, self._network.token, self._signer.address}:
            return "it is nobody's wallet, or our own"
        if self._rules.recipients and address not in self._rules.recipients:
            return "it is not one of X402_RECIPIENTS"
        return None

    def _is_foreign(self, order: Order) -> bool:
        # Another wallet or nonce key would make a second payment of an order that may be paid.
        since = self._rules.since
        return since is not None and order.started_at < since

    def _is_payer(self, payer: str | None) -> bool:
        # The protocol lets a facilitator leave it out.
        return payer is None or payer.lower() == self._signer.address.lower()

    def _authorization(self, order: Order, version: Version) -> Authorization:
        assert isinstance(order.method, Wallet)
        recipient = checksummed(order.method.recipient)
        assert recipient is not None
        payer = self._signer.address
        valid_after, valid_before = window_of(version, order.started_at)
        return Authorization(
            payer=payer,
            recipient=recipient,
            value=self._network.units(order.amount),
            valid_after=valid_after,
            valid_before=valid_before,
            nonce=nonce_of(self._rules.nonce_key, self._network, payer, order.reference),
        )

    def _refused_unsigned(self, order: Order) -> Declined | None:
        refused = self.refusal(order)
        if refused is not None:
            reason = f"{refused.field}: {refused.problem}"[:200]
            return Declined(reason, FailureKind.CONFIGURATION, is_final=True)
        if self._is_foreign(order):
            kind = FailureKind.SERVICE_UNAVAILABLE
            return Declined("order_is_older_than_the_keys", kind, is_final=True)
        return None

    async def _checked_and_settled(self, order: Order) -> Outcome:
        try:
            version = await self._facilitator.version(self._clock())
            if version is None:
                reason = "network_not_supported_by_facilitator"
                return Declined(reason, FailureKind.CONFIGURATION, is_final=True)
            body = await self._body(order, version)
            checked = await self._facilitator.verify(body)
        except (HttpCallError, SigningError) as error:
            return _unknown(error)
        if not checked.is_valid:
            return _refused_unsettled(checked.reason)
        if not self._is_payer(checked.payer):
            return Unknown("payer_differs")
        return await self._settled(order, version, body)

    async def _body(self, order: Order, version: Version) -> dict[str, Any]:
        """Return what verify and settle are given. A secret until the payment is settled."""
        authorization = self._authorization(order, version)
        signed = await sign(self._signer, self._network, authorization)
        return {
            "x402Version": version,
            "paymentPayload": payment_payload(version, self._network, signed, self._resource),
            "paymentRequirements": payment_requirements(
                version, self._network, authorization, self._resource
            ),
        }

    async def _settled_again(self, order: Order) -> Outcome:
        # The limits may have been lowered since the order was begun: then nothing more is signed.
        if self.refusal(order) is not None:
            return Unknown("not_signed_any_more")
        now = self._clock()
        _, valid_before = window_of(2, order.started_at)
        if now + _LAST_MOMENT > datetime.fromtimestamp(valid_before, UTC):
            return Unknown("window_is_over")
        try:
            version = await self._facilitator.version(now)
            if version is None:
                return Unknown("network_not_supported_by_facilitator")
            return await self._settled(order, version, await self._body(order, version))
        except (HttpCallError, SigningError) as error:
            return _unknown(error)

    async def _settled(self, order: Order, version: Version, body: dict[str, Any]) -> Outcome:
        try:
            settlement = await self._facilitator.settle(body)
        except HttpCallError as error:
            return Unknown(error.reason, error.retry_after_seconds)
        if settlement.is_success:
            return self._paid(order, version, settlement)
        # Even a definite refusal may follow a transfer: by an earlier call, or by one whose answer
        # the facilitator itself lost. Only the chain can make it final.
        return Unknown(readable(settlement.reason))

    def _paid(self, order: Order, version: Version, settlement: Settlement) -> Outcome:
        names = {wire_name(version, self._network), self._network.caip2}
        if settlement.network not in names:
            return Unknown("network_differs")
        if not self._is_payer(settlement.payer):
            return Unknown("payer_differs")
        if _TRANSACTION.fullmatch(settlement.transaction) is None:
            return Unknown("unreadable_transaction")
        if settlement.amount not in {None, str(self._network.units(order.amount))}:
            return Unknown("amount_differs")
        transaction = settlement.transaction.lower()
        return Paid(order.reference, order.amount, transaction, transaction)

    def _confirmed(
        self, reference: str, transaction: str, transfers: tuple[Transfer, ...] | None
    ) -> Outcome:
        if transfers is None:
            return Unknown("reference_differs")
        if len(transfers) != 1:
            # Of several, which one the nonce stands for is not said.
            return Unknown("several_transfers")
        amount = self._network.money(transfers[0].value)
        if amount is None:
            return Unknown("unreadable_amount")
        return Paid(reference, amount, transaction, transaction)

    async def _resolved(self, order: Order, said: Outcome) -> Outcome:
        """Ask the chain about a payment of which the facilitator has not said that it was made."""
        assert isinstance(said, Unknown)
        if self._chain is None:
            return said
        # Both versions of an authorization share nonce, recipient, value and end.
        authorization = self._authorization(order, 2)
        try:
            fate = await self._chain.fate(authorization, order.started_at)
        except HttpCallError as error:
            return Unknown(f"{said.reason}; chain: {error.reason}"[:200])
        if isinstance(fate, Transferred):
            return Paid(order.reference, order.amount, fate.transaction, fate.transaction)
        match fate:
            case Unsettled.UNUSED:
                return Unknown(f"{said.reason}; chain: {fate.value}"[:200])
            case Unsettled.OVER:
                # No customer was late: the wallet is ours, and another try may be in time.
                return Declined(fate.value, FailureKind.PROCESSING_ERROR, is_final=True)
            case Unsettled.CANCELED:
                return Declined(fate.value, FailureKind.CANCELLED, is_final=True)
        assert_never(fate)


def _is_payable(order: Order) -> bool:
    """Tell whether an authorization can be written for an order, whatever our limits are now."""
    is_wallet = isinstance(order.method, Wallet) and checksummed(order.method.recipient) is not None
    return is_wallet and order.amount.currency == CURRENCY


def _refused_unsettled(reason: str) -> Outcome:
    """Judge what the check refused, before any settlement was asked for."""
    kind = REFUSALS.get(reason)
    if kind is None:
        return Unknown(readable(reason))
    return Declined(reason, kind, is_final=True)


def _unknown(error: HttpCallError | SigningError) -> Unknown:
    if isinstance(error, SigningError):
        return Unknown("signing_failed")
    return Unknown(error.reason, error.retry_after_seconds)
