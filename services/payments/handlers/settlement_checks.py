"""Checks each day that gateways list the payments that we booked, and no others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Final

import structlog

from services.payments import metrics
from services.payments.domain.model import Deferred
from services.payments.domain.settlement_check import (
    TRY_DELAYS_SECONDS,
    Finding,
    FindingKind,
    Tally,
    compare,
    due_days,
)
from services.payments.flow.admission import Purpose
from services.payments.runtime import Judgement, Runtime, ask
from services.payments.store import payments as payment_store
from services.payments.store import settlement_checks as check_store
from services.payments.store import settlement_lists as list_store
from services.payments.store.settlement_checks import SettlementCheck
from shared.contracts.priorities import Priority
from shared.errors import ConflictError, DatabaseUnavailableError, InvalidInputError, NotFoundError
from shared.gateways.interface import Listing, Paid, Unknown
from shared.gateways.listings import ListedPage
from shared.identifiers import created_at, first_id_at, is_id, new_id
from shared.metrics import bound
from shared.web.operator_actions import Instruction, record_action

log = structlog.get_logger()

#: Ids of checks and of findings begin with these.
CHECK_PREFIX: Final = "chk"
FINDING_PREFIX: Final = "fnd"

#: Pause when no check is due; a person may wait for one that was asked for.
INTERVAL_SECONDS: Final = 5.0

#: How far back a day may be asked for: gateways keep their lists, but nobody settles older ones.
DAYS_BACK_MAX: Final = 400

_DAY: Final = timedelta(days=1)


async def check_settlements(runtime: Runtime) -> None:
    """Make the checks of each day when they are due, and go on with what is under way, for ever."""
    scheduled_on: date | None = None
    while True:
        has_more = False
        try:
            now = runtime.core.clock()
            if scheduled_on != now.date() and now.hour >= runtime.settings.settlement_check_hour:
                await schedule_checks(runtime)
                scheduled_on = now.date()
            has_more = await work_at_due_check(runtime)
        except DatabaseUnavailableError as error:
            log.warning("settlement_checks_wait", reason=error.message)
        if not has_more:
            await asyncio.sleep(INTERVAL_SECONDS)


async def schedule_checks(runtime: Runtime) -> None:
    """Record the checks that are due today, of every gateway that lists; repeating adds none."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        for name, gateway in runtime.gateways.items():
            for day in due_days(now.date()) if gateway.capabilities.lists_payments else ():
                await check_store.insert_check(
                    connection,
                    new_id(CHECK_PREFIX, now),
                    gateway=name,
                    day=day,
                    scheduled_on=now.date(),
                    now=now,
                )


async def ask_for_check(
    runtime: Runtime, check_id: str, gateway: str, day: date, instruction: Instruction
) -> SettlementCheck:
    """Record a check of one day that somebody wants now; repeated with the same id it is the same.

    Raises:
        InvalidInputError: there is no such gateway, or the day is not over, or too long ago.
        ConflictError: the gateway does not list its payments.
    """
    now = runtime.core.clock()
    client = runtime.gateways.get(gateway)
    if client is None:
        raise InvalidInputError(
            f"gateway must be one of {', '.join(sorted(runtime.gateways))}",
            details={"gateway": "unknown"},
        )
    if not client.capabilities.lists_payments:
        problem = f"{gateway} does not list its payments"
        raise ConflictError(problem, details={"gateway": problem})
    if not now.date() - DAYS_BACK_MAX * _DAY <= day < now.date():
        problem = f"must be over in UTC, and at most {DAYS_BACK_MAX} days ago"
        raise InvalidInputError(f"day {problem}", details={"day": problem})
    async with runtime.core.database.transaction() as connection:
        await check_store.insert_check(
            connection, check_id, gateway=gateway, day=day, scheduled_on=None, now=now
        )
        await record_action(
            connection,
            instruction.carried_out(
                "settlement_check", f"gateway:{gateway}", at=now, after={"day": day.isoformat()}
            ),
        )
    return await read_check(runtime, check_id)


async def read_check(runtime: Runtime, check_id: str) -> SettlementCheck:
    """Return a check.

    Raises:
        NotFoundError: none has this id.
    """
    check = None
    if is_id(check_id, CHECK_PREFIX):
        async with runtime.core.database.connection() as connection:
            check = await check_store.find_check(connection, check_id)
    if check is None:
        raise NotFoundError(f"no settlement check has the id {check_id[:40]!r}")
    return check


async def work_at_due_check(runtime: Runtime) -> bool:
    """Carry the check that is due the longest as far as it goes, and tell whether there was one.

    Raises:
        DatabaseUnavailableError: PostgreSQL is away; the lease ends, and the check goes on where
            it was.
    """
    async with runtime.core.database.connection() as connection:
        check = await check_store.claim_check(connection, runtime.core.clock())
    if check is None:
        return False
    held: SettlementCheck | None = check
    while held is not None and held.state == "listing":
        held = await _list_page(runtime, held)
    if held is not None:
        await _compare(runtime, held)
    return True


