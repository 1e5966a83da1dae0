"""A fork server: it imports the stages' modules once and forks a process for each that is started.

    python -P cluster/fork_server.py FOLDER MODULE...

It runs in the checkout's folder and listens at FOLDER/fork.sock. `cluster.forked` is its client. Four processes that
import torch by themselves take four times the import's time and memory; forked ones share both. Standard library only,
for what it imports itself is in every stage.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

SOCKET = "fork.sock"
MAX_REQUEST_BYTES = 1 << 20
STDIO = 3


@dataclass(frozen=True)
class Start:
    """What a client asks for: a module to run as `python -m` does, in the client's environment, with its streams."""

    module: str
    environment: dict[str, str]
    streams: list[int]

    @classmethod
    def receive(cls, connection: socket.socket) -> Start:
        """Read one request. Raises ValueError for anything else."""
        streams = array.array("i")
        room = socket.CMSG_SPACE(STDIO * streams.itemsize)
        data, ancillary, _, _ = connection.recvmsg(MAX_REQUEST_BYTES, room)
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                streams.frombytes(content[: len(content) - len(content) % streams.itemsize])
        while data and not data.endswith(b"\n"):
            data += connection.recv(MAX_REQUEST_BYTES)
        wanted = json.loads(data)
        if len(streams) != STDIO:
            raise ValueError(f"a request has {len(streams)} file descriptors: expected {STDIO}")
        return cls(wanted["module"], wanted["environment"], list(streams))

    def enter(self) -> str:
        """Turn this process into the one that was asked for. Returns the module to run."""
        for target, stream in enumerate(self.streams):
            os.dup2(stream, target)
            os.close(stream)
        os.environ.clear()
        os.environ.update(self.environment)
        return self.module


class ForkServer:
    """Accepts requests and forks. Single-threaded, because a fork copies only the thread that calls it."""

    def __init__(self, listener: socket.socket, modules: list[str]) -> None:
        self._listener, self._cold = listener, modules
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        self._waiting: list[tuple[socket.socket, Start]] = []
        self._running: dict[int, socket.socket] = {}
        self._closing = False
        self._wake, ours = socket.socketpair()
        ours.setblocking(False)
        self._wake.setblocking(False)
        self._signals = ours
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(ours.fileno())

    def serve(self) -> Start | None:
        """Fork for every request. Returns in each child what it is to run; in the server None, after SIGTERM and the
        end of every child."""
        while not self._closing or self._running:
            events = self._selector.select(0 if self._cold or self._waiting else None)
            for key, _ in events:
                key.data(key.fileobj)
            self._reap()
            for connection, start in self._take():
                child = self._fork(connection, start)
                if child is not None:
                    return child
            if self._cold and not events:  # every request that has arrived is served before the next import
                _warm(self._cold.pop(0))
        return None

    def _take(self) -> list[tuple[socket.socket, Start]]:
        """The requests whose module is imported, or never will be."""
        ready = [one for one in self._waiting if one[1].module not in self._cold]
        self._waiting = [one for one in self._waiting if one not in ready]
        return ready

    def _fork(self, connection: socket.socket, start: Start) -> Start | None:
        gc.collect()
        gc.freeze()  # a collection in a child would write to every object, and so copy its page
        pid = os.fork()
        if pid:
            for stream in start.streams:
                os.close(stream)
            self._running[pid] = connection
            _send(connection, {"pid": pid})
            return None
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._selector.close()
        others = [*self._running.values(), *(one for one, _ in self._waiting)]
        for one in [self._listener, self._wake, self._signals, connection, *others]:
            one.close()
        for stream in (stream for _, other in self._waiting for stream in other.streams):
            os.close(stream)
        return start

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, self._read)

    def _read(self, connection: socket.socket) -> None:
        """A request, or the end of its client: its process ends with it."""
        known = connection in self._running.values() or any(one is connection for one, _ in self._waiting)
        if not known and not self._closing:
            with suppress(ValueError, KeyError, OSError):
                self._waiting.append((connection, Start.receive(connection)))
                return
        self._selector.unregister(connection)
        self._waiting = [one for one in self._waiting if one[0] is not connection]
        for pid in [pid for pid, one in self._running.items() if one is connection]:
            os.kill(pid, signal.SIGKILL)
        if connection not in self._running.values():
            connection.close()

    def _reap(self) -> None:
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                connection = self._running.pop(pid)
                _send(connection, {"code": os.waitstatus_to_exitcode(status)})
                with suppress(KeyError, ValueError):
                    self._selector.unregister(connection)
                connection.close()

    def _woken(self, wake: socket.socket) -> None:
        with suppress(BlockingIOError):
            wake.recv(4096)

    def _signalled(self, number: int, frame: Any) -> None:
        if number != signal.SIGCHLD:
            self._closing = True


def _warm(module: str) -> None:
    """Import what a stage needs: its package's `assembly`, if it has one. An error is left to the stage itself."""
    if not os.path.exists(os.path.join(*module.split("."), "assembly.py")):
        return
    try:
        importlib.import_module(f"{module}.assembly")
    except Exception:
        traceback.print_exc()


def _send(connection: socket.socket, message: dict[str, int]) -> None:
    with suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def _listen(folder: str) -> socket.socket:
    """A socket that only this user can reach. Its path is short, as unix sockets require: relative to its folder."""
    home = os.getcwd()
    os.chdir(folder)
    with suppress(FileNotFoundError):
        os.unlink(SOCKET)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    listener.bind(SOCKET)
    os.umask(mask)
    listener.listen(64)
    os.chdir(home)
    return listener


def main() -> None:
    """Serve; in a child, run its module."""
    folder, *modules = sys.argv[1:]
    sys.path.insert(0, os.getcwd())
    start = ForkServer(_listen(folder), modules).serve()
    if start is not None:
        module = start.enter()
        sys.argv = [module]
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
