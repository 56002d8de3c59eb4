"""Connections to a Redis server that may be another one tomorrow: of Sentinel, or of a cluster.

Every connection asks for the place of its server when it is made, and is given up when its server
no longer is the one that may be written to. In a cluster all keys of a service are in one slot
(`publisher.namespace`), and a client reaches one slot: so scripts, transactions and blocking reads
work as on one server, which cluster clients do not offer.

It stands on redis-py's pool for Sentinel, which asks a directory `discover_master`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, TryAgainError
from redis.retry import Retry

from shared.messaging.redis_address import Node, RedisAddress

#: One of several is asked; a dead one must not hold up the others.
ASK_TIMEOUT_SECONDS: Final = 0.5

#: A node's word for keys that are, or will in a moment be, at another one.
_AT_ANOTHER_NODE: Final = (AskError, ClusterDownError, TryAgainError)

_SENTINEL_QUESTION: Final = "SENTINEL GET-MASTER-ADDR-BY-NAME"
_CLUSTER_QUESTION: Final = "CLUSTER SLOTS"


class _Directory:
    """What is asked, of whom, and how the answer reads."""

    def __init__(self, address: RedisAddress, key: str) -> None:
        self._nodes = list(address.nodes)
        self._slot = key_slot(key.encode())
        if address.arrangement == "sentinel":
            self._question: tuple[str, ...] = (_SENTINEL_QUESTION, address.name)
            self._account = address.sentinel_options
        else:
            self._question = (_CLUSTER_QUESTION,)
            self._account = address.options

    def _options(self) -> dict[str, Any]:
        return {
            **self._account,
            "socket_timeout": ASK_TIMEOUT_SECONDS,
            "socket_connect_timeout": ASK_TIMEOUT_SECONDS,
            "decode_responses": True,
        }

    def _read(self, answer: Any, asked: Node) -> Node | None:
        """Return the place of the server, and note who else may be asked."""
        if self._question[0] == _SENTINEL_QUESTION:
            return (str(answer[0]), int(answer[1])) if answer else None
        owner = None
        for first, last, *servers in answer:
            # A node that does not know its own name answers without one.
            places = [(str(host or asked[0]), int(port)) for host, port, *_ in servers]
            self._nodes += [place for place in places if place not in self._nodes]
            if first <= self._slot <= last:
                owner = places[0]  # The master comes first.
        return owner

    def _remember(self, asked: Node) -> None:
        """Ask who answered first the next time."""
        self._nodes.remove(asked)
        self._nodes.insert(0, asked)


def _nobody_knows(problems: Sequence[str]) -> redis.ConnectionError:
    told = f" ({', '.join(problems)})" if problems else ""
    return redis.ConnectionError(f"nobody says where the server is{told}")


class _BlockingDirectory(_Directory):
    def discover_master(self, _name: str) -> Node:
        """Ask one after the other.

        Raises:
            redis.ConnectionError: none of them knows.
        """
        problems = []
        for host, port in tuple(self._nodes):
            client = redis.Redis(
                host=host, port=port, retry=Retry(NoBackoff(), 0), **self._options()
            )
            try:
                with closing(client):
                    place = self._read(client.execute_command(*self._question), (host, port))
            except redis.RedisError as error:
                problems.append(f"{host}:{port} {type(error).__name__}")
                continue
            if place is not None:
                self._remember((host, port))
                return place
        raise _nobody_knows(problems)


class _AsyncDirectory(_Directory):
    async def discover_master(self, _name: str) -> Node:
        """Ask one after the other.

        Raises:
            redis.ConnectionError: none of them knows.
        """
        problems = []
        for host, port in tuple(self._nodes):
            client = redis.asyncio.Redis(
                host=host, port=port, retry=AsyncRetry(NoBackoff(), 0), **self._options()
            )
            try:
                async with client:
                    answer = await client.execute_command(*self._question)
                place = self._read(answer, (host, port))
            except redis.RedisError as error:
                problems.append(f"{host}:{port} {type(error).__name__}")
                continue
            if place is not None:
                self._remember((host, port))
                return place
        raise _nobody_knows(problems)


class _MovingConnection(redis.sentinel.SentinelManagedConnection):
    """Asks for its server whenever it connects; redis-py, when it repeats a command, does not."""

    def connect_to(self, address: Node) -> None:
        self.host, self.port = address
        super().connect_check_health(
            check_health=self.connection_pool.check_connection, retry_socket_connect=False
        )

    def connect_check_health(self, *args: Any, **options: Any) -> None:
        if not self.is_connected:
            self.host, self.port = self.connection_pool.get_master_address()
        super().connect_check_health(*args, **options)


class _MovingConnectionTls(_MovingConnection, redis.SSLConnection):
    pass


class _SlotConnection(_MovingConnection):
    def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return super().read_response(*args, **options)
        except _AT_ANOTHER_NODE as error:
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the keys are at another node") from error


class _SlotConnectionTls(_SlotConnection, redis.SSLConnection):
    pass


class _AsyncSlotConnection(redis.asyncio.sentinel.SentinelManagedConnection):
    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await super().read_response(*args, **options)
        except _AT_ANOTHER_NODE as error:
            await self.disconnect()
            raise redis.ConnectionError("the keys are at another node") from error


class _AsyncSlotConnectionTls(_AsyncSlotConnection, redis.asyncio.SSLConnection):
    pass


def blocking_client(address: RedisAddress, key: str, options: Mapping[str, Any]) -> redis.Redis:
    """Return a client of the server that now has a key."""
    given = {**address.options, **options}
    is_tls = given.pop("ssl", False)
    if address.arrangement == "cluster":
        given["connection_class"] = _SlotConnectionTls if is_tls else _SlotConnection
    else:
        given["connection_class"] = _MovingConnectionTls if is_tls else _MovingConnection
    directory = _BlockingDirectory(address, key)
    pool = redis.sentinel.SentinelConnectionPool(address.name, directory, **given)
    return redis.Redis.from_pool(pool)


def async_client(
    address: RedisAddress, key: str, options: Mapping[str, Any]
) -> redis.asyncio.Redis:
    """Return a client of the server that now has a key."""
    given = {**address.options, **options}
    if address.arrangement == "cluster":
        is_tls = given.pop("ssl", False)
        given["connection_class"] = _AsyncSlotConnectionTls if is_tls else _AsyncSlotConnection
    directory = _AsyncDirectory(address, key)
    pool = redis.asyncio.sentinel.SentinelConnectionPool(address.name, directory, **given)
    return redis.asyncio.Redis.from_pool(pool)
