"""The whole pipeline with Hydra overrides, as one DVC experiment: `python -m pipelines.run solver=adam`.

`task=...` chooses the tasks of this run. dvc.yaml reads their list from conf/config.yaml, so that line
is replaced while the run lasts and put back after. Without git there are no experiments; then
params.yaml is composed here and `dvc repro` does the same work.
"""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from aimback.errors import UserError
from pipelines.doctor import LISTING, NOTE, mend
from pipelines.ending import ROOT
from pipelines.entry import entry
from pipelines.replaced import replaced

_LIST = re.compile(r"^(  - task: )\[.*?\]", re.MULTILINE)


@entry
def main(cfg: DictConfig) -> None:
    for repaired in mend(ROOT):
        print(repaired)
    overrides = [override for override in HydraConfig.get().overrides.task if not override.startswith("task=")]
    with _listed(list(cfg.task)):
        if _has_git():
            code = _dvc("exp", "run", *(f"--set-param={override}" for override in overrides))
        else:
            from pipelines.compose import write_params  # checks, and for that imports PyTorch

            write_params(cfg)
            code = _dvc("repro")
    if code != 0:
        sys.exit(code)
    if HydraConfig.get().overrides.task:
        print("outputs/ holds this run; back to conf/ as it is: rm params.yaml && dvc repro")


@contextlib.contextmanager
def _listed(tasks: Sequence[str]) -> Iterator[None]:
    """The list of tasks in conf/config.yaml, replaced while the block runs."""
    text, found = _LIST.subn(rf"\g<1>[{', '.join(tasks)}]", LISTING.read_bytes().decode())
    if found != 1:
        raise UserError(f"{LISTING.name}: the list of tasks must be one line, '  - task: [NAME, ...]'")
    with replaced(LISTING, text, NOTE):
        yield


def _has_git() -> bool:
    head = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(head, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _dvc(*arguments: str) -> int:
    # The stages call `python`: it shall be this one, whether or not the environment is activated.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "dvc", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PATH": path}) as dvc:
        try:
            return dvc.wait()
        except BaseException:
            dvc.terminate()  # let it end its stage and release its locks before conf/ is put back
            raise


if __name__ == "__main__":
    main()
