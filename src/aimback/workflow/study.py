"""Many runs, `aimback --multirun`: each job in a copy of the project, wherever one of Hydra's launchers runs it.

| below `hydra.sweep.dir` | what lies there |
|---|---|
| `project` | the project as it was when the sweep began, of which all jobs are made |
| `NUMBER/project` | the project of one job, with its `outputs` |
| `NUMBER/output.log`, `NUMBER/job.json` | what the job printed; what was asked of it and how it ended |
| `comparison.csv`, `.json` | all metrics: a row for each job, task and route |

A job that is started again, because it was preempted, requeued or its worker killed, finds its copy and goes on there.
Copies share DVC's cache, so that what several jobs have in common is computed once, and MLflow's store.
"""

import configparser
import filecmp
import json
import math
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from aimback.core.errors import UserError
from aimback.core.files import write_table, write_text
from aimback.core.repository import ask_git
from aimback.runtime.exits import report_errors
from aimback.runtime.locks import hold_lock
from aimback.runtime.orphan import end_with_parent
from aimback.runtime.project import IS_CHECKOUT, ORIGINAL, ROOT, SWEEP

_MADE_BY_RUNS = {"params.yaml", "dvc.lock", ".dvc/config.local", ORIGINAL}
_SHOWN = ("solved_fraction", "miss_median", "miss_relative_median")


class Study(Callback):
    """What is done once a sweep, by the process that was typed: a copy of the project first, a table last."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.job.name == "run":  # not for a single stage, of which nothing is copied
            with report_errors("study"):
                keep_project(_locate_sweep(config))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        with report_errors("study"):
            sweep = _locate_sweep(config)
            if (sweep / "project").is_dir() and (failed := compare_jobs(sweep)):
                raise UserError(f"{len(failed)} jobs failed, the first of them: {failed[0]}/output.log tells why")


def _locate_sweep(cfg: DictConfig) -> Path:
    return Path(cfg.hydra.runtime.cwd, cfg.hydra.sweep.dir)


def keep_project(sweep: Path) -> None:
    """Copy the project as it is now, since a queue may be long and people go on editing meanwhile.

    Raises:
        UserError: the sweep was begun with other files.
    """
    names, place = set(_list_files(ROOT)), sweep / "project"
    if not place.is_dir():
        _copy(ROOT, place, names)
    there = set(_walk(place))
    differing = (names ^ there) - _MADE_BY_RUNS
    same = (names & there) - _MADE_BY_RUNS
    differing |= {name for name in same if not filecmp.cmp(ROOT / name, place / name, shallow=False)}
    if differing:
        raise UserError(f"{sweep}: was begun with another {min(differing)}; choose another hydra.sweep.dir")


def _list_files(root: Path) -> Iterator[str]:
    """What makes up a project: what git tracks or might; without git, all but what runs and installers write."""
    listed = ask_git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listed is not None:
        names: Iterable[Path] = map(Path, listed.split("\0"))
    else:
        hidden = {"outputs", "mlruns", "mlartifacts", "__pycache__"}
        found = (file.relative_to(root) for file in root.rglob("*"))
        names = [
            name for name in found if not hidden & {*name.parts} and not name.parts[0].startswith((".", "mlflow."))
        ]
        names += [Path(".dvc/config"), Path(".dvc/config.local"), Path(".dvcignore")]
    return (name.as_posix() for name in names if (root / name).is_file())


def _copy(source: Path, place: Path, names: Iterable[str]) -> None:
    """A copy that is there whole or not at all, whoever else makes it at the same time."""
    temporary = place.with_name(f".project-{secrets.token_hex(8)}")
    for name in names:
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, temporary / name)
    if source == ROOT:
        asked = [sys.executable, "-m", "dvc", "cache", "dir"]
        cache = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        local = configparser.RawConfigParser(strict=False)
        local.read(temporary / ".dvc/config.local", encoding="utf-8")
        local.read_dict({"core": {"no_scm": "true"}, "cache": {"dir": cache}})
        with (temporary / ".dvc/config.local").open("w", encoding="utf-8") as file:
            local.write(file)
        (temporary / ORIGINAL).write_text(str(ROOT), encoding="utf-8")
    with suppress(OSError):  # it is there by now
        temporary.rename(place)
    shutil.rmtree(temporary, ignore_errors=True)
    if not place.is_dir():
        raise UserError(f"{place}: cannot be made")


def run_job(cfg: DictConfig) -> float | None:
    """Run one job of a sweep where it belongs. -> the objective, for a sweeper that optimises; None where it failed.

    Raises:
        UserError: another sweep lies there, or there is no such metric.
    """
    hydra = HydraConfig.get()
    sweep, folder = _locate_sweep(OmegaConf.create({"hydra": hydra})), Path(hydra.runtime.output_dir).absolute()
    number, overrides, project = hydra.job.num, list(hydra.overrides.task), folder / "project"
    with hold_lock(folder / "lock", math.inf) as lock:
        if not (sweep / "project").is_dir():
            keep_project(sweep)
        if not project.is_dir():
            _copy(sweep / "project", project, _walk(sweep / "project"))
        settings, text = folder / "job.yaml", OmegaConf.to_yaml(cfg)
        if settings.exists() and settings.read_text(encoding="utf-8") != text:
            raise UserError(f"{folder}: holds a job with other settings; choose another hydra.sweep.dir")
        write_text(settings, text)
        told = {"job": number, "overrides": overrides, "code": None}
        if not (folder / "job.json").exists():  # what another head has done, it may be about to tell of
            write_text(folder / "job.json", json.dumps(told) + "\n")
        code = _run_there(project, sweep.name, lock)
        if code in (-signal.SIGTERM, 128 + signal.SIGTERM):  # no result: a queue that ends jobs may start them again
            raise SystemExit(code)
        write_text(folder / "job.json", json.dumps({**told, "code": code}) + "\n")
    print(f"job {number} ({' '.join(overrides)}): {f'failed, see {folder}/output.log' if code else 'done'}", flush=True)
    return None if code else find_objective(cfg, project / "outputs")


def _run_there(project: Path, sweep: str, lock: Any) -> int:
    """Run `aimback` in the copy, with the copy's code; its exit code.

    The job's lock is that process's too: where a worker was killed, the next one waits until its run has ended.
    """
    # As DVC's stages are called: what was composed is the primary config, and Hydra writes no file.
    words = ["-cd", "..", "-cn", "job", "hydra.run.dir=outputs", "hydra.output_subdir=null"]
    words += ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    path = [str(project / "src")] if IS_CHECKOUT else []
    path += filter(None, [os.environ.get("PYTHONPATH")])
    with (
        (project.parent / "output.log").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "aimback.workflow.run", *words],
            cwd=project,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), SWEEP: sweep},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock.fileno()],
        ) as started,
    ):
        try:
            return started.wait()
        except BaseException:
            started.terminate()
            raise


def follow_worker() -> None:
    """Be the process that `run_job` started, if this one is: end with its worker, and leave to it what a scheduler,
    which warns every process of a job, means by its signals."""
    if SWEEP in os.environ:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        end_with_parent()


def _read_metrics(outputs: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The metrics of each task and route."""
    for file in sorted(outputs.glob("*/evaluate/metrics.json")):
        for route, metrics in json.loads(file.read_text(encoding="utf-8")).items():
            yield file.parents[1].name, route, metrics


