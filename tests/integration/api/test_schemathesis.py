"""Whatever Schemathesis makes of the description of payments, no answer is undocumented or a 5xx.

It sends what the description allows, what it forbids, and both in sequences, to the service as it
is composed for real, before simulated gateways. Some of the ids that it sends are of things that
exist.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.integration.api.world import gateways_at, opened_parts, simulated_gateway
from tests.support.http_api import KEYS, Api, serving

#: Of each operation and phase, besides the cases that follow from its schema one by one.
EXAMPLES_MAX = 8

#: Whether a request that is right is accepted cannot be asked: a business says no to many of them.
EXCLUDED_CHECKS = ("positive_data_acceptance",)

CARD_PAYMENT = {
    "gateway": "stripe",
    "method": {"type": "card", "paymentMethod": "pm_card_visa"},
    "amount": 5_000,
    "currency": "EUR",
    "customer": {"id": "cus_1"},
    "product": {"id": "course_1"},
}
DECLINED_PAYMENT = {
    **CARD_PAYMENT,
    "method": {"type": "card", "paymentMethod": "pm_card_chargeDeclinedInsufficientFunds"},
}
CHECKOUT = {
    "gateway": "sslcommerz",
    "amount": 150_000,
    "currency": "BDT",
    "customer": {"id": "cus_2"},
    "product": {"id": "course_2"},
}


async def known_values(api: Api) -> dict[str, Sequence[str]]:
    """Make something of everything; return, by the name of a parameter, what may stand there."""
    made = [
        await api.call("POST", "/api/payments", body)
        for body in (CARD_PAYMENT, DECLINED_PAYMENT, CHECKOUT)
    ]
    ids = [reply.data["id"] for reply in made]
    assert [reply.data["state"] for reply in made] == ["succeeded", "failed", "pending"]
    return {"path.paymentId": ids, "body.gateway": ["stripe", "sslcommerz"]}


def configuration(values: Mapping[str, Sequence[str]]) -> str:
    """Return a configuration of Schemathesis. JSON's texts and lists of texts are TOML's, too."""
    lines = ["[headers]", f"Authorization = {json.dumps('Bearer ' + KEYS['admin'])}"]
    for number, known in enumerate(values.values()):
        lines += [f"[dictionaries.known{number}]", f"values = {json.dumps(known)}"]
    lines.append("[parameters]")
    for number, name in enumerate(values):
        lines.append(f'"{name}" = {{ dictionary = "known{number}", probability = 0.7 }}')
    return "\n".join(lines)


async def run_schemathesis(directory: Path, url: str, values: Mapping[str, Any]) -> tuple[int, str]:
    """Run it as a program, so that it keeps out of the way of the service in this process."""
    file = directory / "schemathesis.toml"
    file.write_text(configuration(values))
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", file, "run", f"{url}/openapi.json"),
        *("--max-examples", str(EXAMPLES_MAX), "--seed", "1", "--generation-database", "none"),
        *("--workers", "2", "--continue-on-failure", "--warnings", "off", "--no-color"),
        *("--exclude-checks", ",".join(EXCLUDED_CHECKS)),
        cwd=directory,
        env={"PATH": os.defpath, "HOME": str(directory)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_every_answer_of_payments_is_as_documented(
    new_database: str, redis_url: str, tmp_path: Path
) -> None:
    async with (
        simulated_gateway(new_database) as gateway_url,
        opened_parts(["payments"], new_database, redis_url, gateways_at(gateway_url)) as parts,
        serving(parts=parts) as api,
    ):
        values = await known_values(api)
        code, output = await run_schemathesis(tmp_path, api.url, values)

    assert code == 0, output
    assert "Tested" in output
