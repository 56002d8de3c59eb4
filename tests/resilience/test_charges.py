"""SIGKILL of the process that prompts a phone: the customer is charged once, and it is found."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from typing import Any, Final

import asyncpg
import orjson

from tests.support.blocking import run_blocking
from tests.support.polling import eventually_blocking
from tests.support.supervised_stack import SupervisedStack, supervised_stack

#: The gateway has prompted the phone, and its answer is still on the way.
ANSWER_SECONDS: Final = 20

CUSTOMER: Final = {
    "id": "customer-1",
    "name": "Aïcha",
    "email": "a@shop.example",
    "phone": "237677123456",
}
ORDER: Final = {
    "gateway": "fapshi",
    "method": {"type": "prompt", "phone": "237677123456"},
    "amount": 5_000,
    "currency": "XAF",
    "customer": CUSTOMER,
    "product": {"id": "course-1", "name": "Cours"},
}

_ATTEMPTS: Final = """
    SELECT payment.id, payment.state, payment.reference, attempt.state AS attempt, handle
      FROM payments.payment
      JOIN payments.attempt ON attempt.payment_id = payment.id
"""


class Caller:
    """Speaks to one stack over HTTP."""

    def __init__(self, stack: SupervisedStack) -> None:
        self._stack = stack

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Return what a success carries; None when nobody, or no success, answers."""
        request = urllib.request.Request(  # noqa: S310 - our own stack
            self._stack.local.url + path,
            data=None if body is None else orjson.dumps(body),
            method=method,
            headers={
                "Authorization": f"Bearer {self._stack.local.api_key}",
                "Content-Type": "application/json",
                "Idempotency-Key": "one",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return orjson.loads(response.read())["data"]
        except (urllib.error.URLError, ConnectionError):
            return None

    def attempts(self) -> list[asyncpg.Record]:
        return run_blocking(_fetch(self._stack.local.database_url, _ATTEMPTS))


async def _fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


def test_a_prompt_whose_process_dies_before_its_answer_is_paid_once_and_found() -> None:
    with supervised_stack({"PAYMENT_FIRST_CHECK_AFTER": "PT3S"}) as stack:
        caller = Caller(stack)
        slow = {"operation": "direct", "behaviour": "slow", "delaySeconds": ANSWER_SECONDS}
        assert caller.call("POST", "/simulator/fapshi/script", slow) is not None
        never = {"operation": "notice", "behaviour": "never", "times": 10}
        assert caller.call("POST", "/simulator/fapshi/script", never) is not None
        answers: list[Any] = []
        asking = threading.Thread(
            target=lambda: answers.append(caller.call("POST", "/api/payments", ORDER)), daemon=True
        )
        asking.start()
        (begun,) = eventually_blocking(caller.attempts)
        path = f"/simulator/fapshi/sessions/{begun['reference']}"
        eventually_blocking(lambda: caller.call("GET", path))
        assert (begun["state"], begun["attempt"]) == ("created", "started")

        stack.kill("payments-http")

        asking.join()
        assert answers == [None], "the caller has no answer either"
        paid = {"reference": begun["reference"], "fate": "paid"}
        assert caller.call("POST", "/simulator/fapshi/pay", paid) is not None

        def has_succeeded() -> bool:
            return [each["state"] for each in caller.attempts()] == ["succeeded"]

        eventually_blocking(has_succeeded, timeout_seconds=60)
        (attempt,) = caller.attempts()
        assert attempt["reference"] == begun["reference"]
        ledger = caller.call("GET", f"/simulator/fapshi/ledger?reference={begun['reference']}")
        assert [charge["amount"] for charge in ledger["charges"]] == [5_000]
        payment = caller.call("GET", f"/api/payments/{attempt['id']}")
        assert (payment["state"], payment["method"]) == ("succeeded", {"type": "prompt"})
