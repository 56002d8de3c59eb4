"""`sluice front-door`: one address for the services' processes, chosen by path.

A small reverse proxy for the local stack. It streams both ways, follows no redirects and repeats no
write. Its `/health` is the health of all processes.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import aiohttp
import orjson
import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from deploy.local.arguments import add_address
from deploy.local.composition import stop_at_end_of_input
from deploy.local.services import PATH_PREFIXES
from shared import metrics, process
from shared.clock import system_clock
from shared.errors import TransientError
from shared.process import Part
from shared.settings import ServiceSettings, load
from shared.web.application import build_application
from shared.web.errors import envelope
from shared.web.health import CHECK_TIMEOUT_SECONDS
from shared.web.keys import Keyring
from shared.web.openapi.joining import joined
from shared.web.openapi.routes import document_routes
from shared.web.rate_limits import RateLimit
from shared.web.routes import Route, json_response

log = structlog.get_logger()

#: A process on this machine accepts at once or not at all.
CONNECT_SECONDS: Final = 2.0

#: Longest silence of a service; the simulator may be told to be slow.
READ_SECONDS: Final = 65.0

#: As many requests at once as there are at the most; the services have limits of their own.
CONNECTIONS_MAX: Final = 1_000

#: A process that died is started again within about a second.
RETRY_AFTER_SECONDS: Final = 1

#: They concern one connection, not the message (RFC 9110, 7.6.1). Expect is answered by aiohttp.
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

#: What aiohttp would add in the client's name.
_NOT_ADDED: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--process",
        dest="processes",
        type=_name_and_url,
        action="append",
        required=True,
        metavar="NAME=URL",
        help="where a process answers; one called SERVICE-http gets that service's paths",
    )
    add_address(parser)


def run(arguments: argparse.Namespace) -> int:
    """Forward until a signal comes."""
    if arguments.stop_at_end_of_input:
        stop_at_end_of_input()
    processes = dict(arguments.processes)
    upstreams = {
        prefix: processes[f"{service}-http"]
        for service, prefixes in PATH_PREFIXES.items()
        for prefix in prefixes
        if f"{service}-http" in processes
    }
    return process.run(
        "front-door",
        [partial(front_door_part, upstreams, processes)],
        make_application,
        load(ServiceSettings),
        host=arguments.host,
        port=arguments.port,
    )


def make_application(parts: Sequence[Part]) -> web.Application:
    """Make the front door's application; the services look after keys and rates."""
    routes = [route for part in parts for route in part.routes]
    return build_application(routes, keyring=Keyring(()), rate_limit=RateLimit(rate=1))


