"""The whole pipeline with Hydra overrides: `aimback solver=adam`, or `python -m aimback.workflow.run solver=adam`.

What is configured is checked and written to params.yaml, and `dvc repro` does the rest. With overrides, and where
there is git, the result is then saved as an experiment, for `dvc exp show` to compare. Of the files that git tracks
only params.yaml and dvc.lock are written, and its index is not touched while the stages run, so that a run which is
killed leaves nothing to be committed by mistake. `dvc exp run -S solver=adam` does the same work DVC's way.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aimback.core.errors import UserError
from aimback.core.repository import ask_git, head_commit
from aimback.runtime.doctor import mend
from aimback.runtime.project import ROOT
from aimback.workflow.compose import write_params
from aimback.workflow.entry import entry
from aimback.workflow.setup import set_up
from aimback.workflow.turns import list_turns

_STAGE = re.compile(r"(Running stage|Stage) '(.+?)'(:| is cached| didn't change)")
# What DVC says besides, for those who call it themselves.
_FOR_OTHERS = re.compile(r"(> |Updating lock file|Use `dvc push`|To track the changes|To enable auto|\t|\s*$)")


@entry
def run(cfg: DictConfig) -> None:
    for repaired in mend(ROOT):
        print(repaired)
    write_params(cfg)
    code = _reproduce(cfg)
    if code != 0:
        sys.exit(code)
    if HydraConfig.get().overrides.task:
        _save()
        print("outputs/ holds this run; back to conf/ as it is: aimback")


def _reproduce(cfg: DictConfig) -> int:
    """Run `dvc repro`, and count its stages for whoever waits."""
    total = len(list_turns(ROOT, cfg))
    reached = 0
    with subprocess.Popen(_dvc("repro"), cwd=ROOT, env=_environment(), stdout=subprocess.PIPE, text=True) as dvc:
        try:
            assert dvc.stdout is not None
            for line in dvc.stdout:
                if stage := _STAGE.match(line):
                    reached += 1
                    if stage[3] != " didn't change":
                        where = " (from the cache)" if stage[3] == " is cached" else ""
                        print(f"stage {reached} of {total}: {stage[2]}{where}", flush=True)
                elif not _FOR_OTHERS.match(line):
                    print(line, end="", flush=True)
            return dvc.wait()
        except BaseException:
            dvc.terminate()  # it ends its stage and releases its locks
            raise


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
    try:
        set_up()
    except UserError as error:  # no trace is kept, for the folder is not ours
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
