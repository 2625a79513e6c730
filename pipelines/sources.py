"""Which of our files each stage runs, with their hashes: what makes DVC run a stage anew when its code changes.

One list a stage, `outputs/sources/STAGE.sha256`, in the format of `sha256sum -c`. It is read from the
import statements, so it is never out of date, and dvc.yaml need not repeat it.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from aimback.files import sha256, write_text
from pipelines.ending import ROOT, ending
from pipelines.imports import PACKAGES, closure

# Sections of the config that name classes: whatever lies in the folder may be imported by name.
_NAMING = {"task": PACKAGES["aimback"] / "tasks", "solver": PACKAGES["aimback"] / "solve"}
_OF_EVERYTHING = ("compose", "contest", "quality")  # what they read is not told by params in dvc.yaml
_PIPELINES = (ROOT / "dvc.yaml", ROOT / "benchmarks" / "neural_adjoint" / "dvc.yaml")


def sources(stage: str, params: Iterable[str]) -> list[Path]:
    """The files that a stage may execute, in order; `params` are the sections that it reads."""
    sections = set(_NAMING) if stage in _OF_EVERYTHING else {param.split(".")[0] for param in params}
    named = [file for section in sections & set(_NAMING) for file in _NAMING[section].glob("*.py")]
    return sorted(closure(ROOT / "pipelines" / f"{stage}.py", *named))


def stages() -> Iterator[tuple[str, list[str]]]:
    """The name and the params of every stage that asks for its list; the first pipeline that has it counts."""
    seen = set()
    for pipeline in _PIPELINES:
        for definition in yaml.safe_load(pipeline.read_text(encoding="utf-8"))["stages"].values():
            for dependency in definition["deps"]:
                found = re.fullmatch(r"outputs/sources/(\w+)\.sha256", dependency)
                if found and found[1] not in seen:
                    seen.add(found[1])
                    # A section of another file is no section of params.yaml.
                    yield found[1], [part for part in definition.get("params", []) if isinstance(part, str)]


def main() -> None:
    with ending("sources"):
        for stage, params in stages():
            lines = [f"{sha256(file)}  {file.relative_to(ROOT).as_posix()}\n" for file in sources(stage, params)]
            write_text(Path("outputs", "sources", f"{stage}.sha256"), "".join(lines))


if __name__ == "__main__":
    main()
