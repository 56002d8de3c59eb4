"""What the scheduler reads from the environment."""

from __future__ import annotations

from datetime import timedelta

from pydantic import AliasChoices, Field

from shared.settings import Duration, ServiceSettings


class SchedulerSettings(ServiceSettings):
    """Settings of both processes of the scheduler."""

    database_url: str = Field(
        validation_alias=AliasChoices("SCHEDULER_DATABASE_URL", "DATABASE_URL"), repr=False
    )
    #: Longest pause between two scans for due subscriptions; a due time that is sooner ends it.
    scheduler_interval: Duration = Field(
        default=timedelta(minutes=5), gt=timedelta(0), alias="SCHEDULER_INTERVAL"
    )
    #: Most charges a second that all scans together order, as after a downtime. None: no limit.
    scheduler_orders_per_second: int | None = Field(
        default=None, ge=1, le=100_000, alias="SCHEDULER_ORDERS_PER_SECOND"
    )
    #: How long a job stays after its end.
    job_keep_days: int = Field(default=7, ge=1, le=3_650, alias="JOB_KEEP_DAYS")
    #: From when on a charge of which nothing is heard is shown as unresolved.
    charge_unresolved_after: Duration = Field(
        default=timedelta(days=1), gt=timedelta(0), alias="CHARGE_UNRESOLVED_AFTER"
    )
