"""The HTTP side of the ledger: balances by account, and the movements behind them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from aiohttp import web
from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from services.payments.domain.ledger import UNCOMMON, TransferKind
from services.payments.runtime import Runtime
from services.payments.store import ledger as ledger_store
from services.payments.store.ledger import Balance, StoredTransfer
from shared.errors import InvalidInputError
from shared.identifiers import is_id
from shared.web.bodies import TimeText, time_text
from shared.web.pages import PageQuery
from shared.web.routes import Answer, PageOf, Route, Scope, parse_query

#: What a cursor is made of: the key of a movement. Names of gateways' charges are printable.
_CURSOR: Final = re.compile(r"(?P<payment>[^.]{30})\.(?P<kind>[a-z_]{1,20})\.(?P<occasion>.*)")

PaymentId = Annotated[str, StringConstraints(pattern=r"^pay_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
AccountName = Annotated[
    str,
    StringConstraints(
        pattern=r"^(gateway:[a-z0-9]{1,30}|revenue|held|surplus|refunds|disputed|dispute_losses"
        r"|fees)$"
    ),
]


class TransfersQuery(PageQuery):
    """Query of `GET /api/ledger/transfers`."""

    cursor: Annotated[
        str | None, StringConstraints(min_length=1, max_length=300, pattern=r"^[ -~]+$")
    ] = None
    payment_id: PaymentId | None = None
    account: Annotated[
        AccountName | None,
        Field(description="`gateway:<name>`, `revenue`, `held`, `surplus`, `refunds`, …"),
    ] = None

    def after(self) -> tuple[str, str, str] | None:
        """Return the key of the last movement of the page before.

        Raises:
            InvalidInputError: the cursor is not one of ours, or both filters are given.
        """
        if self.payment_id is not None and self.account is not None:
            raise InvalidInputError(
                "give paymentId or account, not both", details={"account": "given with paymentId"}
            )
        if self.cursor is None:
            return None
        found = _CURSOR.fullmatch(self.cursor)
        if found is None or not is_id(found["payment"], "pay"):
            raise InvalidInputError("cursor is not one of ours", details={"cursor": "malformed"})
        return found["payment"], found["kind"], found["occasion"]


class BalanceAnswer(TypedDict):
    """What was booked to an account in one currency, in minor units."""

    account: Annotated[str, Field(examples=["gateway:sslcommerz", "revenue"])]
    currency: str
    debits: int
    credits: int
    balance: Annotated[
        int,
        Field(description="Debits less credits: an asset is above zero, revenue below"),
    ]


class BalancesAnswer(TypedDict):
    """The balances of all accounts at one moment."""

    balances: list[BalanceAnswer]


class TransferAnswer(TypedDict):
    """One movement: an amount from the account that is credited to the one that is debited."""

    paymentId: str
    kind: TransferKind
    occasion: Annotated[str, Field(description="Which of its kind: a refund, a dispute, a charge")]
    debit: str
    credit: str
    amount: Annotated[int, Field(description="Minor units")]
    fee: Annotated[
        int,
        Field(description="What of the amount the gateway kept: debited to `fees`, not to `debit`"),
    ]
    currency: str
    gatewayReference: Annotated[str | None, Field(description="The try whose money it is")]
    at: Annotated[TimeText, Field(description="When it was booked")]


def ledger_routes(runtime: Runtime) -> list[Route]:
    """Return the routes under /api/ledger."""

    async def balances(_request: web.Request) -> web.StreamResponse:
        """Read the balance of every account, in every currency.

        In each currency all balances together are zero.
        """
        async with runtime.core.database.connection() as connection:
            found = await ledger_store.list_balances(connection)
        return Answer({"balances": [_render_balance(balance) for balance in found]}).response()

    async def transfers(request: web.Request) -> web.StreamResponse:
        """List movements, those of the newest payments first."""
        query = parse_query(TransfersQuery, request)
        async with runtime.core.database.connection() as connection:
            found = await ledger_store.list_transfers(
                connection,
                payment_id=query.payment_id,
                account=query.account,
                is_uncommon=query.account in UNCOMMON,
                after=query.after(),
                limit=query.limit + 1,
            )
        return query.page(
            "transfers", found, id_of=lambda each: ".".join(each.key), render=_render
        ).response()

    return [
        Route("GET", "/api/ledger/balances", balances, Scope.READ, answer=BalancesAnswer),
        Route(
            "GET",
            "/api/ledger/transfers",
            transfers,
            Scope.READ,
            query=TransfersQuery,
            answer=PageOf("transfers", TransferAnswer),
        ),
    ]


def _render_balance(balance: Balance) -> BalanceAnswer:
    return {
        "account": balance.account,
        "currency": balance.currency,
        "debits": balance.debits,
        "credits": balance.credits,
        "balance": balance.debits - balance.credits,
    }


def _render(transfer: StoredTransfer) -> TransferAnswer:
    return {
        "paymentId": transfer.payment_id,
        "kind": TransferKind(transfer.kind),
        "occasion": transfer.occasion,
        "debit": transfer.debit,
        "credit": transfer.credit,
        "amount": transfer.amount.minor_units,
        "fee": transfer.fee,
        "currency": transfer.amount.currency,
        "gatewayReference": transfer.reference,
        "at": time_text(transfer.at),
    }
