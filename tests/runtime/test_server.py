"""Laws of the server that every process stands on, over real sockets."""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Any

from tests.runtime.support import request


async def test_a_request_comes_back_computed(served: Any) -> None:
    answer = await served.stub.Decode(request(4.0))
    assert answer.image == b"4.0"
    assert answer.timing.batch_size == 1


async def test_metrics_are_exported_by_their_exact_names(served: Any) -> None:
    await served.stub.Decode(request())
    url = f"http://127.0.0.1:{served.app.metrics_port}/metrics"
    text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
    print(text)
    assert 'hart_requests_total{code="OK",stage="decoder"} 1.0' in text
