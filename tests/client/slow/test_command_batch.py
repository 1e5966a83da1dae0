"""hart.cli.batch, hart.cli.grid: `hart generate --file`, many prompts into a grid or separate files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.client.command import COMMAND
from tests.client.conftest import Gateway


def test_prompts_are_read_from_standard_input(gateway: Gateway, tmp_path: Path) -> None:
    found = subprocess.run(
        [*COMMAND, "generate", "--file", "-", "-o", "grid.png"],
        env={**os.environ, "HART_ENDPOINT": gateway.endpoint},
        cwd=tmp_path,
        input=b"one\ntwo\n",
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr
    assert {request.prompt for request in gateway.requests} == {"one", "two"}
