"""The token that every call to Campay carries: one that lasts, or one renewed every hour."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, Protocol

from shared.clock import Clock
from shared.gateways.http_client import HttpCallError
from shared.gateways.json_calls import JsonAnswer, text_in

#: How long a token is valid when Campay does not say (its answers and its SDK say an hour).
LIFETIME: Final = timedelta(hours=1)

#: Part of its life at the end in which a token is renewed while calls still use it: 6 minutes.
RENEWAL_SHARE: Final = 0.1

#: After a renewal in vain, how long calls go on with a token that is still valid.
RENEWAL_PAUSE: Final = timedelta(seconds=10)

#: What can stand in a header.
HEADER_TEXT: Final = re.compile(r"[\x21-\x7e]{1,4000}")

_REFUSALS: Final = frozenset({400, 401, 403})
_LIFETIME_SECONDS: Final = range(1, 366 * 86_400)


class TokenRefusedError(Exception):
    """Campay does not accept our user name and password. Whatever needed a token was not sent."""


class Tokens(Protocol):
    """Where a client gets its token from."""

    async def current(self) -> str:
        """Return a token to call with.

        Raises:
            TokenRefusedError: our credentials are wrong.
            HttpCallError: Campay gave no token.
        """

    async def replaced(self, refused: str) -> str | None:
        """Return another token than the one just refused; None when there is no other.

        Raises:
            TokenRefusedError: our credentials are wrong.
            HttpCallError: Campay gave no token.
        """

    def close(self) -> None:
        """End a renewal under way."""


class PermanentToken:
    """A token made once in the dashboard."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> str:
        """Return the token."""
        return self._token

    async def replaced(self, refused: str) -> None:
        """Return None: there is no other."""

    def close(self) -> None:
        """Do nothing."""


class RenewedToken:
    """A token got for user name and password: kept, renewed early, one renewal at a time.

    Lives on one event loop.

    Args:
        ask: Asks Campay for a token.
    """

    def __init__(self, ask: Callable[[], Awaitable[JsonAnswer]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._token: str | None = None
        self._expires_at = self._renew_at = clock()
        self._renewal: asyncio.Task[str] | None = None

    async def current(self) -> str:
        """Return a valid token; when it nears its end a renewal begins, which no call waits for."""
        now = self._clock()
        if self._token is None or now >= self._expires_at:
            return await self._renewed()
        if now >= self._renew_at:
            self._begin_renewal()
        return self._token

    async def replaced(self, refused: str) -> str:
        """Return a new token, unless another call has replaced the refused one meanwhile."""
        if self._token is not None and self._token != refused:
            return self._token
        return await self._renewed()

    def close(self) -> None:
        """End a renewal under way."""
        if self._renewal is not None:
            self._renewal.cancel()

    async def _renewed(self) -> str:
        # Shielded: a caller that gives up must not end what others wait for too.
        return await asyncio.shield(self._begin_renewal())

    def _begin_renewal(self) -> asyncio.Task[str]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
            self._renewal.add_done_callback(self._end_renewal)
        return self._renewal

    def _end_renewal(self, renewal: asyncio.Task[str]) -> None:
        self._renewal = None
        if not renewal.cancelled() and renewal.exception() is not None:
            self._renew_at = self._clock() + RENEWAL_PAUSE

    async def _renew(self) -> str:
        asked_at = self._clock()
        answer = await self._ask()
        if answer.status in _REFUSALS and answer.problem is None:
            raise TokenRefusedError
        fields = answer.fields()
        token = text_in(fields, "token")
        if HEADER_TEXT.fullmatch(token) is None:
            raise HttpCallError("no_token")
        lifetime = _lifetime(fields.get("expires_in"))
        self._token = token
        self._expires_at = asked_at + lifetime
        self._renew_at = asked_at + lifetime * (1 - RENEWAL_SHARE)
        return token


def _lifetime(seconds: object) -> timedelta:
    if isinstance(seconds, int) and seconds in _LIFETIME_SECONDS:
        return timedelta(seconds=seconds)
    return LIFETIME
