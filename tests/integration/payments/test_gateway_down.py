"""A gateway is down for five minutes under load: nothing is lost, no attempt is wasted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from services.payments.domain.breaker import BreakerState
from services.payments.handlers.flow_sync import FlowSync
from tests.integration.payments.world import Payments
from tests.support.messages import notice_received

OUTAGE_SECONDS = 300
PROBE_INTERVAL_SECONDS = 60
PROBES = 5


@dataclass
class Minutes:
    """Lets a worker live second by second, and notes what it asked and when the breaker moved."""

    payments: Payments
    worker: FlowSync
    asked: list[tuple[datetime, int]] = field(default_factory=list)
    states: list[tuple[datetime, BreakerState]] = field(default_factory=list)

    @property
    def state(self) -> BreakerState:
        return self.payments.runtime.flow.controls.breakers["sslcommerz"].state

    async def pass_(self, seconds: int) -> None:
        for _ in range(seconds):
            now = self.payments.clock.advance(1)
            before = len(self.payments.gateway.questions)
            await self.worker.synchronize()
            await self.payments.look()
            self.asked.append((now, len(self.payments.gateway.questions) - before))
            if not self.states or self.states[-1][1] is not self.state:
                self.states.append((now, self.state))

    def asked_since(self, moment: datetime) -> int:
        return sum(count for at, count in self.asked if at > moment)

    async def checks_made(self) -> int:
        return int(await self.payments.sql("SELECT sum(checks_made) FROM payment"))


async def test_five_minutes_without_a_gateway_cost_nothing_but_time(payments: Payments) -> None:
    gateway, clock = payments.gateway, payments.clock
    minutes = Minutes(payments, FlowSync(payments.runtime, "worker"))
    created: list[dict[str, Any]] = []
    for _ in range(20):
        created += [await payments.create(), await payments.create()]
        await minutes.pass_(1)

    gateway.is_silent = True
    down_at = clock()
    await minutes.pass_(45)
    opened_at = next(at for at, state in minutes.states if state is BreakerState.OPEN)
    assert opened_at <= down_at + timedelta(seconds=30)
    checks_made = await minutes.checks_made()

    # A customer pays all the same, and the notice arrives; another one only now begins.
    noticed = created[0]
    charge = gateway.charge(noticed["gatewayReference"])
    notice = notice_received(noticed["gatewayReference"], validation_id=charge.validation_id)
    await payments.notify(notice)
    shown = await payments.read(noticed["id"])
    assert (shown["state"], shown["reason"]) == ("processing", "too_many_failures")
    refused = await payments.post(key="late")
    assert (refused.status, refused.error["code"]) == (502, "gateway_unavailable")
    assert int(refused.headers["Retry-After"]) >= 1

    await minutes.pass_(OUTAGE_SECONDS - 45)
    # Two probes at a time when the majority is certain, and never more than there are.
    outage_left = OUTAGE_SECONDS - (opened_at - down_at).total_seconds()
    rounds = outage_left // PROBE_INTERVAL_SECONDS + 1
    asked = minutes.asked_since(opened_at)
    assert 3 <= asked <= rounds * PROBES
    assert await minutes.checks_made() - checks_made <= asked

    for payment in created[1:]:
        gateway.charge(payment["gatewayReference"])
    gateway.is_silent = False
    back_at = clock()
    await minutes.pass_(PROBE_INTERVAL_SECONDS + 5)

    assert minutes.state is BreakerState.CLOSED
    closed_at = minutes.states[-1][0]
    assert closed_at <= back_at + timedelta(seconds=PROBE_INTERVAL_SECONDS + 3)
    late = await payments.post(key="late")
    assert late.status == 201
    await minutes.pass_(120)
    states = {
        row["state"]
        for row in await payments.rows(
            "SELECT state FROM payment WHERE id = ANY($1)", [each["id"] for each in created]
        )
    }
    assert states == {"succeeded"}
    assert await payments.dead_letters() == []
    assert len(await payments.announcements()) == len(created)
