"""Cases on Slurm, Dask and Ray, each started here: the bytes of this machine's own, whatever is lost."""

import contextlib
import gc
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import slurm
import torch
import yaml
from conftest import ROOT
from misbehaviour import Misbehaving, Noting
from test_init import Lab

from aimback.core.errors import UserError
from aimback.core.files import sha256
from aimback.data.dataset import simulate_dataset
from aimback.settings.build import build
from aimback.simulators.cases import CaseRows
from aimback.simulators.dask_cluster import DaskCluster, SlurmCluster
from aimback.simulators.description import Description
from aimback.simulators.executor import ATTEMPTS, Cluster, Crew, Executor, Local, run_shard
from aimback.simulators.function import Function
from aimback.simulators.pool import Result
from aimback.simulators.quantity import Quantity
from aimback.simulators.ray_cluster import RayCluster
from aimback.tasks.base import Task
from aimback.tasks.described import DescribedTask

CASES = 4  # in a shard
SLURM = SlurmCluster(2, CASES, 1, "500MB", "0:10:00", None, None)


class Engine(ABC):
    """A cluster of two machines, as far as one machine can be two."""

    @abstractmethod
    def connect(self) -> Cluster: ...

    @abstractmethod
    def lose_one(self) -> None:
        """Kill one of its two machines, at once."""

    @abstractmethod
    def close(self) -> None: ...


class OfSlurm(Engine):
    def __init__(self, folder: Path) -> None:
        self.exits = contextlib.ExitStack()
        self.slurm = self.exits.enter_context(slurm.run_slurm(folder))
        self.exits.enter_context(pytest.MonkeyPatch.context()).setenv("SLURM_CONF", str(self.slurm.conf))
        self.host = self.slurm.host

    def connect(self) -> Cluster:
        return SlurmCluster(2, CASES, 1, "500MB", "0:10:00", None, None)

    def list_jobs(self) -> list[str]:
        return self.slurm.list_jobs()

    def lose_one(self) -> None:
        self.slurm.ask("scancel", "--signal=KILL", "--full", self.list_jobs()[0])

    def close(self) -> None:
        self.exits.close()


class OfDask(Engine):
    """Its second machine is an hour ahead."""

    def __init__(self, folder: Path) -> None:
        self.file, self.log = folder / "scheduler.json", (folder / "log").open("ab")
        self.processes = [self.start("scheduler", "--host", "127.0.0.1", "--port", "0")]
        self.start_worker()
        self.start_worker(LD_PRELOAD=str(compile_library(folder, _CLOCK)))

    def start(self, *arguments: str, **more: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--scheduler-file", str(self.file)]
        environment = os.environ | more
        return subprocess.Popen(command, stdout=self.log, stderr=self.log, env=environment, start_new_session=True)

    def start_worker(self, **more: str) -> None:
        # Without a nanny, so that who is killed is gone.
        self.processes.append(self.start("worker", "--nthreads", "1", "--no-nanny", **more))

    def connect(self) -> Cluster:
        wait_until(lambda: self.file.exists() and self.file.read_text().endswith("}"))
        return DaskCluster(json.loads(self.file.read_text())["address"], 2, CASES)

    def lose_one(self) -> None:
        lost = self.processes.pop()
        lost.kill()
        lost.wait()
        self.start_worker()

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait()
        self.log.close()


def compile_library(folder: Path, code: str) -> Path:
    """What stands in the place of functions of the C library, by LD_PRELOAD."""
    file = folder / "instead.c"
    file.write_text(code)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(file.with_suffix(".so")), str(file), "-ldl"], check=True)
    return file.with_suffix(".so")


_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
  int (*read)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
  int failed = read(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += 3600;
  return failed;
}
"""


class OfRay(Engine):
    def connect(self) -> Cluster:
        return RayCluster(None, 2, CASES)

    def lose_one(self) -> None:
        workers = [one for one in psutil.Process().children(recursive=True) if "ray::run_shard" in " ".join(name(one))]
        workers[0].kill()

    def close(self) -> None:
        """It is this process's own, which ends it with the connection."""


