"""Certificates' and tokens' keys, made once; and patience with the fakes."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A stage that shares the process with the gateway does not hang when the machine pauses: it may take its time to
    be seen at first, to say that it is ready and to describe itself."""
    for name in (
        "gateway.assembly.FIRST_PROBE_TIMEOUT",
        "gateway.routing.registry.DESCRIBE_TIMEOUT",
        "runtime.calls.replica.ANSWER_SECONDS",
    ):
        monkeypatch.setattr(name, 60.0)


@pytest.fixture(scope="session")
def signing_keys():
    """Two private RSA keys: the issuer's and a stranger's."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
