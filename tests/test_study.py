"""Many runs: each job in a project of its own, on real engines, with equal results, and none lost or done twice."""

import csv
import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import slurm
from conftest import Finished, Repository

SMALL = ("task=[cannon_vacuum]", "routes=[direct]", "data.examples=50", "data.targets=20", "diagnose=none")
OFF = (*SMALL, "tracking=off")
SWEEP = "hydra.sweep.dir=outputs/study"
PLUGINS = {"joblib": "joblib_launcher", "ray": "ray_launcher", "slurm": "submitit_launcher", "optuna": "optuna_sweeper"}


def needs(engine: str) -> pytest.MarkDecorator:
    there = find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.hydra_{PLUGINS[engine]}") is not None
    return pytest.mark.skipif(not there, reason=f"{engine} is not installed: pip install 'aimback[{engine}]'")


ENGINES = pytest.mark.parametrize(
    "words",
    [
        pytest.param(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), marks=needs("joblib"), id="joblib"),
        pytest.param(("hydra/launcher=submitit_local",), marks=needs("slurm"), id="submitit"),
        pytest.param(
            ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
            marks=[needs("ray"), pytest.mark.cluster],
            id="ray",
        ),
    ],
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("lab") / "project", git=True)


@pytest.fixture(scope="module")
def alone(project: Repository) -> dict[str, str]:
    """The hashes of what one machine, one job after the other, makes of two solvers."""
    sweep(project, "alone", "solver=adam,levenberg_marquardt").ok()
    return digest(project, "alone")


def sweep(project: Repository, name: str, *words: str, settings: tuple[str, ...] = OFF) -> Finished:
    command = ("aimback.workflow.run", "--multirun", *settings, f"hydra.sweep.dir=outputs/{name}", *words)
    return project.run(*command)


def digest(project: Repository, name: str) -> dict[str, str]:
    """All that is deterministic: the outputs of the stages, DVC's record of them, and the table."""
    place = project.root / "outputs" / name
    files = [*place.glob("*/project/outputs/cannon_*/**/*"), *place.glob("[0-9]*/project/dvc.lock")]
    files += [*place.glob("comparison.*")]
    found = [file for file in files if file.is_file()]
    return {file.relative_to(place).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(found)}


def read_table(project: Repository, name: str) -> list[dict[str, str]]:
    with (project.root / "outputs" / name / "comparison.csv").open() as file:
        return list(csv.DictReader(file))


