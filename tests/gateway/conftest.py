"""Certificates' and tokens' keys, made once."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa


@pytest.fixture(scope="session")
def signing_keys():
    """Two private RSA keys: the issuer's and a stranger's."""
    return [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
