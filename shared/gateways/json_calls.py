"""Calls to a gateway that speaks JSON: measured, and read with distrust.

Whatever an answer holds (bytes that are no UTF-8, a NUL, endless nesting, huge numbers, a page of
HTML), reading it raises nothing but `HttpCallError`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from shared import metrics
from shared.errors import InvalidInputError
from shared.gateways.http_client import HttpAnswer, HttpCallError, HttpClient
from shared.money import Money

_TOO_MANY_REQUESTS: Final = 429
_FIRST_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """A complete answer, whatever its status."""

    status: int
    body: bytes
    #: What the body says as JSON; None also when it says nothing, and then `problem` says why.
    content: Any
    problem: str | None
    #: What `Retry-After` asks for, if it does so in seconds.
    retry_after_seconds: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return self.status // 100 == 2  # noqa: PLR2004 - the first digit of 2xx

    def said(self) -> Any:
        """Return the content of a successful answer.

        Raises:
            HttpCallError: the status is not 2xx, or the body is no JSON.
        """
        if not self.is_success:
            raise HttpCallError(f"http_{self.status}", self.retry_after_seconds)
        if self.problem is not None:
            raise HttpCallError(self.problem)
        return self.content

    def fields(self) -> Mapping[str, Any]:
        """Return the JSON object of a successful answer.

        Raises:
            HttpCallError: it is none.
        """
        content = self.said()
        if not isinstance(content, dict):
            raise HttpCallError("not_an_object")
        return content


class JsonCalls:
    """The calls of one gateway's client, each observed under one of `operations`."""

    def __init__(self, client: HttpClient, gateway: str, operations: Sequence[str]) -> None:
        self._client = client
        observe = metrics.GATEWAY_REQUEST_SECONDS
        self._observe = {
            (operation, outcome): observe.labels(gateway, operation, outcome).observe
            for operation in operations
            for outcome in ("answered", "failed")
        }

    async def get(self, operation: str, target: str, headers: Mapping[str, str]) -> JsonAnswer:
        """Send a GET without a body.

        Raises:
            HttpCallError: no complete answer in time.
        """
        return await self._observed(operation, self._client.get(target, headers))

    async def post(
        self, operation: str, target: str, fields: Mapping[str, Any], headers: Mapping[str, str]
    ) -> JsonAnswer:
        """Send a POST with a JSON body, once.

        Raises:
            HttpCallError: no complete answer in time; the request may have been carried out.
        """
        typed = {"Content-Type": "application/json", **headers}
        return await self._observed(
            operation, self._client.post(target, orjson.dumps(fields), typed)
        )

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    async def _observed(self, operation: str, call: Awaitable[HttpAnswer]) -> JsonAnswer:
        started = time.perf_counter()
        outcome = "failed"
        try:
            answer = read_json_answer(await call)
            # A refusal is an answer too; a limit, a fault or a page of a proxy is none.
            if (
                answer.problem is None
                and answer.status != _TOO_MANY_REQUESTS
                and answer.status < _FIRST_SERVER_ERROR
            ):
                outcome = "answered"
            return answer
        finally:
            self._observe[operation, outcome](time.perf_counter() - started)


def read_json_answer(answer: HttpAnswer) -> JsonAnswer:
    """Read the body of an answer, if it can be read."""
    content, problem = None, None
    if b"\\u0000" in answer.body:
        problem = "not_text"  # PostgreSQL stores no NUL, and no answer needs one.
    else:
        try:
            content = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            problem = "not_json"
    return JsonAnswer(answer.status, answer.body, content, problem, answer.retry_after_seconds)


def text_in(fields: Mapping[str, Any], name: str) -> str:
    """Return a field as text, whether it came as one or as a whole number; empty for all else."""
    value = fields.get(name)
    is_plain = isinstance(value, (str, int)) and not isinstance(value, bool)
    return str(value) if is_plain else ""


def money_in(value: object, currency: str) -> Money | None:
    """Read an amount that came as text or as a number; None unless it is exact.

    `5000`, `5000.0` and `"5000.00"` are the same amount of a currency without decimals.
    """
    if not isinstance(value, (str, int, float)):
        return None
    try:
        return Money.from_decimal_text(str(value), currency)
    except InvalidInputError:
        return None
