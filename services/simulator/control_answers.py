"""What the control API answers: the profile, scripts, the ledger, fates and sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from services.simulator.ledger import Charge
from services.simulator.movements import Movement, MovementKind
from services.simulator.profiles import Fate, NoticeFate, Plan


class ScriptAnswer(TypedDict):
    """A script in force."""

    operation: str
    behaviour: str
    times: Annotated[int, Field(description="How many calls it still changes")]
    delaySeconds: float | None
    reference: Annotated[str | None, Field(description="Of which payment; null: of any")]


class ClearedAnswer(TypedDict):
    """How many scripts were forgotten."""

    cleared: int


class ChargeAnswer(TypedDict):
    """Money that was really taken; `price` is the same in the currency of the order."""

    gateway: str
    reference: Annotated[str, Field(description="The merchant's own")]
    gatewayPaymentId: str
    amount: int
    currency: str
    priceAmount: int
    priceCurrency: str
    chargedAt: datetime
    valId: NotRequired[str]
    bankTranId: NotRequired[str]
    riskLevel: NotRequired[int]


class MovementAnswer(TypedDict):
    """Money that moved after a charge."""

    kind: MovementKind
    name: Annotated[str, Field(description="What the merchant calls it; a dispute has no name")]
    handle: Annotated[str, Field(description="What the gateway calls it")]
    reference: Annotated[str, Field(description="The payment's")]
    gatewayPaymentId: str
    amount: int
    currency: str
    movedAt: datetime


class LedgerAnswer(TypedDict):
    """Charges and what moved after them, the newest first, at most 200 of each."""

    charges: list[ChargeAnswer]
    count: Annotated[int, Field(description="Of all charges")]
    movements: list[MovementAnswer]


class PlanAnswer(TypedDict):
    """What the profile has in store for a payment."""

    fate: Fate
    noticeFate: NoticeFate
    latencySeconds: float
    lateSeconds: float
    customerActs: bool


class FateAnswer(PlanAnswer):
    """What the profile had in store for a payment when it was started."""

    reference: str
    recordedAt: datetime


class FatesAnswer(TypedDict):
    """Fates by reference, from the last on, at most 200."""

    fates: list[FateAnswer]


#: A session is the gateway's part, which each has its own, and `fate` and `notices` for all.
SessionAnswer = Mapping[str, Any]


def render_plan(plan: Plan) -> PlanAnswer:
    """Return a plan as the API shows it."""
    return {
        "fate": plan.fate,
        "noticeFate": plan.notice_fate,
        "latencySeconds": plan.latency_seconds,
        "lateSeconds": plan.late_seconds,
        "customerActs": plan.customer_acts,
    }


def render_ledger(charges: Sequence[Charge], count: int, moved: Sequence[Movement]) -> LedgerAnswer:
    """Return charges, how many there are in all, and what moved after them, as the API shows it."""
    return {
        "charges": [_render_charge(charge) for charge in charges],
        "count": count,
        "movements": [_render_movement(movement) for movement in moved],
    }


def _render_movement(movement: Movement) -> MovementAnswer:
    return {
        "kind": movement.kind,
        "name": movement.name,
        "handle": movement.handle,
        "reference": movement.reference,
        "gatewayPaymentId": movement.gateway_payment_id,
        "amount": movement.amount.minor_units,
        "currency": movement.amount.currency,
        "movedAt": movement.moved_at,
    }


def _render_charge(charge: Charge) -> ChargeAnswer:
    rendered: ChargeAnswer = {
        "gateway": charge.gateway,
        "reference": charge.reference,
        "gatewayPaymentId": charge.gateway_payment_id,
        "amount": charge.charge.minor_units,
        "currency": charge.charge.currency,
        "priceAmount": charge.price.minor_units,
        "priceCurrency": charge.price.currency,
        "chargedAt": charge.charged_at,
    }
    if charge.val_id is not None:
        rendered["valId"] = charge.val_id
        rendered["bankTranId"] = charge.gateway_payment_id
        rendered["riskLevel"] = charge.risk_level
    return rendered
