"""What compose.yaml says of processes is what the code does; every file it names is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.local.command import _parser
from deploy.local.services import SERVICE_NAMES, WORKER_NAMES, load_service
from shared.settings import load
from shared.web.keys import describe, parse_keys
from shared.web.routes import Scope
from tests.support.modules import REPOSITORY

COMPOSE = REPOSITORY / "deploy" / "compose"

Service = dict[str, Any]

_VARIABLE = re.compile(r"\$\{([A-Z_]+):-([^}]*)\}")


def defaulted(text: str) -> str:
    """Return a text as Compose reads it when nothing is set."""
    return _VARIABLE.sub(lambda match: match[2], text)


def services() -> dict[str, Service]:
    text = defaulted((COMPOSE / "compose.yaml").read_text())
    found: dict[str, Service] = yaml.safe_load(text)["services"]
    return found


def ours() -> dict[str, Service]:
    return {name: each for name, each in services().items() if each["image"] == "sluice:local"}


def arguments_of(service: Service) -> Any:
    return _parser(service["command"][0]).parse_args(service["command"])


def processes() -> dict[str, Service]:
    return {
        name: each for name, each in ours().items()
        if arguments_of(each).subcommand in {"serve", "worker"}
    }  # fmt: skip


def environment_of(service: Service) -> dict[str, str]:
    variables: dict[str, str] = {}
    for file in service.get("env_file", []):
        lines = (COMPOSE / file).read_text().splitlines()
        variables |= dict(line.split("=", 1) for line in lines if line and line[0] != "#")
    own: dict[str, str] = service.get("environment", {})
    return variables | own


def test_every_process_of_every_service_is_there_and_named_as_what_it_is() -> None:
    kinds = {"serve": "http", "worker": "worker"}
    found = {
        name: (arguments_of(each).service, kinds[arguments_of(each).subcommand])
        for name, each in processes().items()
    }

    expected = {f"{name}-{kind}": (name, kind) for name in WORKER_NAMES for kind in kinds.values()}
    assert found == expected | {"simulator": ("simulator", "http")}


def test_every_process_accepts_the_variables_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in processes().items():
        with monkeypatch.context() as patch:
            for variable in ("DATABASE_URL", "REDIS_HOST", "REDIS_PORT"):
                patch.delenv(variable, raising=False)
            for variable, value in environment_of(service).items():
                patch.setenv(variable, value)
            settings: Any = load(load_service(arguments_of(service).service).settings)

        database = urlsplit(settings.database_url)
        assert (database.hostname, database.port) == ("postgresql", 5432)
        owner = arguments_of(service).service
        assert database.username == ("sluice" if owner == "simulator" else f"{owner}_login"), name
        if owner != "simulator":
            assert settings.redis_address() == "redis://redis:6379/0"


def test_no_process_has_the_database_or_the_wallet_of_another() -> None:
    for name, service in processes().items():
        variables = environment_of(service)
        owner = arguments_of(service).service
        databases = {each for each in variables if each.endswith("DATABASE_URL")}
        assert databases == {f"{owner.upper()}_DATABASE_URL"}, name
        assert ("X402_PRIVATE_KEY" in variables) == (owner == "payments"), name


def test_the_migration_comes_first_and_has_every_database() -> None:
    found = services()
    migrated = [name for each in ("migrate", "migrate-simulator")
                for name in arguments_of(found[each]).services]  # fmt: skip
    variables = environment_of(found["migrate"]) | environment_of(found["migrate-simulator"])

    assert sorted(migrated) == sorted(SERVICE_NAMES)
    assert variables.keys() == {f"{name.upper()}_DATABASE_URL" for name in SERVICE_NAMES}
    for name, service in processes().items():
        before = "migrate-simulator" if name == "simulator" else "migrate"
        condition = service["depends_on"][before]["condition"]
        assert condition == "service_completed_successfully"


def test_logins_and_their_passwords_are_those_of_the_roles() -> None:
    mounts = [each.split(":") for each in services()["postgresql"]["volumes"]]
    scripts = [Path(source).name for source, target, *_ in mounts if "initdb.d" in target]
    roles = (REPOSITORY / "deploy" / "kubernetes" / "database-roles.sql").read_text()
    logins = set(re.findall(r"CREATE ROLE (\w+) LOGIN", roles))
    given = re.search(r"for role in ([\w ]+);", (COMPOSE / "database-passwords.sh").read_text())

    assert scripts == ["database-roles.sql", "database-passwords.sh"]
    assert given is not None
    assert set(given[1].split()) == logins


def test_every_container_of_ours_is_restricted() -> None:
    for service in ours().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "volumes" not in service
        assert "user" not in service, "the image says who"


def test_the_front_door_knows_every_service_and_is_open_to_this_machine_only() -> None:
    found = services()
    upstreams = dict(arguments_of(found["front-door"]).processes)

    assert upstreams == {f"{name}-http": f"http://{name}-http:8080" for name in WORKER_NAMES}
    for service in found.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_the_key_is_the_one_that_is_told() -> None:
    keys = environment_of(services()["payments-http"])["API_KEYS"]

    expected = describe("development", [Scope.ADMIN, Scope.READ, Scope.WRITE], "sluice_local")
    assert parse_keys(keys) == parse_keys(expected)


def test_every_file_that_is_mounted_or_read_is_there() -> None:
    for name, service in services().items():
        mounted = [each.split(":")[0] for each in service.get("volumes", [])]
        for source in [*service.get("env_file", []), *(each for each in mounted if "/" in each)]:
            assert (COMPOSE / source).exists(), (name, source)


def test_prometheus_reads_every_process() -> None:
    mounts = dict(
        each.split(":")[:2] for each in services()["prometheus"]["volumes"] if "/" in each[:3]
    )
    configuration = yaml.safe_load((COMPOSE / "../prometheus/prometheus.yaml").read_text())
    inside = {target: COMPOSE / source for source, target in mounts.items()}
    scraped = {
        (job["job_name"], address)
        for job in configuration["scrape_configs"]
        for group in job.get("static_configs", [])
        for address in group["targets"]
    }

    for name in processes():
        if name != "simulator":
            assert (name.rpartition("-")[0], f"{name}:8080") in scraped
    for pattern in configuration["rule_files"]:
        assert any(Path(path).match(pattern) for path in inside), pattern
