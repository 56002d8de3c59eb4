"""What waits is counted: messages nobody has taken, and payments whose next step is due."""

from __future__ import annotations

from services.payments.handlers.backlog import read_backlog
from shared.contracts.priorities import Priority
from shared.messaging.envelope import Outgoing
from shared.messaging.queue_metrics import ready_messages
from tests.integration.payments.world import Payments
from tests.support.messages import notice_received


async def test_nothing_waits_where_nothing_is(payments: Payments) -> None:
    backlog = await read_backlog(payments.runtime)

    assert backlog.total == 0
    assert backlog.messages == dict.fromkeys(Priority, 0)
    assert backlog.looks == dict.fromkeys(Priority, 0)


async def test_messages_that_nobody_has_taken_are_counted_by_priority(payments: Payments) -> None:
    notice = notice_received("att_1")
    await payments.core.publisher.send(
        [
            Outgoing(number, queue, notice.name, notice.encode(), None)
            for number, queue in enumerate(["payments.high"] * 3 + ["payments.normal"] * 120, 1)
        ]
    )

    backlog = await read_backlog(payments.runtime)

    assert backlog.messages == {Priority.HIGH: 3, Priority.MEDIUM: 0, Priority.NORMAL: 120}
    assert backlog.total == 123


async def test_payments_whose_look_is_due_are_counted_until_somebody_takes_them(
    payments: Payments,
) -> None:
    await payments.create()
    await payments.create(amount=300_000)
    assert (await read_backlog(payments.runtime)).total == 0

    payments.clock.advance(3_600)
    backlog = await read_backlog(payments.runtime)
    assert backlog.looks == {Priority.HIGH: 1, Priority.MEDIUM: 1, Priority.NORMAL: 0}

    await payments.sql(
        "UPDATE payment SET check_leased_until = clock_timestamp() + interval '1 minute'"
    )
    assert (await read_backlog(payments.runtime)).total == 0


async def test_without_redis_the_messages_are_not_known() -> None:
    class Away:
        def pipeline(self, **_options: bool) -> None:
            raise OSError("away")

    assert await ready_messages(Away(), ["payments.high"]) is None  # type: ignore[arg-type]
