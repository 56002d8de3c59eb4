"""Which state may follow which. The same table guards the database (migration 0003)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.payments.domain.model import PaymentState
from shared.errors import IllegalTransitionError

_S = PaymentState

_ENDS: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.ON_HOLD})

#: What may become of a payment while nobody knows how it ends.
_OPEN: Final = _ENDS | {_S.PENDING, _S.PROCESSING, _S.UNKNOWN, _S.RETRY_SCHEDULED}

#: From each state, the states that may follow it.
TRANSITIONS: Final[Mapping[PaymentState, frozenset[PaymentState]]] = MappingProxyType(
    {
        _S.CREATED: _OPEN,
        _S.PENDING: _OPEN - {_S.PENDING},
        _S.PROCESSING: _OPEN - {_S.PROCESSING},
        _S.UNKNOWN: _OPEN - {_S.UNKNOWN},
        _S.RETRY_SCHEDULED: _OPEN - {_S.RETRY_SCHEDULED},
        # A person released it or rejected it, or the gateway took its doubt back. What was held
        # before money was taken is asked about again; held money may go back.
        _S.ON_HOLD: frozenset(
            {
                *(_S.SUCCEEDED, _S.FAILED, _S.UNKNOWN, _S.RETRY_SCHEDULED),
                *(_S.REFUNDED, _S.DISPUTED),
            }
        ),
        # Money can arrive late; it is recorded, never dropped. And somebody may ask for a retry.
        _S.FAILED: frozenset({_S.SUCCEEDED, _S.ON_HOLD, _S.RETRY_SCHEDULED}),
        _S.CANCELLED: frozenset({_S.SUCCEEDED, _S.ON_HOLD}),
        # Money that was taken can only go back, and what went back may bounce.
        _S.SUCCEEDED: frozenset({_S.PARTIALLY_REFUNDED, _S.REFUNDED, _S.DISPUTED}),
        _S.PARTIALLY_REFUNDED: frozenset({_S.SUCCEEDED, _S.REFUNDED, _S.DISPUTED}),
        _S.REFUNDED: frozenset(
            {_S.SUCCEEDED, _S.PARTIALLY_REFUNDED, _S.DISPUTED, _S.ON_HOLD}  # Held money, bounced.
        ),
        _S.DISPUTED: frozenset({_S.SUCCEEDED, _S.PARTIALLY_REFUNDED, _S.REFUNDED}),
    }
)

#: States in which the money was confirmed, and announced, once.
TAKEN: Final = frozenset({_S.SUCCEEDED, _S.PARTIALLY_REFUNDED, _S.REFUNDED, _S.DISPUTED})

#: States in which no look at the gateway is needed. Failed and cancelled payments are looked at all
#: the same until they expire, in case money came.
RESTING: Final = _ENDS | TAKEN


def next_state(state: PaymentState, wanted: PaymentState) -> PaymentState:
    """Return `wanted` if it may follow `state` or is the same.

    Raises:
        IllegalTransitionError: the table has no such step.
    """
    if wanted is not state and wanted not in TRANSITIONS[state]:
        raise IllegalTransitionError(f"a payment must not go from {state} to {wanted}")
    return wanted
