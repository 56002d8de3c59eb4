"""API keys: known by their hash, limited by their scopes, replaced without a gap."""

from __future__ import annotations

import pytest

from shared.errors import ForbiddenError, UnauthorizedError
from shared.settings import SettingsError
from shared.web.keys import Keyring, describe, parse_keys
from shared.web.routes import Scope

KEY = "sk_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
OTHER_KEY = "sk_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"


def keyring(*entries: str) -> Keyring:
    return Keyring(parse_keys(",".join(entries)))


def test_a_key_is_known_by_its_text_and_gives_its_name() -> None:
    keys = keyring(describe("shop", [Scope.READ, Scope.WRITE], KEY))

    assert keys.authorize(f"Bearer {KEY}", Scope.READ) == "shop"
    assert keys.authorize(f"bearer  {KEY} ", Scope.WRITE) == "shop"


def test_a_key_without_the_scope_is_forbidden_and_told_which_scope_it_lacks() -> None:
    keys = keyring(describe("shop", [Scope.READ], KEY))

    with pytest.raises(ForbiddenError, match="'shop' lacks the scope 'admin'"):
        keys.authorize(f"Bearer {KEY}", Scope.ADMIN)


@pytest.mark.parametrize(
    "header",
    [None, "", KEY, f"Basic {KEY}", "Bearer", "Bearer ", f"Bearer {OTHER_KEY}", f"Bearer {KEY}x"],
)
def test_anything_but_a_known_key_is_unauthorized_and_not_repeated(header: str | None) -> None:
    keys = keyring(describe("shop", Scope, KEY))

    with pytest.raises(UnauthorizedError) as caught:
        keys.authorize(header, Scope.READ)

    assert KEY not in str(caught.value)
    assert OTHER_KEY not in str(caught.value)


def test_nobody_enters_without_configured_keys() -> None:
    with pytest.raises(UnauthorizedError):
        keyring().authorize(f"Bearer {KEY}", Scope.READ)


def test_the_hash_of_a_key_is_no_key() -> None:
    entry = describe("shop", Scope, KEY)

    with pytest.raises(UnauthorizedError):
        keyring(entry).authorize(f"Bearer {entry.rpartition(':')[2]}", Scope.READ)


def test_two_keys_of_one_name_are_valid_during_a_rotation() -> None:
    keys = keyring(describe("shop", [Scope.READ], KEY), describe("shop", [Scope.READ], OTHER_KEY))

    assert keys.authorize(f"Bearer {KEY}", Scope.READ) == "shop"
    assert keys.authorize(f"Bearer {OTHER_KEY}", Scope.READ) == "shop"


def test_entries_may_stand_on_lines_of_their_own() -> None:
    entries = [describe("one", Scope, KEY), describe("two", Scope, OTHER_KEY)]

    assert [key.name for key in parse_keys("\n" + "\n\n".join(entries) + "\n")] == ["one", "two"]


@pytest.mark.parametrize(
    "malformed",
    [
        "shop",
        "shop:read",
        f"shop:fly:{'0' * 64}",
        f"shop::{'0' * 64}",
        f"shop:read:{'0' * 62}",
        f"shop:read:{'z' * 64}",
        f"shop:read:{'0' * 64}:more",
    ],
)
def test_a_malformed_entry_is_named_by_its_position_and_not_repeated(malformed: str) -> None:
    entries = [describe("good", Scope, KEY), malformed]

    with pytest.raises(SettingsError, match="entry 2") as caught:
        parse_keys(",".join(entries))

    assert malformed not in str(caught.value)
