"""Locks, also where there are none."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimback.runtime.locks import hold_lock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_a_file_system_knows_no_locks_the_work_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    with hold_lock(tmp_path / "lock"), hold_lock(tmp_path / "lock"):
        pass
    assert capsys.readouterr().err.count("this file system knows no locks") == 2


def test_other_errors_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), hold_lock(tmp_path / "lock"):
        pass


def test_what_is_held_is_refused_to_others_until_its_holder_has_ended(tmp_path: Path) -> None:
    code = "import sys\nfrom pathlib import Path\nfrom aimback.runtime.locks import hold_lock\n"
    code += "with hold_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    input()\n"
    pipe, file = subprocess.PIPE, tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=pipe, stdout=pipe) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError), hold_lock(file):
            pass
        holder.kill()
    with hold_lock(file):
        pass
