"""The command by which a container engine asks for a process's health."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.runtime.support import Running

ROOT = Path(__file__).resolve().parents[3]


async def test_a_containers_health_is_that_of_its_service(launch: Any) -> None:
    running: Running = await launch()

    async def check(address: str, service: str) -> tuple[int, str]:
        words = [sys.executable, "-m", "runtime.server.check", address, service]
        process = await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=subprocess.PIPE)
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    address = f"127.0.0.1:{running.app.port}"
    assert (await check(address, ""))[0] == 0
    code, said = await check(address, "hart.v1.Unknown")
    assert code == 1
    assert "hart.v1.Unknown" in said
    assert (await check("127.0.0.1:1", ""))[0] == 1
