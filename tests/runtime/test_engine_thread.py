"""Laws of the engine's thread."""

import pytest

from runtime.engine import EngineThread


async def test_only_an_error_that_the_device_cannot_recover_from_ends_the_process() -> None:
    engine, ended = EngineThread(), []
    engine.is_fatal = lambda error: isinstance(error, SystemError)
    engine.on_fatal = lambda: ended.append(True)

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(ValueError, match="small"):
        await engine.run(fail, ValueError("small"))
    assert not ended
    with pytest.raises(SystemError):
        await engine.run(fail, SystemError("lost"))
    assert await engine.run(lambda: 1) == 1  # by now the callback of the one before has run
    assert ended == [True]
    engine.close()


async def test_work_that_came_too_late_does_not_hold_up_the_end() -> None:
    engine = EngineThread()
    assert engine.close()
    with pytest.raises(RuntimeError):
        await engine.run(lambda: 1)
    assert not engine.busy
