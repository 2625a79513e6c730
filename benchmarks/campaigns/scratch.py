"""A copy of the repository with a pipeline that is small and does everything, to be killed and damaged."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
_SMALL = {
    "conf/data/default.yaml": {"examples": 500, "targets": 20},
    "conf/training/default.yaml": {"max_epochs": 20},
    "conf/surrogate/mlp.yaml": {"hidden_width": 8},
    "conf/starts/box.yaml": {"number": 2},
    "conf/diagnose/default.yaml": {"replicas": 1, "points": 21, "basin_points": 7, "targets": 4, "resamples": 100},
}


class Scratch:
    """The copy.

    Args:
        folder: where it shall lie.
        tasks: of the pipeline.
        tracking: the option of conf/tracking.
        sizes: values by file and key, where they are to differ from the pipeline's own.
    """

    def __init__(
        self,
        folder: Path,
        tasks: str = "cannon_drag",
        tracking: str = "off",
        sizes: Mapping[str, Mapping[str, int]] = _SMALL,
    ) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        for file in (file for file in files if file != "dvc.lock" and (ROOT / file).is_file()):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        (folder / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")
        for file, values in sizes.items():
            self.edit(file, {rf"^( *){key}: \S+": rf"\g<1>{key}: {value}" for key, value in values.items()})
        edits = {r"task: \[.*\]": f"task: [{tasks}]", "tracking: mlflow": f"tracking: '{tracking}'"}
        self.edit("conf/config.yaml", edits)
        self.run("pipelines.compose")  # DVC makes its stages of the tasks that are listed there

    def edit(self, file: str, edits: Mapping[str, str]) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        for old, new in edits.items():
            text, found = re.subn(old, new, text, flags=re.MULTILINE)
            assert found == 1, f"{file}: {old} is there {found} times"
        path.write_text(text, encoding="utf-8")

    def start(self, *command: str, env: Mapping[str, str] | None = None, **more: Any) -> subprocess.Popen[str]:
        """`python -m ...` in a process group of its own; all that it prints is one stream."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "HYDRA_", "MLFLOW_"))}
        ours |= {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(self.folder / "src"),
            "OMP_NUM_THREADS": "1",
            "DVC_SITE_CACHE_DIR": str(self.folder / ".dvc" / "site"),
            **(env or {}),
        }
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=ours,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            **more,
        )

    def run(self, *command: str, env: Mapping[str, str] | None = None, **more: Any) -> str:
        """The same to its end, which must be a good one; what it printed."""
        process = self.start(*command, env=env, **more)
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{printed}")
        return printed

    def lock(self) -> dict[str, Any]:
        """The stages of dvc.lock."""
        stages: dict[str, Any] = yaml.safe_load((self.folder / "dvc.lock").read_bytes())["stages"]
        return stages

    def hashes(self) -> dict[str, str]:
        """Of every output; but params.yaml holds what was asked for, not what came out."""
        outs = (out for stage in self.lock().values() for out in stage.get("outs", []))
        return {out["path"]: out["md5"] for out in outs if out["path"] != "params.yaml"}

    def forget(self) -> None:
        """Back to before the first run: no outputs, no cache, no dvc.lock."""
        outputs = (place for place in (self.folder / "outputs").iterdir() if place.is_dir())
        for made in (*outputs, ".dvc/cache", ".dvc/tmp", ".dvc/site"):
            shutil.rmtree(self.folder / made, ignore_errors=True)
        (self.folder / "dvc.lock").unlink(missing_ok=True)
