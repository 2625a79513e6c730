"""A file that is replaced for a while has its own text back after success, failure and a kill."""

import subprocess
import sys
from pathlib import Path

import pytest

from aimback.errors import UserError
from pipelines.ending import ROOT
from pipelines.replaced import put_back, replaced

OWN = "own: ä\r\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_bytes(OWN.encode())
    return tmp_path / "a.yaml"


def test_it_is_put_back_after_success_and_failure(file: Path) -> None:
    note = file.with_name("note.json")
    with replaced(file, "other", note):
        assert file.read_text() == "other"
        assert not put_back(file, note)  # who replaced it is alive
        with pytest.raises(UserError, match=r"a.yaml: another run"), replaced(file, "third", note):
            raise AssertionError
    assert file.read_bytes() == OWN.encode()
    with pytest.raises(KeyError), replaced(file, "other", note):
        raise KeyError
    assert file.read_bytes() == OWN.encode()
    assert not note.exists() and not put_back(file, note)


@pytest.mark.parametrize(("edited", "ends_as"), [(None, OWN), ("by hand", "by hand")])
def test_it_is_put_back_after_a_kill_unless_it_was_edited(file: Path, edited: str | None, ends_as: str) -> None:
    note = file.with_name("note.json")
    code = "import sys, os; from pathlib import Path; from pipelines.replaced import replaced\n"
    code += "with replaced(Path(sys.argv[1]), 'other', Path(sys.argv[2])): os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", code, str(file), str(note)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    assert file.read_text() == "other"
    if edited is not None:
        file.write_text(edited)
    assert put_back(file, note) == (edited is None)
    assert file.read_bytes() == ends_as.encode()
    assert not put_back(file, note)
