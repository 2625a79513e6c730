"""The whole pipeline with Hydra overrides: `aimback solver=adam`, or `python -m aimback.workflow.run solver=adam`.

What is configured is checked and written to params.yaml, and `dvc repro` does the rest. With overrides, and where
there is git, the result is then saved as an experiment, for `dvc exp show` to compare. Of the files that git tracks
only params.yaml and dvc.lock are written, and its index is not touched while the stages run, so that a run which is
killed leaves nothing to be committed by mistake. `dvc exp run -S solver=adam` does the same work DVC's way.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from aimback.core.repository import ask_git, head_commit
from aimback.runtime.doctor import mend
from aimback.runtime.preload import preload
from aimback.runtime.project import ROOT, SWEEP, find_project
from aimback.workflow.compose import write_params
from aimback.workflow.entry import entry
from aimback.workflow.progress import WATCHED
from aimback.workflow.study import follow_worker, run_job
from aimback.workflow.turns import list_turns
from aimback.workflow.watch import Watch


@entry
def run(cfg: DictConfig) -> float | None:
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg)
    for repaired in mend(ROOT):
        print(repaired)
    is_new = write_params(cfg)
    code = _reproduce(cfg, is_new)
    if code != 0:
        sys.exit(code)
    if HydraConfig.get().overrides.task:
        _save()
        print("outputs/ holds this run; back to conf/ as it is: aimback")
    return None


def _reproduce(cfg: DictConfig, is_new: bool) -> int:
    """Run `dvc repro`, and count its stages for whoever waits.

    Tasks depend on nothing of each other, so where there is much to do and a core for each, one dvc a task runs its
    stages; a last one finds them done.
    """
    turns = list_turns(ROOT, cfg)
    watch = Watch(len(turns), ROOT / "outputs" / "meters")
    if not is_new and _are_made(turns, cfg.tasks):
        with watch.draw():
            return _run_together([("repro",)], watch, {})
    groups: list[list[tuple[str, ...]]] = [[("repro",)]]
    if SWEEP not in os.environ and len(cfg.tasks) > 1 and (most := _count_free(cfg)) > 1:
        # Without the stage that writes params.yaml, which all read: DVC waits for nobody who may write a file.
        alone = ("--wait-for-lock", "repro", "--single-item")
        chains = [(*alone, *(turn for turn in turns if re.split("[@-]", f"{turn}@")[1] == task)) for task in cfg.tasks]
        batches: list[list[tuple[str, ...]]] = [chains[first : first + most] for first in range(0, len(chains), most)]
        groups = [[("repro", "compose")], *batches, [("repro",)]]
    with preload() as found, watch.draw():
        return next((code for group in groups if (code := _run_together(group, watch, found)) != 0), 0)


def _run_together(commands: Sequence[Sequence[str]], watch: Watch, variables: Mapping[str, str]) -> int:
    """Run some dvcs at once; the exit code of the first that fails, when all have ended.

    Args:
        variables: further ones of their environment.
    """
    errors = subprocess.PIPE if watch.takes_errors else None
    environment = {**_environment(), **variables, WATCHED: "1" if errors else "0"}
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    _dvc(*command), cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
                )
            )
            for command in commands
        ]
        with ThreadPoolExecutor(len(started)) as threads:
            try:
                list(threads.map(watch.follow, started))
            except BaseException:
                for dvc in started:
                    dvc.terminate()  # it ends its stage and releases its locks
                raise
        return next((dvc.returncode for dvc in started if dvc.wait() != 0), 0)


def _are_made(turns: Sequence[str], tasks: Sequence[str]) -> bool:
    """Whether the last run made all of this with the code as it is; DVC knows better, and takes seconds to say so."""
    lock = ROOT / "dvc.lock"
    if not lock.is_file() or not all((ROOT / "outputs" / task / "interactive").exists() for task in tasks):
        return False
    sources = [file for folder in ("src", "pipelines") for file in (ROOT / folder).rglob("*.py")]
    if any(file.stat().st_mtime > lock.stat().st_mtime for file in sources):
        return False
    recorded = lock.read_text(encoding="utf-8")
    return all(f"\n  {turn}:\n" in recorded for turn in turns if turn != "publish")


def _count_free(cfg: DictConfig) -> int:
    """How many tasks may run at once: one on a GPU, whose memory they would share."""
    accelerator = str(cfg.hardware.accelerator)
    if accelerator == "gpu":
        return 1
    if accelerator == "auto" and Path("/dev/nvidiactl").exists():
        from aimback.settings.device import find_devices  # PyTorch, which takes seconds
        from aimback.settings.tree import read_settings

        if "cuda" in {device.type for device in find_devices(read_settings(cfg))}:
            return 1
    return int(len(os.sched_getaffinity(0)) // cfg.hardware.threads)


def _save() -> None:
    """Keep the workspace as an experiment; DVC makes them on top of a commit, and where there is none, none is made."""
    if head_commit(ROOT) is None:
        return
    index = ask_git(ROOT, "write-tree")
    subprocess.run(_dvc("exp", "save"), cwd=ROOT, env=_environment(), check=False)
    if index:
        ask_git(ROOT, "read-tree", index)  # DVC unstages what was staged


def _dvc(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dvc", *arguments]


def _environment() -> dict[str, str]:
    # The stages call `python`: it shall be this one, whether or not the environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


def main() -> None:
    if sys.argv[1:2] == ["init"]:
        from aimback.workflow.scaffold import main as make  # with libraries that no run needs

        make(sys.argv[2:])
    elif find_project(Path.cwd()) is None:  # no trace is kept, for the folder is not ours
        print("error: here is no project of aimback; to make one, type: aimback init NAME", file=sys.stderr)
        sys.exit(2)
    elif sys.argv[1:2] == ["check"]:
        from aimback.workflow.inspection import main as check  # with PyTorch, which a run leaves to its stages

        check(sys.argv[2:])
    else:
        follow_worker()
        run()


if __name__ == "__main__":
    main()
