"""The environment of the local stack's processes: what was given, and what is added to it.

A stack leaves a note of it in its data directory, so that `sluice audit` and the like, started
beside it, find what it runs on.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from deploy.local import ports
from deploy.local.errors import LocalStackError
from deploy.local.services import SERVICE_NAMES

REDIS_VARIABLES: Final = ("REDIS_URL", "REDIS_HOST", "REDIS_PORT")

#: The merchant's accounts at the simulator, by gateway. They protect nothing: no money is there.
SIMULATOR_ACCOUNTS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "sslcommerz": MappingProxyType(
            {
                "SSLCOMMERZ_STORE_ID": "sluice_demo",
                "SSLCOMMERZ_STORE_PASSWORD": "sluice_demo_password",
            }
        ),
        "fapshi": MappingProxyType(
            {
                "FAPSHI_API_USER": "sluice_demo",
                "FAPSHI_API_KEY": "FAK_TEST_sluice_demo",
                "FAPSHI_WEBHOOK_SECRET": "wh_sluice_demo",
            }
        ),
        "campay": MappingProxyType(
            {
                "CAMPAY_TOKEN": "sluice_demo_campay_token",
                "CAMPAY_WEBHOOK_KEY": "sluice-demo-campay-webhook-key-0123456789",
            }
        ),
        "stripe": MappingProxyType(
            {
                "STRIPE_SECRET_KEY": "sk_test_sluice_demo",
                "STRIPE_WEBHOOK_SECRET": "whsec_sluice_demo",
            }
        ),
        # The wallet of the key that is 32 bytes of 1, known to everybody.
        "x402": MappingProxyType(
            {
                "X402_PRIVATE_KEY": f"0x{'01' * 32}",
                "X402_NETWORK": "eip155:84532",
                "X402_NONCE_KEY": "sluice-demo-nonce-key",
            }
        ),
    }
)

#: Where each gateway is at the simulator: variables, and the paths below its address.
SIMULATOR_PATHS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "sslcommerz": MappingProxyType({"SSLCOMMERZ_BASE_URL": ""}),
        "fapshi": MappingProxyType({"FAPSHI_BASE_URL": "/fapshi"}),
        "campay": MappingProxyType({"CAMPAY_BASE_URL": "/campay"}),
        "stripe": MappingProxyType({"STRIPE_BASE_URL": "/stripe"}),
        "x402": MappingProxyType({"X402_FACILITATOR_URL": "/x402", "X402_RPC_URL": "/x402/rpc"}),
    }
)

#: The simulator lists a payment as soon as it has it, so that what is not listed need not be waited
#: for as long as with the real ones; only longer than a call takes.
SIMULATOR_PACE: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "fapshi": MappingProxyType({"FAPSHI_VISIBLE_AFTER_SECONDS": "20"}),
        "campay": MappingProxyType({"CAMPAY_VISIBLE_AFTER_SECONDS": "20"}),
    }
)

_NOTE_FILE: Final = "environment.json"
_KEY_FILE: Final = "development-key"


def given_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without its empty variables: they count as not set."""
    return {name: value for name, value in environment.items() if value}


def database_url_of(service: str, environment: Mapping[str, str]) -> str | None:
    """Return the address of a service's database, if one is given."""
    own = environment.get(f"{service.upper()}_DATABASE_URL")
    return own or environment.get("DATABASE_URL") or None


def needs_postgres(environment: Mapping[str, str]) -> bool:
    """Tell whether a service has no database given."""
    return any(database_url_of(service, environment) is None for service in SERVICE_NAMES)


def needs_redis(environment: Mapping[str, str]) -> bool:
    """Tell whether no Redis is given."""
    return not any(environment.get(name) for name in REDIS_VARIABLES)


def redis_url_of(environment: Mapping[str, str]) -> str:
    """Return the address of Redis as the services will read it."""
    host = environment.get("REDIS_HOST") or ports.LOOPBACK
    port = environment.get("REDIS_PORT") or "6379"
    return environment.get("REDIS_URL") or f"redis://{host}:{port}/0"


def gateways_at_simulator(url: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that let the simulator play every gateway.

    A gateway of which an account is given is left as it is: real keys belong to the real gateway,
    and half of a made-up account must not be mixed into them.

    Args:
        url: The simulator's address, without a slash at the end.
        given: The environment before.
    """
    variables: dict[str, str] = {}
    for gateway, account in SIMULATOR_ACCOUNTS.items():
        if not any(given.get(name) for name in account):
            addresses = {name: url + path for name, path in SIMULATOR_PATHS[gateway].items()}
            variables |= {**account, **addresses, **SIMULATOR_PACE.get(gateway, {})}
    return variables


def with_key(environment: Mapping[str, str], key: str) -> str:
    """Return `API_KEYS` with a key for everything added to those given."""
    # A test holds this together with `shared.web.keys.describe`, which would bring the whole web
    # framework into the process that only supervises.
    development = f"development:admin+read+write:{hashlib.sha256(key.encode()).hexdigest()}"
    return ",".join(filter(None, [environment.get("API_KEYS"), development]))


def without_password(url: str) -> str:
    """Return an address fit for a screen; its options, where a password may hide, are left out."""
    parts = urlsplit(url)
    user, _, place = parts.netloc.rpartition("@")
    user = user.partition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{user}@{place}" if user else place, query=""))


def development_key(data_directory: Path) -> str:
    """Return the API key of a data directory, made at the first call and for its owner only."""
    path = data_directory / _KEY_FILE
    if not path.exists():
        _write_private(path, f"sluice_{secrets.token_urlsafe(24)}")
    return path.read_text(encoding="utf-8").strip()


def leave_note(data_directory: Path, added: Mapping[str, str]) -> None:
    """Write down what a stack has added to its environment, passwords included."""
    _write_private(data_directory / _NOTE_FILE, json.dumps(dict(added), indent=2))


def remove_note(data_directory: Path) -> None:
    """Take back `leave_note`."""
    (data_directory / _NOTE_FILE).unlink(missing_ok=True)


def environment_beside(data_directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a command beside a stack: what is given goes before its note.

    Raises:
        LocalStackError: it lacks a database, and no stack runs on the data directory.
    """
    given = given_in(environment)
    note = data_directory / _NOTE_FILE
    if note.exists():
        added: dict[str, str] = json.loads(note.read_text(encoding="utf-8"))
        return added | given
    if needs_postgres(given):
        raise LocalStackError(
            f"no Sluice is running on {data_directory}: start one with `sluice up`, name its "
            "--data-dir, or set DATABASE_URL"
        )
    return given


def _write_private(path: Path, text: str) -> None:
    """Write a file for its owner only, at once and whole."""
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"{text}\n")
    partial.rename(path)
