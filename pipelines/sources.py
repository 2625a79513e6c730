"""Which of our files each stage runs, with their hashes: what makes DVC run a stage anew when its code changes.

One list a stage, `outputs/sources/STAGE.sha256`, in the format of `sha256sum -c`. It is read from the
import statements, so it is never out of date, and dvc.yaml need not repeat it. The one argument is the folder of a
dvc.yaml, if it is not this one.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from aimback.files import sha256, write_text
from pipelines.ending import ROOT, ending
from pipelines.imports import PACKAGES, closure

# Sections of the config that name classes: whatever lies in the folder may be imported by name.
_NAMING = {"task": PACKAGES["aimback"] / "tasks", "solver": PACKAGES["aimback"] / "solve"}
_CHECKS_EVERYTHING = "compose"
_COMPILED = (".cpp", ".h")


def sources(stage: str, sections: Iterable[str]) -> list[Path]:
    """The files that a stage may execute, in order; `sections` are those of the config that it reads.

    A module's C++ has its name.
    """
    read = set(_NAMING) if stage == _CHECKS_EVERYTHING else set(_NAMING) & set(sections)
    named = [file for section in read for file in _NAMING[section].glob("*.py")]
    modules = closure(ROOT / "pipelines" / f"{stage}.py", *named)
    beside = {module.with_suffix(kind) for module in modules for kind in _COMPILED}
    return sorted(modules | set(filter(Path.is_file, beside)))


def sections_of(definition: Mapping[str, Any]) -> set[str]:
    """The sections that a stage of a dvc.yaml reads: by its params, or by the files of conf/ that it depends on."""
    files = [Path(path).parts for path in definition.get("deps", [])]
    folders = {parts[parts.index("conf") + 1] for parts in files if "conf" in parts[:-1]}
    return {param.split(".")[0] for param in definition.get("params", [])} | folders


def listed(folder: Path) -> dict[str, list[Path]]:
    """The files of every stage that asks for its list, by the name of the list."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    found: dict[str, set[str]] = {}
    for definition in stages.values():
        for dependency in definition.get("deps", []):
            name = re.fullmatch(r"outputs/sources/(\w+)\.sha256", dependency)
            if name:
                found.setdefault(name[1], set()).update(sections_of(definition))
    return {name: sources(name, sections) for name, sections in found.items()}


def main() -> None:
    with ending("sources"):
        folder = Path(*sys.argv[1:2])
        for name, files in listed(folder).items():
            lines = [f"{sha256(file)}  {file.relative_to(ROOT).as_posix()}\n" for file in files]
            write_text(folder / "outputs" / "sources" / f"{name}.sha256", "".join(lines))


if __name__ == "__main__":
    main()
