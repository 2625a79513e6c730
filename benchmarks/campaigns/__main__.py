"""`python -m benchmarks.campaigns`: all of them, printed and written to benchmarks/FAULTS.md; some hours.

`python -m benchmarks.campaigns kills 10` is ten of one and leaves FAULTS.md alone.
"""

import platform
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

# What is counted, and how many.
CAMPAIGNS = {
    "kills": ("SIGKILL at random moments of the pipeline", 200),
    "training_kills": ("SIGKILL at random moments of a training", 50),
    "damage": ("Damaged outputs and cache objects", 1000),
    "mutations": ("Mutated command lines and targets", 10_000),
    "surroundings": ("The same bytes elsewhere", 6),
}


def main() -> None:
    chosen, *number = sys.argv[1:] or ["all"]
    names = list(CAMPAIGNS) if chosen == "all" else [chosen]
    if not set(names) <= CAMPAIGNS.keys():
        sys.exit(f"unknown: {chosen}; there are {', '.join(CAMPAIGNS)}")
    sections = []
    for name in names:
        title, count = CAMPAIGNS[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            rows = getattr(import_module(f"benchmarks.campaigns.{name}"), name)(int(*number or [count]), Path(folder))
        minutes = (time.monotonic() - began) / 60
        lines = "\n".join(f"- {row}" for row in rows)
        sections.append(f"## {title}\n\n{lines}\n\n`python -m benchmarks.campaigns {name}`, {minutes:.0f} min.\n")
        print(sections[-1], flush=True)
    if chosen == "all":
        about = (
            "# Faults\n\nWritten by `python -m benchmarks.campaigns`, on a pipeline that is small and does everything. "
            f"{platform.system()} ({platform.machine()}), Python {platform.python_version()}, "
            f"dvc {version('dvc')}, torch {version('torch')}.\n"
        )
        Path(__file__).parents[1].joinpath("FAULTS.md").write_text("\n".join([about, *sections]), encoding="utf-8")


if __name__ == "__main__":
    main()
