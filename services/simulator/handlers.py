"""What the gateway does: open sessions, take money, validate, tell. Wire formats in and out."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode

import structlog
from pydantic import SecretStr

from services.simulator import answers, notice_store, store
from services.simulator.answers import DHAKA, Json
from services.simulator.domain import (
    DUPLICATES,
    PLAIN,
    STATE_AFTER,
    Behaviour,
    Element,
    Fault,
    Operation,
    Scenario,
    Session,
    SessionState,
    Status,
    scenario_of,
    to_charge,
)
from services.simulator.session_request import (
    SessionRefusedError,
    read_price,
    read_session_request,
)
from shared.clock import Clock
from shared.database import Connection, Database
from shared.errors import NotFoundError
from shared.money import Money

log = structlog.get_logger()

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 14

#: Lapsed sessions ended in one transaction.
LAPSED_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the handlers need. `notices_due` wakes the sender of this process."""

    database: Database
    clock: Clock
    store_id: str
    store_password: SecretStr
    public_url: str
    session_seconds: int
    notices_due: asyncio.Event

    def knows(self, credentials: Mapping[str, str]) -> bool:
        """Tell whether `store_id` and `store_passwd` are ours."""
        given = (credentials.get("store_id", ""), credentials.get("store_passwd", ""))
        expected = (self.store_id, self.store_password.get_secret_value())
        return hmac.compare_digest("\n".join(given).encode(), "\n".join(expected).encode())


@dataclass(frozen=True, slots=True)
class Decision:
    """How an attempt ended; `is_new` is false if the session had ended before."""

    session: Session
    element: Element
    is_new: bool


async def session_fault(runtime: Runtime, form: Mapping[str, str]) -> Fault | None:
    """Return how opening this session goes wrong, if it does."""
    price = read_price(form)
    scenario = PLAIN if price is None else scenario_of(price)
    tran_id = form.get("tran_id", "")
    if not tran_id.isprintable():  # PostgreSQL stores no NUL; `open_session` refuses the form.
        tran_id = ""
    async with runtime.database.connection() as connection:
        scripted = await notice_store.claim_fault(connection, Operation.SESSION, tran_id)
    return scripted or scenario.session


async def open_session(runtime: Runtime, form: Mapping[str, str]) -> Json:
    """Open a session, or say which field is wrong."""
    if not runtime.knows(form):
        return answers.session_refused("Store Credential Error Or Store is De-active")
    try:
        request = read_session_request(form)
    except SessionRefusedError as error:
        return answers.session_refused(error.message)
    now = runtime.clock()
    session = Session(
        session_key=secrets.token_hex(16).upper(),
        tran_id=request.tran_id,
        state=SessionState.OPEN,
        price=request.price,
        charge=request.charge,
        rate=request.rate,
        store_id=runtime.store_id,
        product_name=request.product_name,
        success_url=request.success_url,
        fail_url=request.fail_url,
        cancel_url=request.cancel_url,
        ipn_url=request.ipn_url,
        echoed=request.echoed,
        created_at=now,
        expires_at=now + timedelta(seconds=runtime.session_seconds),
    )
    async with runtime.database.connection() as connection:
        is_new = await store.insert_session(connection, session)
    if not is_new:
        return answers.session_refused("Invalid Information! 'tran_id' was used before.")
    log.info("session_opened", tran_id=session.tran_id, amount=str(session.price))
    return answers.session_opened(session, runtime.public_url)


async def decide(runtime: Runtime, session_key: str, wish: Status) -> Decision:
    """Let the customer act: pay (`VALID`) or something less.

    What pressing Pay leads to, the amount decides. Money is taken at most once a session: for one
    that has ended, the last attempt is returned and nothing happens.

    Raises:
        NotFoundError: there is no such session.
    """
    now = runtime.clock()
    async with runtime.database.transaction() as connection:
        session = await store.lock_session(connection, session_key)
        if session is None:
            raise NotFoundError("no such session")
        if session.state is not SessionState.OPEN:
            elements = await store.list_elements(connection, session_key)
            return Decision(session, elements[-1], is_new=False)
        if session.expires_at <= now:
            wish = Status.EXPIRED
        decision = await _attempt(runtime, connection, session, wish, now)
    runtime.notices_due.set()
    return decision


async def end_lapsed_sessions(runtime: Runtime) -> int:
    """End sessions whose time is over, with notices, and return how many."""
    now = runtime.clock()
    async with runtime.database.transaction() as connection:
        sessions = await store.claim_lapsed_sessions(connection, now, LAPSED_MAX)
        for session in sessions:
            await _attempt(runtime, connection, session, Status.EXPIRED, now)
    if sessions:
        runtime.notices_due.set()
    return len(sessions)


async def validation_fault(runtime: Runtime, val_id: str) -> Fault | None:
    """Count a call for a validation and return how it goes wrong, if it does."""
    async with runtime.database.connection() as connection:
        session = await store.find_session_paid(connection, val_id)
        if session is None:
            return await notice_store.claim_fault(connection, Operation.VALIDATE, "")
        number = await store.count_validation(connection, session.session_key)
        scripted = await notice_store.claim_fault(connection, Operation.VALIDATE, session.tran_id)
    return scripted or scenario_of(session.price).validation_fault(number)


