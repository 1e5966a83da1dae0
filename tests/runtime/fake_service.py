"""A fake decoder as a real process, for tests with signals: `python -m tests.runtime.fake_service`. Each batch takes
HART_SECONDS; pids and ports are in its log."""

from __future__ import annotations

import time
from typing import Any

from hart.v1 import decoder_pb2_grpc

from runtime.server.app import App
from runtime.server.process import serve
from runtime.settings import ProcessSettings
from tests.runtime.support import Servicer


class FakeSettings(ProcessSettings):
    seconds: float = 0.0
    """Seconds per batch."""
    load_seconds: float = 0.0
    """Seconds to load the weights."""
    lost_at: int = 0
    """Number of ongoing calls at which the first batch reports a lost device; 0: never."""


def main() -> None:
    settings = FakeSettings.load()

    def build(app: App) -> None:
        def run(latents: Any) -> list[float]:
            time.sleep(settings.seconds)
            if settings.lost_at:
                while app._interceptor.working < settings.lost_at:
                    time.sleep(0.01)
                raise SystemError("lost")
            return [float(x.sum()) for x in latents]

        app.device_thread.is_fatal = lambda error: isinstance(error, SystemError)
        app.on_start(lambda: app.device_thread.run(time.sleep, settings.load_seconds))
        batcher = app.batcher(run, queue_limit=64, max_batch=2)
        app.add(decoder_pb2_grpc.add_DecoderServicer_to_server, Servicer(batcher))

    serve(settings, "decoder", build)


if __name__ == "__main__":
    main()
