"""hart.request, hart.channel: arguments refused before sending, endpoints and credentials."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hart
import pytest
from hart.channel import Connection, is_loopback

from tests.client.conftest import Gateway


def test_api_key_is_sent_as_bearer_token(gateway: Gateway) -> None:
    hart.Client(gateway.endpoint, api_key="s3cret").generate("x")
    assert gateway.metadata[0]["authorization"] == "Bearer s3cret"
    hart.Client(gateway.endpoint).generate("x")
    assert "authorization" not in gateway.metadata[1]


def test_api_key_is_not_sent_in_plaintext_to_a_remote_host() -> None:
    for endpoint in ("gateway.example:443", "dns:///10.0.0.1:50051"):
        with pytest.raises(ValueError, match="api_key"):
            Connection(endpoint, "k")
        Connection(endpoint, "k", insecure=True)
        Connection(endpoint, "k", tls=hart.TLS())
    local = ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/a/b", "dns:///127.0.0.1:5")
    assert all(map(is_loopback, local))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "seven"}, "seed"),
        ({"num_images": 1.5}, "num_images"),
        ({"num_images": True}, "num_images"),
        ({"guidance": "strong"}, "guidance"),
        ({"more_smooth": "yes"}, "more_smooth"),
        ({"format": "gif"}, "format"),
        ({"format": 7}, "format"),
        ({"steps": 50}, "steps"),
    ],
)
def test_option_of_a_wrong_type_is_refused_before_sending(
    gateway: Gateway, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(hart.InvalidRequest) as error:
        hart.Client(gateway.endpoint).generate("x", **options)
    assert set(error.value.fields) == {field}
    assert not gateway.requests


def test_prompt_that_is_no_text_is_refused_by_name(gateway: Gateway) -> None:
    for prompt in (None, 5, "\ud800"):
        with pytest.raises(hart.InvalidRequest) as error:
            hart.Client(gateway.endpoint).generate(prompt)  # type: ignore[arg-type]
        assert "prompt" in error.value.fields
    with pytest.raises(hart.InvalidRequest, match="prompt: None: expected a string"):
        hart.Client(gateway.endpoint).generate(None)  # type: ignore[arg-type]


def test_tls_certificate_and_key_must_be_given_together() -> None:
    with pytest.raises(ValueError, match="together"):
        hart.TLS(cert="a.pem")


def test_invalid_tls_argument_is_refused_before_connecting(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tls: True: expected a hart\.TLS"):
        hart.Client("127.0.0.1:9", tls=True)  # type: ignore[arg-type]
    (tmp_path / "ca.der").write_bytes(b"\x30\x82")
    with pytest.raises(ValueError, match=r"tls: .*ca\.der is not a PEM file"):
        hart.Client("127.0.0.1:9", tls=hart.TLS(ca=tmp_path / "ca.der"))


def test_too_large_request_is_invalid_not_overloaded(gateway: Gateway) -> None:
    with pytest.raises(hart.InvalidRequest, match=r"larger than max") as refused:
        hart.Client(gateway.endpoint).generate("x" * (5 << 20))
    assert re.fullmatch(r"the request has \d+ bytes, .* 4194304[:;] shorten the prompt", refused.value.message)


@pytest.mark.parametrize(
    "endpoint",
    ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "host:port", "h:70000", "http://h:1", ":1", "[::1]"],
)
def test_invalid_endpoint_is_refused_at_once(endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint"):
        hart.Client(endpoint)


@pytest.mark.parametrize("endpoint", ["h:1", "[::1]:50051", "unix:/run/hart.sock", "dns:///hart:443"])
def test_grpc_targets_are_accepted_as_endpoints(endpoint: str) -> None:
    hart.Client(endpoint).close()


def test_host_without_a_port_uses_443_with_tls() -> None:
    Connection("gateway.example", tls=hart.TLS())


def test_numbers_beyond_the_wire_type_are_refused_by_field() -> None:
    with pytest.raises(hart.InvalidRequest) as refused:
        hart.Client("127.0.0.1:9").generate("x", seed=2**64, num_images=-1)
    assert refused.value.fields["seed"].endswith(f"expected 0 to {2**64 - 1}")
    assert refused.value.fields["num_images"].endswith("negative")
    with pytest.raises(hart.InvalidRequest, match="images: 4294967296: too large"):
        hart.Client("127.0.0.1:9").generate("x", num_images=2**32)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e18, "5", True])
@pytest.mark.parametrize("client", [hart.Client, hart.AsyncClient])
def test_invalid_timeout_is_refused_by_name(gateway: Gateway, client: type[Any], timeout: Any) -> None:
    def draw(action: Callable[[], Any]) -> None:
        with pytest.raises(hart.InvalidRequest) as refused:
            outcome = action()
            if asyncio.iscoroutine(outcome):
                asyncio.run(outcome)
        assert set(refused.value.fields) == {"timeout"}

    one = client(gateway.endpoint)
    draw(lambda: one.stream("x", timeout=timeout))
    if client is hart.Client:
        draw(lambda: one.generate("x", timeout=timeout))
        draw(lambda: one.status(timeout=timeout))
    else:
        draw(lambda: one.generate("x", timeout=timeout))
    assert not gateway.requests


@pytest.mark.parametrize("key", ["a\nb", "ключ", "\x00", b"bytes"])
def test_api_key_invalid_in_a_header_is_refused_and_not_shown(key: str | bytes) -> None:
    with pytest.raises(ValueError, match="api_key") as refused:
        hart.Client("127.0.0.1:1", api_key=key)  # type: ignore[arg-type]
    assert repr(key) not in str(refused.value)
