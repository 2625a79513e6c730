"""A project in an empty folder, from what an installed aimback brings along."""

import shutil
import subprocess
import sys

import yaml

from aimback.core.errors import UserError
from aimback.core.files import write_text
from aimback.core.repository import is_git_root
from aimback.runtime.project import PACKED, ROOT

_IGNORED = "/outputs/*\n/mlflow.db*\n/mlruns/\n"
_MAY_BE_THERE = {".git", ".gitignore", ".venv", "venv"}


def set_up() -> None:
    """Make the folder that the command was typed in a project, unless it lies in one already.

    Raises:
        UserError: the folder holds something else.
    """
    if not PACKED.is_dir() or (ROOT / "dvc.yaml").is_file():
        return
    if others := sorted({entry.name for entry in ROOT.iterdir()} - _MAY_BE_THERE):
        raise UserError(f"{ROOT}: is no project of aimback, and holds {others[0]!r}; make a folder for a new one")
    shutil.copytree(PACKED / "conf", ROOT / "conf")
    shutil.copy(PACKED / ".dvcignore", ROOT / ".dvcignore")
    if not (ROOT / ".gitignore").exists():
        write_text(ROOT / ".gitignore", _IGNORED)
    (ROOT / "outputs").mkdir()
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "--quiet", *([] if is_git_root(ROOT) else ["--no-scm"])], cwd=ROOT, check=True)
    for option in ("core.analytics=false", "hydra.enabled=true"):
        subprocess.run([*dvc, "config", *option.split("=")], cwd=ROOT, check=True)
    write_text(ROOT / "dvc.yaml", _rewrite((PACKED / "dvc.yaml").read_text(encoding="utf-8")))
    print(f"a new project: {ROOT} has conf/ and dvc.yaml", flush=True)


def _rewrite(text: str) -> str:
    """dvc.yaml with the stages of the installed aimback, which is no dependency: it does not change by editing."""
    tree = yaml.safe_load(text)
    for stage in tree["stages"].values():
        stage["cmd"] = stage["cmd"].replace("python -m pipelines.", "python -m aimback.project.pipelines.")
        stage["deps"] = [place for place in stage.get("deps", []) if not place.startswith(("src/", "pipelines/"))]
    return yaml.safe_dump(tree, sort_keys=False, width=1000)
