"""What has been simulated already, kept line by line, so that a killed run goes on where it was."""

import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from aimback.core.errors import UserError

_pack = struct.Struct("<d").pack


class Journal:
    """An append-only file of finished runs: a line each, with its case's key, its outcome or reason, and a checksum.

    A line is handed to the system whole and at once, so that a kill at any moment costs no finished run. What a power
    cut or a full disk has torn, and what was altered, is as if it had never been written. Two processes may append to
    the same file. Some 10 us to find a case, 20 us to enter one.

    Args:
        path: of the file; made if it is not there.
        identity: all that decides an outcome besides the case: the simulator's code and settings. What was entered
            under another identity is not found.

    Raises:
        UserError: the file cannot be read or written.
    """

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._salt = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            lines = path.read_bytes().split(b"\n")
            if lines[-1]:  # torn; the next line is to be one of its own
                self._append(b"\n")
        except OSError as error:
            raise UserError(f"{path}: cannot be opened ({error.strerror})") from error
        # The last entry of a case counts. Entries are parsed when they are asked for.
        self._entries = {line[:32]: line[33:-9] for line in lines if line[-8:] == _sum_up(line[:-9])}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def find(self, case: Mapping[str, float | np.ndarray]) -> list[float] | str | None:
        """The outcome of a case to the bit, or the reason why it failed; None where it has not been run."""
        content = self._entries.get(self._make_key(case))
        found: list[float] | str | None = None if content is None else json.loads(content)
        return found

    def enter(self, case: Mapping[str, float | np.ndarray], outcome: Sequence[float] | str) -> None:
        """Enter the outcome of a case, its numbers in one row, or the reason why it failed.

        Raises:
            UserError: the file cannot be written.
        """
        key = self._make_key(case)
        content = outcome if isinstance(outcome, str) else [float(number) for number in outcome]
        self._entries[key] = entry = json.dumps(content).encode()
        line = key + b" " + entry
        try:
            self._append(line + b" " + _sum_up(line) + b"\n")
        except OSError as error:
            raise UserError(
                f"{self._path}: cannot be written ({error.strerror}); see to that, then run again"
            ) from error

    def close(self) -> None:
        """Release the file."""
        os.close(self._file)

    def _append(self, line: bytes) -> None:
        while line:  # a disk that is almost full takes a part, and then refuses
            line = line[os.write(self._file, line) :]

    def _make_key(self, case: Mapping[str, float | np.ndarray]) -> bytes:
        """32 hexadecimal digits of the identity and the exact bytes of a case, in whatever order its names are."""
        parts = [self._salt]
        for name, value in sorted(case.items()):
            # What stands before the bytes tells how many they are, so that no two cases give the same row of them.
            if isinstance(value, np.ndarray):
                parts += (f"{name}\0{value.dtype.str}{value.shape}".encode(), value.tobytes())
            else:
                parts += (f"{name}\0number".encode(), _pack(value))
        return blake2b(b"".join(parts), digest_size=16).hexdigest().encode()


def _sum_up(line: bytes) -> bytes:
    return b"%08x" % zlib.crc32(line)
