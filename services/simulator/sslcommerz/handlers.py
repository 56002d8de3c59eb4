"""What the gateway does: open sessions, take money, validate, tell. Wire formats in and out."""

from __future__ import annotations

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

from services.simulator import ledger, notice_store
from services.simulator.behaviours import DELAY_SECONDS, DUPLICATES, Behaviour, Fault
from services.simulator.core import Core, Treatment
from services.simulator.gateway import LAPSED_MAX, Json
from services.simulator.ledger import Charge
from services.simulator.notice_store import Message
from services.simulator.profiles import AT_LAST, NEVER_CONFIRMS, Plan
from services.simulator.sslcommerz import answers, store
from services.simulator.sslcommerz.answers import DHAKA
from services.simulator.sslcommerz.domain import (
    FATES,
    NAME,
    PLAIN,
    STATE_AFTER,
    Element,
    Operation,
    Scenario,
    Session,
    SessionState,
    Status,
    scenario_of,
    to_charge,
)
from services.simulator.sslcommerz.session_request import (
    SessionRefusedError,
    read_price,
    read_session_request,
)
from shared.database import Connection
from shared.errors import ConflictError, NotFoundError
from shared.money import Money

log = structlog.get_logger()

_ALPHABET: Final = string.ascii_letters + string.digits
_RANDOM_LENGTH: Final = 14


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the handlers need."""

    core: Core
    store_id: str
    store_password: SecretStr
    session_seconds: int

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


async def session_treatment(runtime: Runtime, form: Mapping[str, str]) -> Treatment:
    """Return what is in store for opening this session, and for its payment."""
    price = read_price(form)
    scenario = PLAIN if price is None else scenario_of(price)
    tran_id = form.get("tran_id", "")
    if not tran_id.isprintable():  # PostgreSQL stores no NUL; `open_session` refuses the form.
        tran_id = ""
    async with runtime.core.database.connection() as connection:
        return await runtime.core.treatment(
            connection, NAME, Operation.SESSION, tran_id, usual=scenario.session, starts=True
        )


async def open_session(runtime: Runtime, form: Mapping[str, str], plan: Plan | None) -> Json:
    """Open a session, or say which field is wrong."""
    if not runtime.knows(form):
        return answers.session_refused("Store Credential Error Or Store is De-active")
    try:
        request = read_session_request(form)
    except SessionRefusedError as error:
        return answers.session_refused(error.message)
    now = runtime.core.clock()
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
    async with runtime.core.database.transaction() as connection:
        is_new = await store.insert_session(connection, session)
        if is_new:
            await runtime.core.let_customer_act(connection, NAME, session.tran_id, plan)
    if not is_new:
        return answers.session_refused("Invalid Information! 'tran_id' was used before.")
    log.info("session_opened", tran_id=session.tran_id, amount=str(session.price))
    return answers.session_opened(session, runtime.core.public_url)


async def decide(runtime: Runtime, session_key: str, wish: str) -> Decision:
    """Let the customer act: pay, or something less; `wish` is a key of `FATES`.

    What pressing Pay leads to, the amount and the recorded fate decide. Money is taken at most
    once a session: for one that has ended, the last attempt is returned and nothing happens.

    Raises:
        NotFoundError: there is no such session.
        ConflictError: the recorded fate is that the customer does nothing.
    """
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        session = await store.lock_session(connection, session_key)
        if session is None:
            raise NotFoundError("no such session")
        if session.state is not SessionState.OPEN:
            elements = await store.list_elements(connection, session_key)
            return Decision(session, elements[-1], is_new=False)
        if session.expires_at <= now:
            wish = "expired"
        decision = await _attempt(runtime, connection, session, wish, now)
    runtime.core.wake()
    return decision


async def end_lapsed_sessions(runtime: Runtime) -> int:
    """End sessions whose time is over, with notices, and return how many."""
    now = runtime.core.clock()
    async with runtime.core.database.transaction() as connection:
        sessions = await store.claim_lapsed_sessions(connection, now, LAPSED_MAX)
        for session in sessions:
            await _attempt(runtime, connection, session, "expired", now)
    if sessions:
        runtime.core.wake()
    return len(sessions)


async def validation_treatment(runtime: Runtime, val_id: str) -> Treatment:
    """Count a call for a validation and return what is in store for it."""
    core = runtime.core
    async with core.database.connection() as connection:
        session = await store.find_session_paid(connection, val_id)
        if session is None:
            return await core.treatment(connection, NAME, Operation.VALIDATE, "")
        number = await store.count_validation(connection, session.session_key)
        usual = scenario_of(session.price).validation_fault(number)
        return await core.treatment(
            connection, NAME, Operation.VALIDATE, session.tran_id, usual=usual
        )


async def validate(
    runtime: Runtime, parameters: Mapping[str, str], *, says_pending: bool = False
) -> Json:
    """Validate a `val_id`: `VALID` at first, `VALIDATED` from then on."""
    if not runtime.knows(parameters):
        return answers.invalid_transaction("FAILED")
    val_id = parameters.get("val_id", "")
    if not val_id or parameters.get("format", "json") != "json":
        return answers.invalid_transaction("INVALID_REQUEST")
    async with runtime.core.database.connection() as connection:
        session = await store.find_session_paid(connection, val_id)
        if session is None:
            return answers.invalid_transaction("DONE")
        is_first = not says_pending and await store.save_validated(
            connection, val_id, runtime.core.clock()
        )
        element = await store.find_element(connection, val_id)
    assert element is not None, "a paid session has an element, and none is ever deleted"
    if says_pending:
        return answers.validation(session, element, "PENDING")
    return answers.validation(session, element, "VALID" if is_first else "VALIDATED")


async def query_treatment(runtime: Runtime, parameters: Mapping[str, str]) -> Treatment:
    """Return what is in store for a transaction query."""
    async with runtime.core.database.connection() as connection:
        tran_id = parameters.get("tran_id", "")
        if not tran_id:
            session = await store.find_session(connection, parameters.get("sessionkey", ""))
            tran_id = "" if session is None else session.tran_id
        return await runtime.core.treatment(connection, NAME, Operation.QUERY, tran_id)


async def query(runtime: Runtime, parameters: Mapping[str, str]) -> Json:
    """Tell what is known about a `tran_id` or a `sessionkey`."""
    if not runtime.knows(parameters):
        return answers.query_refused("FAILED")
    tran_id, session_key = parameters.get("tran_id", ""), parameters.get("sessionkey", "")
    if not (tran_id or session_key) or parameters.get("format", "json") != "json":
        return answers.query_refused("INVALID_REQUEST")
    async with runtime.core.database.connection() as connection:
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
    runtime: Runtime, connection: Connection, session: Session, wish: str, now: datetime
) -> Decision:
    """Carry out one attempt on a locked, open session.

    Raises:
        ConflictError: the recorded fate is that the customer does nothing.
    """
    treatment = await runtime.core.treatment(connection, NAME, Operation.NOTICE, session.tran_id)
    plan = treatment.plan
    if wish == "paid" and plan is not None:
        wish = plan.wish
    if wish == NEVER_CONFIRMS:
        raise ConflictError("this customer never pays", details={"state": session.state})
    scenario = scenario_of(session.price) if wish == "paid" else PLAIN
    outcome = scenario.outcome if wish == "paid" else FATES[wish]
    if wish == "late_success":
        delay_seconds = DELAY_SECONDS[Behaviour.LATE] if plan is None else plan.late_seconds
        await notice_store.insert_act(connection, NAME, session.tran_id, AT_LAST, delay_seconds)
    fault = treatment.fault or scenario.notice or (plan.notice_fault if plan else None)
    element = _new_element(session, outcome, scenario, now)
    declined = None
    if outcome is Status.VALID and fault and fault.behaviour == Behaviour.REORDERED:
        declined = _new_element(session, Status.FAILED, scenario, now)
        await store.insert_element(connection, session.session_key, declined)
    await store.insert_element(connection, session.session_key, element)
    if outcome is Status.VALID:
        await ledger.insert_charge(connection, _charge(session, element))
    state = STATE_AFTER[outcome]
    await store.save_state(connection, session.session_key, state)
    if session.ipn_url:
        await _plan_notices(runtime, connection, session, element, fault)
        if declined is not None and fault is not None:
            message = _message(runtime, session, declined)
            await notice_store.insert_notice(connection, message, fault.delay_seconds)
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
    if behaviour == Behaviour.NEVER:
        return
    is_forged = behaviour in (Behaviour.BADLY_SIGNED, Behaviour.WRONG_SECRET)
    message = _message(runtime, session, element, forged=is_forged)
    delay_seconds = fault.delay_seconds if fault and behaviour == Behaviour.LATE else 0.0
    for _ in range(DUPLICATES if behaviour == Behaviour.DUPLICATE else 1):
        await notice_store.insert_notice(connection, message, delay_seconds)


def _message(
    runtime: Runtime, session: Session, element: Element, *, forged: bool = False
) -> Message:
    password = runtime.store_password.get_secret_value()
    if forged:
        password += " of another store"
    return Message(
        gateway=NAME,
        reference=session.tran_id,
        status=element.status,
        url=session.ipn_url,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode(answers.notice_form(session, element, password)),
    )


def _charge(session: Session, element: Element) -> Charge:
    return Charge(
        gateway=NAME,
        reference=session.tran_id,
        gateway_payment_id=element.bank_tran_id,
        charge=element.charge,
        price=element.price,
        charged_at=element.created_at,
        val_id=element.val_id,
        risk_level=element.risk_level,
    )


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
