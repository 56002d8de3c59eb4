"""Reads both sides of a load: the payments of Sluice, and the ledger and fates of the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from deploy.local.load_comparison import TOOK_MONEY, Charge, Recorded
from deploy.local.load_traffic import OPEN_STATES, READS_AT_ONCE, Made, Merchant
from deploy.local.service_databases import ServiceDatabases
from deploy.local.simulator_names import NameAtSimulator

#: The fates (`services/simulator/profiles.py`) of customers who never pay. A hosted page stays open
#: for them until it expires, so their payments may rightly wait for longer than a load.
UNPAID_FATES: Final = frozenset({"declined", "insufficient_funds", "never_confirms", "expired"})

#: Those of customers who pay after a failure, when the payment seems to be at rest.
LATE_FATES: Final = frozenset({"late_success"})


@dataclass(frozen=True, slots=True)
class Fated:
    """What the simulator's profile had in store for a payment."""

    fate: str
    notice_fate: str


@dataclass(frozen=True, slots=True)
class Books:
    """Both sides at one moment, under our names."""

    payments: Sequence[Recorded]
    charges: Sequence[Charge]
    #: By gateway and reference; without those that the simulator never heard of.
    fates: Mapping[tuple[str, str], Fated]

    def fates_of(self, payment: Recorded) -> list[Fated]:
        """Return the fates of a payment's tries that the simulator heard of, the first first."""
        names = ((payment.gateway, reference) for reference in sorted(payment.references))
        return [self.fates[name] for name in names if name in self.fates]

    @property
    def is_final(self) -> bool:
        """Whether every payment is at rest, or rightly waits: nothing more will be charged."""
        return all(self._is_final(payment) for payment in self.payments)

    def _is_final(self, payment: Recorded) -> bool:
        # Of several tries the last one is open, if any is.
        fate = fates[-1].fate if (fates := self.fates_of(payment)) else None
        if fate in LATE_FATES:
            return payment.state in TOOK_MONEY
        return payment.state not in OPEN_STATES or fate in UNPAID_FATES


class Ledgers(Protocol):
    """Somewhere to read both sides from."""

    async def read(self, all_made: Sequence[Made]) -> Books:
        """Read both sides as far as they concern these payments."""


_PAYMENTS: Final = """
    SELECT id, gateway, state, reason, amount, currency, gateway_payment_id,
           ARRAY(SELECT reference FROM attempt WHERE payment_id = payment.id) AS known_as
      FROM payment
     WHERE id > $1
     ORDER BY id
     LIMIT $2
"""

_CHARGES: Final = """
    SELECT id, gateway, reference, gateway_payment_id,
           currency_amount AS amount, currency_type AS currency
      FROM charge
     WHERE id > $1
     ORDER BY id
     LIMIT $2
"""

_FATES: Final = """
    SELECT gateway, reference, fate, notice_fate
      FROM fate
     WHERE (gateway, reference) > ($1, $2)
     ORDER BY gateway, reference
     LIMIT $3
"""


class StoredLedgers:
    """The tables of a stack that serves nobody but this load: every attempt and every charge."""

    def __init__(self, databases: ServiceDatabases, name_of: NameAtSimulator) -> None:
        self._databases = databases
        self._name_of = name_of

    async def read(self, all_made: Sequence[Made]) -> Books:
        """Read everything; the charges last, so that none is younger than what is said of it."""
        payments = [
            Recorded(
                payment_id=row["id"],
                gateway=row["gateway"],
                state=row["state"],
                reason=row["reason"],
                amount=row["amount"],
                currency=row["currency"],
                references=tuple(row["known_as"]),
                gateway_payment_id=row["gateway_payment_id"],
            )
            async for page in self._databases.pages("payments", _PAYMENTS, after=[""])
            for row in page
        ]
        ours = _our_names(payments, self._name_of)
        fates = {
            (row["gateway"], ours.get((row["gateway"], row["reference"]), row["reference"])): Fated(
                row["fate"], row["notice_fate"]
            )
            async for page in self._databases.pages(
                "simulator", _FATES, after=("", ""), key_length=2
            )
            for row in page
        }
        charges = [
            Charge(
                gateway=row["gateway"],
                reference=ours.get((row["gateway"], row["reference"]), row["reference"]),
                gateway_payment_id=row["gateway_payment_id"],
                amount=row["amount"],
                currency=row["currency"],
            )
            async for page in self._databases.pages("simulator", _CHARGES, after=[0])
            for row in page
        ]
        return Books(payments, charges, fates)


class AskedLedgers:
    """A stack of somebody else's, asked over HTTP about the payments of this load alone.

    The API names a payment's last attempt only, so that of a payment with several the charges of
    the earlier ones are not seen.
    """

    def __init__(self, merchant: Merchant, name_of: NameAtSimulator) -> None:
        self._merchant = merchant
        self._name_of = name_of
        self._fates: dict[tuple[str, str], Fated] = {}

    async def read(self, all_made: Sequence[Made]) -> Books:
        """Ask about each payment; a fate, which never changes, only once."""
        places = asyncio.Semaphore(READS_AT_ONCE)

        async def ask(payment_id: str) -> tuple[Recorded, list[Charge]]:
            async with places:
                return await self._ask(payment_id)

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ask(made.payment_id))
                for made in all_made
                if made.payment_id is not None
            ]
        answers = [task.result() for task in tasks]
        charges = [charge for _, found in answers for charge in found]
        return Books([payment for payment, _ in answers], charges, self._fates)

    async def _ask(self, payment_id: str) -> tuple[Recorded, list[Charge]]:
        data = await self._merchant.call("GET", f"/api/payments/{payment_id}")
        gateway, reference = data["gateway"], data["gatewayReference"]
        payment = Recorded(
            payment_id=payment_id,
            gateway=gateway,
            state=data["state"],
            reason=data["reason"],
            amount=data["amount"],
            currency=data["currency"],
            references=(reference,),
            gateway_payment_id=data["gatewayPaymentId"],
        )
        query = f"?reference={self._name_of(gateway, reference)}"
        if (gateway, reference) not in self._fates:
            recorded = await self._merchant.call("GET", f"/simulator/{gateway}/fates{query}")
            for each in recorded["fates"]:
                fated = Fated(each["fate"], each["noticeFate"])
                self._fates[gateway, reference] = fated
        ledger = await self._merchant.call("GET", f"/simulator/{gateway}/ledger{query}")
        charges = [
            Charge(
                gateway=gateway,
                reference=reference,
                gateway_payment_id=each["gatewayPaymentId"],
                amount=each["priceAmount"],
                currency=each["priceCurrency"],
            )
            for each in ledger["charges"]
        ]
        return payment, charges


def _our_names(
    payments: Sequence[Recorded], name_of: NameAtSimulator
) -> dict[tuple[str, str], str]:
    """Return our references by gateway and the simulator's name for them."""
    return {
        (payment.gateway, name_of(payment.gateway, reference)): reference
        for payment in payments
        for reference in payment.references
    }
