"""Fixtures of the gateway's tests: RSA keys, and time limits that suit a busy machine."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.assembly import FIRST_PROBE_TIMEOUT


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long limits for discovery, readiness and Describe: the fakes share the gateway's process and may be slow."""
    for name in (
        "gateway.assembly.FIRST_PROBE_TIMEOUT",
        "gateway.routing.registry.DESCRIBE_TIMEOUT",
        "runtime.calls.replica.ANSWER_SECONDS",
    ):
        monkeypatch.setattr(name, 60.0)


@pytest.fixture
def short_first_probe(patience: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's own limit for the first probe, for a gateway that starts without a stage."""
    monkeypatch.setattr("gateway.assembly.FIRST_PROBE_TIMEOUT", FIRST_PROBE_TIMEOUT)


@pytest.fixture(scope="session")
def signing_keys() -> list[rsa.RSAPrivateKey]:
    """Two private RSA keys: the issuer's and an unrelated one."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
