"""The names of semantic conventions are those that OpenTelemetry publishes in its own package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from opentelemetry import semconv as published

from runtime.observability import semconv, tracing

ROOMS = ("runtime", "gateway", "services")
PUBLISHED = re.compile(r'^([A-Z_]+): Final = "([^"]+)"\n"""\n(.*?)"""', re.MULTILINE | re.DOTALL)
ROOT = Path(__file__).resolve().parents[2]
OF_CONVENTIONS = re.compile(r'"((?:rpc|gen_ai|server|network|error|exception|service)\.[a-z_.]+)"')


def names() -> dict[str, str]:
    """Our constants of dotted names."""
    return {key: value for key, value in vars(semconv).items() if key.isupper() and "." in str(value)}


@pytest.fixture(scope="module")
def current() -> dict[tuple[str, str], str]:
    """The documentation of each published constant, by its name and value."""
    found: dict[tuple[str, str], str] = {}
    for path in Path(published.__path__[0]).rglob("*.py"):
        for key, value, text in PUBLISHED.findall(path.read_text()):
            found[key, value] = text
    return found


def test_every_name_is_published_and_none_is_replaced(current: dict[tuple[str, str], str]) -> None:
    assert len(names()) > 20
    for key, value in names().items():
        text = current[key, value]
        assert not re.search(r"Deprecated: (?!Moved to the \[OpenTelemetry GenAI)", text), (key, text)


def test_a_replaced_name_would_be_found(current: dict[tuple[str, str], str]) -> None:
    assert "Replaced by" in current["RPC_SYSTEM", "rpc.system"]


def test_names_of_conventions_stand_in_one_file() -> None:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            if path.name != "semconv.py" and "_pb2" not in path.name:
                assert not OF_CONVENTIONS.findall(path.read_text()), path


def test_values_are_members_that_are_published() -> None:
    from opentelemetry.semconv._incubating.attributes.gen_ai_attributes import (
        GenAiOperationNameValues,
        GenAiOutputTypeValues,
    )
    from opentelemetry.semconv._incubating.attributes.rpc_attributes import RpcSystemNameValues

    assert GenAiOperationNameValues.GENERATE_CONTENT.value == semconv.GENERATE_CONTENT
    assert GenAiOutputTypeValues.IMAGE.value == semconv.IMAGE
    assert RpcSystemNameValues.GRPC.value == semconv.GRPC


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.7:50055", {"server.address": "10.0.0.7", "server.port": 50055}),
        ("[2001:db8::1]:50055", {"server.address": "2001:db8::1", "server.port": 50055}),
        ("decoder.models:50055", {"server.address": "decoder.models", "server.port": 50055}),
        ("unix:/run/decoder", {"server.address": "/run/decoder"}),
    ],
)
def test_a_server_has_an_address_and_a_port(address: str, expected: dict[str, str | int]) -> None:
    assert tracing.server_attributes(address) == expected


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("ipv4:10.0.0.7:51234", {"network.peer.address": "10.0.0.7", "network.peer.port": 51234}),
        ("ipv6:[::1]:51234", {"network.peer.address": "::1", "network.peer.port": 51234}),
        ("ipv6:%5B::1%5D:51234", {"network.peer.address": "::1", "network.peer.port": 51234}),
        ("unix:/run/x", {"network.peer.address": "/run/x"}),
        ("unix:", {"network.peer.address": ""}),
    ],
)
def test_a_peer_has_an_address_and_a_port(peer: str, expected: dict[str, str | int]) -> None:
    assert tracing.peer_attributes(peer) == expected
