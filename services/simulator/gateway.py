"""How a gateway plugs into the simulator.

A gateway is a package here with a module `gateway.py` and in it a class that is a
`GatewaySimulator`; `app.py` lists it. Its routes speak the gateway's own protocol; everything else
is the core's: the control API below `/simulator/<name>` (`control.py`), scripts and the random
profile (`core.py`), bad answers (`faults.py`), the ledger (`ledger.py`), and the notices
(`notice_store.py` to plan them, `notices.py` sends them).

The merchant's reference is what all of these know a payment by. A gateway's own tables are in a
migration of its own; a table with a column `state` takes the trigger `guard_transition`, with its
steps in the table `transition` (see `migrations/0002_gateways.sql`), so that no state is reached
in another way than the protocol's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from shared.web.routes import Route

Json: TypeAlias = dict[str, Any]

#: Lapsed payments of one gateway that are ended in one transaction.
LAPSED_MAX: Final = 100


class GatewaySimulator(Protocol):
    """One simulated gateway."""

    @property
    def name(self) -> str:
        """The name in addresses, tables and settings."""

    @property
    def operations(self) -> Mapping[str, frozenset[str]]:
        """What scripts may make misbehave, and how. `notice` is one of them, if there are any."""

    @property
    def wishes(self) -> frozenset[str]:
        """What `POST …/pay` accepts as the customer's `fate`; `paid` is the default."""

    def routes(self) -> Sequence[Route]:
        """Return the routes of the protocol, and the pages that customers see."""

    def overview(self) -> str:
        """Return what a person should know as HTML: a heading, and the magic numbers in tables."""

    async def act(self, reference: str, wish: str) -> Json:
        """Act as the customer, also on behalf of a profile, and return what came of it.

        What a wish to pay leads to, the magic amount and the recorded fate decide.

        Raises:
            NotFoundError: no payment has this reference.
            ConflictError: the payment has ended; nothing happened.
        """

    async def read_session(self, reference: str) -> Json | None:
        """Return what is known about a payment, or None; fate and notices the core adds."""

    async def end_lapsed(self) -> int:
        """End payments whose time is over, at most `LAPSED_MAX` of them; return how many."""
