"""x402 as the simulator's core sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from services.simulator import pages
from services.simulator.core import Core
from services.simulator.gateway import Json
from services.simulator.settings import SimulatorSettings
from services.simulator.x402 import facilitator, store
from services.simulator.x402.networks import NETWORKS
from services.simulator.x402.routes import protocol_routes
from services.simulator.x402.runtime import Runtime
from services.simulator.x402.scenarios import BEHAVIOURS, MAGIC, NAME, PLAIN, WISHES
from services.simulator.x402.store import Submitted
from services.simulator.x402.verification import load_library
from shared.web.routes import Route


class X402Simulator:
    """A facilitator and its chain; the merchant's reference of a payment is its nonce."""

    name: Final = NAME
    operations: Final[Mapping[str, frozenset[str]]] = BEHAVIOURS
    wishes: Final = WISHES

    def __init__(self, core: Core, settings: SimulatorSettings) -> None:
        load_library()
        self._runtime = Runtime(core=core, network=NETWORKS[settings.x402_network])

    def routes(self) -> Sequence[Route]:
        """Return the routes of the protocol."""
        return protocol_routes(self._runtime)

    def overview(self) -> str:
        """Tell a person which amounts are magic."""
        rows = [("any other", PLAIN.description)]
        rows += [(f"…{digits:02d}", each.description) for digits, each in sorted(MAGIC.items())]
        return f"""
<h2>x402</h2>
<p>The last two digits of an amount in atomic units choose what becomes of a settlement; calls go
wrong once.</p>
{pages.table(("Amount", "What happens"), rows)}"""

    async def act(self, reference: str, wish: str) -> Json:
        """Let the chain take what was broadcast, or the payer cancel it."""
        return _render(await facilitator.act(self._runtime, reference.lower(), wish))

    async def read_session(self, reference: str) -> Json | None:
        """Return what became of the authorization with this nonce."""
        async with self._runtime.core.database.connection() as connection:
            found = await store.list_of_nonce(connection, reference.lower(), 1)
        return _render(found[0]) if found else None

    async def end_lapsed(self) -> int:
        """Let blocks take what is due."""
        return await facilitator.mine_due(self._runtime)


def _render(submitted: Submitted) -> Json:
    return {
        "reference": submitted.nonce,
        "state": submitted.state,
        "amount": submitted.value,
        "currency": "USDC",
        "network": submitted.network,
        "payer": submitted.payer,
        "recipient": submitted.recipient,
        "transaction": submitted.transaction_hash,
        "submittedAt": submitted.submitted_at,
        "minedAt": submitted.mined_at,
    }
