"""Who may reach whom, decided from the NetworkPolicies as a cluster would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from deploy.local.services import PATH_PREFIXES, WORKER_NAMES
from tests.support.manifests import OVERLAYS, Manifest, of_kind, our_pods, pods, rendered

HTTP, POSTGRES, REDIS, TLS = 8080, 5432, 6379, 443

#: Documented as an example (RFC 5737): somewhere in the internet.
A_GATEWAY = "203.0.113.7"


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod in a namespace, or an address outside the cluster."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    address: str = ""


def outside(namespace: str, **labels: str) -> End:
    """Return a pod of others; an underscore in a label's name stands for its slash."""
    return End({key.replace("__", "/"): value for key, value in labels.items()}, namespace)


DATABASES = {
    name: End({f"sluice/{name}-database": "true"}, "databases")
    for name in (*WORKER_NAMES, "simulator")
}
REDIS_SERVER = End({"sluice/redis": "true"}, "redis")
PROMETHEUS = End({"app.kubernetes.io/name": "prometheus"}, "monitoring")
COLLECTOR = End({"app.kubernetes.io/name": "opentelemetry-collector"}, "monitoring")


class Network:
    """The policies of one overlay."""

    def __init__(self, overlay: str) -> None:
        self.namespace = OVERLAYS[overlay]
        objects = rendered(overlay)
        self._policies = [item["spec"] for item in of_kind(objects, "NetworkPolicy").values()]
        self._pods = {pod.name: pod for pod in pods(objects)}

    def end(self, name: str) -> End:
        """Return a pod of the overlay."""
        return End(self._pods[name].labels, self.namespace)

    def allows(self, source: End, target: End, port: int) -> bool:
        """Tell whether a connection is let out at its source and in at its target."""
        return self._passes("Egress", source, target, port) and self._passes(
            "Ingress", target, source, port
        )

    def _passes(self, direction: str, pod: End, peer: End, port: int) -> bool:
        if pod.namespace != self.namespace:
            return True  # Others look after themselves.
        mine = [
            policy for policy in self._policies
            if direction in policy["policyTypes"] and _matches(policy["podSelector"], pod.labels)
        ]  # fmt: skip
        side = {"Egress": "to", "Ingress": "from"}[direction]
        rules = [rule for policy in mine for rule in policy.get(direction.lower(), [])]
        return not mine or any(
            self._is_port(rule, port) and any(self._is_peer(p, peer) for p in rule[side])
            for rule in rules
        )

    @staticmethod
    def _is_port(rule: Mapping[str, Any], port: int) -> bool:
        names = {"http": HTTP, "postgresql": POSTGRES, "redis": REDIS}
        return any(names.get(item["port"], item["port"]) == port for item in rule["ports"])

    def _is_peer(self, selector: Mapping[str, Any], peer: End) -> bool:
        if block := selector.get("ipBlock"):
            return _is_inside(block, peer.address)
        if peer.address:
            return False
        if "namespaceSelector" not in selector:
            is_there = peer.namespace == self.namespace
        else:
            names = {"kubernetes.io/metadata.name": peer.namespace}
            is_there = _matches(selector["namespaceSelector"], names)
        return is_there and _matches(selector.get("podSelector", {}), peer.labels)


def _is_inside(block: Mapping[str, Any], address: str) -> bool:
    if not address:
        return False
    here = ip_address(address)
    return here in ip_network(block["cidr"]) and not any(
        here in ip_network(network) for network in block.get("except", [])
    )


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return wanted.items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
with_ingress = pytest.mark.parametrize("overlay", ["staging", "production"])

PROCESSES = [f"{name}-{kind}" for name in WORKER_NAMES for kind in ("http", "worker")]


@every_overlay
def test_each_process_reaches_its_own_database_and_no_other(overlay: str) -> None:
    network = Network(overlay)
    reached = {
        name: [
            s
            for s, there in DATABASES.items()
            if network.allows(network.end(name), there, POSTGRES)
        ]
        for name in PROCESSES
    }

    assert reached == {name: [name.partition("-")[0]] for name in PROCESSES}


@every_overlay
def test_each_process_reaches_redis_and_only_there(overlay: str) -> None:
    network = Network(overlay)

    assert all(network.allows(network.end(name), REDIS_SERVER, REDIS) for name in PROCESSES)
    assert not any(network.allows(network.end(name), REDIS_SERVER, HTTP) for name in PROCESSES)


@every_overlay
def test_services_do_not_reach_each_other(overlay: str) -> None:
    network = Network(overlay)
    ends = {name: network.end(name) for name in PROCESSES}

    assert [
        (a, b) for a in ends for b in ends if network.allows(ends[a], ends[b], HTTP)
    ] == []  # fmt: skip


