"""No secret and no personal data reaches a log line, whoever writes it and however."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from shared.logs import scrub

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "text",
    [
        f"GET /validator/api/validationserverAPI.php?val_id=1&store_passwd={SECRET}&v=1",
        f"connect to postgresql://sluice:{SECRET}@db:5432/sluice failed",
        f"redis://:{SECRET}@cache:6379/0 is away",
        f"Authorization: Bearer {SECRET}",
        f"Authorization: Token {SECRET}",
    ],
    ids=["query string", "PostgreSQL URL", "Redis URL", "bearer", "token"],
)
def test_a_secret_inside_a_text_is_struck_out_and_the_rest_stays(text: str) -> None:
    scrubbed = scrub(text)

    assert SECRET not in scrubbed
    assert scrubbed.replace("***", SECRET) == text


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8080/readyz", "took 3 ms: 4 rows @ 1:30", "bearer of news"]
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert scrub(text) == text


WRITE_LINES = """
import logging, structlog
from shared import logs

logs.configure(level="INFO", process="payments-worker")
log = structlog.get_logger()
log.info("plain", payment_id="pay_1", count=2)
log.info("fields", store_password=SECRET, api_key=SECRET, Authorization=SECRET, cus_name=SECRET,
         customer_email=SECRET, card_no=SECRET, verify_sign=SECRET, phone=SECRET)
log.info("text", error=f"store_passwd={SECRET}")
log.debug("too quiet")
try:
    raise ValueError(f"postgresql://sluice:{SECRET}@db/sluice")
except ValueError:
    log.exception("failed")
logging.getLogger("library").warning("redis://:%s@cache", SECRET)
"""


@pytest.fixture(scope="module")
def lines() -> dict[str, dict[str, Any]]:
    """Write lines in a process of its own, because the configuration is the process's."""
    program = f"SECRET = {SECRET!r}\n{WRITE_LINES}"
    written = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert written.stderr == ""
    parsed = [json.loads(line) for line in written.stdout.splitlines()]
    return {line["event"]: line for line in parsed}


def test_each_line_is_one_object_with_its_time_level_and_process(
    lines: dict[str, dict[str, Any]],
) -> None:
    plain = lines["plain"]

    assert plain.pop("timestamp").endswith("Z")
    assert plain == {
        "event": "plain",
        "level": "info",
        "process": "payments-worker",
        "payment_id": "pay_1",
        "count": 2,
    }


def test_fields_with_telling_names_have_no_values(lines: dict[str, dict[str, Any]]) -> None:
    fields = lines["fields"]

    assert {name for name, value in fields.items() if value == "***"} == {
        *("store_password", "api_key", "Authorization", "cus_name", "customer_email"),
        *("card_no", "verify_sign", "phone"),
    }


def test_no_line_holds_a_secret(lines: dict[str, dict[str, Any]]) -> None:
    assert len(lines) == 5
    assert SECRET not in json.dumps(lines)


def test_lines_below_the_level_are_left_out(lines: dict[str, dict[str, Any]]) -> None:
    assert "too quiet" not in lines


def test_lines_of_libraries_look_like_ours(lines: dict[str, dict[str, Any]]) -> None:
    line = lines["redis://:***@cache"]

    assert line["level"] == logging.getLevelName(logging.WARNING).lower()
    assert line["process"] == "payments-worker"
