"""What the handlers of the gateway need."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import SecretStr

from services.simulator.campay import tokens
from services.simulator.campay.domain import NAME
from services.simulator.core import Core

CALLBACK_PATH: Final = f"/webhooks/{NAME}"

_SCHEME: Final = "Token "


@dataclass(frozen=True, slots=True)
class Runtime:
    """One application at Campay, as its pages configure it."""

    core: Core
    username: str
    password: SecretStr
    permanent_token: SecretStr
    webhook_key: str
    token_seconds: int
    link_seconds: int
    prompt_seconds: int
    is_idempotent: bool
    callback_form: Literal["get", "json", "form"]
    can_withdraw: bool

    @property
    def callback_url(self) -> str:
        """Where callbacks go."""
        return self.core.notice_url + CALLBACK_PATH

    def token_for(self, username: str, password: str) -> str | None:
        """Make an access token, or None for wrong credentials."""
        given, expected = (username, password), (self.username, self.password.get_secret_value())
        if not hmac.compare_digest("\n".join(given).encode(), "\n".join(expected).encode()):
            return None
        return tokens.access_token(
            self.username, self._token_key(), self.core.clock(), self.token_seconds
        )

    def admits(self, authorization: str) -> bool:
        """Tell whether a header carries the permanent token, or one that has not expired."""
        if not authorization.startswith(_SCHEME):
            return False
        token = authorization.removeprefix(_SCHEME)
        permanent = self.permanent_token.get_secret_value()
        if permanent and hmac.compare_digest(token.encode(), permanent.encode()):
            return True
        return tokens.is_valid(token, self._token_key(), self.core.clock())

    def _token_key(self) -> str:
        """Return the key of access tokens: the same in every process, and of no other use."""
        return f"access tokens of {self.username} {self.password.get_secret_value()}"
