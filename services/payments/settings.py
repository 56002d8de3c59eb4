"""What the payments service reads from the environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta, tzinfo
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

import orjson
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_settings import NoDecode

from shared.contracts.priorities import Priority
from shared.gateways.interface import FailureKind
from shared.gateways.registration import GatewayKeys
from shared.gateways.registry import REGISTRY, GatewaySettings, no_gateway_is_on
from shared.settings import Duration

#: What variables that are JSON look like.
_EXAMPLES: Final = {
    "retry_policy": '{"insufficient_funds": ["PT24H"]}',
    "gateway_limits": '{"stripe": {"concurrency": 20, "callsPerSecond": 10}}',
}

RetryDelay = Annotated[Duration, Field(ge=timedelta(0), le=timedelta(days=30))]


class GatewayLimitSettings(BaseModel):
    """What all processes together may do at one gateway; no limit where it says nothing."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )

    #: Calls in flight at once.
    concurrency: int | None = Field(default=None, ge=1, le=10_000)
    calls_per_second: float | None = Field(default=None, gt=0, le=10_000, allow_inf_nan=False)


class PaymentsSettings(GatewaySettings):
    """Settings of both processes of the payments service."""

    database_url: str = Field(
        validation_alias=AliasChoices("PAYMENTS_DATABASE_URL", "DATABASE_URL"), repr=False
    )
    #: A customer who has not paid by then is not expected to; a later success still counts.
    payment_expires_after: timedelta = Field(
        default=timedelta(hours=24), gt=timedelta(0), alias="PAYMENT_EXPIRES_AFTER"
    )
    #: First look at a payment after its creation, in case its notice is lost.
    first_check_after: timedelta = Field(
        default=timedelta(seconds=30), gt=timedelta(0), alias="PAYMENT_FIRST_CHECK_AFTER"
    )

    #: The hour of UTC from which what was paid on the two days before is compared with what the
    #: gateways list.
    settlement_check_hour: int = Field(default=3, ge=0, le=23, alias="SETTLEMENT_CHECK_HOUR")
    #: What becomes of money that comes when its payment had failed and its time was over.
    late_success_policy: Literal["enroll", "refund"] = Field(
        default="enroll", alias="LATE_SUCCESS_POLICY"
    )

    #: Calls that move money, in flight at once in one process. Those that only ask are bounded by
    #: GATEWAY_CALLS_MAX: they cost the gateway little, and a customer waits for their answers.
    max_concurrent_payments: int = Field(default=10, ge=1, alias="MAX_CONCURRENT_PAYMENTS")
    #: Payments that are taken up together.
    payment_batch_size: int = Field(default=50, ge=1, le=1_000, alias="PAYMENT_BATCH_SIZE")
    #: Per cent of the turns that go to the lower priorities while they wait.
    minimum_share: int = Field(default=5, ge=1, le=50, alias="PAYMENT_MINIMUM_SHARE")

    #: Where the operator's clock hangs: schedules of profiles are by its wall time.
    operator_time_zone: str = Field(default="UTC", alias="OPERATOR_TIME_ZONE")

    #: What all processes together may do at one gateway, as JSON by its name; the calls that move
    #: money and those that only ask count alike.
    gateway_limits: Annotated[Mapping[str, GatewayLimitSettings], NoDecode] = Field(
        default_factory=dict, alias="GATEWAY_LIMITS"
    )
    #: The breaker of a gateway opens when more than half of its calls in the window fail, and there
    #: were enough of them.
    breaker_window: Duration = Field(
        default=timedelta(seconds=30),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=10),
        alias="BREAKER_WINDOW",
    )
    breaker_minimum_calls: int = Field(default=10, ge=1, alias="BREAKER_MINIMUM_CALLS")
    breaker_open_for: Duration = Field(
        default=timedelta(seconds=60), ge=timedelta(seconds=1), alias="BREAKER_OPEN_FOR"
    )
    #: Calls of the whole fleet that then find out whether it works again; the majority decides.
    breaker_probes: int = Field(default=5, ge=1, le=100, alias="BREAKER_PROBES")

    #: The priorities whose notices a worker takes, separated by commas; all of them when empty.
    payments_priorities: Annotated[frozenset[Priority], NoDecode] = Field(
        default=frozenset(Priority), alias="PAYMENTS_PRIORITIES"
    )

    #: Retries of a prompt on a phone that failed for technical reasons, and the first wait, which
    #: doubles.
    payment_retry_attempts: int = Field(default=3, ge=0, le=20, alias="PAYMENT_RETRY_ATTEMPTS")
    payment_retry_delay: RetryDelay = Field(
        default=timedelta(seconds=5), alias="PAYMENT_RETRY_DELAY"
    )
    #: Rows of the retry table that shall be others, as JSON: a kind of failure with its waits.
    retry_policy: Annotated[
        Mapping[FailureKind, Annotated[tuple[RetryDelay, ...], Field(max_length=20)]], NoDecode
    ] = Field(default_factory=dict, alias="RETRY_POLICY")
    #: A function of the installation that has the last word on every retry: `package.module:name`.
    retry_plugin: Callable[..., Any] | None = Field(default=None, alias="RETRY_PLUGIN")
    #: Tries of one payment, the first included, whatever made them fail.
    retry_max_attempts: int = Field(default=8, ge=1, le=100, alias="RETRY_MAX_ATTEMPTS")
    #: How long a worker has a retry for itself; after that another one takes it over.
    retry_lock_timeout: Duration = Field(
        default=timedelta(minutes=5), ge=timedelta(seconds=4), alias="RETRY_LOCK_TIMEOUT"
    )
    #: The longest time between two looks for retries that a worker left behind, or that are too
    #: many. What is due is found within a second.
    retry_processing_interval: Duration = Field(
        default=timedelta(seconds=30), gt=timedelta(0), alias="RETRY_PROCESSING_INTERVAL"
    )
    #: Retries that may wait; of more than that the least urgent are parked.
    retry_waiting_max: int = Field(default=100_000, ge=0, alias="RETRY_WAITING_MAX")

    #: From when on operators are told: more that waits than this, more per cent of the calls of
    #: gateways that fail, a longer average of our own time, fewer per cent that succeed.
    queue_alert_threshold: int = Field(default=100, ge=1, alias="PAYMENT_QUEUE_ALERT_THRESHOLD")
    error_rate_alert: float = Field(default=10, ge=0, le=100, alias="PAYMENT_ERROR_RATE_ALERT")
    processing_time_alert: Duration = Field(
        default=timedelta(seconds=30), gt=timedelta(0), alias="PAYMENT_PROCESSING_TIME_ALERT"
    )
    success_rate_alert: float = Field(default=90, ge=0, le=100, alias="PAYMENT_SUCCESS_RATE_ALERT")
    #: Rates and averages are those of this time, and of no fewer results or calls than that.
    alert_window: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(minutes=1),
        le=timedelta(hours=1),
        alias="PAYMENT_ALERT_WINDOW",
    )
    alert_minimum_samples: int = Field(default=20, ge=1, alias="PAYMENT_ALERT_MINIMUM_SAMPLES")

    @field_validator("retry_policy", "gateway_limits", mode="before")
    @classmethod
    def _read_json(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value or "{}")
        except orjson.JSONDecodeError:
            example = _EXAMPLES[info.field_name or ""]
            raise ValueError(f"must be JSON, like {example}") from None

    @field_validator("retry_plugin", mode="before")
    @classmethod
    def _load_plugin(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if not value:
            return None
        module, colon, name = value.partition(":")
        if not (module and colon and name):
            raise ValueError("must be package.module:function")
        try:
            return getattr(importlib.import_module(module), name)
        except Exception as error:  # noqa: BLE001 - a module of others may raise anything
            raise ValueError(f"cannot be loaded ({type(error).__name__})") from None

    @field_validator("payments_priorities", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return frozenset(part.strip() for part in value.split(",")) if value else [*Priority]

    @field_validator("gateways")
    @classmethod
    def _has_a_gateway(cls, gateways: Mapping[str, GatewayKeys]) -> Mapping[str, GatewayKeys]:
        if not gateways:
            raise ValueError(no_gateway_is_on())
        return gateways

    @field_validator("gateway_limits")
    @classmethod
    def _limits_known_gateways(
        cls, limits: Mapping[str, GatewayLimitSettings]
    ) -> Mapping[str, GatewayLimitSettings]:
        if unknown := sorted(limits.keys() - REGISTRY.keys()):
            known = ", ".join(REGISTRY)
            raise ValueError(f"no gateway is called {', '.join(unknown)}; there are {known}")
        return limits

    @field_validator("operator_time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        try:
            _time_zone(name)
        except (KeyError, ValueError, OSError):  # Not found, no path at all, or a directory.
            raise ValueError("must be a time zone of this machine, like Africa/Douala") from None
        return name

    def time_zone(self) -> tzinfo:
        """Return the operator's time zone."""
        return _time_zone(self.operator_time_zone)


def _time_zone(name: str) -> tzinfo:
    # The default works also where the machine has no time zones at all.
    return UTC if name == "UTC" else ZoneInfo(name)
