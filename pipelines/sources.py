"""Which of our files each stage runs, with their hashes: what makes DVC run a stage anew when its code changes.

One list a stage, `outputs/sources/STAGE.sha256`, in the format of `sha256sum -c`. It is read from the
import statements, so it is never out of date, and dvc.yaml need not repeat it.
"""

from collections.abc import Iterable
from pathlib import Path

import yaml

from aimback.files import sha256, write_text
from pipelines.ending import ROOT, ending
from pipelines.imports import PACKAGES, closure

# Sections of the config that name classes: whatever lies in the folder may be imported by name.
_NAMING = {"task": PACKAGES["aimback"] / "tasks", "solver": PACKAGES["aimback"] / "solve"}
_CHECKS_EVERYTHING = "compose"


def sources(stage: str, params: Iterable[str]) -> list[Path]:
    """The files that a stage may execute, in order; `params` are the sections that it reads."""
    sections = set(_NAMING) if stage == _CHECKS_EVERYTHING else {param.split(".")[0] for param in params}
    named = [file for section in sections & set(_NAMING) for file in _NAMING[section].glob("*.py")]
    return sorted(closure(ROOT / "pipelines" / f"{stage}.py", *named))


def main() -> None:
    with ending("sources"):
        stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
        for stage, definition in stages.items():
            if f"outputs/sources/{stage}.sha256" in definition["deps"]:
                files = sources(stage, definition.get("params", []))
                lines = [f"{sha256(file)}  {file.relative_to(ROOT).as_posix()}\n" for file in files]
                write_text(Path("outputs", "sources", f"{stage}.sha256"), "".join(lines))


if __name__ == "__main__":
    main()
