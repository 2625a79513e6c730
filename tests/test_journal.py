"""What has been simulated is found again, to the bit; what is damaged or belongs to something else is not."""

import math
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aimback.core.errors import UserError
from aimback.simulators.journal import Journal


def cases(count: int) -> list[dict[str, float | np.ndarray]]:
    return [{"speed": x / 7, "angle": 0.1} for x in range(count)]


def fill(path: Path, count: int) -> None:
    with Journal(path, "a") as journal:
        for case in cases(count):
            journal.enter(case, [case["speed"], 1 / 3])  # type: ignore[list-item]


def count_found(path: Path, count: int, identity: str = "a") -> int:
    """How many of the cases are found; each that is must be right."""
    found = 0
    with Journal(path, identity) as journal:
        for case in cases(count):
            outcome = journal.find(case)
            assert outcome in (None, [case["speed"], 1 / 3])
            found += outcome is not None
    return found


@settings(max_examples=50)
@given(
    outcome=st.one_of(
        st.lists(st.floats(), max_size=5), st.text(st.characters(), max_size=20), st.just("line\nbreak \udcff")
    )
)
def test_outcomes_and_reasons_come_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, outcome: object) -> None:
    path = tmp_path_factory.mktemp("journal") / "runs"
    case = {"x": 0.1}
    for _ in range(2):
        with Journal(path, "a") as journal:
            journal.enter(case, outcome)  # type: ignore[arg-type]
            here = journal.find(case)
        with Journal(path, "a") as journal:
            again = journal.find(case)
        for found in (here, again):
            if isinstance(outcome, list):
                assert isinstance(found, list)
                assert np.array(found).tobytes() == np.array(outcome, dtype=float).tobytes() or any(
                    map(math.isnan, outcome)
                )
                assert np.array_equal(np.array(found), np.array(outcome, dtype=float), equal_nan=True)
            else:
                assert found == outcome


def test_a_case_is_its_names_and_its_exact_numbers(tmp_path: Path) -> None:
    field = np.arange(6.0)
    with Journal(tmp_path / "runs", "a") as journal:
        journal.enter({"x": 0.1, "y": 2.0, "field": field}, [1.0])
        assert journal.find({"field": field.copy(), "y": np.float64(2), "x": 0.1}) == [1.0]
        others = [
            {"x": 0.1, "y": 2.0},
            {"x": 0.1, "y": 2.0, "field": field.reshape(2, 3)},
            {"x": 0.1, "y": 2.0, "field": field.astype("float32")},
            {"x": 0.1, "y": 2.0, "field": field[::-1]},
            {"x": math.nextafter(0.1, 1), "y": 2.0, "field": field},
            {"x": 2.0, "y": 0.1, "field": field},
        ]
        assert [journal.find(other) for other in others] == [None] * 6
        assert journal.find({"x": 0.0}) == journal.find({"x": -0.0}) is None


def test_another_identity_finds_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "runs", 5)
    assert count_found(tmp_path / "runs", 5, "b") == 0
    assert count_found(tmp_path / "runs", 5) == 5


def test_a_torn_line_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    fill(path, 3)
    whole = path.read_bytes()
    ends = [0, *(place + 1 for place, byte in enumerate(whole) if byte == ord("\n"))]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        lines = sum(end - 1 <= size for end in ends[1:])  # one that lacks only its end is whole
        assert count_found(path, 3) == lines
        with Journal(path, "a") as journal:
            journal.enter({"later": 1.0}, [2.0])
        with Journal(path, "a") as journal:
            assert journal.find({"later": 1.0}) == [2.0]
        assert count_found(path, 3) == lines


def test_a_flipped_bit_costs_its_line_only(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    fill(path, 3)
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in (0, 3, 6):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            assert count_found(path, 3) >= (1 if whole[place] == ord("\n") else 2)


def test_anything_may_stand_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    path.write_bytes(b"\n\n \xff\xfe\n" + bytes(range(256)) * 3)
    fill(path, 3)
    assert count_found(path, 3) == 3


_WRITER = """
import sys
from pathlib import Path
from aimback.simulators.journal import Journal
with Journal(Path(sys.argv[1]), "a") as journal:
    for x in range(int(sys.argv[2]), 1_000_000):
        journal.enter({"speed": x / 7, "angle": 0.1}, [x / 7, 1 / 3])
        print(x, flush=True)
"""


def test_what_was_entered_survives_a_kill(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "runs"), "0"], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            last = max(int(writer.stdout.readline()) for _ in range(200))
            writer.kill()
            last = max([last, *map(int, writer.stdout.read().splitlines()[:-1])])
        assert writer.returncode == -signal.SIGKILL
        assert count_found(tmp_path / "runs", last + 1) == last + 1


def test_two_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with Journal(path, "a") as one, Journal(path, "a") as other:
        for place, case in enumerate(cases(100)):
            (one if place % 2 else other).enter(case, [case["speed"], 1 / 3])  # type: ignore[list-item]
    assert count_found(path, 100) == 100


def test_a_full_disk_is_one_line_and_loses_nothing_that_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    fill(path, 10)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(path, "a") as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, before[1]))
        try:
            with pytest.raises(UserError, match="runs: cannot be written"):
                journal.enter({"later": 1.0}, [2.0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, handler)
    assert count_found(path, 10) == 10


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be opened"):
        Journal(tmp_path / "file" / "runs", "a")


def test_a_closed_one_holds_no_descriptor(tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    for _ in range(20):
        fill(tmp_path / "runs", 1)
    assert psutil.Process().num_fds() == before
