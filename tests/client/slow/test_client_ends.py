"""hart.client, hart.aio, hart.errors: errors, retries, deadlines, cancellation and close."""

from __future__ import annotations

import hart
import pytest

from tests.client.conftest import Gateway


def test_timeout_is_the_call_deadline_on_the_server(gateway: Gateway) -> None:
    gateway.hang = True
    for action in (hart.Client.generate, lambda *a, **k: list(hart.Client.stream(*a, **k))):
        with (
            hart.Client(gateway.endpoint) as client,
            pytest.raises(hart.DeadlineExceeded, match="the deadline passed"),
        ):
            action(client, "x", timeout=1.5)  # long enough to arrive in time on a busy machine
    assert gateway.remaining
    # gRPC computes from a clock read earlier: on a busy machine the remaining time may exceed the timeout.
    assert all(0 < (remaining or 0) < 1.5 + 1 for remaining in gateway.remaining), gateway.remaining
    gateway.hang = False
    hart.Client(gateway.endpoint).generate("x")
    assert gateway.remaining[-1] is None or gateway.remaining[-1] > 300