def test_only_payments_reaches_gateways() -> None:
    network = Network("production")
    gateway = End(address=A_GATEWAY)

    reaching = {name for name in PROCESSES if network.allows(network.end(name), gateway, TLS)}

    assert reaching == {"payments-http", "payments-worker"}


@pytest.mark.parametrize("address", ["10.0.0.1", "172.20.1.1", "192.168.1.1", "169.254.169.254"])
def test_no_process_reaches_our_own_networks_as_a_gateway(address: str) -> None:
    network = Network("production")

    assert not any(
        network.allows(network.end(name), End(address=address), TLS) for name in PROCESSES
    )


@pytest.mark.parametrize("overlay", ["local", "staging"])
def test_where_there_is_the_simulator_nobody_reaches_real_gateways(overlay: str) -> None:
    network = Network(overlay)
    simulator = network.end("simulator-http")

    for name in PROCESSES:
        reaches = network.allows(network.end(name), simulator, HTTP)
        assert reaches == name.startswith("payments")
        assert not network.allows(network.end(name), End(address=A_GATEWAY), TLS)
    assert network.allows(simulator, network.end("webhook-http"), HTTP)
    assert network.allows(simulator, DATABASES["simulator"], POSTGRES)
    assert not network.allows(simulator, DATABASES["payments"], POSTGRES)


@with_ingress
def test_the_public_controller_reaches_webhook_alone(overlay: str) -> None:
    network = Network(overlay)
    controller = End(namespace="ingress-public")

    names = [*PROCESSES, *(["simulator-http"] if overlay == "staging" else [])]
    reached = [name for name in names if network.allows(controller, network.end(name), HTTP)]

    assert reached == ["webhook-http"]


@with_ingress
def test_the_internal_controller_reaches_every_api_and_no_worker(overlay: str) -> None:
    network = Network(overlay)
    controller = End(namespace="ingress-internal")

    reached = [name for name in PROCESSES if network.allows(controller, network.end(name), HTTP)]

    assert reached == [name for name in PROCESSES if name.endswith("-http")]


@with_ingress
def test_prometheus_reads_every_process_and_traces_leave_each(overlay: str) -> None:
    network = Network(overlay)

    assert all(network.allows(PROMETHEUS, network.end(name), HTTP) for name in PROCESSES)
    assert not any(
        network.allows(End(namespace="monitoring"), network.end(name), HTTP) for name in PROCESSES
    )
    assert all(network.allows(network.end(name), COLLECTOR, 4318) for name in PROCESSES)


@every_overlay
def test_a_migration_reaches_databases_and_nothing_else(overlay: str) -> None:
    network = Network(overlay)
    job = network.end("migrate")

    assert all(network.allows(job, DATABASES[name], POSTGRES) for name in WORKER_NAMES)
    assert not network.allows(job, REDIS_SERVER, REDIS)
    assert not network.allows(job, End(address=A_GATEWAY), TLS)


@every_overlay
def test_whoever_is_not_named_reaches_nobody(overlay: str) -> None:
    network = Network(overlay)
    strangers = [
        End(namespace="elsewhere"),
        End({"app.kubernetes.io/name": "x"}, OVERLAYS[overlay]),
    ]

    for name in our_pods(rendered(overlay)):
        for stranger in strangers:
            assert not network.allows(stranger, network.end(name), HTTP)


def test_the_laptop_s_own_servers_and_front_door_reach_what_they_must() -> None:
    network = Network("local")
    front_door = network.end("front-door-http")

    for name in PROCESSES:
        service = network.end(name)
        assert network.allows(service, network.end("postgresql"), POSTGRES)
        assert network.allows(service, network.end("redis"), REDIS)
        assert network.allows(front_door, service, HTTP) == name.endswith("-http")
    assert network.allows(front_door, network.end("simulator-http"), HTTP)
    assert network.allows(network.end("simulator-http"), front_door, HTTP)
    assert network.allows(network.end("migrate"), network.end("postgresql"), POSTGRES)
    assert network.allows(network.end("migrate-simulator"), network.end("postgresql"), POSTGRES)


def paths_of(ingress: Manifest) -> dict[str, str]:
    """Return the service of every path."""
    (rule,) = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"][0]["hosts"] == [rule["host"]]
    assert {path["pathType"] for path in rule["http"]["paths"]} == {"Prefix"}
    return {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}


@with_ingress
def test_each_path_goes_to_the_service_that_has_it_by_the_way_it_may_come(overlay: str) -> None:
    ingresses = of_kind(rendered(overlay), "Ingress")
    public = paths_of(ingresses["public"])
    internal = paths_of(ingresses["api"])
    owners = {
        path: name for name in WORKER_NAMES for path in PATH_PREFIXES[name]
    }  # fmt: skip

    assert ingresses.keys() == {"public", "api"}
    assert public | internal == owners
    assert public.keys() == {path for path in owners if not path.startswith("/api/")}
    assert not public.keys() & internal.keys()
