"""Forms with brackets, parameters and searches of the simulated Stripe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.simulator.stripe.errors import ApiError
from services.simulator.stripe.form import flatten, parse_form
from services.simulator.stripe.idempotency import fingerprint
from services.simulator.stripe.parameters import CURRENCIES, Parameters
from services.simulator.stripe.search import Query, parse_query


def refusal(read: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(ApiError) as refused:
        read()
    assert refused.value.status == 400
    assert not refused.value.is_stored
    return refused.value.error


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", {}),
        ("amount=1999&currency=usd", {"amount": "1999", "currency": "usd"}),
        ("metadata[a]=1&metadata[b]=", {"metadata": {"a": "1", "b": ""}}),
        ("expand[]=x&expand[]=y", {"expand": {"0": "x", "1": "y"}}),
        ("expand[0]=x&expand[1]=y", {"expand": {"0": "x", "1": "y"}}),
        ("a[b][c]=1&a[b][d]=2", {"a": {"b": {"c": "1", "d": "2"}}}),
        ("metadata%5Ba%20b%5D=%26", {"metadata": {"a b": "&"}}),
        ("a=1&a=2", {"a": "2"}),
    ],
)
def test_brackets_nest(text: str, tree: dict[str, Any]) -> None:
    assert parse_form(text) == tree


@pytest.mark.parametrize(
    "text",
    ["a[b=1", "a]b[=1", "[a]=1", "a=1&a[b]=2", "a[b]=1&a=2", "a[b][c][d][e][f][g]=1", "a=%00"],
)
def test_contradictions_are_refused(text: str) -> None:
    assert refusal(lambda: parse_form(text))["type"] == "invalid_request_error"


def test_too_many_fields_are_refused() -> None:
    refusal(lambda: parse_form("&".join(f"a{number}=1" for number in range(201))))


_NAMES = st.from_regex(r"[a-z_]{1,8}(\[[a-z]{1,5}\])?", fullmatch=True)


@given(st.dictionaries(_NAMES, st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
def test_what_is_written_is_read_whatever_its_order(fields: dict[str, str]) -> None:
    heads = [name.partition("[")[0] for name in fields]
    plain = {name for name in fields if "[" not in name}
    fields = {
        name: text
        for name, text in fields.items()
        if name in plain or (name.partition("[")[0] not in plain and heads)
    }

    tree = parse_form(urlencode(fields))
    backwards = parse_form(urlencode(dict(reversed(fields.items()))))

    assert flatten(tree) == fields
    assert fingerprint(tree) == fingerprint(backwards)


def test_a_fingerprint_tells_every_difference() -> None:
    texts = ["a=1", "a=2", "b=1", "a[b]=1", "a=1&b=", "a[0]=1", ""]

    assert len({fingerprint(parse_form(text)) for text in texts}) == len(texts)


def test_parameters_are_read_as_what_they_are() -> None:
    parameters = Parameters(
        parse_form(
            "amount=1999&currency=USD&confirm=true&metadata[a]=1&metadata[gone]=&expand[]=x"
            "&created[gte]=10&created[lt]=20&limit=3&starting_after=pi_1&description="
        )
    )

    assert parameters.currency() == "usd"
    assert parameters.amount("usd") == 1999
    assert parameters.truth("confirm") is True
    assert parameters.metadata() == {"a": "1"}
    assert parameters.texts("expand") == ["x"]
    created, page = parameters.range("created"), parameters.page()
    assert created.since is not None
    assert created.until is not None
    assert (created.since.timestamp(), created.until.timestamp()) == (10, 20)
    assert (page.size, page.after, page.before) == (3, "pi_1", None)
    assert parameters.text("description") is None
    parameters.finish()


@pytest.mark.parametrize(
    ("text", "read", "code", "param"),
    [
        ("", lambda p: p.required("amount"), "parameter_missing", "amount"),
        ("x=1", lambda p: p.finish(), "parameter_unknown", "x"),
        ("x[y]=1", lambda p: p.finish(), "parameter_unknown", "x"),
        ("amount=1e3", lambda p: p.amount("usd"), "parameter_invalid_integer", "amount"),
        ("amount=0", lambda p: p.amount("xaf"), "parameter_invalid_integer", "amount"),
        ("amount=49", lambda p: p.amount("usd"), "amount_too_small", "amount"),
        ("amount=100000000", lambda p: p.amount("usd"), "amount_too_large", "amount"),
        ("amount[x]=1", lambda p: p.amount("usd"), None, "amount"),
        ("currency=xyz", lambda p: p.currency(), None, "currency"),
        ("confirm=1", lambda p: p.truth("confirm"), None, "confirm"),
        ("reason=why", lambda p: p.choice("reason", ("fraudulent",)), None, "reason"),
        ("metadata=1", lambda p: p.metadata(), None, "metadata"),
        ("metadata[a][b]=1", lambda p: p.metadata(), None, "metadata[a]"),
        (f"metadata[a]={'x' * 501}", lambda p: p.metadata(), None, "metadata[a]"),
        ("limit=101", lambda p: p.page(), "parameter_invalid_integer", "limit"),
        ("created[about]=1", lambda p: p.range("created"), "parameter_unknown", "created[about]"),
    ],
)
def test_refusals_name_the_parameter(
    text: str, read: Callable[[Parameters], Any], code: str | None, param: str
) -> None:
    error = refusal(lambda: read(Parameters(parse_form(text))))

    assert (error.get("code"), error["param"]) == (code, param)


def test_a_token_is_no_currency_of_cards() -> None:
    assert "usdc" not in CURRENCIES
    assert {"usd", "xaf", "bdt"} <= CURRENCIES


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("metadata['reference']:'INV-1'", Query({"reference": "INV-1"})),
        ('metadata["a b"]:"c \\"d\\""', Query({"a b": 'c "d"'})),
        (
            "customer:'cus_1' AND status:'succeeded' and metadata['a']:'1'",
            Query({"a": "1"}, "cus_1", "succeeded"),
        ),
    ],
)
def test_searches_are_read(text: str, query: Query) -> None:
    assert parse_query(text) == query


@pytest.mark.parametrize(
    "text",
    ["", "reference:'x'", "metadata['a']='1'", "status:'x' OR status:'y'", "status:'x' AND", "x"],
)
def test_other_searches_are_refused(text: str) -> None:
    assert refusal(lambda: parse_query(text))["param"] == "query"