@asynccontextmanager
async def front_door_part(
    upstreams: Mapping[str, str], processes: Mapping[str, str]
) -> AsyncIterator[Part]:
    """Open the front door.

    Args:
        upstreams: From a path prefix, as in `PATH_PREFIXES`, to the address that serves it.
        processes: From the name of a process to its address, for their health.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS
        ),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_NOT_ADDED,
    ) as session:
        routes = [
            Route(hdrs.METH_ANY, path, partial(_forward, session, url))
            for prefix, url in upstreams.items()
            for path in _paths_below(prefix)
        ]
        answering = set(upstreams.values())
        services = {
            name.removesuffix("-http"): url for name, url in processes.items() if url in answering
        }
        routes += [
            Route("GET", "/health", partial(_health, session, processes)),
            Route("GET", "/livez", _well),
            Route("GET", "/readyz", _well),
            Route("GET", "/metrics", _metrics),
            *document_routes(partial(_read_document, session, services)),
        ]
        yield Part("front-door", routes=routes)


def _name_and_url(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or URL(url).host is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=URL")
    return name, url.rstrip("/")


def _paths_below(prefix: str) -> list[str]:
    if prefix.endswith("/"):
        return [f"{prefix}{{tail:.*}}"]
    return [prefix, f"{prefix}/{{tail:.*}}"]


async def _forward(
    session: aiohttp.ClientSession, url: str, request: web.Request
) -> web.StreamResponse:
    """Pass a request on and its answer back, or say that nobody answers."""
    try:
        upstream = await session.request(
            request.method,
            URL(f"{url}{request.rel_url.raw_path_qs}", encoded=True),
            headers=_request_headers(request),
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        )
    except TimeoutError:
        return _refuse(HTTPStatus.GATEWAY_TIMEOUT, "gateway_timeout", "the service is too slow")
    except aiohttp.ClientError as error:
        log.warning("upstream_away", path=request.path, error=type(error).__name__)
        return _refuse(HTTPStatus.BAD_GATEWAY, "bad_gateway", "the service does not answer")
    async with upstream:
        response = web.StreamResponse(
            status=upstream.status,
            reason=upstream.reason,
            headers=_end_to_end(upstream.headers),
        )
        await response.prepare(request)
        try:
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            # Half an answer cannot be taken back: only a broken connection says so.
            log.warning("answer_broken_off", path=request.path, error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
        return response


def _request_headers(request: web.Request) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    before = headers.get("X-Forwarded-For")
    peer = request.remote or "unknown"
    headers["X-Forwarded-For"] = f"{before}, {peer}" if before else peer
    headers.setdefault("X-Forwarded-Proto", request.scheme)
    headers.setdefault("X-Forwarded-Host", request.host)
    return headers


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers of the message, without those of the connection it came over."""
    named = {
        name.strip().lower()
        for value in headers.getall(hdrs.CONNECTION, ())
        for name in value.split(",")
    }
    dropped = HOP_BY_HOP | named
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in dropped
    )


def _refuse(status: HTTPStatus, code: str, message: str) -> web.Response:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return json_response(envelope(code, message), status=status, headers=headers)


async def _health(
    session: aiohttp.ClientSession, processes: Mapping[str, str], _request: web.Request
) -> web.Response:
    """Say how all processes are: 503 when one is not well."""
    answers = await asyncio.gather(*(_ask_health(session, url) for url in processes.values()))
    reports = dict(zip(processes, answers, strict=True))
    is_well = all(report.get("status") == "healthy" for report in answers)
    body = {
        "status": "healthy" if is_well else "unhealthy",
        "database": _common("database", answers),
        "redis": _common("redis", answers),
        "timestamp": system_clock().isoformat().replace("+00:00", "Z"),
        "problems": [
            f"{name}: {problem}"
            for name, report in reports.items()
            for problem in report.get("problems", ())
        ],
    }
    return json_response(orjson.dumps(body), status=200 if is_well else 503)


async def _ask_health(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    # A process takes so long itself when what it stands on does not answer.
    timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_SECONDS + 1)
    try:
        async with session.get(f"{url}/health", timeout=timeout) as response:
            report = orjson.loads(await response.read())
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError):
        return {"problems": ["does not answer"]}
    return report if isinstance(report, dict) else {"problems": ["answers nonsense"]}


async def _read_document(
    session: aiohttp.ClientSession, services: Mapping[str, str]
) -> dict[str, Any]:
    """Ask every service to describe itself.

    Raises:
        TransientError: one does not answer; half a description would look like a whole one.
    """
    try:
        documents = await asyncio.gather(
            *(_ask_document(session, url) for url in services.values())
        )
    except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
        raise TransientError("a service does not describe itself") from error
    return joined(dict(zip(services, documents, strict=True)))


async def _ask_document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_SECONDS + 1)
    async with session.get(
        f"{url}/openapi.json", timeout=timeout, raise_for_status=True
    ) as response:
        document: dict[str, Any] = orjson.loads(await response.read())
        return document


def _common(name: str, reports: Sequence[Mapping[str, Any]]) -> str:
    """Return what all processes that answer say of one thing."""
    said = {report[name] for report in reports if name in report}
    return "connected" if said == {"connected"} else "disconnected"


async def _well(_request: web.Request) -> web.Response:
    return json_response(orjson.dumps({"status": "ok", "problems": []}))


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=metrics.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
