"""gateway.config, gateway.assembly: settings that cannot work are refused before the gateway starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.assembly import build
from gateway.config import GatewaySettings
from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from runtime.settings import SettingsError
from tests.runtime.certificates import Authority


def assemble(**values: Any) -> None:
    settings = GatewaySettings.load(**values)
    build(App(settings, "gateway", Telemetry("gateway")), settings)


@pytest.mark.parametrize("name", ["drain_seconds", "connection_age_grace_seconds"])
def test_drain_and_grace_are_not_shorter_than_the_max_deadline(name: str) -> None:
    with pytest.raises(SettingsError, match=f"HART_{name.upper()}=899 must not be under HART_MAX_DEADLINE_SECONDS=900"):
        GatewaySettings.load(
            **{"max_deadline_seconds": 900, "drain_seconds": 900, "connection_age_grace_seconds": 900, name: 899}
        )


@pytest.mark.parametrize("half", ["stage_tls_cert", "stage_tls_key"])
def test_stage_certificate_and_key_must_be_given_together(half: str) -> None:
    with pytest.raises(SettingsError, match="HART_STAGE_TLS_CERT and HART_STAGE_TLS_KEY must be given together"):
        GatewaySettings.load(**{"tls_cert": "c", "tls_key": "k", "stage_tls_ca": "a", half: "x"})


def test_stage_certificate_without_a_ca_is_refused() -> None:
    with pytest.raises(SettingsError, match="HART_STAGE_TLS_CERT requires HART_STAGE_TLS_CA"):
        GatewaySettings.load(stage_tls_cert="c", stage_tls_key="k")


async def test_plaintext_to_a_remote_stage_is_refused_unless_allowed() -> None:
    with pytest.raises(SettingsError, match=r"10\.1\.2\.3:50052 is not loopback.*HART_ALLOW_PLAINTEXT"):
        assemble(safety="127.0.0.1:50052,10.1.2.3:50052")
    assemble(safety="10.1.2.3:50052", allow_plaintext=True)


async def test_unusable_stage_ca_is_refused_by_its_file_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"No such file or directory: '/nope\.pem'"):
        assemble(stage_tls_ca="/nope.pem")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"text\.pem is not a certificate authority's certificate"):
        assemble(stage_tls_ca=str(text))
    _, _, ca = Authority().write(tmp_path / "stages")
    assemble(stage_tls_ca=ca, safety="10.1.2.3:50052")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("jwt_jwks_url", "http://reader:hunter2@issuer.example/jwks"),
        ("otlp_endpoint", "http://reader:hunter2@collector:4317/path"),
        ("safety", "http://reader:hunter2@stage:50052"),
    ],
)
def test_refused_url_is_shown_without_its_credentials(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"HART_{name.upper()}") as caught:
        GatewaySettings.load(**{name: url})
    assert "hunter2" not in str(caught.value)