def name(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


MAKERS = {"slurm": OfSlurm, "dask": OfDask, "ray": lambda _: OfRay()}


@contextlib.contextmanager
def start(engine: str, folder: Path) -> Iterator[Any]:
    if engine == "slurm" and slurm.list_missing():
        pytest.skip("Slurm is not installed here, or this is not root")
    if find_spec({"slurm": "dask_jobqueue", "dask": "distributed"}.get(engine, engine)) is None:
        pytest.skip(f"pip install 'aimback[{engine}]' brings what this needs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = MAKERS[engine](folder)  # type: ignore[operator]
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(scope="module", params=[pytest.param(one, marks=pytest.mark.cluster) for one in MAKERS])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with start(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(engine: Any) -> Iterator[Cluster]:
    with connect(engine) as connected:
        yield connected


@contextlib.contextmanager
def connect(engine: Engine) -> Iterator[Cluster]:
    try:
        with contextlib.closing(engine.connect()) as connected:
            yield connected
    finally:
        del connected
        with warnings.catch_warnings(action="ignore"):  # dask-jobqueue leaves it to Python to close its keys
            gc.collect()


def write_down(n: int) -> list[dict[str, Any]]:
    return [{"x": float(x), "what": "write_down"} for x in range(n)]


def count_runs(folder: Path) -> Counter[str]:
    return Counter((folder / "runs").read_text().split())


ODD = [
    *({"what": what, "x": 3.0} for what in ("exit", "raise", "text", "nothing", "object", "tensor", "segfault")),
    *({"what": what, "x": 3.0} for what in ("leave", "kill", "raise_unpicklable", "print", "move")),
    {"what": "sum", "field": torch.arange(6.0).numpy()},
]


def test_a_case_gives_what_it_gives_here_whatever_it_does(cluster: Cluster, tmp_path: Path) -> None:
    crew = Crew(Misbehaving(tmp_path), 1, 60.0, 0)
    squares: list[dict[str, Any]] = [{"x": x / 7} for x in range(17)]
    with contextlib.closing(Local().make_runner(crew)) as runner:
        here = [runner.run(squares + ODD), runner.run(squares, None, "jacobian")]
    runner, told = cluster.make_runner(crew), dict[int, Result]()
    there = [runner.run(squares + ODD, told.__setitem__), runner.run(squares, None, "jacobian")]
    assert repr(there) == repr(here)  # of arrays too
    assert repr([told[place] for place in range(len(told))]) == repr(here[0])
    assert runner.run([]) == []


def test_a_task_has_the_same_data_and_differences(cluster: Cluster) -> None:
    node = {
        "simulator": {"call": "misbehaviour:behave", "arrays": "numpy", "cases": "one", "step": 1e-6, "workers": 1}
        | {"derivatives": "finite_differences"},
        "controls": {"speed": [1, 10, "m/s"], "angle": [0.1, 1.4, "rad"]},
        "outcomes": {
            "distance": {"unit": "m", "tolerance": 0.01, "range": [0, 10]},
            "top": {"unit": "m/s", "tolerance": 0.01, "range": [0, 10]},
        },
    }

    def compute(executor: Executor) -> list[torch.Tensor]:
        task = build(node, Task)  # type: ignore[type-abstract]
        assert isinstance(task, DescribedTask)
        task.spread_runs(executor)
        made = simulate_dataset(task, 30, 0.2, torch.Generator().manual_seed(0))
        return [made.controls, made.outcomes, *task.linearise(made.controls, made.conditions)]

    for here, there in zip(compute(Local()), compute(cluster), strict=True):
        assert torch.equal(here, there)
        assert torch.isfinite(here).all()


def run_and_lose(cluster: Cluster, folder: Path, n: int, lose: Callable[[], None], lost: int = 1) -> None:
    """The runs end as they would have, though something is lost once the first shard is back."""
    remaining = [lose]

    def look(place: int, result: Result) -> None:
        if remaining:
            remaining.pop()()

    results = cluster.make_runner(Crew(Misbehaving(folder), 1, 60.0, 0)).run(write_down(n), look)
    assert results == [Result(float(x) ** 2) for x in range(n)]
    runs = count_runs(folder)
    assert len(runs) == n
    assert sum(runs.values()) - n <= lost * 2 * CASES  # what a lost one had, and may have had next


def test_a_machine_that_is_lost_costs_its_shard(engine: Any, cluster: Cluster, tmp_path: Path) -> None:
    run_and_lose(cluster, tmp_path, 40, engine.lose_one)


def test_what_has_come_back_is_told_at_once_and_the_rest_is_taken_back(cluster: Cluster, tmp_path: Path) -> None:
    runner, told = cluster.make_runner(Crew(Misbehaving(tmp_path), 1, 60.0, 0)), list[int]()

    def stop(place: int, result: Result) -> None:
        told.append(place)
        if len(told) == CASES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.run(write_down(40), stop)
    assert len(told) == CASES
    assert runner.run([{"x": 2.0}]) == [Result(4.0)]
    assert sum(count_runs(tmp_path).values()) < 40


def test_a_full_disk_is_one_line_and_what_was_kept_is_not_run_again(cluster: Cluster, tmp_path: Path) -> None:
    axes = Quantity("x", "", None, (0.0, 100.0)), Quantity("y", "", None, None)
    description = Description.model_validate({"call": "misbehaviour:behave", "workers": 1})
    x, kept = torch.arange(40, dtype=torch.float64)[:, None], tmp_path / "kept"

    def simulate() -> torch.Tensor:
        rows = CaseRows(Noting(tmp_path), [axes[0]], [], [axes[1]], description)
        rows.give_to(cluster)
        rows.keep(kept, "a")
        return rows(x, x[:, :0])

    cluster.make_runner(Crew(Misbehaving(tmp_path), 1, 60.0, 0)).run([{"x": 0.0}])
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limit[1]))  # some ten runs; the machines have begun before
    try:
        with pytest.raises(UserError, match="kept: cannot be written .*; see to that, then run again"):
            simulate()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    begun = kept.read_bytes().count(b"\n")
    assert begun > CASES
    assert torch.equal(simulate(), x**2)
    assert kept.read_bytes().count(b"\n") == 40 + 1  # a line was torn
    before = count_runs(tmp_path)
    assert torch.equal(simulate(), x**2)
    assert count_runs(tmp_path) == before


@pytest.mark.slow
def test_a_shard_that_ends_every_machine_is_one_line(engine: Any, cluster: Cluster, tmp_path: Path) -> None:
    if isinstance(engine, OfDask):
        pytest.skip("its machines do not come back by themselves; Slurm's are the same workers")
    runner = cluster.make_runner(Crew(Misbehaving(tmp_path), 1, 60.0, 0))
    with pytest.raises(UserError, match=f"^executor: a shard was lost on {ATTEMPTS} machines"):
        runner.run([{"x": 0.0, "what": "kill_machine"}])


@pytest.mark.slow
def test_a_simulator_that_cannot_be_loaded_there_is_one_line(cluster: Cluster) -> None:
    runner = cluster.make_runner(Crew(Function("misbehaviour:behave"), 1, 60.0, 0))
    assert runner.run([{"speed": 6.0, "angle": 0.0}])[0].value == {"top": 6.0, "distance": 0.0}
    with pytest.raises(UserError, match="^20 of 20 runs failed: 20 misbehaviour:nosuch: the module has no function"):
        cluster.make_runner(Crew(Function("misbehaviour:nosuch"), 1, 60.0, 0)).run([{"x": float(x)} for x in range(20)])


def test_the_clocks_of_dask_s_machines_are_apart(engine: Any, cluster: Cluster) -> None:
    if not isinstance(engine, OfDask):
        pytest.skip("Slurm itself refuses machines whose clocks are apart; Ray's are one machine here")
    engine.start_worker(LD_PRELOAD=str(engine.file.with_name("instead.so")))
    wait_until(lambda: max(there := list(cluster._client.run(time.time).values())) - min(there) > 3000)  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def of_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfSlurm]:
    with start("slurm", tmp_path_factory.mktemp("slurm")) as made:
        yield made


