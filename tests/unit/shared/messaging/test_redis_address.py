"""The forms of REDIS_URL."""

from __future__ import annotations

import pytest

from shared.messaging.redis_address import parse_redis_address
from shared.settings import ServiceSettings, SettingsError, load

PASSWORD = "p@ss:/word"
ENCODED = "p%40ss%3A%2Fword"


@pytest.mark.parametrize("url", ["redis://h/1", "rediss://h:6380", "unix:///run/redis"])
def test_a_server_at_a_fixed_place_is_left_to_its_url(url: str) -> None:
    address = parse_redis_address(url)

    assert (address.arrangement, address.url, address.nodes) == ("server", url, ())


def test_sentinels_know_a_server_by_its_name() -> None:
    address = parse_redis_address(
        f"redis+sentinel://app:{ENCODED}@one,two:5000,[::1]:26380/sluice/2"
        "?sentinel_username=watch&sentinel_password=w%2Fw"
    )

    assert address.arrangement == "sentinel"
    assert address.nodes == (("one", 26379), ("two", 5000), ("::1", 26380))
    assert address.name == "sluice"
    assert address.options == {"username": "app", "password": PASSWORD, "db": 2}
    assert address.sentinel_options == {"username": "watch", "password": "w/w"}


def test_sentinels_without_an_account_are_asked_without_one() -> None:
    address = parse_redis_address(f"redis+sentinel://:{ENCODED}@one/sluice")

    assert address.options == {"password": PASSWORD}
    assert address.sentinel_options == {}


def test_a_cluster_is_some_of_its_nodes() -> None:
    address = parse_redis_address(f"rediss+cluster://:{ENCODED}@one,two:7001")

    assert address.arrangement == "cluster"
    assert address.nodes == (("one", 6379), ("two", 7001))
    assert address.options == {"ssl": True, "password": PASSWORD}


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("secret", "must be like"),
        ("http://secret", "must be like"),
        ("redis+secret://h", "must be like"),
        ("redis+sentinel://:secret@h1,h2", "/NAME"),
        ("redis+sentinel://:secret@h1,,h2/sluice", "HOST:PORT"),
        ("redis+sentinel://:secret@h1:0/sluice", "HOST:PORT"),
        ("redis+sentinel://:secret@/sluice", "HOST:PORT"),
        ("redis+sentinel://:secret@h1/sluice/one", "/NAME"),
        ("redis+sentinel://h1/sluice?password=secret", "sentinel_password"),
        ("redis+cluster://:secret@h1/0", "no database"),
    ],
)
def test_what_has_no_known_form_is_refused_by_name_and_not_quoted(
    url: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", url)

    with pytest.raises(SettingsError, match="REDIS_URL") as refusal:
        load(ServiceSettings)

    assert word in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_address_never_shows_its_password() -> None:
    assert ENCODED not in repr(parse_redis_address(f"redis+cluster://:{ENCODED}@one"))
    assert PASSWORD not in repr(parse_redis_address(f"redis+sentinel://:{ENCODED}@one/sluice"))
