"""Whatever Schemathesis makes of the description of payments, no answer is undocumented or a 5xx.

It sends what the description allows, what it forbids, and both in sequences, to the service as it
is composed for real, before simulated gateways. Many of the ids that it sends are of things that
exist, so that not only refusals are tried.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.api.schemathesis_runs import (
    REPORT_CHARACTERS_MAX,
    run_schemathesis,
    successes,
)
from tests.integration.api.seeds import plant
from tests.integration.api.world import gateways_at, opened_parts, simulated_gateway
from tests.support.http_api import serving

#: Apart, so that they run side by side, and because no payment is accepted after a drain.
OPERATIONS = "^/api/operations/|^/api/gateways|/(dead-letters|parked-messages)"


@pytest.mark.parametrize(
    "choice", ["--include-path-regex", "--exclude-path-regex"], ids=["operations", "the rest"]
)
async def test_every_answer_of_payments_is_as_documented(
    new_database: str, redis_url: str, tmp_path: Path, choice: str
) -> None:
    async with (
        simulated_gateway(new_database) as gateway_url,
        opened_parts(["payments"], new_database, redis_url, gateways_at(gateway_url)) as parts,
        serving(parts=parts) as api,
    ):
        known = await plant(api, new_database)
        code, output = await run_schemathesis(tmp_path, api.url, known, choice, OPERATIONS)
        reached = await successes(api)
        routes = {(route.method, route.path) for route in parts[0].routes}

    assert code == 0, output[-REPORT_CHARACTERS_MAX:]
    is_operations = choice.startswith("--include")
    tried = {each for each in routes if bool(re.search(OPERATIONS, each[1])) is is_operations}
    assert tried
    assert tried - reached == set(), "what is only ever refused is not tried"
