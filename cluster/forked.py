"""Stands for a process that the fork server runs: it passes signals on and ends with it, with its exit code.

    python -I -S cluster/forked.py FOLDER MODULE

Where no fork server answers, it becomes `python -m MODULE`. It imports few modules, because one runs for each stage.
"""

import array
import json
import os
import select
import signal
import socket
import sys
import time

SOCKET = "fork.sock"
CONNECT_SECONDS = 5.0
"""The fork server listens before it imports anything."""


def connect(folder: str) -> socket.socket | None:
    """A connection to the fork server; None if none answers."""
    deadline = time.monotonic() + CONNECT_SECONDS
    home = os.getcwd()
    while time.monotonic() < deadline:
        connection = socket.socket(socket.AF_UNIX)
        try:
            os.chdir(folder)  # paths of unix sockets are short
            connection.connect(SOCKET)
            return connection
        except OSError:
            connection.close()
            time.sleep(0.05)
        finally:
            os.chdir(home)
    return None


def ask(connection: socket.socket, module: str) -> None:
    """Ask for the module in this environment, with these standard streams."""
    request = json.dumps({"module": module, "environment": dict(os.environ)}).encode() + b"\n"
    streams = array.array("i", [0, 1, 2])
    sent = connection.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)])
    connection.sendall(request[sent:])


def follow(connection: socket.socket) -> int:
    """Pass signals on until the process ends. Returns its exit code; 1 if the fork server ended before it."""
    early: list[int] = []
    process: list[int] = []

    def forward(number: int, frame: object) -> None:
        if process:
            os.kill(process[0], number)
        else:
            early.append(number)

    for awaited in (signal.SIGTERM, signal.SIGINT):
        signal.signal(awaited, forward)
    for line in connection.makefile("rb"):
        message = json.loads(line)
        if "code" in message:
            code = int(message["code"])
            return code if code >= 0 else 128 - code
        process.append(message["pid"])
        for number in early:
            os.kill(process[0], number)
    if process:
        _await_end(process[0])
    return 1


def _await_end(pid: int) -> None:
    """Return when a process that is not a child has ended."""
    try:
        handle = os.pidfd_open(pid)
    except (AttributeError, OSError):  # no Linux, or it has ended
        return
    select.select([handle], [], [])


def main() -> None:
    """Run the command."""
    folder, module = sys.argv[1:]
    connection = connect(folder)
    if connection is None:
        os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606 - the command that it stands for
    ask(connection, module)
    sys.exit(follow(connection))


if __name__ == "__main__":
    main()
