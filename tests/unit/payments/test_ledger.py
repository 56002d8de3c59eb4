"""What each thing that happens to a payment moves, and that accounts tell where its money is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from services.payments.domain import ledger
from services.payments.domain.ledger import Transfer, TransferKind
from services.payments.domain.model import PaymentState
from services.payments.domain.settlement import Change, settle
from services.payments.domain.starting import settle_start
from shared.gateways.interface import Declined, Paid, Pending, Unknown
from shared.money import Money
from tests.support.payments import PRICE, REFERENCE, paid, payment_in

S = PaymentState
NOW = datetime(2026, 1, 6, 12, tzinfo=UTC)
GATEWAY = "gateway:sslcommerz"
LESS = Money(90_000, "BDT")


def settled(state: PaymentState, verdict: Paid, **changes: object) -> Change:
    change = settle(payment_in(state, **changes), verdict, claim="paid", now=NOW)
    assert change is not None
    return change


def balances(transfers: Sequence[Transfer]) -> dict[str, int]:
    """Return debits less credits of each account that is not even."""
    sums: Counter[str] = Counter()
    for transfer in transfers:
        sums[transfer.debit] += transfer.amount.minor_units - transfer.fee
        sums["fees"] += transfer.fee
        sums[transfer.credit] -= transfer.amount.minor_units
    return {account: total for account, total in sums.items() if total}


@pytest.mark.parametrize(
    "state",
    [S.CREATED, S.PENDING, S.PROCESSING, S.UNKNOWN, S.RETRY_SCHEDULED, S.FAILED, S.CANCELLED],
)
def test_confirmed_money_goes_from_the_gateway_s_account_to_revenue(state: PaymentState) -> None:
    assert settled(state, paid()).transfers == (
        Transfer(TransferKind.CAPTURE, "", GATEWAY, "revenue", PRICE, REFERENCE),
    )


def test_a_charge_that_is_confirmed_by_its_own_call_is_booked_all_the_same() -> None:
    change = settle_start(payment_in(S.CREATED), paid(), now=NOW)

    assert change is not None
    assert balances(change.transfers) == {GATEWAY: 115_000, "revenue": -115_000}


def test_what_the_gateway_keeps_is_booked_where_it_tells_it() -> None:
    change = settled(S.PENDING, paid(fee=Money(2_875, "BDT")))

    assert [(each.kind, each.fee) for each in change.transfers] == [("capture", 2_875)]
    assert balances(change.transfers) == {GATEWAY: 112_125, "revenue": -115_000, "fees": 2_875}


@pytest.mark.parametrize("fee", [None, Money(0, "BDT")])
def test_no_fee_is_no_movement(fee: Money | None) -> None:
    change = settled(S.PENDING, paid(fee=fee))

    assert balances(change.transfers) == {GATEWAY: 115_000, "revenue": -115_000}


@pytest.mark.parametrize(
    "verdict", [paid(is_risky=True), paid(amount=LESS), paid(amount=Money(1_000, "USD"))]
)
def test_money_with_an_objection_is_held_in_the_amount_that_was_taken(verdict: Paid) -> None:
    change = settled(S.PENDING, verdict)

    assert [(each.credit, each.amount) for each in change.transfers] == [("held", verdict.amount)]
    assert change.frees_held_to is None


def test_money_that_was_taken_twice_from_the_start_is_revenue_once() -> None:
    change = settled(S.PENDING, paid(is_repeated=True))

    assert balances(change.transfers) == {
        GATEWAY: 230_000,
        "revenue": -115_000,
        "surplus": -115_000,
    }


@pytest.mark.parametrize("state", [S.SUCCEEDED, S.PARTIALLY_REFUNDED, S.REFUNDED, S.DISPUTED])
@pytest.mark.parametrize(
    ("verdict", "occasion"),
    [
        pytest.param(paid(gateway_payment_id="bank_2"), "bank_2", id="named"),
        pytest.param(paid(is_repeated=True), "repeated", id="only said"),
    ],
)
def test_a_further_charge_is_owed_back(state: PaymentState, verdict: Paid, occasion: str) -> None:
    assert settled(state, verdict).transfers == (
        Transfer(TransferKind.SURPLUS, occasion, GATEWAY, "surplus", PRICE, REFERENCE),
    )


def test_a_further_charge_beside_held_money_is_owed_back_too() -> None:
    verdict = paid(gateway_payment_id="bank_2", is_risky=True)

    change = settled(S.ON_HOLD, verdict)

    assert balances(change.transfers) == {GATEWAY: 115_000, "surplus": -115_000}
    assert change.frees_held_to is None


@pytest.mark.parametrize(
    "verdict",
    [
        Pending("gateway_pending"),
        Unknown("timeout"),
        Declined("no money", is_final=True),
    ],
)
def test_what_takes_no_money_moves_none(verdict: Pending | Unknown | Declined) -> None:
    change = settle(payment_in(S.PENDING), verdict, claim=None, now=NOW)

    assert change is not None
    assert change.transfers == ()


@pytest.mark.parametrize(
    ("transfers", "expected"),
    [
        pytest.param(
            [ledger.refunded("sslcommerz", "ref_1", LESS, was_held=False)],
            {GATEWAY: 25_000, "revenue": -115_000, "refunds": 90_000},
            id="a part is refunded",
        ),
        pytest.param(
            [
                ledger.refunded("sslcommerz", "ref_1", PRICE, was_held=False),
                ledger.refund_returned("sslcommerz", "ref_1", PRICE, was_held=False),
            ],
            {GATEWAY: 115_000, "revenue": -115_000},
            id="a refund comes back",
        ),
        pytest.param(
            [ledger.dispute_opened("sslcommerz", "d:1", PRICE)],
            {"disputed": 115_000, "revenue": -115_000},
            id="a dispute is open",
        ),
        pytest.param(
            [
                ledger.dispute_opened("sslcommerz", "d:1", PRICE),
                ledger.dispute_won("sslcommerz", "d:2", PRICE),
            ],
            {GATEWAY: 115_000, "revenue": -115_000},
            id="a dispute is won",
        ),
        pytest.param(
            [
                ledger.dispute_opened("sslcommerz", "d:1", PRICE),
                ledger.dispute_lost("d:2", PRICE),
                ledger.fee("sslcommerz", "d:2", Money(1_500, "BDT")),
            ],
            {GATEWAY: -1_500, "dispute_losses": 115_000, "revenue": -115_000, "fees": 1_500},
            id="a dispute is lost, at a fee",
        ),
        pytest.param(
            [
                ledger.dispute_opened("sslcommerz", "d:1", PRICE),
                ledger.dispute_lost("d:2", PRICE),
                ledger.dispute_reopened("d:3", PRICE),
                ledger.dispute_won("sslcommerz", "d:4", PRICE),
            ],
            {GATEWAY: 115_000, "revenue": -115_000},
            id="a lost dispute is heard again and won",
        ),
    ],
)
def test_accounts_tell_where_the_money_of_a_payment_is(
    transfers: list[Transfer], expected: dict[str, int]
) -> None:
    captured = ledger.captured("sslcommerz", paid(), is_held=False)

    assert balances([captured, *transfers]) == expected


def test_held_money_that_is_given_back_leaves_nothing() -> None:
    captured = ledger.captured("sslcommerz", paid(), is_held=True)
    refunded = ledger.refunded("sslcommerz", "ref_1", PRICE, was_held=True)

    assert balances([captured, refunded]) == {}


def test_no_two_movements_of_a_payment_are_of_one_kind_and_occasion() -> None:
    verdict = paid(is_repeated=True, fee=Money(100, "BDT"))
    first = settled(S.PENDING, verdict)
    later = settled(S.SUCCEEDED, replace(verdict, is_repeated=False, gateway_payment_id="bank_2"))

    keys = [(each.kind, each.occasion) for each in (*first.transfers, *later.transfers)]
    assert len(set(keys)) == len(keys)
