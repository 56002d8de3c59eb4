"""What the wallet can do, whatever it may pay at most. Without what signing takes to import."""

from __future__ import annotations

from typing import Final

from shared.gateways.interface import Capabilities, Limits
from shared.gateways.x402.networks import CURRENCY
from shared.money import MINOR_UNITS_MAX

CAPABILITIES: Final = Capabilities(
    methods=("wallet",),
    limits={CURRENCY: Limits(1, MINOR_UNITS_MAX)},
    charges_off_session=True,
)