def find_objective(cfg: DictConfig, outputs: Path) -> float:
    """The metric that conf/ calls the objective, averaged over the tasks and routes that it does not choose among.

    Raises:
        UserError: there is no such number.
    """
    chosen, values = cfg.objective, []
    for task, route, metrics in _read_metrics(outputs):
        if chosen.task in (None, task) and chosen.route in (None, route) and task in cfg.tasks:
            if not isinstance(value := metrics.get(chosen.metric), int | float):
                known = ", ".join(name for name, value in metrics.items() if isinstance(value, int | float))
                raise UserError(f"objective.metric: {task}, {route} has no {chosen.metric!r}; there is {known}")
            values.append(value)
    if not values:
        raise UserError(f"objective: there is no route {chosen.route!r} of a task {chosen.task!r}")
    return math.fsum(values) / len(values)


def compare_jobs(sweep: Path) -> list[Path]:
    """Write and show one table of all jobs; the folders of those that failed."""
    files = [file for file in sweep.rglob("job.json") if file.with_name("project").is_dir()]
    told = {file.parent: json.loads(file.read_text(encoding="utf-8")) for file in files}
    jobs = dict(sorted(told.items(), key=lambda job: job[1]["job"]))
    settings = {folder: dict(text.split("=", 1) for text in job["overrides"]) for folder, job in jobs.items()}
    keys = list(dict.fromkeys(key for setting in settings.values() for key in setting))
    rows: list[dict[str, Any]] = []
    for folder, job in jobs.items():
        told_of = {"job": job["job"], **{key: settings[folder].get(key, "") for key in keys}}
        measured = [] if job["code"] else list(_read_metrics(folder / "project" / "outputs"))
        rows += [{**told_of, "task": task, "route": route, **metrics} for task, route, metrics in measured]
    numbers = dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, dict))
    write_table(sweep / "comparison.csv", list(numbers), [[row.get(key, "") for key in numbers] for row in rows])
    write_text(sweep / "comparison.json", json.dumps(rows, indent=1) + "\n")
    from aimback.report.text import align, number

    varied = [key for key in keys if len({setting.get(key) for setting in settings.values()}) > 1]
    names = ["job", *varied, "task", "route"]
    cells = [[str(row.get(key, "")) for key in names] + [number(row.get(key)) for key in _SHOWN] for row in rows]
    print("\n".join([*align([[*names, *_SHOWN], *cells], len(names)), f"all metrics: {sweep}/comparison.csv"]))
    return [folder for folder, job in jobs.items() if job["code"] != 0]


def _walk(place: Path) -> Iterator[str]:
    return (file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file())