@ENGINES
def test_two_jobs_side_by_side_have_projects_of_their_own_and_a_table(
    project: Repository, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    engine = f"two_{request.node.callspec.id}"
    before = project.git("status", "--porcelain")
    done = sweep(project, engine, *words, "seed=1,2").ok()
    assert [(row["job"], row["seed"], row["task"], row["route"]) for row in read_table(project, engine)] == [
        ("0", "1", "cannon_vacuum", "direct"),
        ("1", "2", "cannon_vacuum", "direct"),
    ]
    assert "job  seed  task           route   solved_fraction" in done.printed
    assert project.git("status", "--porcelain") == before and not (project.root / "outputs/cannon_vacuum").exists()


@pytest.mark.slow
@ENGINES
def test_every_engine_makes_the_same_bytes(
    project: Repository, alone: dict[str, str], words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    sweep(project, name, "solver=adam,levenberg_marquardt", *words).ok()
    assert digest(project, name) == alone and len(alone) > 10


@pytest.mark.slow
def test_one_failing_job_does_not_stop_the_others_and_is_named(project: Repository) -> None:
    done = sweep(project, "failing", "budget.simulations=1,null")
    assert done.code == 2 and "1 jobs failed, the first of them" in done.stderr, done.printed
    assert [row["job"] for row in read_table(project, "failing")] == ["1"]
    assert "budget.simulations" in (project.root / "outputs/failing/0/output.log").read_text()


@pytest.mark.slow
def test_a_sweep_is_of_the_files_it_began_with(project: Repository, alone: dict[str, str]) -> None:
    again = sweep(project, "alone", "solver=adam,levenberg_marquardt").ok()
    assert digest(project, "alone") == alone, again.printed
    other = sweep(project, "alone", "solver=adam,gauss_newton")
    assert other.code == 2 and "holds a job with other settings; choose another hydra.sweep.dir" in other.stderr
    (project.root / "mine.txt").write_text("new")
    edited = sweep(project, "alone", "solver=adam,levenberg_marquardt")
    (project.root / "mine.txt").unlink()
    assert edited.code == 2 and "was begun with another mine.txt" in edited.stderr


@pytest.mark.slow
@needs("joblib")
def test_two_heads_of_one_study_lose_nothing_and_do_nothing_twice(project: Repository, alone: dict[str, str]) -> None:
    words = ["-m", "aimback.workflow.run", "--multirun", *SMALL, "hydra.sweep.dir=outputs/heads"]
    words += ["solver=adam,levenberg_marquardt", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    heads = [subprocess.Popen([sys.executable, *words], cwd=project.root, env=project.environment()) for _ in range(2)]
    assert [head.wait(600) for head in heads] == [0, 0]
    tables = {name: text for name, text in digest(project, "heads").items() if "evaluate" in name}
    assert tables == {name: text for name, text in alone.items() if "evaluate" in name} != {}
    assert count_runs(project, "heads") == 2


def count_runs(project: Repository, name: str) -> int:
    import sqlite3

    query = (
        "SELECT COUNT(*) FROM tags JOIN runs USING (run_uuid) WHERE key = 'sweep' AND value = ? AND status = 'FINISHED'"
    )
    with sqlite3.connect(project.root / "mlflow.db") as base:
        return int(base.execute(f"{query} AND lifecycle_stage = 'active'", [name]).fetchone()[0])


@pytest.mark.slow
@needs("optuna")
def test_a_sweeper_optimises_the_objective(project: Repository) -> None:
    words = ("hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_jobs=1", "hydra.sweeper.n_trials=2")
    done = sweep(project, "optuna", *words, "solver=adam,levenberg_marquardt", "objective.metric=miss_median").ok()
    best = (project.root / "outputs/optuna/optimization_results.yaml").read_text()
    rows = {row["solver"]: float(row["miss_median"]) for row in read_table(project, "optuna")}
    assert f"best_value: {min(rows.values())}" in best and f"solver: {min(rows, key=rows.get)}" in best, done.printed
    refused = sweep(project, "other", "seed=1,2", "objective.metric=mis_median")
    assert "objective.metric: cannon_vacuum, direct has no 'mis_median'; there is miss_median" in refused.stderr


@pytest.mark.parametrize(("choice", "extra"), {"launcher=other": "", "launcher=ray": "ray"}.items())
def test_an_engine_that_is_not_there_is_one_line(choice: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra.errors import MissingConfigException

    from aimback.workflow.entry import explain_composing

    said = explain_composing(MissingConfigException("", f"hydra/{choice.replace('=', '/')}"))
    assert "\n" not in said
    assert (f"to install it, type: pip install 'aimback[{extra}]'" in said) is bool(extra)


# A long descent, whose job can be met in the middle.
LONG = ("task=[cannon_drag]", "routes=[surrogate]", "data.examples=2000", "data.targets=50", "diagnose=none")
LONG = (*LONG, "training.max_epochs=60", "starts.number=2", "diagnose.replicas=0")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[slurm.Slurm]:
    if absent := slurm.list_missing():
        pytest.skip(f"no Slurm here: {', '.join(absent)}")
    with slurm.run_slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def start(project: Repository, cluster: slurm.Slurm, name: str, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "aimback.workflow.run", "--multirun", f"hydra.sweep.dir=outputs/{name}", *words]
    with (project.root / f"outputs/{name}.log").open("wb") as log:
        env = {**project.environment(), "SLURM_CONF": str(cluster.conf)}
        return subprocess.Popen(command, cwd=project.root, env=env, stdout=log, stderr=log)


@pytest.mark.slow
@pytest.mark.cluster
@needs("slurm")
def test_slurm_makes_the_same_bytes(project: Repository, cluster: slurm.Slurm, alone: dict[str, str]) -> None:
    words = (*OFF, "solver=adam,levenberg_marquardt", "hydra/launcher=slurm", "hydra.launcher.partition=all")
    assert start(project, cluster, "slurm", *words).wait(600) == 0, (project.root / "outputs/slurm.log").read_text()
    assert digest(project, "slurm") == alone


FAULTS = ("preempted", "killed", "requeued", "drained", "controller")


@pytest.mark.slow
@pytest.mark.cluster
@needs("slurm")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_job_that_is_disturbed_goes_on_to_the_same_bytes(
    project: Repository, cluster: slurm.Slurm, undisturbed: dict[str, str], fault: str
) -> None:
    shutil.rmtree(project.root / ".dvc/cache")  # where the undisturbed job has put all that is to be done
    (project.root / "mlflow.db").unlink(missing_ok=True)
    head = start(project, cluster, fault, *LONG, "seed=1", "hydra/launcher=slurm")
    jobs = project.root / "outputs" / fault
    slurm.wait(lambda: any(jobs.glob("0/project/outputs/checkpoints/train@*/**/epoch-*.ckpt")), "no training began")
    (job,) = cluster.list_jobs()
    if fault == "preempted":
        cluster.ask("scancel", "--signal=USR2", job)
    elif fault == "killed":
        worker = psutil.Process(find_worker(jobs))
        worker.send_signal(signal.SIGKILL)
        slurm.wait(lambda: job not in cluster.list_jobs(), "the job lives")
        assert head.wait(300) != 0  # as the one who typed it sees, and types it again
        head = start(project, cluster, fault, *LONG, "seed=1", "hydra/launcher=slurm")
    elif fault == "requeued":
        cluster.ask("scontrol", "requeue", job)
    elif fault == "drained":
        cluster.ask("scontrol", "update", f"nodename={cluster.host}", "state=drain", "reason=test")
        cluster.ask("scontrol", "requeue", job)
        slurm.wait(lambda: not cluster.list_jobs(), "the job runs")
        cluster.ask("scontrol", "update", f"nodename={cluster.host}", "state=resume")
    else:
        cluster.stop("slurmctld")
        cluster.start("slurmctld")
    assert head.wait(900) == 0, (project.root / f"outputs/{fault}.log").read_text()
    assert digest(project, fault) == undisturbed
    assert count_runs(project, fault) == 2  # the route's, and the training's
    log = (jobs / "0/output.log").read_text()
    assert log.count("train@cannon_drag-surrogate") >= (1 if fault == "controller" else 2), log


def find_worker(jobs: Path) -> int:
    """The process that `aimback` in a job's project was started by."""
    where = str(jobs / "0/project")
    for process in psutil.process_iter():
        try:
            if process.cwd() == where and "aimback.workflow.run" in process.cmdline():
                return process.ppid()
        except psutil.Error:
            continue
    raise AssertionError("there is none")


@pytest.fixture(scope="module")
def undisturbed(project: Repository) -> dict[str, str]:
    sweep(project, "calm", "seed=1", settings=LONG).ok()
    return digest(project, "calm")
