"""A running Sluice, as the subcommands for operators reach it: over HTTP, with an API key."""

from __future__ import annotations

import argparse
import http.client
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit
from uuid import uuid4

import orjson

from deploy.local.arguments import HOST_DEFAULT, PORT_DEFAULT
from deploy.local.errors import LocalStackError

URL_DEFAULT: Final = f"http://{HOST_DEFAULT}:{PORT_DEFAULT}"

#: Longer than a gateway may take to answer: a look-up waits for it.
TIMEOUT_SECONDS: Final = 70.0

#: The service did what was asked, or would not.
DONE: Final = 0
REFUSED_BY_SERVICE: Final = 1


_CONNECTIONS: Final[Mapping[str, type[http.client.HTTPConnection]]] = MappingProxyType(
    {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
)

#: What is raised when the other side closes a connection instead of answering.
_LOST: Final = (http.client.RemoteDisconnected, ConnectionResetError)


class NoAnswerError(LocalStackError):
    """The address does not answer, or not as Sluice does."""


class NoKeyError(LocalStackError):
    """No API key was given."""


class ServiceRefusedError(LocalStackError):
    """The service answered with an error; the message is the service's."""


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: how its arguments are declared, and what does it and prints the result."""

    #: Returns the parsers of its verbs, if it has any: they take the common options too.
    declare: Callable[[argparse.ArgumentParser], Sequence[argparse.ArgumentParser]]
    act: Callable[[Service, argparse.Namespace], None]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        verbs = self.declare(parser)
        _add_common(parser)
        for verb in verbs:
            _add_common(verb)
        # What a verb's parser was not given must not undo what the parser before it was.
        parser.set_defaults(url=os.environ.get("SLUICE_URL", URL_DEFAULT), api_key=None, json=False)

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it, and return 0, or 1 when the service refuses.

        Raises:
            NoAnswerError: there is no Sluice at the address.
            NoKeyError: no API key was given.
        """
        key = arguments.api_key or os.environ.get("SLUICE_API_KEY")
        if not key:
            raise NoKeyError("give an API key: SLUICE_API_KEY, or --api-key")
        try:
            self.act(Service(arguments.url, key), arguments)
        except ServiceRefusedError as error:
            print(f"sluice: {error}", file=sys.stderr)
            return REFUSED_BY_SERVICE
        return DONE


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default=argparse.SUPPRESS,
        help=f"where Sluice answers (SLUICE_URL, else {URL_DEFAULT})",
    )
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        default=argparse.SUPPRESS,
        help="an API key with the scope admin (better SLUICE_API_KEY: others see arguments)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print the answer as JSON",
    )


def add_reason(parser: argparse.ArgumentParser) -> None:
    """Declare why it is done; every action is recorded with it."""
    parser.add_argument("--reason", required=True, help="why; it is recorded with who and when")


@dataclass(frozen=True, slots=True)
class Service:
    """The address and the key."""

    url: str
    key: str

    def get(self, path: str, query: Mapping[str, str | None] | None = None) -> Any:
        """Read something and return its data."""
        return self._call("GET", path, query or {}, None)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str | None] | None = None,
    ) -> Any:
        """Do something once and return its data, also when the first answer is lost on its way."""
        return self._call(method, path, query or {}, body, idempotency_key=str(uuid4()))

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None],
        body: Mapping[str, Any] | None,
        *,
        idempotency_key: str | None = None,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self.key}", "Accept": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        payload = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            payload = orjson.dumps(body)
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        try:
            status, answer = self._exchange(method, target, payload, headers)
        except _LOST:
            # It may have been done. Repeated with its key, it is not done again.
            status, answer = self._exchange_again(method, target, payload, headers)
        return _data(status, answer, self.url)

    def _exchange_again(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        try:
            return self._exchange(method, target, payload, headers)
        except _LOST as error:
            raise NoAnswerError(f"{self.url} closes the connection without an answer") from error

    def _exchange(
        self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        address = _address(self.url)
        kind = _CONNECTIONS[address.scheme]
        connection = kind(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, address.path.rstrip("/") + target, payload, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        except _LOST:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswerError(f"{self.url} does not answer ({error})") from error
        finally:
            connection.close()


def _address(url: str) -> SplitResult:
    address = urlsplit(url)
    if address.scheme not in _CONNECTIONS or not address.hostname:
        raise NoAnswerError(f"{url!r} is no http(s) address")
    return address


def _data(status: int, answer: bytes, url: str) -> Any:
    try:
        envelope = orjson.loads(answer)
        if envelope["success"]:
            return envelope["data"]
        error = envelope["error"]
        code, message, details = error["code"], error["message"], error["details"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise NoAnswerError(f"{url} answers {status}, and not as Sluice does") from error
    named = "".join(f"\n  {field}: {problem}" for field, problem in details.items())
    raise ServiceRefusedError(f"{message} ({status} {code}){named}")


def segment(text: str) -> str:
    """Write a text as one segment of a path."""
    return quote(text, safe="")
