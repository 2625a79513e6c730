"""A file is whole or not there."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimback.core.errors import UserError
from aimback.core.files import check_writable, sha256, write_text, write_whole

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "grün\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "grün\n".encode()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_has_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_failure_keeps_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(RuntimeError), write_whole(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EFBIG, "larger than a file may be"),
        *((code, "cannot be written") for code in (errno.EROFS, errno.EMFILE)),
    ],
)
def test_a_full_or_closed_disk_is_told_in_words(tmp_path: Path, code: int, message: str) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    with pytest.raises(UserError, match=f"a.txt: {message}"), write_whole(file) as temporary:
        temporary.write_text("half")
        raise OSError(code, os.strerror(code))
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_really_full_disk(tmp_path: Path) -> None:
    """/dev/full refuses every byte."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(UserError, match="no space left"), write_whole(tmp_path / "a") as temporary:
        temporary.unlink()
        temporary.symlink_to(full)
        temporary.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_limit_of_the_size_of_files(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path; from aimback.core.errors import UserError\n"
        "from aimback.core.files import write_text; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try: write_text(Path(sys.argv[1]), 'x' * 1000)\n"
        "except UserError as error: print(error)\n"
    )
    call = [sys.executable, "-c", program, str(tmp_path / "a")]
    said = subprocess.run(call, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    assert "a: larger than a file may be here" in said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/folder: cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "folder")
    # Not even root writes there.
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(Path("/proc/self" if Path("/proc/self").exists() else "/"))


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 10**6)
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abc" * 10**6).hexdigest()
