"""What operators do about the messages of a service: those nobody could handle, those not sent."""

from __future__ import annotations

from shared.process import Core
from shared.web.dead_letter_routes import dead_letter_routes
from shared.web.idempotency import IdempotencyKeys
from shared.web.parked_message_routes import parked_message_routes
from shared.web.routes import Route


def message_routes(core: Core, idempotency: IdempotencyKeys, base: str) -> list[Route]:
    """Return the routes under `base`/dead-letters and `base`/parked-messages."""
    return [
        *dead_letter_routes(core, idempotency, base),
        *parked_message_routes(core, idempotency, base),
    ]
