"""Who calls, and how much one caller may ask. Knows no credentials and no pictures."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from runtime.errors import HartError, Overloaded
from runtime.observability import logs
from runtime.server.interceptor import CallInfo
from runtime.server.peers import host_of, network_of

MAX_CALLERS = 10_000  # remembered; the one that was quiet the longest is forgotten first
LIMITED = frozenset({"hart.v1.Images/Generate", "hart.v1.Images/GenerateStream"})
current: ContextVar[str] = ContextVar("caller", default="")
"""The name of the caller of the current call; "" where nobody proves who they are."""


@dataclass
class _Account:
    tokens: float
    at: float
    running: int = 0


class CallerLimits:
    """A guard: a token bucket (`rate` per second, `burst` at once) and a bound on requests in work, per caller.

    `rate` 0 and `concurrency` 0 are no limit. A caller without a name counts by the address it calls from.
    """

    def __init__(self, rate: float, burst: int, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._concurrency = concurrency
        self._clock = clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @asynccontextmanager
    async def __call__(self, call: CallInfo) -> AsyncIterator[None]:
        """Surround a call; Describe and Status are free."""
        if call.method not in LIMITED:
            yield
            return
        with ExitStack() as place:
            try:
                place.enter_context(self.admit(current.get() or network_of(call.context.peer())))
            except Overloaded as error:
                rejected(call, error)
                raise
            yield

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Hold a place of the caller's. Raises Overloaded naming the setting that refuses."""
        record = self._account(caller)
        if self._concurrency and record.running >= self._concurrency:
            raise Overloaded("gateway", "HART_CALLER_CONCURRENCY", 1.0, message="too many requests of yours in work")
        if self._rate:
            if record.tokens < 1:
                wait = (1 - record.tokens) / self._rate
                raise Overloaded("gateway", "HART_CALLER_REQUESTS_PER_SECOND", wait, message="your rate is too high")
            record.tokens -= 1
        record.running += 1
        try:
            yield
        finally:
            record.running -= 1

    def _account(self, caller: str) -> _Account:
        now = self._clock()
        record = self._accounts.pop(caller, None) or _Account(self._burst, now)
        record.tokens = min(self._burst, record.tokens + (now - record.at) * self._rate)
        record.at = now
        self._accounts[caller] = record
        if len(self._accounts) > MAX_CALLERS:
            idle = next((name for name, one in self._accounts.items() if not one.running), None)
            if idle is not None:
                del self._accounts[idle]
        return record


def rejected(call: CallInfo, error: HartError) -> None:
    """The audit line of a request that a guard refuses; of one that it lets in, the servicer writes it."""
    if call.method in LIMITED:
        host = host_of(call.context.peer())
        logs.audit("generate", caller=current.get(), host=host, code=f"{error.code.name}/{error.reason}")