async def validate(
    runtime: Runtime, parameters: Mapping[str, str], *, says_pending: bool = False
) -> Json:
    """Validate a `val_id`: `VALID` at first, `VALIDATED` from then on."""
    if not runtime.knows(parameters):
        return answers.invalid_transaction("FAILED")
    val_id = parameters.get("val_id", "")
    if not val_id or parameters.get("format", "json") != "json":
        return answers.invalid_transaction("INVALID_REQUEST")
    async with runtime.database.connection() as connection:
        session = await store.find_session_paid(connection, val_id)
        if session is None:
            return answers.invalid_transaction("DONE")
        is_first = not says_pending and await store.save_validated(
            connection, val_id, runtime.clock()
        )
        element = await store.find_element(connection, val_id)
    assert element is not None, "a paid session has an element, and none is ever deleted"
    if says_pending:
        return answers.validation(session, element, "PENDING")
    return answers.validation(session, element, "VALID" if is_first else "VALIDATED")


async def query_fault(runtime: Runtime, parameters: Mapping[str, str]) -> Fault | None:
    """Return how a transaction query goes wrong, if it does."""
    async with runtime.database.connection() as connection:
        tran_id = parameters.get("tran_id", "")
        if not tran_id:
            session = await store.find_session(connection, parameters.get("sessionkey", ""))
            tran_id = "" if session is None else session.tran_id
        return await notice_store.claim_fault(connection, Operation.QUERY, tran_id)


#: Each of these makes a call of the shared address one about refunds.
_REFUND_PARAMETERS: Final = ("bank_tran_id", "refund_trans_id", "refund_amount", "refund_ref_id")


async def query(runtime: Runtime, parameters: Mapping[str, str]) -> Json:
    """Tell what is known about a `tran_id` or a `sessionkey`."""
    if not runtime.knows(parameters):
        return answers.query_refused("FAILED")
    if any(parameters.get(name) for name in _REFUND_PARAMETERS):
        return answers.refunds_unsupported()
    tran_id, session_key = parameters.get("tran_id", ""), parameters.get("sessionkey", "")
    if not (tran_id or session_key) or parameters.get("format", "json") != "json":
        return answers.query_refused("INVALID_REQUEST")
    async with runtime.database.connection() as connection:
        if tran_id:
            session = await store.find_session_of(connection, tran_id)
        else:
            session = await store.find_session(connection, session_key)
        elements: list[Element] = []
        if session is not None:
            elements += await store.list_elements(connection, session.session_key)
    if tran_id:
        return answers.transactions(session, elements)
    if session is None:
        return answers.no_session()
    return answers.transaction_of_session(session, elements)


async def _attempt(
    runtime: Runtime, connection: Connection, session: Session, wish: Status, now: datetime
) -> Decision:
    """Carry out one attempt on a locked, open session."""
    scenario = scenario_of(session.price) if wish is Status.VALID else PLAIN
    outcome = scenario.outcome if wish is Status.VALID else wish
    fault = await notice_store.claim_fault(connection, Operation.NOTICE, session.tran_id)
    fault = fault or scenario.notice
    element = _new_element(session, outcome, scenario, now)
    declined = None
    if outcome is Status.VALID and fault and fault.behaviour is Behaviour.REORDERED:
        declined = _new_element(session, Status.FAILED, scenario, now)
        await store.insert_element(connection, session.session_key, declined)
    await store.insert_element(connection, session.session_key, element)
    if outcome is Status.VALID:
        await store.insert_charge(connection, session.tran_id, element)
    state = STATE_AFTER[outcome]
    await store.save_state(connection, session.session_key, state)
    if session.ipn_url:
        await _plan_notices(runtime, connection, session, element, fault)
        if declined is not None and fault is not None:
            form = _notice_body(runtime, session, declined)
            await notice_store.insert_notice(
                connection, session, declined.status, form, fault.delay_seconds
            )
    log.info("attempt_ended", tran_id=session.tran_id, status=outcome.value)
    return Decision(replace(session, state=state), element, is_new=True)


async def _plan_notices(
    runtime: Runtime,
    connection: Connection,
    session: Session,
    element: Element,
    fault: Fault | None,
) -> None:
    behaviour = None if fault is None else fault.behaviour
    if behaviour is Behaviour.NEVER:
        return
    body = _notice_body(runtime, session, element, forged=behaviour is Behaviour.BADLY_SIGNED)
    delay_seconds = fault.delay_seconds if fault and behaviour is Behaviour.LATE else 0.0
    for _ in range(DUPLICATES if behaviour is Behaviour.DUPLICATE else 1):
        await notice_store.insert_notice(connection, session, element.status, body, delay_seconds)


def _notice_body(
    runtime: Runtime, session: Session, element: Element, *, forged: bool = False
) -> str:
    password = runtime.store_password.get_secret_value()
    if forged:
        password += " of another store"
    return urlencode(answers.notice_form(session, element, password))


def _new_element(session: Session, status: Status, scenario: Scenario, now: datetime) -> Element:
    price, charge = session.price, session.charge
    is_paid = status is Status.VALID
    if is_paid and scenario.shortfall:
        price = Money(max(1, price.minor_units - scenario.shortfall), price.currency)
        charge = to_charge(price, session.rate)
    return Element(
        status=status,
        val_id=_new_number(now) if is_paid else None,
        bank_tran_id=_new_number(now) if status in (Status.VALID, Status.FAILED) else "",
        charge=charge,
        price=price,
        risk_level=scenario.risk_level if is_paid else 0,
        created_at=now,
    )


def _new_number(now: datetime) -> str:
    """Make a number that looks like the gateway's own: the time and random letters."""
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return f"{now.astimezone(DHAKA):%y%m%d%H%M%S}{letters}"