def drain(engine: OfSlurm) -> None:
    engine.slurm.ask("scontrol", "update", f"nodename={engine.host}", "state=drain", "reason=test")
    engine.lose_one()


def requeue(engine: OfSlurm) -> None:
    engine.slurm.ask("scontrol", "requeue", engine.list_jobs()[0])


def restart(engine: OfSlurm) -> None:
    engine.slurm.stop("slurmctld")
    engine.slurm.start("slurmctld")
    engine.slurm.wait_until(["sinfo", "-h", "-o", "%t"], "alloc")


def lose_all(engine: OfSlurm) -> None:
    engine.slurm.ask("scancel", "--signal=KILL", "--full", *engine.list_jobs())


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("fault", [drain, requeue, restart, lose_all])
def test_whatever_slurm_does_to_its_jobs(of_slurm: OfSlurm, tmp_path: Path, fault: Callable[[OfSlurm], None]) -> None:
    import dask

    pytest.importorskip("distributed")  # its defaults are loaded here, or would be gone when the block below ends

    with (
        connect(of_slurm) as cluster,
        dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}),
    ):
        cluster.make_runner(Crew(Misbehaving(tmp_path), 1, 60.0, 0)).run([{"x": 0.0}])
        wait_until(lambda: len(of_slurm.list_jobs()) == 2)
        run_and_lose(cluster, tmp_path, 60, lambda: fault(of_slurm), 2 if fault is lose_all else 1)
    if fault is drain:
        of_slurm.slurm.ask("scontrol", "update", f"nodename={of_slurm.host}", "state=resume")
    wait_until(lambda: not of_slurm.slurm.ask("squeue", "-h"))


