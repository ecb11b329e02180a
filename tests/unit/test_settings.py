from datetime import timedelta

import pytest

from core.errors import SettingsError


def test_settings_without_variables_choose_the_embedded_database_as_broker(settings_env):
    """RUN-03: nothing has to be set."""
    settings = settings_env()
    assert settings.database_url == ""
    assert settings.resolved_broker_url == ""
    assert settings.broker_kind == "postgres"


def test_settings_durations_are_read_as_seconds(settings_env):
    settings = settings_env(LEASE="30", PROVIDER_TIMEOUT="15")
    assert settings.lease == timedelta(seconds=30)
    assert settings.provider_timeout == timedelta(seconds=15)
    assert settings_env(LEASE="1.5").lease == timedelta(seconds=1.5)


REDIS = {"REDIS_HOST": "cache.internal", "REDIS_PORT": "6380", "REDIS_PASSWORD": "p@ss/word"}


@pytest.mark.parametrize(
    ("variables", "url", "kind"),
    [
        ({"REDIS_HOST": "cache.internal"}, "redis://cache.internal:6379/0", "redis"),
        (REDIS, "redis://:p%40ss%2Fword@cache.internal:6380/0", "redis"),
        (REDIS | {"REDIS_URL": "rediss://hosted:7000/1"}, "rediss://hosted:7000/1", "redis"),
        (REDIS | {"REDIS_URL": "redis://a", "BROKER_URL": "postgresql://db/x"}, "postgresql://db/x", "postgres"),
        ({"DATABASE_URL": "postgresql://db/x"}, "", "postgres"),
        ({"DATABASE_URL": "postgresql://db/x", "BROKER_URL": "redis://a"}, "redis://a", "redis"),
    ],
)
def test_settings_broker_is_the_first_of_broker_url_redis_url_redis_host(settings_env, variables, url, kind):
    """DEP-04."""
    settings = settings_env(**variables)
    assert settings.resolved_broker_url == url
    assert settings.broker_kind == kind


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BROKER_URL", "amqp://user:hunter2-secret@host"),
        ("DATABASE_URL", "mysql://user:hunter2-secret@host/x"),
        ("REDIS_PORT", "hunter2-secret"),
        ("WHATSAPP_RATE", "hunter2-secret"),
        ("LEASE", "hunter2-secret"),
    ],
)
def test_settings_error_names_the_variable_and_hides_the_value(settings_env, name, value):
    """DEP-04: a mistake is told at the start, without showing what may be a secret."""
    with pytest.raises(SettingsError) as caught:
        settings_env(**{name: value})
    assert name in str(caught.value)
    assert "hunter2-secret" not in str(caught.value)


def test_settings_error_names_all_wrong_variables(settings_env):
    with pytest.raises(SettingsError) as caught:
        settings_env(REDIS_PORT="x", PORT="0")
    assert "REDIS_PORT" in str(caught.value)
    assert "\n  PORT" in str(caught.value)


def test_settings_secrets_are_not_printed(settings_env):
    assert "hunter2-secret" not in repr(settings_env(WHATSAPP_TOKEN="hunter2-secret"))
