"""Which state may follow which. The same table guards the database (migration 0001)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.payments.domain.model import PaymentState
from shared.errors import IllegalTransitionError

_S = PaymentState

#: From each state, the states that may follow it.
TRANSITIONS: Final[Mapping[PaymentState, frozenset[PaymentState]]] = MappingProxyType(
    {
        _S.CREATED: frozenset(_S) - {_S.CREATED},
        _S.PENDING: frozenset(_S) - {_S.CREATED, _S.PENDING},
        _S.PROCESSING: frozenset(_S) - {_S.CREATED, _S.PROCESSING},
        _S.UNKNOWN: frozenset(_S) - {_S.CREATED, _S.UNKNOWN},
        # A person released it, rejected it, or the gateway took its doubt back.
        _S.ON_HOLD: frozenset({_S.SUCCEEDED, _S.FAILED}),
        # Money can arrive late; it is recorded, never dropped.
        _S.FAILED: frozenset({_S.SUCCEEDED, _S.ON_HOLD}),
        _S.CANCELLED: frozenset({_S.SUCCEEDED, _S.ON_HOLD}),
        _S.SUCCEEDED: frozenset(),
    }
)

#: States that wait for nothing. Failed and cancelled ones are looked at all the same until they
#: expire, in case money came.
RESTING: Final = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.ON_HOLD})


def next_state(state: PaymentState, wanted: PaymentState) -> PaymentState:
    """Return `wanted` if it may follow `state` or is the same.

    Raises:
        IllegalTransitionError: the table has no such step.
    """
    if wanted is not state and wanted not in TRANSITIONS[state]:
        raise IllegalTransitionError(f"a payment must not go from {state} to {wanted}")
    return wanted
