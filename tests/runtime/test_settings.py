"""runtime.settings: environment, errors, secrets, bounds."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator

from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from runtime.settings import ProcessSettings, Settings, SettingsError, is_loopback


class Example(Settings):
    batch_size: int = Field(default=4, ge=1)
    """Maximum requests in a batch."""
    api_key: SecretStr = SecretStr("")
    """The key."""
    origin: str = "http://localhost"
    """Where weights come from."""

    @field_validator("origin")
    @classmethod
    def _address(cls, text: str) -> str:
        if "//" not in text:
            raise ValueError("is no address")
        return text


def test_environment_is_read_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_BATCH_SIZE", "7")
    assert Example.load().batch_size == 7
    assert Example.load(batch_size=3).batch_size == 3


def test_blanks_around_a_value_are_stripped(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCH_SIZE": " 7\r", "API_KEY": "secret\r\n", "ORIGIN": "\ufeffhttp://x\t"}.items():
        monkeypatch.setenv(f"HART_{name}", value)
    found = Example.load()
    assert (found.batch_size, found.api_key.get_secret_value(), found.origin) == (7, "secret", "http://x")
    for name, value in {"ALLOW_PLAINTEXT": " true\r", "LOG_LEVEL": "DEBUG ", "HOST": " 0.0.0.0\r\n"}.items():
        monkeypatch.setenv(f"HART_{name}", value)
    process = ProcessSettings.load()
    assert (process.allow_plaintext, process.log_level, process.host) == (True, "DEBUG", "0.0.0.0")


def test_invalid_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_BATCH_SIZE", "many")
    with pytest.raises(SettingsError, match=r"HART_BATCH_SIZE='many': .*integer"):
        Example.load()
    with pytest.raises(SettingsError, match=r"HART_BATCH_SIZE=0: .*greater"):
        Example.load(batch_size=0)
    monkeypatch.delenv("HART_BATCH_SIZE")
    with pytest.raises(SettingsError) as caught:
        Example.load(origin="here")
    assert str(caught.value) == "HART_ORIGIN='here': is no address"


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_API_KEY", "hunter2")
    monkeypatch.setenv("HART_ORIGIN", "https://me:hunter2@example.org/x")
    settings = Example.load()
    assert "hunter2" not in str(settings.effective())
    assert "hunter2" not in repr(settings.api_key)
    with pytest.raises(SettingsError) as caught:
        Example.load(api_key=7)
    assert "HART_API_KEY=***" in str(caught.value)


def test_misspelt_variables_are_reported_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HART_BATCHSIZE", "HART_SOMETHING_ELSE", "HART_DECODER_SERVICE_HOST", "HART_DECODER_PORT_1_TCP"):
        monkeypatch.setenv(name, "1")
    assert Example.unknown() == {"HART_BATCHSIZE": "HART_BATCH_SIZE", "HART_SOMETHING_ELSE": ""}


def test_settings_are_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().batch_size = 5


def test_every_setting_has_a_description() -> None:
    for kind in (Example, ProcessSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_certificate_without_its_key_is_refused() -> None:
    with pytest.raises(SettingsError, match="HART_TLS_CERT and HART_TLS_KEY"):
        ProcessSettings.load(tls_cert="x")


def test_client_ca_without_a_server_certificate_is_refused() -> None:
    with pytest.raises(SettingsError, match="HART_TLS_CA requires HART_TLS_CERT and HART_TLS_KEY"):
        ProcessSettings.load(tls_ca="x", host="0.0.0.0", allow_plaintext=True)


@pytest.mark.parametrize("value", ["inf", "nan", "2147484"])
def test_value_beyond_grpc_limits_is_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match="HART_CONNECTION_AGE_SECONDS"):
        ProcessSettings.load(connection_age_seconds=value)


def test_collector_without_a_scheme_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="HART_OTLP_ENDPOINT='collector:4317'"):
        ProcessSettings.load(otlp_endpoint="collector:4317")  # the exporter would use TLS


async def test_server_starts_with_the_maximum_settings() -> None:
    fields = ProcessSettings.model_json_schema()["properties"]
    names = ("max_message_bytes", "max_metadata_bytes", "max_concurrent_calls", "max_concurrent_streams")
    ages = ("connection_age_seconds", "connection_age_grace_seconds")
    settings = ProcessSettings.load(**{name: fields[name]["maximum"] for name in (*names, *ages)})
    app = App(settings, "any", Telemetry("any"))
    await app.start()
    await app.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "unix:/run/hart.sock"])
def test_loopback_addresses_are_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["127.example.org", "127.0.0.1.example.org", "localhost.example.org", "0.0.0.0", ""])
def test_similar_names_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
