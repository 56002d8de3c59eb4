"""Whatever Schemathesis makes of the scheduler's description, no answer is undocumented or a 5xx.

As for payments (`test_schemathesis.py`), to the scheduler with something of everything in it.
"""

from __future__ import annotations

from pathlib import Path

from services.scheduler.app import routes_of
from shared.web.idempotency import IdempotencyKeys
from tests.integration.api.scheduler_seeds import plant
from tests.integration.api.schemathesis_runs import (
    REPORT_CHARACTERS_MAX,
    run_schemathesis,
    successes,
)
from tests.integration.scheduler.world import running_scheduler


async def test_every_answer_of_the_scheduler_is_as_documented(
    new_database: str, redis_url: str, tmp_path: Path
) -> None:
    async with running_scheduler(new_database, redis_url) as service:
        known = await plant(service)
        code, output = await run_schemathesis(tmp_path, service.api.url, known)
        reached = await successes(service.api)
        keys = IdempotencyKeys(service.core.database, service.clock)
        tried = {(route.method, route.path) for route in routes_of(service.runtime, keys)}

    assert code == 0, output[-REPORT_CHARACTERS_MAX:]
    assert tried - reached == set(), "what is only ever refused is not tried"
