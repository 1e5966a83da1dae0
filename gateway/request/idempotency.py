"""Idempotency: a repeated request id joins or replays the first execution."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.request.shared_execution import SharedExecution
from gateway.request.validation import ImageRequest
from runtime.errors import RequestIdReused

Key = tuple[str, str]
"""Caller and request id: guessing an id gives no access to another caller's images."""


@dataclass
class _Entry:
    request: ImageRequest
    work: SharedExecution
    ended_at: float | None = None
    size: int = 0


class IdempotencyCache:
    """Running executions, and finished ones for `seconds`, `max_bytes` together at most; the oldest is evicted first.
    Failed executions are not kept: a repeated request runs again."""

    def __init__(self, seconds: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._clock = clock
        self._running: dict[Key, _Entry] = {}
        self._ended: OrderedDict[Key, _Entry] = OrderedDict()
        self._bytes = 0

    def join(self, key: Key, request: ImageRequest) -> SharedExecution | None:
        """The execution of an earlier request with this key. Raises RequestIdReused where its content differs."""
        self._expire()
        entry = self._running.get(key) or self._ended.get(key)
        if entry is None or not (entry.work.running or entry.work.succeeded):
            return None
        if entry.request != request:
            raise RequestIdReused.field(
                "request_id",
                f"{request.request_id!r} was already used with different parameters (within {self._seconds:g} s)",
            )
        return entry.work

    def remember(self, key: Key, request: ImageRequest, work: SharedExecution) -> None:
        """Stores `work` for repeated requests with this key."""
        entry = _Entry(request, work)
        self._running[key] = entry
        work.on_end(lambda: self._on_end(key, entry))

    def _on_end(self, key: Key, entry: _Entry) -> None:
        if self._running.get(key) is entry:
            del self._running[key]
        if not entry.work.succeeded:
            return
        entry.ended_at = self._clock()
        entry.size = entry.work.size
        self._ended[key] = entry
        self._bytes += entry.size
        self._expire()

    def _expire(self) -> None:
        horizon = self._clock() - self._seconds
        while self._ended:
            key, entry = next(iter(self._ended.items()))
            if self._bytes <= self._max_bytes and (entry.ended_at or 0) > horizon:
                return
            del self._ended[key]
            self._bytes -= entry.size
