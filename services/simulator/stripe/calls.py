"""One request from its key to its answer: who calls, what for, and whether it was asked before."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeAlias

import asyncpg
import orjson
from aiohttp import web

from services.simulator import faults
from services.simulator.behaviours import Behaviour
from services.simulator.core import Treatment
from services.simulator.faults import Reply
from services.simulator.stripe import errors, idempotency, store
from services.simulator.stripe.answers import API_VERSION
from services.simulator.stripe.errors import ApiError
from services.simulator.stripe.form import parse_form
from services.simulator.stripe.runtime import Call, Runtime, Work, new_id
from services.simulator.stripe.scenarios import LOCK_TIMEOUT, NAME, scenario_of
from shared.database import Connection
from shared.web.routes import json_response, read_body

#: Reads the parameters of a request; nothing has been done yet when it refuses them.
Endpoint: TypeAlias = Callable[[Runtime, Call], Work]

PREFIX: Final = "/stripe"

_RATE_LIMITED: Final = 429
_IN_USE: Final = 409


def serve(
    runtime: Runtime, endpoint: Endpoint
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Make the route of an endpoint."""

    async def handle(request: web.Request) -> web.StreamResponse:
        request_id = new_id("req")
        headers = {
            "Request-Id": request_id,
            "Stripe-Version": _plain(request.headers.get("Stripe-Version", "")) or API_VERSION,
        }
        try:
            call = await _read_call(runtime, request, request_id)
            if call.idempotency_key is not None:
                headers["Idempotency-Key"] = call.idempotency_key
            work = endpoint(runtime, call)
        except ApiError as error:
            return _response(error, headers)
        treatment = await _treatment(runtime, work)

        async def carry_out() -> Reply:
            reply = await _carry_out(runtime, call, work, treatment)
            return replace(reply, headers={**headers, **reply.headers})

        def refuse(status: int) -> web.Response:
            return _response(_refusal(status, call), headers)

        if treatment.is_told(LOCK_TIMEOUT):
            return _response(errors.lock_timeout(), headers)
        return await faults.answer(request, _left_to_do(treatment), carry_out, refuse)

    return handle


async def unknown(request: web.Request) -> web.StreamResponse:
    """Refuse an address that is no endpoint."""
    path = request.path.removeprefix(PREFIX)
    return _response(errors.unknown_address(request.method, path), {"Request-Id": new_id("req")})


async def _read_call(runtime: Runtime, request: web.Request, request_id: str) -> Call:
    """Read who calls and with which parameters.

    Raises:
        ApiError: not with our key, or not in a form.
    """
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    given = key.strip() if scheme.lower() == "bearer" else ""
    expected = runtime.secret_key.get_secret_value()
    if not hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode()):
        raise errors.unauthorized(_plain(given))
    text = request.query_string
    if request.method == "POST":
        text = (await read_body(request)).decode("utf-8", "replace")
    idempotency_key = None
    if request.method == "POST" and "Idempotency-Key" in request.headers:
        idempotency_key = _plain(request.headers["Idempotency-Key"])
        if not 0 < len(idempotency_key) <= idempotency.KEY_LENGTH_MAX:
            raise errors.bad_request(
                f"Idempotency keys must have 1 to {idempotency.KEY_LENGTH_MAX} ASCII characters."
            )
    subject = request.match_info.get("subject", "")
    return Call(
        method=request.method,
        path=request.path.removeprefix(PREFIX),
        tree=parse_form(text),
        request_id=request_id,
        idempotency_key=idempotency_key,
        subject=subject if subject.isprintable() else "",
    )


def _plain(header: str) -> str:
    """Return a header that can be repeated and stored, or nothing."""
    return header if header.isascii() and header.isprintable() else ""


