"""Laws of settings."""

from __future__ import annotations

import pytest
from pydantic import Field, SecretStr, ValidationError, field_validator

from runtime.settings import ProcessSettings, Settings, SettingsError


class Example(Settings):
    batch_size: int = Field(default=4, ge=1)
    """Most requests in a batch."""
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


def test_the_environment_is_read_by_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_BATCH_SIZE", "7")
    assert Example.load().batch_size == 7
    assert Example.load(batch_size=3).batch_size == 3


def test_a_bad_value_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_BATCH_SIZE", "many")
    with pytest.raises(SettingsError, match=r"HART_BATCH_SIZE='many': .*integer"):
        Example.load()
    with pytest.raises(SettingsError, match=r"HART_BATCH_SIZE=0: .*greater"):
        Example.load(batch_size=0)
    monkeypatch.delenv("HART_BATCH_SIZE")
    with pytest.raises(SettingsError) as told:
        Example.load(origin="here")
    assert str(told.value) == "HART_ORIGIN='here': is no address"


def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_API_KEY", "hunter2")
    monkeypatch.setenv("HART_ORIGIN", "https://me:hunter2@example.org/x")
    settings = Example.load()
    assert "hunter2" not in str(settings.effective())
    assert "hunter2" not in repr(settings.api_key)
    with pytest.raises(SettingsError) as caught:
        Example.load(api_key=7)
    assert "HART_API_KEY=***" in str(caught.value)


def test_misspelt_variables_are_reported_with_the_nearest_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HART_BATCHSIZE", "HART_SOMETHING_ELSE", "HART_DECODER_SERVICE_HOST", "HART_DECODER_PORT_1_TCP"):
        monkeypatch.setenv(name, "1")
    assert Example.unknown() == {"HART_BATCHSIZE": "HART_BATCH_SIZE", "HART_SOMETHING_ELSE": ""}


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().batch_size = 5


def test_every_setting_is_explained() -> None:
    for kind in (Example, ProcessSettings):
        assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_half_a_certificate_is_refused() -> None:
    with pytest.raises(SettingsError, match="HART_TLS_CERT and HART_TLS_KEY"):
        ProcessSettings.load(tls_cert="x")
