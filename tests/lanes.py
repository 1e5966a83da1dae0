"""Two lanes. A test's folder or fixtures put it into the long lane; all others are in the short lane, `make check`.

A test of the short lane starts no process, waits for no clock and loads no bundled checkpoint. A test that starts a
process or sleeps fails there; the message names the folder that it belongs to.
"""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LONG_FOLDERS = {"cluster", "drills", "e2e", "k8s", "kernels", "slow"}
"""Rooms that are tested by processes and compilers, and the folder `slow` of every other room."""
LONG_FIXTURES = {"bundled_pipeline"}
PROCESSES = {"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.exec", "os.system"}
"""Audit events (Python's documentation: "Audit events table")."""
ALLOWED = ("git",)
"""Programs that tests of the repository itself ask for its files."""
MAX_SLEEP = 0.1
"""Seconds of one `time.sleep` in the short lane."""
MARKER = "long: starts processes, waits or loads the bundled checkpoint; chosen by folder and fixture"


def is_long(item: pytest.Item) -> bool:
    """Whether the test is in the long lane."""
    folders = item.path.relative_to(TESTS).parts[:-1]
    return not LONG_FOLDERS.isdisjoint(folders) or not LONG_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


class ShortLane:
    """Fails a test of the short lane that starts a process or sleeps."""

    def __init__(self) -> None:
        self.test: str | None = None
        """The test that runs now, if it is in the short lane."""
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.test is None:
            return
        if event in PROCESSES and arguments[0] not in ALLOWED:
            what = "starts a process"
        elif event == "time.sleep" and isinstance(seconds := arguments[0], int | float) and seconds > MAX_SLEEP:
            what = f"sleeps for {seconds} s"
        else:
            return
        pytest.fail(f"{self.test} {what}: move it to the folder `slow` of its room, out of the short lane")
