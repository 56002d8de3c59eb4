"""Calls that answer a JSON object, measured; what is none is no answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared import metrics
from shared.gateways.http_client import HttpAnswer, HttpCallError, HttpClient

_HTTP_OK: Final = 200


class JsonCalls:
    """Calls one origin. Neither it nor its errors show what is sent.

    Args:
        client: Owned by this: closed with it.
        token: Sent as a bearer token, unless empty.
        operations: What the calls are named in metrics.
    """

    def __init__(self, client: HttpClient, token: str, operations: tuple[str, ...]) -> None:
        self._client = client
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._post_headers = self._headers | {"Content-Type": "application/json"}
        self._observe = {
            (operation, outcome): metrics.GATEWAY_REQUEST_SECONDS.labels(
                "x402", operation, outcome
            ).observe
            for operation in operations
            for outcome in ("answered", "failed")
        }

    async def get(self, operation: str, target: str) -> dict[str, Any]:
        """Ask for an object.

        Raises:
            HttpCallError: no status 200 with a JSON object came back.
        """
        started = time.perf_counter()
        try:
            fields = _fields(await self._client.get(target, self._headers))
        except HttpCallError:
            self._observe[operation, "failed"](time.perf_counter() - started)
            raise
        self._observe[operation, "answered"](time.perf_counter() - started)
        return fields

    async def post(self, operation: str, target: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Send an object and read the one that is answered.

        Raises:
            HttpCallError: no status 200 with a JSON object came back; it may have been carried out.
        """
        started = time.perf_counter()
        try:
            answer = await self._client.post(target, orjson.dumps(dict(body)), self._post_headers)
            fields = _fields(answer)
        except HttpCallError:
            self._observe[operation, "failed"](time.perf_counter() - started)
            raise
        self._observe[operation, "answered"](time.perf_counter() - started)
        return fields

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()


def _fields(answer: HttpAnswer) -> dict[str, Any]:
    # Business failures come with status 200; a failure inside another status may be a proxy's.
    if answer.status != _HTTP_OK:
        raise HttpCallError(f"http_{answer.status}", answer.retry_after_seconds)
    try:
        fields = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        raise HttpCallError("not_json") from None
    if not isinstance(fields, dict):
        raise HttpCallError("not_an_object")
    return fields
