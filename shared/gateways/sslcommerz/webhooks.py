"""Verifies and reads SSLCommerz notices (IPN) and browser returns.

Protocol facts: SSLCommerz' official libraries and developer page, as noted at each rule.
"""

from __future__ import annotations

import hashlib
import hmac
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote_to_bytes

from shared.errors import InvalidInputError
from shared.gateways.interface import Claim, Notice, NoticeRefusedError, UnreadableNoticeError
from shared.identifiers import created_at
from shared.money import Money

#: Fields a genuine notice has: about 30, more with instalments.
FIELDS_MAX: Final = 100

#: What each status claims. An unlisted one is handed on as a hint too.
CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType(
    {
        "VALID": "paid",
        "VALIDATED": "paid",
        "FAILED": "failed",
        "CANCELLED": "cancelled",
        "UNATTEMPTED": "expired",
        "EXPIRED": "expired",
    }
)

#: The sender chooses which fields are signed, so those we rely on must be among them.
_MUST_BE_SIGNED: Final = frozenset(
    {
        *("tran_id", "status", "amount", "currency", "store_id", "currency_type"),
        *("currency_amount", "val_id", "risk_level"),
    }
)

#: Longest encoded value that is worth remembering decoded; a `verify_key` has about 450.
_REMEMBERED_LENGTH_MAX: Final = 1_000

#: The day of an event whose time cannot be read: it is kept in the default partition.
_NO_DAY: Final = date(1970, 1, 1)


class SslcommerzNotices:
    """Reads notices for one store. Two passwords are valid at once during a rotation."""

    name = "sslcommerz"

    def __init__(self, store_id: str, passwords: Sequence[str]) -> None:
        self._store_id = store_id
        # The password enters the signed text only as its own digest.
        self._digests = [
            (
                hashlib.md5(password.encode(), usedforsecurity=False).hexdigest(),
                hashlib.sha256(password.encode()).hexdigest(),
            )
            for password in passwords
        ]

    def read(self, headers: Mapping[str, str], body: bytes) -> Notice:
        """Verify a notice over its raw bytes and read it.

        Raises:
            UnreadableNoticeError: no form, or one with a field given twice.
            NoticeRefusedError: not signed by a password of this store.
        """
        form = parse_form(body)
        self._verify(form)
        return _notice(form)

    def _verify(self, form: Mapping[str, str]) -> None:
        if form.get("store_id") != self._store_id:
            raise NoticeRefusedError("other_store")
        md5_given, sha_given = form.get("verify_sign"), form.get("verify_sign_sha2")
        signed = _signed_names(form.get("verify_key", ""))
        if signed is None or not md5_given:
            raise NoticeRefusedError("not_signed")
        try:
            before, after = signed.text_around_password(form)
        except KeyError:
            # PHP's library skips a listed field that is missing, Python's fails: refuse.
            raise NoticeRefusedError("signed_field_missing") from None
        # Which fields are signed on notices other than VALID is not documented. They are only
        # hints that lead to a query, so fewer are enough there.
        if not signed.are_enough and CLAIMS.get(form.get("status", "")) == "paid":
            raise NoticeRefusedError("too_little_signed")
        if not any(
            _matches(hashlib.md5, before, md5_digest, after, md5_given)
            and (
                sha_given is None or _matches(hashlib.sha256, before, sha_digest, after, sha_given)
            )
            for md5_digest, sha_digest in self._digests
        ):
            raise NoticeRefusedError("wrong_signature")


