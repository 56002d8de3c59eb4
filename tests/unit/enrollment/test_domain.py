"""A further payment is never lost, and never enrolls twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.enrollment.domain.model import (
    Enrollment,
    EnrollmentState,
    PaymentEffect,
    effect_on,
    require,
)
from shared.errors import ConflictError

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("existing", "effect"),
    [
        (EnrollmentState.ACTIVE, PaymentEffect.RECORDED),
        (EnrollmentState.REVOKED, PaymentEffect.REGRANTED),
    ],
)
def test_a_further_payment_is_recorded_or_grants_anew(
    existing: EnrollmentState, effect: PaymentEffect
) -> None:
    assert effect_on(existing) is effect


@pytest.mark.parametrize("state", EnrollmentState)
@pytest.mark.parametrize("wanted", EnrollmentState)
def test_a_change_by_hand_starts_only_from_the_state_it_needs(
    state: EnrollmentState, wanted: EnrollmentState
) -> None:
    enrollment = Enrollment("enr_1", "cus_1", "course_1", None, state, NOW, NOW)

    if state is wanted:
        require(enrollment, wanted)
        return
    with pytest.raises(ConflictError, match=f"is {state}, not {wanted}") as caught:
        require(enrollment, wanted)
    assert caught.value.details == {"enrollmentId": "enr_1", "state": state}
