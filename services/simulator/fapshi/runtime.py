"""What the handlers of the gateway need."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from services.simulator.core import Core
from services.simulator.fapshi.domain import NAME

NOTICE_PATH: Final = f"/webhooks/{NAME}"


@dataclass(frozen=True, slots=True)
class Runtime:
    """One service at Fapshi, as its dashboard configures it."""

    core: Core
    api_user: str
    api_key: SecretStr
    webhook_secret: str
    link_seconds: int
    prompt_seconds: int
    reads_per_minute: int
    direct_pay: bool

    @property
    def webhook(self) -> str:
        """Where notices go."""
        return self.core.notice_url + NOTICE_PATH

    def knows(self, api_user: str, api_key: str) -> bool:
        """Tell whether the two headers are those of the service."""
        given, expected = (api_user, api_key), (self.api_user, self.api_key.get_secret_value())
        return hmac.compare_digest("\n".join(given).encode(), "\n".join(expected).encode())