async def _list_page(runtime: Runtime, check: SettlementCheck) -> SettlementCheck | None:
    """Ask for one page and keep it; None when the check goes on later, or by another's hand."""
    listing: Listing | Deferred = Unknown("gateway_is_off")
    gateway = runtime.gateways.get(check.gateway)
    if gateway is not None:
        listing = await runtime.flow.call(
            check.gateway,
            Priority.NORMAL,
            Purpose.CHECK,
            partial(gateway.list_paid, check.day, check.cursor),
        )
    match listing:
        case Deferred():
            async with runtime.core.database.connection() as connection:
                await check_store.put_off_check(
                    connection,
                    check,
                    until=listing.until,
                    reason=listing.reason,
                    tries=check.tries,
                )
            return None
        case Unknown():
            await _try_again_or_fail(runtime, check, listing.reason)
            return None
        case ListedPage():
            return await _keep(runtime, check, listing)


async def _try_again_or_fail(runtime: Runtime, check: SettlementCheck, reason: str) -> None:
    now = runtime.core.clock()
    async with runtime.core.database.connection() as connection:
        if check.tries < len(TRY_DELAYS_SECONDS):
            until = now + timedelta(seconds=TRY_DELAYS_SECONDS[check.tries])
            await check_store.put_off_check(
                connection, check, until=until, reason=reason, tries=check.tries + 1
            )
            return
        await check_store.fail_check(connection, check, reason=reason, now=now)
    bound(metrics.SETTLEMENT_CHECKS, check.gateway, "failed").inc()
    log.error("settlement_check_failed", gateway=check.gateway, day=str(check.day), reason=reason)


async def _keep(
    runtime: Runtime, check: SettlementCheck, page: ListedPage
) -> SettlementCheck | None:
    of_day = [
        payment for payment in page.payments if created_at(payment.reference).date() == check.day
    ]
    async with runtime.core.database.transaction() as connection:
        listed = await list_store.insert_listed(connection, check.id, of_day)
        return await check_store.save_page(
            connection, check, listed=listed, next_cursor=page.next_cursor, is_cut=page.is_cut
        )


async def _compare(runtime: Runtime, check: SettlementCheck) -> None:
    """Compare both sides, a slice of references at a time, and end the check."""
    tally = Tally()
    began = datetime.combine(check.day, time(), UTC)
    after, before = (first_id_at("att", moment) for moment in (began, began + _DAY))
    last: str | None = after
    while last is not None:
        async with runtime.core.database.connection() as connection:
            slice_ = await list_store.find_slice(
                connection, check.id, check.gateway, after=last, before=before
            )
        for reference in sorted(slice_.own.keys() | slice_.listed.keys()):
            compare(
                tally,
                reference,
                slice_.own.get(reference),
                slice_.listed.get(reference, ()),
                is_cut=check.is_cut,
            )
        last = slice_.last_reference
    await _finish(runtime, check, tally)


async def _finish(runtime: Runtime, check: SettlementCheck, tally: Tally) -> None:
    now = runtime.core.clock()
    # By number, so that their ids are in the order in which they were found.
    moments = (now + timedelta(milliseconds=number) for number in range(len(tally.findings)))
    ids = [new_id(FINDING_PREFIX, moment) for moment in moments]
    async with runtime.core.database.transaction() as connection:
        if not await check_store.finish_check(connection, check, tally, now):
            return  # It took longer than the lease, and another has it.
        await list_store.insert_findings(
            connection, check.id, dict(zip(ids, tally.findings, strict=True))
        )
    _measure(check, tally)
    async with runtime.core.database.connection() as connection:
        while await list_store.forget_listed(connection, check.id):
            pass  # Each statement is short, so that it holds up nobody.
    await _ask_about(runtime, tally.findings)


def _measure(check: SettlementCheck, tally: Tally) -> None:
    found = sum(tally.counts.values())
    bound(metrics.SETTLEMENT_CHECKS, check.gateway, "differs" if found else "agrees").inc()
    for kind, count in tally.counts.items():
        bound(metrics.SETTLEMENT_FINDINGS, check.gateway, kind).inc(count)
    if found:
        log.warning(
            "settlement_check_differs",
            gateway=check.gateway,
            day=str(check.day),
            **{kind.value: count for kind, count in tally.counts.items()},
        )


async def _ask_about(runtime: Runtime, findings: Sequence[Finding]) -> None:
    """Ask the gateway about money that we have no confirmation of: its notice may be lost."""
    missing = {
        finding.reference: finding
        for finding in findings
        if finding.kind is FindingKind.MISSING_HERE and finding.payment_id is not None
    }
    if not missing:
        return
    async with runtime.core.database.connection() as connection:
        payments = await payment_store.find_by_references(connection, list(missing))
    for reference, payment in payments.items():
        asked_at = runtime.core.clock()
        verdict = await ask(
            runtime, payment, reference, "paid", missing[reference].gateway_payment_id
        )
        if isinstance(verdict, Paid):
            await runtime.results.submit(Judgement(payment, verdict, None, asked_at, None))
