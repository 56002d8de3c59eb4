"""Schemathesis as a program, run against a service of this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

from tests.integration.api.seeds import Known
from tests.support.http_api import KEYS, Api

#: Of each operation and phase, besides the cases that follow from its schema one by one.
EXAMPLES_MAX = 5

#: Of its report; a failure inside Schemathesis may quote whole modules of it.
REPORT_CHARACTERS_MAX = 20_000

PROBABILITY_OF_KNOWN = 0.7

#: Whether a request that is right is accepted cannot be asked: a business says no to many of them.
EXCLUDED_CHECKS = ("positive_data_acceptance",)

_COUNT = re.compile(
    r'^http_request_duration_seconds_count{method="(\w+)",route="([^"]+)",status="2\d\d"}',
    re.MULTILINE,
)


def configuration(known: Known) -> str:
    """Return a configuration of Schemathesis. JSON's texts and lists of texts are TOML's, too."""
    lines = ["[headers]", f"Authorization = {json.dumps('Bearer ' + KEYS['admin'])}"]
    for number, values in enumerate(known.values()):
        lines += [f"[dictionaries.known{number}]", f"values = {json.dumps(values)}"]
    everywhere, somewhere = ["[parameters]"], []
    for number, name in enumerate(known):
        use = f'{{ dictionary = "known{number}", probability = {PROBABILITY_OF_KNOWN} }}'
        if isinstance(name, str):
            everywhere.append(f'"{name}" = {use}')
        else:
            operation, parameter = name
            somewhere += ["[[operations]]", f'include-operation-id = "{operation}"']
            somewhere.append(f'parameters = {{ "{parameter}" = {use} }}')
    lines += [*everywhere, *somewhere]
    return "\n".join(lines)


async def run_schemathesis(
    directory: Path, url: str, known: Known, *choice: str
) -> tuple[int, str]:
    """Run it as a program, so that it keeps out of the way of the service in this process.

    With one worker: Python 3.11 cannot compile lambdas, as it does, in two threads at once.
    """
    file = directory / "schemathesis.toml"
    file.write_text(configuration(known))
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("schemathesis"),
        *("--config-file", str(file), "run", f"{url}/openapi.json"),
        *("--max-examples", str(EXAMPLES_MAX), "--seed", "1", "--generation-database", "none"),
        *("--workers", "1", "--continue-on-failure", "--warnings", "off", "--no-color"),
        *("--exclude-checks", ",".join(EXCLUDED_CHECKS), *choice),
        cwd=directory,
        env={"PATH": os.defpath, "HOME": str(directory)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def successes(api: Api) -> set[tuple[str, str]]:
    """Return the methods and routes that answered with a success since this process began."""
    text = (await api.call("GET", "/metrics", key=None)).raw.decode()
    return {(found[1], found[2]) for found in _COUNT.finditer(text)}
