"""The lifecycle of a process: settings, logs, signals, graceful shutdown. It imports no service."""

from __future__ import annotations

import argparse
import asyncio
import io
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from common.version import VERSION
from runtime.observability import logs
from runtime.observability.telemetry import Telemetry
from runtime.server.app import App
from runtime.server.side_port import PortTaken
from runtime.settings import ProcessSettings, SettingsError

log = logging.getLogger(__name__)
Build = Callable[[App], None]
S = TypeVar("S", bound=ProcessSettings)
USAGE = 2


def run(kind: type[S], stage: str, build: Callable[[App, S], None]) -> NoReturn:
    """Run `serve` with the settings of this environment. An invalid setting or a command-line argument prints a line on
    stderr and exits with code 2. `--help` prints the settings."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # an ASCII console prints other characters as escapes
        sys.stdout.reconfigure(errors="backslashreplace")
    package = kind.__module__.rpartition(".")[0]
    argparse.ArgumentParser(
        prog=f"python -m {package}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{sys.modules[package].__doc__}\nAll settings are environment variables.",
        epilog=kind.help_text(),
    ).parse_args()
    try:
        settings = kind.load()
    except SettingsError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        sys.exit(USAGE)
    serve(settings, stage, lambda app: build(app, settings))


def serve(settings: ProcessSettings, stage: str, build: Build) -> NoReturn:
    """Run `stage` until SIGTERM or SIGINT, then drain and exit 0. A second signal exits at once. Exits 1 if the start
    fails, 2 on a SettingsError (one line on stderr). `build(app)` assembles the service and must return quickly: load
    weights in `app.on_start`."""
    logs.configure(stage, settings.log_level)
    log.info("settings", extra={"settings": settings.effective(), "version": VERSION})
    for variable, nearest in settings.unknown().items():
        log.warning("unknown setting %s%s", variable, f": did you mean {nearest}?" if nearest else "")
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        code, free = runner.run(_live(settings, stage, build))
        if not free:  # the device thread cannot be interrupted and would block the interpreter's exit
            _leave(code)
    sys.exit(code)


async def _live(settings: ProcessSettings, stage: str, build: Build) -> tuple[int, bool]:
    telemetry = Telemetry(
        stage,
        otlp_endpoint=settings.otlp_endpoint,
        otlp_metrics=settings.otlp_metrics,
        otlp_logs=settings.otlp_logs,
        trace_ratio=settings.trace_ratio,
        version=VERSION,
    )
    app = App(settings, stage, telemetry)
    terminated = _signals()
    code = 0
    try:
        build(app)
        start = asyncio.create_task(app.start())
        end = asyncio.create_task(terminated.wait())
        await asyncio.wait({start, end}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            await end
        await app.drain(settings.drain_seconds)
        start.cancel()
    except SettingsError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        code = USAGE
    except PortTaken as error:
        log.error("%s", error)
        code = 1
    except Exception:
        log.exception("the start failed")
        code = 1
    free = await app.stop()
    log.info("ended", extra={"exit_code": code})
    return code, free


def _signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets. A second signal exits the process at once."""
    terminated = asyncio.Event()

    def on_signal(number: int) -> None:
        if terminated.is_set():
            log.warning("second signal: exiting at once")
            _leave(128 + number)
        terminated.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return terminated


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform: the standard loop works, but is slower
        return None
    return uvloop.new_event_loop
