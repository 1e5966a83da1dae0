"""gateway.access.rate_limits: rate and concurrency limits per caller."""

import pytest

from gateway.access import rate_limits
from gateway.access.rate_limits import CallerLimits
from runtime.errors import Overloaded
from runtime.server.peers import host_of


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def take(limits: CallerLimits, caller: str) -> None:
    with limits.admit(caller):
        pass


def test_caller_has_its_burst_then_its_rate() -> None:
    clock = Clock()
    limits = CallerLimits(rate=2, burst=3, concurrency=0, clock=clock)
    for _ in range(3):
        take(limits, "a")
    with pytest.raises(Overloaded) as caught:
        take(limits, "a")
    assert caught.value.setting == "HART_CALLER_REQUESTS_PER_SECOND"
    assert caught.value.retry_after == pytest.approx(0.5)
    take(limits, "b")
    clock.now = 0.5
    take(limits, "a")
    with pytest.raises(Overloaded):
        take(limits, "a")
    clock.now = 1000
    for _ in range(3):
        take(limits, "a")
    with pytest.raises(Overloaded):
        take(limits, "a")


def test_no_limit_is_no_limit() -> None:
    limits = CallerLimits(rate=0, burst=1, concurrency=0)
    for _ in range(1000):
        take(limits, "a")


def test_concurrency_slot_is_released_after_a_failed_request() -> None:
    limits = CallerLimits(rate=0, burst=1, concurrency=1)

    def fail() -> None:
        with limits.admit("a"):
            with pytest.raises(Overloaded):
                take(limits, "a")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    take(limits, "a")


def test_number_of_tracked_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CALLERS", 10)
    limits = CallerLimits(rate=1, burst=1, concurrency=1)
    with limits.admit("busy"):
        for number in range(100):
            take(limits, str(number))
        assert len(limits._accounts) <= 11
        with pytest.raises(Overloaded):
            take(limits, "busy")


def test_anonymous_callers_are_limited_by_host() -> None:
    assert host_of("ipv4:10.0.0.7:51234") == "ipv4:10.0.0.7"
    assert host_of("ipv6:[::1]:51234") == "ipv6:[::1]"
    assert host_of("unix:/run/x") == "unix:/run/x"


def test_a_refusal_for_a_limit_of_the_caller_is_counted() -> None:
    refused: list[None] = []
    limits = CallerLimits(rate=1, burst=1, concurrency=1, clock=Clock(), on_refused=lambda: refused.append(None))
    with limits.admit("a"), pytest.raises(Overloaded):
        take(limits, "a")
    with pytest.raises(Overloaded):
        take(limits, "a")
    assert len(refused) == 2
