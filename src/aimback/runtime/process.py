"""Processes, named so that another one can tell whether they still live."""

import os
import socket
from pathlib import Path

import psutil

_PROC = Path("/proc")


def this_process() -> str:
    """Names this process for `lives`: its host, its number, and when it began."""
    return f"{socket.gethostname()} {os.getpid()} {_beginning(os.getpid())}"


def lives(process: str) -> bool:
    """Whether the process that `this_process` named lives; another host's is believed to."""
    try:
        host, pid, beginning = process.split()
        return host != socket.gethostname() or _beginning(int(pid)) == beginning
    except ValueError:
        return False


def _beginning(pid: int) -> str | None:
    """When a process began, in a word; None where there is none, or one that has ended and is only not yet reaped."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _time_of_beginning(pid)
    # A time of day would not do: Linux works it out from the clock, so that it moves when the clock is set.
    try:
        # The second field is the program's name, which may hold spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    state, ticks = fields[0].decode(), fields[19].decode()
    return None if state in "ZX" else f"{boot}/{ticks}"


def _time_of_beginning(pid: int) -> str | None:
    """The same for systems without /proc, which note the time itself when a process begins."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None
