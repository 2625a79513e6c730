"""Stages that start at once: copies of a process in which PyTorch has been imported already.

DVC runs every stage as a process of its own, and most of them take longer to import PyTorch than to work. While
`aimback` runs it keeps one process that has done so. A stage hands its arguments, environment and streams to a fork of
that one, passes on the signals it gets, and ends as the fork ends. Where there is no such process, as under a plain
`dvc repro`, a stage does its work itself. No code of ours is imported beforehand: it may be edited meanwhile.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import secrets
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from aimback import HOME
from aimback.runtime.orphan import end
from aimback.runtime.project import IS_CHECKOUT, ROOT

_PLACE = "AIMBACK_PRELOADED"
_LIBRARIES = ("torch", "numpy", "yaml", "pydantic", "hydra", "omegaconf", "safetensors.torch")
_HEADER = struct.Struct("Q")


@contextlib.contextmanager
def preload() -> Iterator[dict[str, str]]:
    """Keep such a process while the block runs. -> what the environment of the stages must hold to find it."""
    # Elsewhere a fork of so many libraries is not safe; and the stages of another checkout have code of their own.
    if sys.platform != "linux" or (IS_CHECKOUT and ROOT != HOME):
        yield {}
        return
    name = f"aimback-{secrets.token_hex(16)}"
    # In a session of its own: Ctrl-C is for the stages, which pass it on.
    command = [sys.executable, "-m", "aimback.runtime.preload", name]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True):
        yield {_PLACE: f"{name}:{ROOT}"}


def hand_over() -> None:
    """Have the work of this process done by a fork of the preloaded one, and end as that ends; if there is one."""
    name, _, root = os.environ.get(_PLACE, "").partition(":")
    if root != str(ROOT):
        return
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"\0{name}")
        if not _is_ours(connection):
            return
        _, _, module, *arguments = sys.orig_argv[sys.orig_argv.index("-m") - 1 :]
        order = {
            "module": module,
            "arguments": arguments,
            "folder": str(Path.cwd()),
            "path": sys.path,
            "environment": dict(os.environ),
        }
        content = json.dumps(order).encode()
        socket.send_fds(connection, [_HEADER.pack(len(content))], [0, 1, 2])
        connection.sendall(content)
    except OSError:
        return  # it has ended, or one of our streams is closed
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    code = b""
    with contextlib.suppress(OSError):  # a fork that was killed
        code = connection.recv(1)
    os._exit(code[0] if code else 128 + signal.SIGKILL)


def _is_ours(connection: socket.socket) -> bool:
    """Whether the other end is a process of this user."""
    sizes = struct.Struct("3i")
    _, user, _ = sizes.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, sizes.size))
    return bool(user == os.getuid())


def main() -> None:
    """Serve stages until whoever started this has ended."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{sys.argv[1]}")
    listener.listen()
    for library in _LIBRARIES:
        importlib.import_module(library)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks, their stages do
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if _is_ours(connection) and os.fork() == 0:
            listener.close()
            _work(connection)
            return
        connection.close()


def _work(connection: socket.socket) -> None:
    """Do what a stage was called for, as if this process had been called for it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, _HEADER.size, 3)
    (missing,) = _HEADER.unpack(header)
    content = b""
    while missing and (part := connection.recv(missing)):
        content += part
        missing -= len(part)
    order = json.loads(content)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    sys.path[:], sys.argv[1:] = order["path"], order["arguments"]
    code, over = 1, threading.Event()
    threading.Thread(target=_follow, args=(connection, over), daemon=True).start()

    @atexit.register  # before all others, so it is called after them, when all has been printed
    def tell() -> None:
        over.set()
        with contextlib.suppress(OSError):  # a stage that was killed
            connection.sendall(bytes([code & 0xFF]))

    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise


def _follow(connection: socket.socket, over: threading.Event) -> None:
    """Take the signals that the stage passes on, and end where it has ended first."""
    told = None
    with contextlib.suppress(OSError):
        while number := connection.recv(1):
            (told,) = number
            os.kill(os.getpid(), told)
    if not over.is_set():
        end(at_once=told == signal.SIGTERM)


if __name__ == "__main__":
    main()
