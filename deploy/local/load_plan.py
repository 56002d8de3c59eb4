"""What `sluice load` is going to send: profiles of misbehaviour, and payments to make. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import orjson

from deploy.local.errors import LocalStackError

#: Every gateway that the simulator plays, in the order in which payments cycle through them.
GATEWAYS: Final = ("sslcommerz", "fapshi", "campay", "stripe", "x402")

#: Longer than the load stack waits for a gateway (`load_stack.SETTINGS`), shorter than a person.
_TIMEOUT_SECONDS: Final = 5

#: The built-in profiles, as the simulator reads them (`PUT /simulator/profile`); in per cent, and
#: what is left is paid with its notice on time. Customers act by themselves, after the latency.
PROFILES: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "smooth": {"customersAct": True, "latencyMs": {"p50": 20, "p99": 200}},
        "rough": {
            "customersAct": True,
            "latencyMs": {"p50": 20, "p99": 400},
            "fates": {"timeout_after": 10, "declined": 10, "error_500": 5},
            "notices": {"duplicate": 5, "never": 5},
            "timeoutSeconds": _TIMEOUT_SECONDS,
        },
    }
)

#: Amounts that end in 00, so that none is one of the simulator's magic ones: what happens to a
#: payment is the profile's business here.
_AMOUNTS: Final[Mapping[str, tuple[str, int, int, int]]] = MappingProxyType(
    {
        # Currency, smallest and largest amount in steps, minor units of a step.
        "sslcommerz": ("BDT", 100, 3_000, 100),
        "fapshi": ("XAF", 1, 200, 100),
        "campay": ("XAF", 1, 200, 100),
        "stripe": ("USD", 5, 200, 100),
        "x402": ("USDC", 1, 5, 1_000_000),
    }
)


#: What each gateway can be asked to do, in turns; nothing of it is magic to the simulator either.
_METHODS: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = MappingProxyType(
    {
        "sslcommerz": ({"type": "checkout"},),
        "fapshi": ({"type": "prompt", "phone": "237677123456"}, {"type": "checkout"}),
        "campay": ({"type": "prompt", "phone": "237677123456"}, {"type": "checkout"}),
        "stripe": ({"type": "card", "paymentMethod": "pm_card_visa"},),
        "x402": ({"type": "wallet", "recipient": "0x5050A4F4b3f9338C3472dcC01A87C76A144b3c9c"},),
    }
)


class ProfileError(LocalStackError):
    """A profile's file cannot be used."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One payment to make; `method` is as in the body of `POST /api/payments`."""

    number: int
    gateway: str
    amount: int
    currency: str
    method: Mapping[str, Any]
    product: int


def read_profile(given: str, seed: int) -> dict[str, Any]:
    """Return the profile of a built-in name or of a JSON file, with the seed unless it has one.

    Raises:
        ProfileError: there is no such profile, or the file holds no JSON object.
    """
    profile = PROFILES.get(given)
    if profile is None:
        try:
            with open(given, "rb") as file:  # noqa: PTH123 - "a/b" must not lose its spelling
                profile = orjson.loads(file.read())
        except OSError as error:
            known = ", ".join(PROFILES)
            raise ProfileError(
                f"--profile must be {known} or a file: {given} cannot be read ({error.strerror})"
            ) from error
        except orjson.JSONDecodeError as error:
            raise ProfileError(f"the profile {given} is not JSON: {error}") from error
        if not isinstance(profile, dict):
            raise ProfileError(f"the profile {given} is not a JSON object")
    return {"seed": seed, **profile}


def plan(count: int, gateways: Sequence[str], seed: int) -> list[Transaction]:
    """Return the payments to make, cycling through the gateways and through what each can do.

    The same for the same arguments.
    """
    generator = random.Random(seed)  # noqa: S311 - a plan, not a secret
    return [
        _transaction(generator, number, gateways[number % len(gateways)], number // len(gateways))
        for number in range(count)
    ]


def _transaction(generator: random.Random, number: int, gateway: str, turn: int) -> Transaction:
    currency, low, high, unit = _AMOUNTS[gateway]
    methods = _METHODS[gateway]
    return Transaction(
        number,
        gateway,
        amount=generator.randint(low, high) * unit,
        currency=currency,
        method=methods[turn % len(methods)],
        product=generator.randint(1, 12),
    )
