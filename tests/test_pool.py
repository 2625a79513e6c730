"""Cases in processes of their own: whatever a simulator does costs its own row, and nothing is left behind."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from misbehaviour import Misbehaving

from aimback.core.errors import UserError
from aimback.simulators.pool import Pool, Result, summarise_failures


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with Pool(Misbehaving(tmp_path), workers=2, timeout=60) as ours:
        yield ours


def squares(count: int) -> list[dict[str, Any]]:
    return [{"x": float(x)} for x in range(count)]


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def lives(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_results_come_in_the_order_of_the_cases(pool: Pool) -> None:
    told: dict[int, Result] = {}
    results = pool.run(squares(50), progress=told.__setitem__)
    assert results == [Result(float(x) ** 2) for x in range(50)]
    assert [told[place] for place in range(50)] == results
    assert pool.run([]) == []


def test_arrays_go_there_and_derivatives_come_back(pool: Pool) -> None:
    assert pool.run([{"what": "sum", "field": np.arange(5.0)}]) == [Result(10.0)]
    assert pool.run(squares(2), method="jacobian") == [Result({"y": {"x": 0.0}}), Result({"y": {"x": 2.0}})]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("exit", "ended with exit code 3: about to leave"),
        ("leave", "SystemExit: 4"),
        ("segfault", "killed by SIGSEGV"),
        ("kill", "killed by SIGKILL"),
        ("die_while_answering", "ended with exit code 5"),
        ("raise", "ValueError: speed 3.0 is too high"),
        ("raise_unpicklable", "UnpicklableError: number 3"),
        ("raise_silent", "SilentError"),
        ("object", "it returned a lock, not numbers"),
        ("unheard_of", "AttributeError: 'Misbehaving' object has no attribute '_unheard_of'"),
    ],
)
def test_what_goes_wrong_costs_one_row_and_says_why(pool: Pool, what: str, reason: str) -> None:
    cases = squares(7)
    cases[3]["what"] = what
    results = pool.run(cases)
    assert results[3] == Result(reason=reason)
    assert [result.value for result in results] == [0.0, 1.0, 4.0, None, 16.0, 25.0, 36.0]


def test_an_answer_that_holds_itself_is_a_failure(pool: Pool) -> None:
    (result,) = pool.run([{"what": "loop"}])
    assert result.reason is not None and result.reason.startswith("RecursionError")


@pytest.mark.parametrize("what", ["hang", "hang_in_c"])
def test_a_run_that_hangs_is_killed(tmp_path: Path, what: str) -> None:
    cases = squares(6)
    cases[1]["what"] = cases[4]["what"] = what
    with Pool(Misbehaving(tmp_path), workers=2, timeout=2, retries=3) as pool:
        results = pool.run(cases)
    assert [result.reason for result in results] == [
        *(None, "timed out after 2 s", None, None, "timed out after 2 s", None)
    ]


@pytest.mark.parametrize("what", ["crash_once", "raise_once"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_that_fails_once_is_tried_again(tmp_path: Path, what: str, retries: int) -> None:
    cases = squares(4)
    cases[2]["what"] = what
    with Pool(Misbehaving(tmp_path), workers=2, timeout=60, retries=retries) as pool:
        results = pool.run(cases)
    assert (results[2].value == 4.0) == bool(retries)
    assert (results[2].reason is None) == bool(retries)


def test_what_a_run_prints_is_not_heard(pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    cases = [case | {"what": "print"} for case in squares(10)]
    assert [result.value for result in pool.run(cases)] == [float(x) ** 2 for x in range(10)]
    assert capfd.readouterr() == ("", "")


def test_each_case_begins_in_the_same_folder(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with Pool(Misbehaving(tmp_path), workers=1, timeout=60, folder=home) as pool:
        assert pool.run([{"what": "move"}] * 3) == [Result(str(home))] * 3


def test_workers_share_no_random_state(pool: Pool) -> None:
    np.random.random()  # noqa: NPY002 - the state that a fork of this process would hand on
    drawn = [result.value for result in pool.run([{"what": "random"}] * 12)]
    assert len({worker for worker, *_ in drawn}) == 2  # type: ignore[misc]
    for column in zip(*(rest for _, *rest in drawn), strict=True):  # type: ignore[misc]
        assert len(set(column)) == 12


def test_a_worker_computes_with_one_thread(pool: Pool) -> None:
    assert pool.run([{"what": "threads"}]) == [Result(1)]


def test_answers_are_plain_whatever_their_class(pool: Pool) -> None:
    text, nothing, tensor = (result.value for result in pool.run([{"what": w} for w in ("text", "nothing", "tensor")]))
    assert (text, nothing) == ("twelve \udcff", None)
    assert isinstance(tensor, dict) and tensor["z"] == 0.5
    assert type(tensor["y"]) is np.ndarray and tensor["y"].tolist() == [1.0, 1.0]
    assert type(tensor["w"][0]) is np.ndarray


def test_many_failures_stop_it_and_are_summed_up(tmp_path: Path) -> None:
    cases = [{"x": x, "what": "raise" if x % 2 else "exit"} for x in range(100)]
    told: dict[int, Result] = {}
    with (
        Pool(Misbehaving(tmp_path), workers=2, timeout=60) as pool,
        pytest.raises(UserError, match=r"^20 of 20 runs failed: 1\d|9 .*; simulator.failures allows fewer$") as caught,
    ):
        pool.run(cases, told.__setitem__)
    assert len(told) == 20
    assert "ValueError: speed 1 is too high" in str(caught.value)
    assert "ended with exit code 3: about to leave" in str(caught.value)


def test_a_summary_counts_reasons_that_differ_in_numbers_as_one() -> None:
    results = [Result(1.0)] * 57
    results += [Result(reason="timed out after 30 s")] * 40
    results += [Result(reason=f"ValueError: speed {0.5 * x} is too high") for x in range(1, 24)]
    assert summarise_failures(results) == (
        "63 of 120 runs failed: 40 timed out after 30 s, 23 ValueError: speed 0.5 is too high"
    )


@dataclass(frozen=True)
class Fickle:
    """It cannot be loaded as often as there are files in its folder."""

    folder: Path

    def __setstate__(self, state: dict[str, Any]) -> None:
        for note in Path(state["folder"]).iterdir():
            note.unlink()
            raise RuntimeError("not now")
        self.__dict__.update(state)

    def __call__(self, case: dict[str, float]) -> float:
        if case["x"] < 0:
            for number in range(int(-case["x"])):
                (self.folder / f"{number}").touch()
            os._exit(1)
        return case["x"]


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_failure_to_load_is_no_verdict_where_it_has_gone_well_before(tmp_path: Path, failures: int) -> None:
    with Pool(Fickle(tmp_path), 1, timeout=60) as pool:
        assert pool.run([{"x": 1.0}]) == [Result(1.0)]
        cases = [{"x": -float(failures)}, {"x": 2.0}]
        if failures < 3:
            assert pool.run(cases) == [Result(reason="ended with exit code 1"), Result(2.0)]
        else:
            with pytest.raises(UserError, match="the simulator cannot be loaded: RuntimeError: not now"):
                pool.run(cases)


@dataclass(frozen=True)
class Absent:
    def __call__(self, case: object) -> float:
        return 0.0


def test_a_simulator_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Absent, "__module__", "gone")
    monkeypatch.setitem(sys.modules, "gone", sys.modules[__name__])
    with Pool(Absent(), 2, timeout=60) as pool, pytest.raises(UserError, match="cannot be loaded: ModuleNotFoundError"):
        pool.run([{"x": 1.0}])


@pytest.mark.slow
def test_nothing_is_left_after_a_thousand_calls_and_a_hundred_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of descriptors while it runs, of processes and temporary files when it is closed."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    us = psutil.Process()
    before = us.num_fds()
    with Pool(Misbehaving(tmp_path), workers=2, timeout=60) as pool:
        pool.run(squares(2))
        started, family = us.num_fds(), len(us.children(recursive=True))
        assert family == 4  # a keeper and a runner each
        cases = [{"x": float(x), "what": "square" if x % 10 else "kill"} for x in range(1000)]
        results = pool.run(cases)
        assert sum(result.reason is not None for result in results) == 100
        pool.run(squares(2))
        assert us.num_fds() <= started
        children = us.children(recursive=True)
        assert len(children) == family
        assert {child.num_fds() for child in children} <= {4, 5, 6}
    assert us.num_fds() == before
    assert not any(child.is_running() for child in children)
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_has_started_ends_with_the_pool(tmp_path: Path) -> None:
    with Pool(Misbehaving(tmp_path), workers=1, timeout=60) as pool:
        pool.run([{"what": "start"}])
        (pid,) = map(int, (tmp_path / "pids").read_text().split())
        assert lives(pid)
    wait_until(lambda: not lives(pid))


def test_what_a_run_has_started_is_killed_with_it(tmp_path: Path) -> None:
    with Pool(Misbehaving(tmp_path), workers=1, timeout=2) as pool:
        pool.run([{"what": "start", "hang": True}])
        (pid,) = map(int, (tmp_path / "pids").read_text().split())
        wait_until(lambda: not lives(pid))


_CALLER = """
import sys
from pathlib import Path
from misbehaviour import Misbehaving
from aimback.runtime.exits import report_errors
from aimback.simulators.pool import Pool
with report_errors("pool"), Pool(Misbehaving(Path(sys.argv[1])), workers=2, timeout=600) as pool:
    pool.run([{"what": "start", "hang": True}, {"what": "hang_in_c"}])
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_all_ends_with_the_caller(tmp_path: Path, number: int, code: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    caller = subprocess.Popen([sys.executable, "-c", _CALLER, str(tmp_path)], env=environment)
    wait_until((tmp_path / "started").exists)
    family = psutil.Process(caller.pid).children(recursive=True)
    assert len(family) >= 4
    pids = [process.pid for process in family] + [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    caller.send_signal(number)
    assert caller.wait(30) == code
    wait_until(lambda: not any(lives(pid) for pid in pids))


def test_a_pool_that_was_interrupted_can_be_used_again(tmp_path: Path) -> None:
    def interrupt(place: int, result: Result) -> None:
        raise KeyboardInterrupt

    with Pool(Misbehaving(tmp_path), workers=2, timeout=math.inf) as pool:
        with pytest.raises(KeyboardInterrupt):
            pool.run([{"x": 1.0}, {"what": "hang"}], interrupt)
        assert pool.run(squares(3)) == [Result(0.0), Result(1.0), Result(4.0)]
