"""All configuration, from the environment, in one place: the only module that reads `os.environ`.

`.env.example` and `docs/settings.md` are generated from this class (`make docs`), so a setting's description here is
its documentation.
"""

from datetime import timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import SettingsError

REDIS_SCHEMES = frozenset({"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"})
"""Beginnings of URLs that lead to a Redis, with two s over TLS."""

BrokerKind = Literal["postgres", "redis"]
"""The two engines; `Settings.broker_kind` tells which one is chosen."""


def _from_seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return timedelta(seconds=float(value))
    except (ValueError, OverflowError) as error:
        message = "must be a number of seconds"
        raise ValueError(message) from error


Seconds = Annotated[timedelta, BeforeValidator(_from_seconds), Field(gt=timedelta())]
"""A duration, written in the environment as a number of seconds, such as 30 or 0.5."""


class Settings(BaseSettings):
    """What the environment says. Field names in capitals are the variables' names."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True)

    environment: Literal["development", "test", "production"] = Field(
        "development", description="development logs for people; anything else logs JSON lines."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least severe level logged.")

    database_url: str = Field("", description="PostgreSQL URL. Empty: the embedded PostgreSQL is started and used.")
    data_dir: Path = Field(
        Path(".data"), description="Folder of the embedded PostgreSQL, of error reports and of the simulator's log."
    )
    database_pool_size: int = Field(8, ge=1, le=200, description="Most connections one process opens to PostgreSQL.")
    database_transaction_pooling: bool = Field(
        default=False, description="DATABASE_URL leads to a pooler in transaction mode, such as PgBouncer's."
    )

    broker_url: str = Field(
        "",
        description="postgresql://..., redis://... (rediss:// for TLS) or redis+sentinel://host,host/service/0. Empty: "
        "REDIS_URL or REDIS_HOST where set, otherwise the database.",
    )
    redis_url: str = Field("", description="Used as broker where BROKER_URL is empty; many platforms set it.")
    redis_host: str = Field("", description="With REDIS_PORT and REDIS_PASSWORD, instead of REDIS_URL.")
    redis_port: int = Field(6379, ge=1, le=65535, description="See REDIS_HOST.")
    redis_password: SecretStr = Field(SecretStr(""), description="See REDIS_HOST.")
    broker_namespace: str = Field("fanfare", description="Prefix of all Redis keys.")
    broker_fallback: bool = Field(
        default=True, description="With Redis as broker: while it is away, messages go through the database."
    )
    lease: Seconds = Field(
        timedelta(seconds=30), description="A message whose worker was silent for so long is run by another (seconds)."
    )

    dead_letters_kept: int = Field(
        1000, ge=0, description="Dead letters kept per queue; every night the oldest beyond are discarded, and logged."
    )
    dead_letters_days: int = Field(0, ge=0, description="Days after which dead letters are discarded; 0: never.")

    sentry_dsn: SecretStr = Field(SecretStr(""), description="Errors are reported there; empty: nowhere.")
    release: str = Field("", description="Version name attached to errors, such as a commit id.")

    whatsapp_base_url: str = Field(
        "https://graph.facebook.com/v23.0", description="WhatsApp Cloud API; point it at the simulator to try things."
    )
    whatsapp_token: SecretStr = Field(SecretStr(""), description="Access token of the WhatsApp business account.")
    whatsapp_app_secret: SecretStr = Field(
        SecretStr(""), description="Secret of the Meta app, which signs its webhooks; empty: none is accepted."
    )
    whatsapp_app_secret_previous: SecretStr = Field(
        SecretStr(""), description="Accepted too, while the app's secret is being changed."
    )
    whatsapp_verify_token: SecretStr = Field(
        SecretStr(""), description="A word of your choice that Meta repeats when the webhook's address is set up."
    )
    whatsapp_rate: float = Field(
        12.5, gt=0, le=1000, description="Default limit of a sending number in messages per second; may be fractional."
    )
    provider_timeout: Seconds = Field(
        timedelta(seconds=15), description="Longest wait for an answer of an outside service (seconds)."
    )

    default_region: str = Field(
        "", max_length=2, description="Two-letter country of phone numbers written without a country code, such as US."
    )
    import_max_bytes: int = Field(2**31, ge=1, description="Largest contacts file that is accepted, in bytes.")

    port: int = Field(8000, ge=1, le=65535, description="Port of the web process.")
    simulator_port: int = Field(8900, ge=1, le=65535, description="Port of the simulator.")

    @field_validator("broker_url", "redis_url", "database_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if urlsplit(url).scheme not in {"", "postgres", "postgresql"} | REDIS_SCHEMES:
            message = "must begin with postgresql://, redis://, rediss:// or redis+sentinel://"
            raise ValueError(message)
        return url

    @cached_property
    def resolved_broker_url(self) -> str:
        """The broker's URL after the fallbacks: BROKER_URL, REDIS_URL, REDIS_HOST; empty means the database."""
        if self.broker_url or self.redis_url:
            return self.broker_url or self.redis_url
        if not self.redis_host:
            return ""
        password = quote(self.redis_password.get_secret_value(), safe="")
        return f"redis://{f':{password}@' if password else ''}{self.redis_host}:{self.redis_port}/0"

    @property
    def broker_kind(self) -> BrokerKind:
        """Which engine carries the messages."""
        return "redis" if urlsplit(self.resolved_broker_url).scheme in REDIS_SCHEMES else "postgres"


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once.

    Raises:
        SettingsError: names each wrong variable and what it may be; values are not shown, they may be secret.
    """
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"  {str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
        message = "Wrong settings in the environment or in .env:\n" + "\n".join(lines)
        raise SettingsError(message, code="settings_invalid") from error
