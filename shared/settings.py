"""Settings come from the environment and are checked once, at start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.messaging.redis_address import parse_redis_address


class SettingsError(Exception):
    """A variable of the environment is missing or wrong; the message names it."""


def _seconds(value: object) -> object:
    """Take a plain number for seconds; everything else is ISO 8601, like PT5S."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Duration = Annotated[timedelta, BeforeValidator(_seconds)]


class ServiceSettings(BaseSettings):
    """What every process of every service reads."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    redis_url: str | None = Field(default=None, alias="REDIS_URL", repr=False)
    redis_host: str = Field(default="127.0.0.1", alias="REDIS_HOST")
    redis_port: int = Field(default=6379, ge=1, le=65535, alias="REDIS_PORT")
    public_url: str = Field(default="http://127.0.0.1:8080", alias="PUBLIC_URL")
    api_keys: SecretStr = Field(default=SecretStr(""), alias="API_KEYS")
    api_keys_file: Path | None = Field(default=None, alias="API_KEYS_FILE")
    api_rate_limit_per_second: float = Field(default=100, gt=0, alias="API_RATE_LIMIT_PER_SECOND")
    otlp_endpoint: str | None = Field(default=None, alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    trace_sample_ratio: float = Field(default=1.0, ge=0, le=1, alias="OTEL_TRACES_SAMPLER_ARG")
    log_level: str = Field(default="INFO", alias="LOG_LEVEL")

    @field_validator("redis_url")
    @classmethod
    def _has_a_known_form(cls, url: str | None) -> str | None:
        if url:
            parse_redis_address(url)
        return url

    def redis_address(self) -> str:
        """Return the Redis URL: `REDIS_URL`, or one made of host and port."""
        return self.redis_url or f"redis://{self.redis_host}:{self.redis_port}/0"

    def api_keys_text(self) -> str:
        """Return the entries of `API_KEYS` and those of `API_KEYS_FILE`, a mounted file.

        Raises:
            SettingsError: the file cannot be read.
        """
        given = self.api_keys.get_secret_value()
        if self.api_keys_file is None:
            return given
        try:
            return f"{given}\n{self.api_keys_file.read_text(encoding='utf-8')}"
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"API_KEYS_FILE: {error}") from None


S = TypeVar("S", bound=ServiceSettings)


def load(settings_class: type[S], **overrides: Any) -> S:
    """Read one settings class from the environment.

    Raises:
        SettingsError: names each variable and what is wrong with it; never its value.
    """
    try:
        return settings_class(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        )
        raise SettingsError(f"the environment is not right: {problems}") from None
