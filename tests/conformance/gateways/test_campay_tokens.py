"""A token is kept, renewed early and once at a time; a refused one is replaced once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import structlog

from shared.gateways.campay.client import CampayGateway
from shared.gateways.campay.tokens import RENEWAL_PAUSE, RenewedToken
from shared.gateways.http_client import HttpAnswer, HttpClient
from shared.gateways.interface import Declined, FailureKind, Pending, Unknown
from shared.gateways.json_calls import JsonAnswer, read_json_answer
from tests.support.campay import (
    HANDLE,
    PAID,
    PASSWORD,
    TRANSACTION,
    USERNAME,
    campay_at,
    campay_with,
)
from tests.support.clocks import ManualClock
from tests.support.gateway_answers import SILENCES, WRONG_SHAPES, reply, split
from tests.support.mobile_money import PROMPT, assert_nothing_personal, prompt
from tests.support.polling import DEADLINE_SECONDS, eventually
from tests.support.scripted_server import (
    Exchange,
    Script,
    ScriptedServer,
    answer,
    says_nothing,
    scripted_server,
    sends,
)

ORDER = prompt(handle=HANDLE)
COLLECTED = reply({"reference": HANDLE, "ussd_code": "*126#", "operator": "mtn"})
UNAUTHORIZED = reply({"detail": "Invalid token."}, status="401 Unauthorized")
FOUND = reply(TRANSACTION)

CREDENTIALS_REFUSED = Declined("credentials refused", FailureKind.CONFIGURATION, is_final=True)


def token(name: str, expires_in: object = 3600) -> bytes:
    return reply({"token": f"secret-{name}", "expires_in": expires_in})


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def gateway(server: ScriptedServer, clock: ManualClock) -> AsyncIterator[CampayGateway]:
    gateway = campay_at(server.url, clock, (USERNAME, PASSWORD))
    with structlog.testing.capture_logs() as lines:
        yield gateway
    await gateway.close()
    assert_nothing_personal(lines, "secret")


def story(server: ScriptedServer) -> list[str]:
    """Return what was asked, and with which token."""
    parts = [split(request) for request in server.requests]
    return [
        f"{target.split('/')[2]} {headers.get('authorization', '').removeprefix('Token secret-')}"
        for _, target, headers, _ in parts
    ]


async def test_a_token_is_got_with_name_and_password_and_kept(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(token("1"), FOUND, FOUND)

    assert await gateway.look_up(ORDER) == PAID
    assert await gateway.look_up(ORDER) == PAID

    assert story(server) == ["token ", "transaction 1", "transaction 1"]
    method, target, _, fields = split(server.requests[0])
    assert (method, target) == ("POST", "/api/token/")
    assert fields == {"username": USERNAME, "password": PASSWORD}


async def test_many_calls_at_once_get_one_token(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(token("1"), *[FOUND] * 5)

    outcomes = await asyncio.gather(*[gateway.look_up(ORDER) for _ in range(5)])

    assert outcomes == [PAID] * 5
    assert sorted(story(server)) == ["token "] + ["transaction 1"] * 5


def routed(server: ScriptedServer, *, for_a_token: Script | bytes, calls: int) -> None:
    """Answer each of the next calls by what it asks for, in whatever order they come."""

    async def script(exchange: Exchange) -> bool:
        given = for_a_token if b" /api/token/ " in exchange.request else FOUND
        return await (sends(given) if isinstance(given, bytes) else given)(exchange)

    server.then(*[script] * calls)


async def with_a_token(server: ScriptedServer, gateway: CampayGateway) -> None:
    server.then(token("1"), FOUND)
    assert await gateway.look_up(ORDER) == PAID
    assert story(server) == ["token ", "transaction 1"]
    server.requests.clear()


async def test_a_token_near_its_end_is_renewed_while_calls_go_on_with_it(
    server: ScriptedServer, gateway: CampayGateway, clock: ManualClock
) -> None:
    await with_a_token(server, gateway)
    routed(server, for_a_token=token("2"), calls=1_000)

    clock.advance(3600 - 361)
    assert await gateway.look_up(ORDER) == PAID
    assert story(server) == ["transaction 1"]
    clock.advance(1)
    assert await gateway.look_up(ORDER) == PAID

    async def has_the_new_token() -> bool:
        assert await gateway.look_up(ORDER) == PAID
        return story(server)[-1] == "transaction 2"

    await eventually(has_the_new_token)
    assert story(server).count("token ") == 1


@pytest.mark.parametrize(
    "for_a_token",
    [answer(b"", status="503 Service Unavailable"), UNAUTHORIZED, says_nothing],
    ids=["fault", "refused", "no answer"],
)
async def test_a_renewal_in_vain_costs_no_call_while_the_token_is_valid(
    server: ScriptedServer,
    gateway: CampayGateway,
    clock: ManualClock,
    for_a_token: Script | bytes,
) -> None:
    await with_a_token(server, gateway)
    routed(server, for_a_token=for_a_token, calls=1_000)
    clock.advance(3600 - 300)

    async def has_asked() -> bool:
        assert await gateway.look_up(ORDER) == PAID
        return "token " in story(server)

    await eventually(has_asked)
    for _ in range(20):
        assert await gateway.look_up(ORDER) == PAID
    assert story(server).count("token ") == 1  # One at a time, and after a failure a pause.

    async def has_asked_again() -> bool:
        clock.advance(RENEWAL_PAUSE.total_seconds() / 10)
        assert await gateway.look_up(ORDER) == PAID
        return story(server).count("token ") == 2

    await eventually(has_asked_again)


async def test_an_expired_token_is_not_used(
    server: ScriptedServer, gateway: CampayGateway, clock: ManualClock
) -> None:
    await with_a_token(server, gateway)
    clock.advance(3600)
    server.then(token("2"), FOUND)

    assert await gateway.look_up(ORDER) == PAID
    assert story(server) == ["token ", "transaction 2"]


async def test_a_refused_token_is_replaced_and_the_call_repeated_once(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    await with_a_token(server, gateway)
    server.then(UNAUTHORIZED, token("2"), COLLECTED)

    assert await gateway.start(PROMPT) == Pending("prompted", HANDLE)
    assert story(server) == ["collect 1", "token ", "collect 2"]
    assert split(server.requests[0])[3] == split(server.requests[2])[3]


async def test_a_call_refused_twice_is_not_made_a_third_time(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    server.then(token("1"), UNAUTHORIZED, token("2"), UNAUTHORIZED)
    assert await gateway.start(PROMPT) == CREDENTIALS_REFUSED

    server.then(UNAUTHORIZED, token("3"), UNAUTHORIZED)
    assert await gateway.look_up(ORDER) == Unknown("http_401")
    assert story(server)[4:] == ["transaction 2", "token ", "transaction 3"]


async def test_a_token_that_another_call_replaced_is_not_replaced_again(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    await with_a_token(server, gateway)

    async def script(exchange: Exchange) -> bool:
        if b" /api/token/ " in exchange.request:
            return await sends(token("2"))(exchange)
        is_old = b"secret-1" in exchange.request
        return await sends(UNAUTHORIZED if is_old else FOUND)(exchange)

    server.then(*[script] * 100)

    outcomes = await asyncio.gather(*[gateway.look_up(ORDER) for _ in range(8)])

    assert outcomes == [PAID] * 8
    assert story(server).count("token ") == 1


async def test_only_the_token_in_use_is_replaced(clock: ManualClock) -> None:
    names = iter("123")

    async def ask() -> JsonAnswer:
        return read_json_answer(HttpAnswer(200, b'{"token":"%s"}' % next(names).encode()))

    tokens = RenewedToken(ask, clock)

    assert await tokens.current() == "1"
    assert await tokens.replaced("1") == "2"
    assert await tokens.replaced("1") == "2"  # Refused to a slower call before it was replaced.
    assert await tokens.replaced("2") == "3"


async def test_a_permanent_token_has_no_other(server: ScriptedServer, clock: ManualClock) -> None:
    gateway = campay_at(server.url, clock)
    server.then(UNAUTHORIZED, UNAUTHORIZED)

    assert await gateway.start(PROMPT) == CREDENTIALS_REFUSED
    assert await gateway.look_up(ORDER) == Unknown("http_401")
    assert story(server) == ["collect token", "transaction token"]
    await gateway.close()


@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "403 Forbidden"], ids=str
)
async def test_wrong_credentials_are_our_own_mistake_and_nothing_is_sent_with_them(
    server: ScriptedServer, gateway: CampayGateway, status: str
) -> None:
    refused = reply({"message": "Unable to log in with secret-user"}, status=status)
    server.then(refused, refused, refused)

    assert await gateway.start(PROMPT) == CREDENTIALS_REFUSED
    assert await gateway.look_up(ORDER) == Unknown("token_refused")
    assert await gateway.confirm("att_01KE70EHG0JY1QREBD77BRA2Z8", HANDLE) == Unknown(
        "token_refused"
    )
    assert story(server) == ["token "] * 3


@pytest.mark.parametrize(("script", "reason"), SILENCES.values(), ids=SILENCES)
async def test_without_a_token_nothing_is_sent_and_the_outcome_is_unknown(
    server: ScriptedServer, gateway: CampayGateway, script: Script, reason: str
) -> None:
    server.then(script)

    outcome = await gateway.start(PROMPT)

    assert isinstance(outcome, Unknown)
    assert outcome.reason in reason.split("|")
    assert story(server) == ["token "]


NO_TOKENS: dict[str, object] = WRONG_SHAPES | {
    "no token": {"expires_in": 3600},
    "an empty one": {"token": ""},
    "one that no header can carry": {"token": "secret\r\nHost: evil.example"},
    "one beyond ASCII": {"token": "sécret"},
    "one without end": {"token": "x" * 4_001},
}


@pytest.mark.parametrize("content", NO_TOKENS.values(), ids=NO_TOKENS)
async def test_what_is_no_token_is_not_used_as_one(
    server: ScriptedServer, gateway: CampayGateway, content: object
) -> None:
    server.then(reply(content))

    assert isinstance(await gateway.start(PROMPT), Unknown)
    assert story(server) == ["token "]


@pytest.mark.parametrize("expires_in", [None, "3600", 0, -1, 10**18, 3600.5, True, []], ids=repr)
async def test_a_lifetime_that_cannot_be_read_is_the_documented_hour_or_less(
    server: ScriptedServer, gateway: CampayGateway, clock: ManualClock, expires_in: object
) -> None:
    server.then(token("1", expires_in), FOUND, token("2"), FOUND)
    await gateway.look_up(ORDER)

    clock.advance(3600)

    assert await gateway.look_up(ORDER) == PAID
    assert story(server)[2:] == ["token ", "transaction 2"]


async def test_one_time_out_bounds_the_token_and_the_call(
    server: ScriptedServer, clock: ManualClock
) -> None:
    client = HttpClient(server.url, total_timeout_seconds=DEADLINE_SECONDS)
    gateway = campay_with(client, server.url, clock, (USERNAME, PASSWORD))
    server.then(token("1"), says_nothing, says_nothing)
    started = time.monotonic()

    assert await gateway.start(PROMPT) == Unknown("timeout")
    clock.advance(3600)
    assert await gateway.start(PROMPT) == Unknown("timeout")

    assert time.monotonic() - started < DEADLINE_SECONDS
    assert story(server) == ["token ", "collect 1", "token "]
    await gateway.close()


async def test_closing_ends_a_renewal_under_way(server: ScriptedServer, clock: ManualClock) -> None:
    gateway = campay_at(server.url, clock, (USERNAME, PASSWORD))
    await with_a_token(server, gateway)
    routed(server, for_a_token=says_nothing, calls=1_000)
    clock.advance(3600 - 300)

    async def has_asked() -> bool:
        assert await gateway.look_up(ORDER) == PAID
        return "token " in story(server)

    await eventually(has_asked)
    await gateway.close()
    assert await gateway.look_up(ORDER) == PAID  # Nothing is broken, nothing waits.
    await gateway.close()


async def test_a_caller_that_gives_up_does_not_end_the_renewal_of_others(
    server: ScriptedServer, gateway: CampayGateway
) -> None:
    release = asyncio.Event()

    async def held_token(exchange: Exchange) -> bool:
        await release.wait()
        return await sends(token("1"))(exchange)

    server.then(held_token, FOUND)
    impatient = asyncio.create_task(gateway.look_up(ORDER))
    patient = asyncio.create_task(gateway.look_up(ORDER))

    async def has_asked() -> bool:
        return bool(server.requests)

    await eventually(has_asked)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    release.set()

    assert await patient == PAID
    assert story(server) == ["token ", "transaction 1"]