_HEAD = """
import sys
from pathlib import Path
from misbehaviour import Misbehaving, Noting
from test_init import Lab
from aimback.simulators.dask_cluster import SlurmCluster
from aimback.simulators.executor import Crew
cluster = SlurmCluster(2, 4, 1, "500MB", "0:10:00", None, None)
runner = cluster.make_runner(Crew(Misbehaving(Path(sys.argv[1])), 1, 60, 0))
runner.run([{"x": 0.0}])
print("began", flush=True)
runner.run([{"what": "hang"}])
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_jobs_end_when_who_wanted_them_was_killed(of_slurm: OfSlurm, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HEAD, str(tmp_path)], stdout=subprocess.PIPE) as head:
        assert head.stdout is not None
        assert head.stdout.readline() == b"began\n"
        head.kill()
    wait_until(lambda: not of_slurm.slurm.ask("squeue", "-h"), seconds=120)


def test_a_machine_without_the_project_s_folder_says_so(tmp_path: Path) -> None:
    said = run_shard(Crew(Misbehaving(tmp_path), 1, 60.0, 0), str(tmp_path / "gone"), [], [{"x": 1.0}], "__call__")
    assert isinstance(said, str)
    assert said.endswith(f"has no {tmp_path / 'gone'}; a cluster's machines must share the project's folder")


@pytest.mark.parametrize(
    ("executor", "says"),
    [
        (SLURM, "dask_jobqueue is not installed; pip install 'aimback[slurm]' brings it"),
        (DaskCluster(None, 2, 4), "distributed is not installed; pip install 'aimback[dask]' brings it"),
        (RayCluster(None, 2, 4), "ray is not installed; pip install 'aimback[ray]' brings it"),
    ],
)
def test_an_engine_that_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch, executor: Cluster, says: str) -> None:
    monkeypatch.setattr("aimback.core.extras.find_spec", lambda _: None)
    with pytest.raises(UserError, match=re.escape(says)):
        executor.check()


def test_without_slurm_s_commands_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aimback.core.extras.find_spec", lambda _: "there")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="^executor: there is no sbatch here"):
        SLURM.check()


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("memory", "2", "executor.memory: must be such as 2GB, got '2'"),
        ("memory", "2GB\n#SBATCH --wrap=ls", "executor.memory: must be such as 2GB"),
        ("walltime", "1h", "executor.walltime: must be such as 1:00:00 or 2-00:00:00, got '1h'"),
        ("partition", "a b", "executor.partition: must be such as long,short, got 'a b'"),
        ("account", "$(ls)", "executor.account: must be such as physics"),
        ("workers", 0, "executor.workers: must be a whole number from 1 to 10,000, got 0"),
        ("cases", 1.5, "executor.cases: must be a valid integer, got 1.5"),
        ("job_script_prologue", ["ls"], "executor.job_script_prologue: unknown key"),
    ],
)
def test_a_wrong_value_is_one_line(key: str, value: object, says: str) -> None:
    node = yaml.safe_load((ROOT / "conf" / "executor" / "slurm.yaml").read_text())
    assert isinstance(build(node, Executor, "executor"), SlurmCluster)  # type: ignore[type-abstract]
    with pytest.raises(UserError, match="^" + re.escape(says)) as refused:
        build({**node, key: value}, Executor, "executor")  # type: ignore[type-abstract]
    assert "\n" not in str(refused.value)


@pytest.mark.cluster
def test_a_scheduler_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("aimback.simulators.dask_cluster._SECONDS_TO_CONNECT", 0.1)
    crew = Crew(Function("misbehaviour:behave"), 1, 60.0, 0)
    for address, says in {"tcp://127.0.0.1:9": "no scheduler answers at tcp://127.0.0.1:9", None: "is missing"}.items():
        with pytest.raises(UserError, match=f"^executor.address: {says}"):
            DaskCluster(address, 2, 4).make_runner(crew).run([{"x": 1.0}])


# ---- whole stages


_SIMULATOR = """
import math


