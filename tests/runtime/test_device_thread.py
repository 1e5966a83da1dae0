"""runtime.work.device_thread: fatal errors and closing."""

import asyncio

import pytest

from runtime.errors import StageUnavailable
from runtime.work.device_thread import DeviceThread


def device_thread_with_ends() -> tuple[DeviceThread, list[bool]]:
    """A device thread for which SystemError is fatal, and a list with one entry per `on_fatal`."""
    device, ended = DeviceThread("decoder"), []
    device.is_fatal = lambda error: isinstance(error, SystemError)
    device.on_fatal = lambda: ended.append(True)
    return device, ended


def fail(error: Exception) -> None:
    raise error


async def test_only_a_fatal_device_error_ends_the_process() -> None:
    device, ended = device_thread_with_ends()
    with pytest.raises(ValueError, match="small"):
        await device.run(fail, ValueError("small"))
    assert await device.run(lambda: 1) == 1
    assert not ended
    with pytest.raises(StageUnavailable, match="decoder is unavailable") as caught:
        await device.run(fail, SystemError("lost"))
    assert isinstance(caught.value.__cause__, SystemError)
    assert ended == [True]
    device.close()


async def test_lost_device_ends_the_process_once_and_runs_nothing_more() -> None:
    device, ended = device_thread_with_ends()
    ran: list[int] = []
    waiting = [device.run(fail, SystemError("lost")) for _ in range(3)] + [device.run(ran.append, 1)]
    failures = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(failure) for failure in failures] == [StageUnavailable] * 4
    with pytest.raises(StageUnavailable):
        await device.run(ran.append, 2)
    assert (ended, ran) == ([True], [])
    device.close()


async def test_run_after_close_raises_and_leaves_the_thread_idle() -> None:
    device = DeviceThread()
    assert device.close()
    with pytest.raises(RuntimeError):
        await device.run(lambda: 1)
    assert not device.busy
