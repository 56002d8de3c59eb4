"""The HTTP side of alerts: which are open, and which there were."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from services.payments.domain.alerts import Episode, Measurement
from services.payments.handlers.alerts import ID_PREFIX
from services.payments.runtime import Runtime
from services.payments.store import alerts as alert_store
from shared.web.bodies import TimeText, time_text
from shared.web.pages import PageQuery
from shared.web.routes import PageOf, Route, Scope, parse_query


class AlertsQuery(PageQuery):
    """Query of `GET /api/operations/alerts`."""

    alert: Measurement | None = None
    open: Annotated[bool | None, Field(description="Only open ones, or only those over")] = None


class AlertAnswer(TypedDict):
    """An episode in which a measurement was beyond its threshold."""

    id: Annotated[str, Field(examples=["alt_01J9ZC4Q8S4X7V1R2T3W5Y6Z8A"])]
    alert: Annotated[
        Measurement, Field(description="Rates are in per cent, the processing time in seconds")
    ]
    threshold: float
    raisedValue: float
    worstValue: float
    lastValue: float
    raisedAt: TimeText
    wellSince: Annotated[
        TimeText | None, Field(description="Since when it is within its threshold again")
    ]
    clearedAt: TimeText | None


def alert_routes(runtime: Runtime) -> list[Route]:
    """Return the route of alerts."""

    async def list_(request: web.Request) -> web.StreamResponse:
        """List alerts, the newest first: once per episode, from its raising to its clearing."""
        query = parse_query(AlertsQuery, request)
        query.require_cursor_of(ID_PREFIX)
        async with runtime.core.database.connection() as connection:
            episodes = await alert_store.list_episodes(
                connection,
                measurement=query.alert,
                is_open=query.open,
                before_id=query.cursor,
                limit=query.limit + 1,
            )
        page = query.page("alerts", episodes, id_of=lambda episode: episode.id, render=render)
        return page.response()

    return [
        Route(
            "GET",
            "/api/operations/alerts",
            list_,
            Scope.READ,
            query=AlertsQuery,
            answer=PageOf("alerts", AlertAnswer),
        )
    ]


def render(episode: Episode) -> AlertAnswer:
    """Return an episode as the API shows it."""
    return {
        "id": episode.id,
        "alert": episode.measurement,
        "threshold": episode.threshold,
        "raisedValue": episode.raised_value,
        "worstValue": episode.worst_value,
        "lastValue": episode.last_value,
        "raisedAt": time_text(episode.raised_at),
        "wellSince": time_text(episode.well_since),
        "clearedAt": time_text(episode.cleared_at),
    }