def simulate(speed, angle):
    if abs(speed - 6 * angle - 1) < 0.15:
        raise ValueError("no convergence")
    return math.sin(2 * angle) * (speed if speed > 5 else speed**2 / 5)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A project whose simulator is of one case, with some runs that fail."""
    (tmp_path / "simulator.py").write_text(_SIMULATOR)
    ranges = ("--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--outcomes", "distance:m:0.01")
    return Lab(tmp_path, "--call", "simulator.py:simulate", *ranges)


def hash_outputs(lab: Lab) -> dict[str, str]:
    """Of all that is the same whenever it is run."""
    folder = lab.root / "outputs" / "mylab"
    return {file.relative_to(folder).as_posix(): sha256(file) for file in sorted(folder.rglob("*")) if file.is_file()}


FEW = ("routes=[direct,surrogate]", "data.examples=60", "data.targets=4", "training.max_epochs=3", "diagnose=none")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize("engine_name", MAKERS)
def test_a_whole_run_makes_the_same_files(lab: Lab, tmp_path: Path, engine_name: str) -> None:
    few = (*FEW, "tracking=off", "budget.simulations=null")
    lab.aimback(*few).ok()
    here = hash_outputs(lab)
    assert "data/failures.csv" in here
    shutil.rmtree(lab.root / "outputs")
    shutil.rmtree(lab.root / ".dvc" / "cache")
    (lab.root / "dvc.lock").unlink()
    with start(engine_name, tmp_path) as engine:
        spread = [f"executor={engine_name}", "executor.workers=2", "executor.cases=8"]
        if engine_name == "dask":
            with connect(engine) as cluster:
                spread.append(f"executor.address={cluster.address}")  # type: ignore[attr-defined]
        if engine_name == "slurm":
            spread.append("executor.memory=500MB")
        lab.aimback(*few, *spread).ok()
    assert hash_outputs(lab) == here
    stamps = {file: file.stat().st_mtime_ns for file in (lab.root / "outputs" / "mylab").rglob("*")}
    lab.aimback(*few).ok()  # who computes is no setting of a result: nothing is made anew
    assert {file: file.stat().st_mtime_ns for file in (lab.root / "outputs" / "mylab").rglob("*")} == stamps


_NO_LOCKS = """
#include <errno.h>
int flock(int file, int what) { errno = ENOLCK; return -1; }
"""


@pytest.mark.slow
def test_two_that_start_the_same_where_nothing_locks_lose_nothing(lab: Lab, tmp_path: Path) -> None:
    composed = ["-cd", ".", "-cn", "params", "hydra.run.dir=outputs", "hydra.output_subdir=null"]
    command = [sys.executable, "-m", "aimback.pipelines.generate", *composed, "only.task=mylab"]
    lab.run("aimback.pipelines.compose", "data.examples=60", "data.targets=4", "diagnose=none").ok()
    lab.run(*command[2:]).ok()
    here = hash_outputs(lab)
    shutil.rmtree(lab.root / "outputs")
    without = lab.environment() | {"LD_PRELOAD": str(compile_library(tmp_path, _NO_LOCKS))}
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, cwd=lab.root, env=without, stderr=pipe, text=True) for _ in range(2)]
    told = [one.communicate()[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert all("knows no locks" in one for one in told)
    assert hash_outputs(lab) == here
