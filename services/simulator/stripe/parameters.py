"""Reading the parameters of one request, with Stripe's refusals. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from services.simulator.stripe.errors import bad_request
from services.simulator.stripe.form import Tree
from shared.money import DECIMAL_PLACES

METADATA_MAX: Final = 50
METADATA_NAME_MAX: Final = 40
METADATA_TEXT_MAX: Final = 500
TEXT_MAX: Final = 5000

#: The largest amount has eight digits (reference of `amount`).
AMOUNT_MAX: Final = 99_999_999

PAGE_MAX: Final = 100
PAGE_USUAL: Final = 10

#: Smallest amount of a charge in minor units (page "currencies" of Stripe); of the others, 1.
AMOUNT_MIN: Final[Mapping[str, int]] = MappingProxyType(
    {"eur": 50, "gbp": 30, "inr": 50, "jpy": 50, "sgd": 50, "usd": 50}
)

#: What the simulated account may charge: the currencies that the ledger knows, but no token.
CURRENCIES: Final = frozenset(code.lower() for code in DECIMAL_PLACES if code != "USDC")

#: The end of the year 9999, behind which there are no dates.
_LAST_SECOND: Final = 253_402_300_799

_TRUTHS: Final = MappingProxyType({"true": True, "false": False})


_BOUNDS: Final = ("gt", "gte", "lt", "lte")


@dataclass(frozen=True, slots=True)
class Range:
    """Moments from `since` (included) to `until` (excluded); each may be open."""

    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted; the newest come first."""

    size: int = PAGE_USUAL
    after: str | None = None
    before: str | None = None


class Parameters:
    """Takes parameters out of a form one by one; `finish` refuses what nobody took."""

    def __init__(self, tree: Tree) -> None:
        self._left: Tree = dict(tree)

    def text(self, name: str, length_max: int = TEXT_MAX) -> str | None:
        """Take a text; an empty one counts as none."""
        node = self._left.pop(name, None)
        if node is None or node == "":
            return None
        if not isinstance(node, str):
            raise bad_request("Invalid string: {}", param=name)
        if len(node) > length_max:
            raise bad_request(
                f"Invalid string: must be at most {length_max} characters", param=name
            )
        return node

    def required(self, name: str) -> str:
        """Take a text that must be there."""
        text = self.text(name)
        if text is None:
            raise bad_request(
                f"Missing required param: {name}.", code="parameter_missing", param=name
            )
        return text

    def choice(self, name: str, words: Collection[str]) -> str | None:
        """Take one of a few words."""
        text = self.text(name)
        if text is not None and text not in words:
            listed = ", ".join(words)
            raise bad_request(f"Invalid {name}: must be one of {listed}", param=name)
        return text

    def truth(self, name: str) -> bool | None:
        """Take `true` or `false`."""
        text = self.text(name)
        if text is None:
            return None
        if text not in _TRUTHS:
            raise bad_request(f"Invalid boolean: {text[:100]}", param=name)
        return _TRUTHS[text]

    def integer(self, name: str, *, minimum: int, maximum: int) -> int | None:
        """Take a whole number in plain digits."""
        text = self.text(name)
        if text is None:
            return None
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 20):  # noqa: PLR2004
            raise bad_request(
                f"Invalid integer: {text[:100]}", code="parameter_invalid_integer", param=name
            )
        number = int(text)
        if not minimum <= number <= maximum:
            bound = (
                f"greater than or equal to {minimum}"
                if number < minimum
                else f"less than or equal to {maximum}"
            )
            raise bad_request(
                f"This value must be {bound}.", code="parameter_invalid_integer", param=name
            )
        return number

    def amount(self, currency: str) -> int:
        """Take the amount of a payment, in minor units."""
        least = AMOUNT_MIN.get(currency, 1)
        amount = self.integer("amount", minimum=1, maximum=10**18)
        if amount is None:
            raise bad_request(
                "Missing required param: amount.", code="parameter_missing", param="amount"
            )
        if amount < least:
            raise bad_request(
                f"Amount must be at least {least} {currency}",
                code="amount_too_small",
                param="amount",
            )
        if amount > AMOUNT_MAX:
            raise bad_request(
                f"Amount must be no more than {AMOUNT_MAX} {currency}",
                code="amount_too_large",
                param="amount",
            )
        return amount

    def currency(self) -> str:
        """Take the currency of a payment, in lower case."""
        text = self.required("currency").lower()
        if text not in CURRENCIES:
            raise bad_request(
                f"Invalid currency: {text[:20]}. Stripe currently supports these currencies:"
                f" {', '.join(sorted(CURRENCIES))}",
                param="currency",
            )
        return text

    def metadata(self) -> dict[str, str]:
        """Take the merchant's own names and texts."""
        node = self._left.pop("metadata", None)
        if node is None or node == "":
            return {}
        if isinstance(node, str):
            raise bad_request("Invalid hash", param="metadata")
        if len(node) > METADATA_MAX:
            raise bad_request(f"Metadata can have up to {METADATA_MAX} keys.", param="metadata")
        texts: dict[str, str] = {}
        for name, text in node.items():
            param = f"metadata[{name[:METADATA_NAME_MAX]}]"
            if not isinstance(text, str):
                raise bad_request("Invalid string: {}", param=param)
            if len(name) > METADATA_NAME_MAX or len(text) > METADATA_TEXT_MAX:
                raise bad_request("Metadata values are too long.", param=param)
            if text:
                texts[name] = text
        return texts

    def texts(self, name: str) -> list[str]:
        """Take a list of texts."""
        node = self._left.pop(name, None)
        if node is None or node == "":
            return []
        if isinstance(node, str) or not all(isinstance(text, str) for text in node.values()):
            raise bad_request("Invalid array", param=name)
        return [text for text in node.values() if isinstance(text, str)]

    def range(self, name: str) -> Range:
        """Take a moment, or bounds of one: `created=…` or `created[gte]=…`."""
        node = self._left.pop(name, None)
        if node is None or node == "":
            return Range()
        below = Parameters({"gte": node, "lte": node} if isinstance(node, str) else node)
        bounds = {word: below.integer(word, minimum=0, maximum=2**40) for word in _BOUNDS}
        below.finish(name)
        first = [each for each in (bounds["gte"], _next(bounds["gt"])) if each is not None]
        last = [each for each in (bounds["lt"], _next(bounds["lte"])) if each is not None]
        return Range(
            since=_moment(max(first)) if first else None,
            until=_moment(min(last)) if last else None,
        )

    def page(self) -> Page:
        """Take what says which part of a list is wanted."""
        return Page(
            size=self.integer("limit", minimum=1, maximum=PAGE_MAX) or PAGE_USUAL,
            after=self.text("starting_after"),
            before=self.text("ending_before"),
        )

    def ignore(self, *names: str) -> None:
        """Take parameters that make no difference here."""
        for name in names:
            self._left.pop(name, None)

    def finish(self, path: str = "") -> None:
        """Refuse what nobody took.

        Raises:
            ApiError: there is such a parameter.
        """
        for name in self._left:
            full = f"{path}[{name}]" if path else name
            raise bad_request(
                f"Received unknown parameter: {full[:100]}",
                code="parameter_unknown",
                param=full[:100],
            )


def _next(number: int | None) -> int | None:
    return None if number is None else number + 1


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