async def _treatment(runtime: Runtime, work: Work) -> Treatment:
    """Return what is in store for a call, after finding out which payment it is about."""
    async with runtime.core.database.connection() as connection:
        reference, amount = work.reference, work.amount
        intent_id = work.intent_id
        if intent_id is None and work.charge is not None:
            intent_id = await store.find_intent_id_of_charge(connection, work.charge)
        intent = None if intent_id is None else await store.find_intent(connection, intent_id)
        if intent is not None:
            reference, amount = intent.reference, intent.amount
        usual = None
        if work.confirms and amount is not None:
            usual = scenario_of(amount).call
        if usual is not None and not await store.claim_spoiling(connection, reference or ""):
            usual = None
        return await runtime.core.treatment(
            connection, NAME, work.operation, reference or "", usual=usual, starts=work.confirms
        )


def _left_to_do(treatment: Treatment) -> Treatment:
    """Return the treatment without what the work itself does while the key is in use."""
    if treatment.is_told(Behaviour.SLOW) or treatment.is_told(Behaviour.ERROR_AFTER):
        return replace(treatment, fault=None)
    return treatment


async def _carry_out(runtime: Runtime, call: Call, work: Work, treatment: Treatment) -> Reply:
    """Do the work, unless its key says that it was done before."""
    key = call.idempotency_key
    if key is not None:
        try:
            async with runtime.core.database.connection() as connection:
                stored = await idempotency.claim_key(
                    connection,
                    key,
                    call.path,
                    call.tree,
                    request_id=call.request_id,
                    now=runtime.core.clock(),
                )
        except ApiError as error:
            return _reply(error)
        if stored is not None:
            headers = {"Idempotent-Replayed": "true", "Original-Request": stored.request_id}
            return Reply(orjson.Fragment(stored.body), stored.status, headers)
    if treatment.fault is not None and treatment.is_told(Behaviour.SLOW):
        await asyncio.sleep(treatment.fault.delay_seconds)
    try:
        return await _execute(runtime, call, work, treatment)
    except asyncpg.LockNotAvailableError:
        refusal = errors.lock_timeout()
    except ApiError as error:
        refusal = error
    if key is not None:
        async with runtime.core.database.connection() as connection:
            if refusal.is_stored:
                await _save(connection, call, _reply(refusal))
            else:
                await idempotency.free_key(connection, key, call.request_id)
    return _reply(refusal)


async def _execute(runtime: Runtime, call: Call, work: Work, treatment: Treatment) -> Reply:
    """Do the work and store its answer, in one transaction.

    Raises:
        ApiError: nothing was done.
    """
    async with runtime.core.database.transaction() as connection:
        reply = await work.run(connection, treatment)
        if treatment.is_told(Behaviour.ERROR_AFTER):
            reply = _reply(errors.server_error(should_retry=False, is_stored=True))
        if call.idempotency_key is not None and not await _save(connection, call, reply):
            raise errors.key_in_use(call.idempotency_key)
    if call.method == "POST":
        runtime.core.wake()
    return reply


async def _save(connection: Connection, call: Call, reply: Reply) -> bool:
    assert call.idempotency_key is not None, "there is nothing to save without"
    body = orjson.dumps(reply.data)
    return await idempotency.save_answer(
        connection, call.idempotency_key, call.request_id, reply.status, body
    )


def _refusal(status: int, call: Call) -> ApiError:
    """Refuse before any work, in Stripe's words."""
    if status == _RATE_LIMITED:
        headers = {"Retry-After": str(faults.RETRY_AFTER_SECONDS)}
        return errors.rate_limited("global-rate", headers)
    if status == _IN_USE:
        return errors.key_in_use(call.idempotency_key or "")
    return errors.server_error(should_retry=True, is_stored=False)


def _reply(error: ApiError) -> Reply:
    return Reply(error.body(), error.status, error.headers)


def _response(error: ApiError, headers: dict[str, str]) -> web.Response:
    return json_response(
        orjson.dumps(error.body()), status=error.status, headers={**headers, **error.headers}
    )