@dataclass(frozen=True, slots=True)
class _SignedNames:
    """The names that a `verify_key` lists, split where `store_passwd` joins them in order.

    What is signed is `name=value` joined with `&`, sorted by name; the values are the decoded ones.
    Templates with `%s` for each value, because they are filled in for every notice.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    before_template: str
    after_template: str
    #: Whether all that we rely on is among them.
    are_enough: bool

    def text_around_password(self, form: Mapping[str, str]) -> tuple[str, str]:
        """Return the signed text before and after the password's digest.

        Raises:
            KeyError: a listed field is missing.
        """
        return (
            self.before_template % tuple([form[name] for name in self.before]),
            self.after_template % tuple([form[name] for name in self.after]),
        )


# A gateway signs the same few sets of fields over and over.
@lru_cache(maxsize=64)
def _signed_names(verify_key: str) -> _SignedNames | None:
    names = frozenset(verify_key.split(",")) - {""}
    # A field of that name would take the place of the password, which only the store may state.
    ordered = sorted(names - {"store_passwd"})
    position = bisect_left(ordered, "store_passwd")
    before, after = tuple(ordered[:position]), tuple(ordered[position:])
    if not names:
        return None
    return _SignedNames(
        before,
        after,
        "".join(f"{name.replace('%', '%%')}=%s&" for name in before),
        "".join(f"&{name.replace('%', '%%')}=%s" for name in after),
        are_enough=names >= _MUST_BE_SIGNED,
    )


def parse_form(body: bytes) -> dict[str, str]:
    """Read a form exactly as sent: blank values stay, because they are signed.

    Raises:
        UnreadableNoticeError: not UTF-8, a field given twice, or too many fields.
    """
    if b"\x00" in body or b"%00" in body:
        raise UnreadableNoticeError("not_a_form")  # PostgreSQL stores no NUL.
    form = {}
    try:
        pairs = body.decode("ascii").replace("+", " ").split("&")
        if len(pairs) > FIELDS_MAX:
            raise UnreadableNoticeError("too_many_fields")
        for pair in pairs:
            name, _, value = pair.partition("=")
            if "%" in pair:
                form[_unquote(name)] = _unquote(value)
            else:
                form[name] = value
    except UnicodeDecodeError:
        raise UnreadableNoticeError("not_a_form") from None
    if len(form) != len(pairs):
        raise UnreadableNoticeError("field_given_twice")
    return form


def _unquote(text: str) -> str:
    # Most encoded values are the same from notice to notice; the rest is not worth remembering.
    return _unquote_known(text) if len(text) <= _REMEMBERED_LENGTH_MAX else _unquote_plainly(text)


def _unquote_plainly(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8")


_unquote_known: Final = lru_cache(maxsize=256)(_unquote_plainly)


def _matches(
    algorithm: Callable[..., hashlib._Hash], before: str, digest: str, after: str, given: str
) -> bool:
    text = f"{before}store_passwd={digest}{after}".encode()
    computed = algorithm(text, usedforsecurity=False).hexdigest()
    return hmac.compare_digest(computed.encode(), given.encode())


def _notice(form: Mapping[str, str]) -> Notice:
    reference, status = form.get("tran_id", ""), form.get("status", "")
    validation_id = form.get("val_id", "")
    if not reference:
        raise UnreadableNoticeError("no_reference")
    return Notice(
        event_key=f"{reference}:{status}:{validation_id}"[:300],
        event_day=_day(reference, form.get("tran_date", "")),
        reference=reference[:100],
        claim=CLAIMS.get(status, "other"),
        validation_id=validation_id,
        amount=_claimed_amount(form),
    )


def _claimed_amount(form: Mapping[str, str]) -> Money:
    """Read what we asked for; only a hint, so what cannot be read is zero."""
    currency = form.get("currency_type") or form.get("currency") or "BDT"
    text = form.get("currency_amount") or form.get("amount") or "0"
    try:
        return Money.from_decimal_text(text, currency)
    except InvalidInputError:
        return Money(0, "BDT")


def _day(reference: str, transaction_date: str) -> date:
    """Return a day that is the same for each copy: inside our reference, else the gateway's."""
    try:
        return created_at(reference).date()
    except ValueError:
        pass  # Not a reference of ours: another system shares the store.
    try:
        # Its zone is not documented; only the sameness matters here.
        return datetime.strptime(transaction_date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).date()
    except ValueError:
        return _NO_DAY
