"""The control API of every gateway: scripts, the profile, acting as the customer, the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from services.simulator import fates, ledger, movements, notice_store, pages
from services.simulator.behaviours import fault
from services.simulator.control_answers import (
    ClearedAnswer,
    FateAnswer,
    FatesAnswer,
    LedgerAnswer,
    ScriptAnswer,
    SessionAnswer,
    render_ledger,
    render_plan,
)
from services.simulator.core import Core
from services.simulator.gateway import GatewaySimulator
from services.simulator.profiles import CALL_FAULTS, Profile
from shared.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SluiceError,
    TransientError,
)
from shared.web.pages import SIZE_MAX
from shared.web.routes import Answer, Route, Text, parse, parse_query, read_body

TIMES_MAX: Final = 1_000_000
DELAY_SECONDS_MAX: Final = 600

#: A nonce of x402 is the longest, with 66 characters.
Reference = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[a-z0-9_]+$")]

#: A script may also use the words of a profile.
_BEHAVIOURS_OF_FATES: Final[Mapping[str, str]] = {
    fate.value: behaviour.value for fate, behaviour in CALL_FAULTS.items()
}


class _Body(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


class ScriptRequest(_Body):
    """Make the next calls of an operation misbehave."""

    operation: Word
    behaviour: Word
    times: Annotated[int, Field(ge=1, le=TIMES_MAX)] = 1
    delay_seconds: Annotated[float, Field(ge=0, le=DELAY_SECONDS_MAX)] | None = None
    reference: Reference | None = None


class PayRequest(_Body):
    """Act as the customer."""

    reference: Reference
    fate: Word = "paid"


class ReferenceQuery(_Body):
    """Which part of a list to read."""

    reference: Reference | None = None


def control_routes(core: Core, gateways: Sequence[GatewaySimulator]) -> list[Route]:
    """Return the routes below /simulator; none needs a key."""
    everything = _Everything(core, gateways)
    away = (TransientError,)
    routes = [
        Route("GET", "/simulator", everything.overview, answer=Text("text/html")),
        Route("GET", "/simulator/", everything.overview),
        Route(
            "PUT",
            "/simulator/profile",
            everything.save_profile,
            body=Profile,
            answer=Profile,
            errors=away,
        ),
        Route("GET", "/simulator/profile", everything.profile, answer=Profile | None, errors=away),
        Route(
            "DELETE", "/simulator/profile", everything.clear_profile, answer=NoneType, errors=away
        ),
    ]
    for gateway in gateways:
        routes += _One(core, gateway).routes(f"/simulator/{gateway.name}", away)
    return routes


class _Everything:
    """What concerns all gateways."""

    def __init__(self, core: Core, gateways: Sequence[GatewaySimulator]) -> None:
        self._core = core
        self._gateways = gateways

    async def overview(self, _request: web.Request) -> web.StreamResponse:
        """Tell a person what this is and which numbers are magic."""
        sections = [gateway.overview() for gateway in self._gateways]
        return web.Response(text=pages.overview(sections), content_type="text/html")

    async def save_profile(self, request: web.Request) -> web.StreamResponse:
        """Put a random profile in force; payments that were started keep their fates."""
        profile = parse(Profile, await read_body(request))
        async with self._core.database.connection() as connection:
            await fates.save_profile(connection, profile)
        return Answer(_render_profile(profile)).response()

    async def profile(self, _request: web.Request) -> web.StreamResponse:
        """Read the random profile in force; null is none."""
        async with self._core.database.connection() as connection:
            profile = await fates.find_profile(connection)
        return Answer(None if profile is None else _render_profile(profile)).response()

    async def clear_profile(self, _request: web.Request) -> web.StreamResponse:
        """Put the random profile out of force."""
        async with self._core.database.connection() as connection:
            await fates.clear_profile(connection)
        return Answer(None).response()


class _One:
    """What concerns one gateway."""

    def __init__(self, core: Core, gateway: GatewaySimulator) -> None:
        self._core = core
        self._gateway = gateway

    def routes(self, base: str, away: tuple[type[SluiceError], ...]) -> list[Route]:
        """Return the gateway's routes below `base`."""
        script, query = f"{base}/script", ReferenceQuery
        return [
            Route(
                "POST",
                script,
                self.script,
                body=ScriptRequest,
                answer=ScriptAnswer,
                status=201,
                errors=away,
            ),
            Route("DELETE", script, self.clear_scripts, answer=ClearedAnswer, errors=away),
            Route(
                "POST",
                f"{base}/pay",
                self.pay,
                body=PayRequest,
                answer=SessionAnswer,
                errors=(*away, NotFoundError, ConflictError),
            ),
            Route(
                "GET", f"{base}/ledger", self.ledger, answer=LedgerAnswer, query=query, errors=away
            ),
            Route("GET", f"{base}/fates", self.fates, answer=FatesAnswer, query=query, errors=away),
            Route(
                "GET",
                f"{base}/sessions/{{reference}}",
                self.session,
                answer=SessionAnswer,
                errors=away,
            ),
        ]

    async def script(self, request: web.Request) -> web.StreamResponse:
        """Make the next calls of an operation misbehave."""
        wish = parse(ScriptRequest, await read_body(request))
        operations = self._gateway.operations
        known = operations.get(wish.operation)
        if known is None:
            raise InvalidInputError(
                f"{self._gateway.name} has the operations {', '.join(sorted(operations))}",
                details={"operation": "not one of this gateway"},
            )
        behaviour = wish.behaviour
        if behaviour not in known:
            behaviour = _BEHAVIOURS_OF_FATES.get(behaviour, behaviour)
        if behaviour not in known:
            raise InvalidInputError(
                f"the operation '{wish.operation}' has the behaviours {', '.join(sorted(known))}",
                details={"behaviour": "not one of this operation"},
            )
        chosen = fault(behaviour, wish.delay_seconds)
        async with self._core.database.connection() as connection:
            await fates.insert_script(
                connection,
                self._gateway.name,
                wish.operation,
                chosen,
                reference=wish.reference,
                times=wish.times,
            )
        answer: ScriptAnswer = {
            "operation": wish.operation,
            "behaviour": wish.behaviour,
            "times": wish.times,
            "delaySeconds": chosen.delay_seconds,
            "reference": wish.reference,
        }
        return Answer(answer, status=201).response()

    async def clear_scripts(self, _request: web.Request) -> web.StreamResponse:
        """Forget all scripts; magic amounts and numbers keep working."""
        async with self._core.database.connection() as connection:
            cleared = await fates.clear_scripts(connection, self._gateway.name)
        return Answer(ClearedAnswer(cleared=cleared)).response()

    async def pay(self, request: web.Request) -> web.StreamResponse:
        """Do what the customer's buttons do."""
        wish = parse(PayRequest, await read_body(request))
        if wish.fate not in self._gateway.wishes:
            raise InvalidInputError(
                f"a customer's fate is one of {', '.join(sorted(self._gateway.wishes))}",
                details={"fate": "not one of this gateway"},
            )
        return Answer(await self._gateway.act(wish.reference, wish.fate)).response()

    async def ledger(self, request: web.Request) -> web.StreamResponse:
        """List charges and what moved after them, the newest first; count all charges."""
        reference = parse_query(ReferenceQuery, request).reference
        name = self._gateway.name
        # One snapshot, so that the number is that of the same charges.
        async with (
            self._core.database.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            charges = await ledger.list_charges(connection, name, reference, SIZE_MAX)
            moved = await movements.list_movements(connection, name, reference, SIZE_MAX)
            count = await ledger.count_charges(connection, name, reference)
        return Answer(render_ledger(charges, count, moved)).response()

    async def fates(self, request: web.Request) -> web.StreamResponse:
        """List what the profile has decided, by reference from the last on."""
        reference = parse_query(ReferenceQuery, request).reference
        async with self._core.database.connection() as connection:
            recorded = await fates.list_fates(connection, self._gateway.name, reference, SIZE_MAX)
        found: list[FateAnswer] = [
            {
                "reference": each.reference,
                **render_plan(each.plan),
                "recordedAt": each.recorded_at,
            }
            for each in recorded
        ]
        return Answer(FatesAnswer(fates=found)).response()

    async def session(self, request: web.Request) -> web.StreamResponse:
        """Tell everything about one payment: the gateway's part, its fate and its notices."""
        reference, session = request.match_info["reference"], None
        if reference.isprintable():  # Anything else PostgreSQL could not even compare with.
            session = await self._gateway.read_session(reference)
        if session is None:
            raise NotFoundError("no session has this reference")
        name = self._gateway.name
        async with self._core.database.connection() as connection:
            notices = await notice_store.list_notices(connection, name, reference)
            recorded = await fates.list_fates(connection, name, reference, 1)
        return Answer(
            {
                **session,
                "fate": render_plan(recorded[0].plan) if recorded else None,
                "notices": [
                    {
                        "status": notice.status,
                        "dueAt": notice.due_at,
                        "sentAt": notice.sent_at,
                        "responseStatus": notice.response_status,
                        "error": notice.error,
                    }
                    for notice in notices
                ],
            }
        ).response()


def _render_profile(profile: Profile) -> Any:
    return profile.model_dump(mode="json", by_alias=True)
