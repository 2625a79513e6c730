"""Files that are either whole or not there, and checksums to notice damage."""

import contextlib
import csv
import errno
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from aimback.core.errors import UserError


@contextlib.contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` in one step.

    The temporary lies in the same folder, so the final rename never crosses file systems. It is
    flushed to disk first. If anything fails, `path` is left as it was and the temporary is removed.

    Raises:
        UserError: the disk is full, the file is larger than allowed, or the folder cannot be written.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_read_umask())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            had = temporary.stat().st_size if temporary is not None else 0
            free = _format_size(had + _count_free_bytes(path.parent))
            raise UserError(
                f"{path}: no space left on the disk: more than the {free} that were free; free some and run again"
            ) from error
        if error.errno == errno.EFBIG:
            raise UserError(
                f"{path}: larger than a file may be here; raise that limit (ulimit -f) and run again"
            ) from error
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path, size: int = 0) -> None:
    """Make `folder` if it is not there, and try to write in it: sooner than after an hour's work.

    Args:
        size: so many bytes shall come to lie there.

    Raises:
        UserError: that cannot be done, or there is no space for so many.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    if (free := _count_free_bytes(folder)) < size:
        raise UserError(
            f"{folder}: no space left on the disk: {_format_size(size)} are needed, {_format_size(free)} are free"
        )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with write_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _count_free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _format_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _read_umask() -> int:
    # os has no getter; tempfile makes files 0600, and an output should have the usual permissions.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())
