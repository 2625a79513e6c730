"""A file that holds another text for a while, and gets its own back even after a kill."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from aimback.errors import UserError
from aimback.files import write_text
from pipelines.locks import locked


@contextlib.contextmanager
def replaced(file: Path, text: str, note: Path) -> Iterator[None]:
    """`file` holds `text` while the block runs; until it is put back, `note` keeps what it held before.

    Raises:
        UserError: another process has replaced it.
    """
    before = file.read_bytes().decode()
    try:
        with locked(note.with_suffix(".lock")):
            write_text(note, json.dumps({"before": before, "meanwhile": text}))
            try:
                write_text(file, text)
                yield
            finally:
                write_text(file, before)
                note.unlink()
    except BlockingIOError:
        raise UserError(f"{file.name}: another run has replaced it; let that end, then run again") from None


def put_back(file: Path, note: Path) -> bool:
    """Whether `file` had to be put back, since who replaced it is dead; an edit made since then stays."""
    if not note.exists():
        return False
    try:
        with locked(note.with_suffix(".lock")):
            texts = json.loads(note.read_text(encoding="utf-8"))
            is_left = bool(file.read_bytes().decode() == texts["meanwhile"])
            if is_left:
                write_text(file, texts["before"])
            note.unlink()
            return is_left
    except BlockingIOError:
        return False
