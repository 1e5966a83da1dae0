"""A proxy in the environment is not asked for this machine, and is named where it was asked in vain."""

from __future__ import annotations

from typing import Any

import hart as package
import pytest


def test_where_a_proxy_was_asked_in_vain_the_variable_is_named(
    hart: Any, proxied: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HART_ENDPOINT", "192.0.2.1:50051")
    done = hart("status", "--timeout", 20)
    assert done.exit_code == 4
    assert "the proxy in grpc_proxy; list hosts to call directly in no_proxy" in " ".join(done.output.split())
    assert "make up" not in done.output
    monkeypatch.delenv("grpc_proxy")
    with package.Client("192.0.2.1:50051") as client, pytest.raises(package.Unavailable, match="proxy in https_proxy"):
        client.status(timeout=20)


def test_without_a_proxy_none_is_named(hart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_ENDPOINT", "127.0.0.1:9")
    done = hart("status")
    assert "make up" in done.output
    assert "proxy" not in done.output
