"""Laws of the engine's thread."""

import asyncio

import pytest

from runtime.errors import StageUnavailable
from runtime.work.device_thread import DeviceThread


def breaking() -> tuple[DeviceThread, list[bool]]:
    """An engine whose device is lost with a SystemError, and how often it has asked for the process's end."""
    engine, ended = DeviceThread("decoder"), []
    engine.is_fatal = lambda error: isinstance(error, SystemError)
    engine.on_fatal = lambda: ended.append(True)
    return engine, ended


def fail(error: Exception) -> None:
    raise error


async def test_only_an_error_that_the_device_cannot_recover_from_ends_the_process() -> None:
    engine, ended = breaking()
    with pytest.raises(ValueError, match="small"):
        await engine.run(fail, ValueError("small"))
    assert await engine.run(lambda: 1) == 1
    assert not ended
    with pytest.raises(StageUnavailable, match="decoder is unavailable") as caught:
        await engine.run(fail, SystemError("lost"))
    assert isinstance(caught.value.__cause__, SystemError)
    assert ended == [True]
    engine.close()


async def test_a_lost_device_ends_the_process_once_and_runs_nothing_more() -> None:
    engine, ended = breaking()
    ran: list[int] = []
    waiting = [engine.run(fail, SystemError("lost")) for _ in range(3)] + [engine.run(ran.append, 1)]
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [StageUnavailable] * 4
    with pytest.raises(StageUnavailable):
        await engine.run(ran.append, 2)
    assert (ended, ran) == ([True], [])
    engine.close()


async def test_work_that_came_too_late_does_not_hold_up_the_end() -> None:
    engine = DeviceThread()
    assert engine.close()
    with pytest.raises(RuntimeError):
        await engine.run(lambda: 1)
    assert not engine.busy
