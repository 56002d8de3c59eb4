"""What the manifests say of processes is what the code does: commands, variables, probes, stops."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from deploy.local.command import _parser
from deploy.local.environment import SIMULATOR_ACCOUNTS, SIMULATOR_PACE, SIMULATOR_PATHS
from deploy.local.services import SERVICE_NAMES, WORKER_NAMES, load_service
from shared.clock import system_clock
from shared.gateways.registry import REGISTRY, GatewaySettings
from shared.messaging.receiver import DRAIN_SECONDS
from shared.messaging.worker import STOP_SECONDS
from shared.process import HTTP_SHUTDOWN_SECONDS
from shared.settings import ServiceSettings, load
from shared.web.health import CHECK_TIMEOUT_SECONDS, health_routes
from shared.web.keys import describe, parse_keys
from shared.web.routes import Scope
from tests.support.manifests import (
    OVERLAYS,
    Pod,
    decoded,
    environment,
    environment_sources,
    labels_of,
    of_kind,
    our_pods,
    rendered,
    variable_names,
)

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

#: Read by the command line (`deploy/local/arguments.py`).
OF_ARGUMENTS = {"HOST", "PORT"}

#: Of a pod's addresses; on loopback alone no probe would find it.
EVERYWHERE = "0.0.0.0"  # noqa: S104 - that is what is meant

#: Time for what no constant bounds: closing a pool, sending the last traces.
MARGIN_SECONDS = 5


def arguments_of(pod: Pod) -> Any:
    given = pod.container["args"]
    return _parser(given[0]).parse_args(given)


def processes(overlay: str) -> list[Pod]:
    """Return the pods of services; neither jobs nor the front door."""
    found = our_pods(rendered(overlay)).values()
    return [pod for pod in found if arguments_of(pod).subcommand in {"serve", "worker"}]


def settings_of(pod: Pod) -> type[ServiceSettings]:
    return load_service(arguments_of(pod).service).settings


def variables_of(settings: type[BaseSettings]) -> set[str]:
    return {name for field in settings.model_fields.values() for name in _names(field)}


def _names(field: FieldInfo) -> list[str]:
    if isinstance(field.validation_alias, AliasChoices):
        return [choice for choice in field.validation_alias.choices if isinstance(choice, str)]
    return [field.alias] if field.alias else []


@every_overlay
def test_every_container_starts_a_command_that_there_is(overlay: str) -> None:
    for pod in our_pods(rendered(overlay)).values():
        assert "command" not in pod.container
        arguments_of(pod)


@every_overlay
def test_every_process_is_labelled_as_what_it_does(overlay: str) -> None:
    for pod in processes(overlay):
        arguments = arguments_of(pod)
        component = {"serve": "http", "worker": "worker"}[arguments.subcommand]
        assert pod.labels["app.kubernetes.io/component"] == component
        assert pod.labels["app.kubernetes.io/name"] == arguments.service
        assert pod.name == f"{arguments.service}-{component}"
        assert pod.spec["serviceAccountName"] == arguments.service


@every_overlay
def test_every_variable_is_one_that_its_process_reads(overlay: str) -> None:
    unread = {}
    for pod in processes(overlay):
        settings = settings_of(pod)
        known = variables_of(settings) | OF_ARGUMENTS
        if issubclass(settings, GatewaySettings) or pod.name == "simulator-http":
            known |= {name for gateway in REGISTRY.values() for name in variables_of(gateway.keys)}
        # What all processes have in common may be more than one of them reads.
        unread[pod.name] = variable_names(pod, rendered(overlay)) - known

    assert {name: names for name, names in unread.items() if names} == {}


@every_overlay
def test_no_process_has_the_database_or_the_keys_of_another(overlay: str) -> None:
    for pod in processes(overlay):
        service = arguments_of(pod).service
        names = {
            name.split("-database")[0]
            for _, name in environment_sources(pod)
            if "-database" in name
        }
        gateways = {
            name.split("-gateways")[0]
            for _, name in environment_sources(pod)
            if "-gateways" in name
        }
        assert names == {service}
        assert gateways <= ({"webhook"} if service == "simulator" else {service})


def test_every_process_accepts_the_variables_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    objects = rendered("local")
    for pod in processes("local"):
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in environment(pod, objects).items():
            monkeypatch.setenv(name, value)
        settings = load(settings_of(pod))

        assert settings.redis_address() == "redis://redis:6379/0"
        if isinstance(settings, GatewaySettings):
            assert settings.gateways.keys() == REGISTRY.keys() - (
                {"x402"} if pod.name.startswith("webhook") else set()
            )


@every_overlay
def test_the_process_listens_where_its_port_and_its_probes_are(overlay: str) -> None:
    probed = {route.path for route in health_routes([], system_clock)}
    for pod in processes(overlay):
        container = pod.container
        variables = environment(pod, rendered(overlay))
        (port,) = container["ports"]
        assert (variables["HOST"], variables["PORT"]) == (EVERYWHERE, str(port["containerPort"]))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = container[probe]["httpGet"]
            assert request["port"] == port["name"]
            assert request["path"] in probed
            assert container[probe]["timeoutSeconds"] > CHECK_TIMEOUT_SECONDS
        # A server that is away must not make every pod start anew.
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@every_overlay
def test_a_pod_has_the_time_that_its_process_takes_to_stop(overlay: str) -> None:
    for pod in processes(overlay):
        pause = (
            pod.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        )
        stop = HTTP_SHUTDOWN_SECONDS + STOP_SECONDS + DRAIN_SECONDS + MARGIN_SECONDS
        assert pod.spec["terminationGracePeriodSeconds"] >= pause + stop
        # Proxies learn late that a pod is gone; nobody connects to a worker.
        assert (pause > 0) == pod.name.endswith("-http")


@every_overlay
def test_an_update_carries_as_much_as_before_all_the_time(overlay: str) -> None:
    for pod in processes(overlay):
        strategy = pod.owner["spec"]["strategy"]
        assert strategy == {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}
        }  # fmt: skip


@every_overlay
def test_the_migration_has_the_database_of_every_service(overlay: str) -> None:
    objects = rendered(overlay)
    jobs = of_kind(objects, "Job")
    migrated = [
        name for pod in our_pods(objects).values() if pod.name in jobs
        for name in arguments_of(pod).services
    ]  # fmt: skip
    serving = [name for name in SERVICE_NAMES if overlay != "production" or name in WORKER_NAMES]

    assert migrated == serving
    if overlay == "local":
        expected = {f"{name.upper()}_DATABASE_URL" for name in WORKER_NAMES}
        assert environment(our_pods(objects)["migrate"], objects).keys() == expected


@every_overlay
def test_a_release_can_apply_first_what_its_migration_needs(overlay: str) -> None:
    first = {
        item["kind"] for item in rendered(overlay)
        if labels_of(item).get("app.kubernetes.io/component") == "migration"
    }  # fmt: skip

    assert first == {"Job", "NetworkPolicy", "ServiceAccount"}


def test_the_simulator_has_the_accounts_and_addresses_of_the_local_stack() -> None:
    objects = rendered("local")
    found = environment(our_pods(objects)["payments-http"], objects)
    accounts = [account.items() for account in SIMULATOR_ACCOUNTS.values()]
    pace = [variables.items() for variables in SIMULATOR_PACE.values()]
    places = [
        {name: f"http://simulator:8080{path}" for name, path in paths.items()}.items()
        for paths in SIMULATOR_PATHS.values()
    ]

    expected = {pair for pairs in (*accounts, *pace, *places) for pair in pairs}

    assert expected - set(found.items()) == set()


def test_the_local_key_is_the_one_that_is_told() -> None:
    secrets = of_kind(rendered("local"), "Secret")
    (keys,) = (decoded(item) for name, item in secrets.items() if name.startswith("api-keys-"))

    expected = describe("development", [Scope.ADMIN, Scope.READ, Scope.WRITE], "sluice_local")
    assert parse_keys(keys["keys"]) == parse_keys(expected)


@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_the_public_address_is_the_public_ingress(overlay: str) -> None:
    objects = rendered(overlay)
    (rule,) = of_kind(objects, "Ingress")["public"]["spec"]["rules"]
    url = urlsplit(environment(our_pods(objects)["payments-http"], objects)["PUBLIC_URL"])

    assert (url.scheme, url.hostname, url.path) == ("https", rule["host"], "")
