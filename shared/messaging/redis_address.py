"""Where Redis is, as `REDIS_URL` says: one server, one that sentinels know, or a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs, unquote

#: Host and port.
Node: TypeAlias = tuple[str, int]

#: `server` is one at a fixed place, `sentinel` one whose place sentinels know.
Arrangement: TypeAlias = Literal["server", "sentinel", "cluster"]

FORMS: Final = (
    "redis://HOST:PORT/DATABASE, redis+sentinel://HOST:PORT,HOST:PORT/NAME or "
    "redis+cluster://HOST:PORT,HOST:PORT, or the same with rediss for TLS"
)

_SCHEME: Final = re.compile(r"redis(s?)\+(sentinel|cluster)")
_NODE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]\s]+))(?::([0-9]{1,5}))?")
_SENTINEL_PATH: Final = re.compile(r"([^/]+)(?:/([0-9]{1,5}))?")
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_PORT_MAX: Final = 65_535


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """What is needed to reach a Redis: of a server at a fixed place its URL, else the rest."""

    arrangement: Arrangement
    url: str = field(repr=False)
    #: Sentinels, or some nodes of the cluster.
    nodes: tuple[Node, ...] = ()
    #: What the sentinels call the server.
    name: str = ""
    #: Options of connections to servers, in the words of redis-py.
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    #: Options of connections to sentinels.
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def parse_redis_address(url: str) -> RedisAddress:
    """Read a `REDIS_URL`. User and password are percent-encoded, as in every URL.

    Raises:
        ValueError: it has none of the known forms; the message does not quote it.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme in {"redis", "rediss", "unix"}:
        return RedisAddress("server", url)
    match = _SCHEME.fullmatch(scheme)
    if not separator or match is None:
        raise ValueError(f"must be like {FORMS}")
    tls = {"ssl": True} if match[1] else {}
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    credentials, _, places = place.rpartition("@")
    user, _, password = credentials.partition(":")
    options = tls | _given(username=unquote(user), password=unquote(password))
    nodes = tuple(_node(each, _PORTS[match[2]]) for each in places.split(","))
    if match[2] == "cluster":
        if path or query:
            raise ValueError("a cluster has no database and no options: nothing after the hosts")
        return RedisAddress("cluster", url, nodes, options=options)
    named = _SENTINEL_PATH.fullmatch(path)
    if named is None:
        raise ValueError("after the sentinels comes the name they have for the server, as /NAME")
    return RedisAddress(
        "sentinel",
        url,
        nodes,
        name=unquote(named[1]),
        options=options | ({"db": int(named[2])} if named[2] else {}),
        sentinel_options=tls | _sentinel_account(query),
    )


def _node(text: str, default_port: int) -> Node:
    match = _NODE.fullmatch(text)
    port = int(match[3] or default_port) if match else 0
    if match is None or not 1 <= port <= _PORT_MAX:
        raise ValueError("each host must be HOST or HOST:PORT, with commas between them")
    return match[1] or match[2], port


def _sentinel_account(query: str) -> dict[str, str]:
    given = {name: values[-1] for name, values in parse_qs(query).items()}
    user, password = given.pop("sentinel_username", ""), given.pop("sentinel_password", "")
    if given:
        raise ValueError("the only options are sentinel_username and sentinel_password")
    return _given(username=user, password=password)


def _given(**options: str) -> dict[str, str]:
    return {name: value for name, value in options.items() if value}
