"""Rate and concurrency limits per caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from runtime.errors import HartError, Overloaded
from runtime.observability import logs
from runtime.server.call_scope import CallInfo
from runtime.server.peers import host_of, network_of

MAX_CALLERS = 10_000  # remembered; the longest idle one is evicted first
GENERATE, DESCRIBE = "hart.v1.Images/Generate", "hart.v1.Images/Describe"
LIMITED = frozenset({GENERATE, "hart.v1.Images/GenerateStream"})
current: ContextVar[str] = ContextVar("caller", default="")
"""The authenticated caller of the current call; "" for an anonymous one."""


@dataclass
class _Account:
    tokens: float
    at: float
    running: int = 0


class CallerLimits:
    """A guard: per caller a token bucket (`rate` per second, `burst` at once) and a maximum of ongoing requests.

    0 disables a limit. An anonymous caller counts by its network address. `on_refused()` counts a refusal.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        concurrency: int,
        clock: Callable[[], float] = time.monotonic,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._concurrency = concurrency
        self._clock = clock
        self._on_refused = on_refused
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @asynccontextmanager
    async def __call__(self, call: CallInfo) -> AsyncIterator[None]:
        """Limits a call. Describe and Status are not limited."""
        if call.method not in LIMITED:
            yield
            return
        with ExitStack() as stack:
            try:
                stack.enter_context(self.admit(current.get() or network_of(call.context.peer())))
            except Overloaded as error:
                rejected(call, error)
                raise
            yield

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Counts a request of the caller until the block ends. Raises Overloaded naming the setting."""
        account = self._account(caller)
        if self._concurrency and account.running >= self._concurrency:
            self._on_refused()
            raise Overloaded("gateway", "HART_CALLER_CONCURRENCY", 1.0, message="your concurrency limit is reached")
        if self._rate:
            if account.tokens < 1:
                self._on_refused()
                wait = (1 - account.tokens) / self._rate
                raise Overloaded(
                    "gateway", "HART_CALLER_REQUESTS_PER_SECOND", wait, message="your request rate limit is exceeded"
                )
            account.tokens -= 1
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1

    def _account(self, caller: str) -> _Account:
        now = self._clock()
        account = self._accounts.pop(caller, None) or _Account(self._burst, now)
        account.tokens = min(self._burst, account.tokens + (now - account.at) * self._rate)
        account.at = now
        self._accounts[caller] = account
        if len(self._accounts) > MAX_CALLERS:
            idle = next((name for name, one in self._accounts.items() if not one.running), None)
            if idle is not None:
                del self._accounts[idle]
        return account


def rejected(call: CallInfo, error: HartError) -> None:
    """Writes the audit line of a request that a guard refused. The executor writes those of admitted requests."""
    if call.method in LIMITED:
        host = host_of(call.context.peer())
        logs.audit("generate", caller=current.get(), host=host, code=f"{error.code.name}/{error.reason}")
