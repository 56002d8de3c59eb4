"""What every gateway of the simulator is built on: the database, the clock, and what is in store.

A call of a merchant goes through three steps, which a route of a gateway takes in this order:

1. `core.treatment(…)` says what is in store for the call: a script's fault, else the gateway's own
   magic, else what the random profile decided. `starts=True` marks the calls that start a payment;
   these record the payment's fate, and only the first of them meets the fate's fault.
2. `faults.answer(request, treatment, work)` does the work and answers, as badly as that says.
3. The work writes its tables, the ledger (`ledger.insert_charge`) and the notices
   (`notice_store.insert_notice`) in one transaction, then calls `core.wake()`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from services.simulator import fates, notice_store
from services.simulator.behaviours import Fault
from services.simulator.profiles import Plan, Profile, call_fault, plan_of
from shared.clock import Clock
from shared.database import Connection, Database

#: What a commit usually takes, and a bit.
COMMIT_SECONDS: Final = 0.01


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is in store for one call, and for the payment it is about if a profile decided that."""

    fault: Fault | None = None
    plan: Plan | None = None
    #: The profile in force, whether or not it has decided about this payment.
    profile: Profile | None = None

    def is_told(self, behaviour: str) -> bool:
        """Tell whether the fault is this one."""
        return self.fault is not None and self.fault.behaviour == behaviour


@dataclass(frozen=True, slots=True)
class Core:
    """What the gateways share. `notice_url` is where notices go that have no address of their own.

    The events wake the background tasks of this process.
    """

    database: Database
    clock: Clock
    public_url: str
    notice_url: str
    notices_due: asyncio.Event = field(default_factory=asyncio.Event)
    acts_due: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Let the background tasks look for what was just written; call it after the commit."""
        self.notices_due.set()
        self.acts_due.set()

    async def treatment(
        self,
        connection: Connection,
        gateway: str,
        operation: str,
        reference: str,
        *,
        usual: Fault | None = None,
        starts: bool = False,
    ) -> Treatment:
        """Return what is in store for a call, and use up one call of a script.

        Args:
            connection: Any.
            gateway: The gateway's name.
            operation: One of the gateway's operations.
            reference: The merchant's reference of the payment; empty if the call has none.
            usual: What a magic amount or number does to this call; a script goes before it.
            starts: Whether the call starts a payment.
        """
        claimed = await fates.claim(connection, gateway, operation, reference)
        plan, fault = claimed.recorded, claimed.fault or usual
        if starts and plan is None and claimed.profile is not None and reference:
            plan = plan_of(claimed.profile, gateway, reference)
            if await fates.insert_fate(connection, gateway, reference, plan):
                fault = fault or call_fault(claimed.profile, plan.fate)
        return Treatment(fault, plan, claimed.profile)

    async def let_customer_act(
        self, connection: Connection, gateway: str, reference: str, plan: Plan | None
    ) -> None:
        """Let the customer of a payment that was just started act alone, if the profile says so."""
        if plan is not None and plan.acts_alone:
            await notice_store.insert_act(
                connection, gateway, reference, "paid", plan.latency_seconds
            )
            # By then the caller has committed; if it has not, the next look finds the act.
            asyncio.get_running_loop().call_later(
                plan.latency_seconds + COMMIT_SECONDS, self.acts_due.set
            )
