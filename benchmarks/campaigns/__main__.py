"""`python -m benchmarks.campaigns NAME`: one of them, printed and written to its place in benchmarks/FAULTS.md.

Without a name, all of them: some two hours. With a number after the name, `kills 10`, so many of it are tried and
FAULTS.md is left alone.
"""

import platform
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

_PAGE = Path(__file__).parents[1] / "FAULTS.md"
_HEAD = """# Faults

What must hold after each is tested in small by the ordinary tests; here it was tried by the hundred, on a pipeline that
is small and does everything. Each section is written by the command below it.
"""

# What is counted, and how many.
CAMPAIGNS = {
    "kills": ("SIGKILL at random moments of the pipeline", 200),
    "training_kills": ("SIGKILL at random moments of a training", 50),
    "damage": ("Damaged outputs and cache objects", 1000),
    "mutations": ("Mutated command lines and targets", 10_000),
    "settings": ("Wrong settings", 2000),
    "honesty": ("Targets out of reach", 10_000),
    "own_error": ("Simulators in too few steps", 400),
    "servers": ("MLflow's server fails", 2),
    "parallel": ("Eight at once in an MLflow store that is not there yet", 20),
    "queue_workers": ("SIGKILL at random moments of a worker of DVC's queue", 20),
    "races": ("Four at once that want the same compiled program", 200),
    "folders": ("Projects of any name, copied and renamed", 500),
    "surroundings": ("The same bytes elsewhere", 6),
    "environments": ("The same bytes under other environment variables", 200),
    "instructions": ("The same numbers with other instructions", 2),
}


def main() -> None:
    arguments = sys.argv[1:]
    if not set(arguments[:1]) <= CAMPAIGNS.keys():
        sys.exit(f"unknown: {arguments[0]}; there are {', '.join(CAMPAIGNS)}")
    for name in arguments[:1] or CAMPAIGNS:
        title, count = CAMPAIGNS[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            rows = getattr(import_module(f"benchmarks.campaigns.{name}"), name)(
                int(arguments[1]) if arguments[1:] else count, Path(folder)
            )
        minutes = (time.monotonic() - began) / 60
        lines = "\n".join(f"- {row}" for row in rows)
        ran = f"`python -m benchmarks.campaigns {name}`, {minutes:.0f} min, {_about()}."
        section = f"## {title}\n\n{lines}\n\n{ran}\n"
        print(section, flush=True)
        if not arguments[1:]:
            _write(title, section)


def _write(title: str, section: str) -> None:
    """Put a campaign's section where its last one stood."""
    _, *sections = _PAGE.read_text(encoding="utf-8").split("\n## ") if _PAGE.exists() else [""]
    known = {text.partition("\n")[0]: f"## {text.strip()}\n" for text in sections} | {title: section}
    order = [known[title] for title, _ in CAMPAIGNS.values() if title in known]
    _PAGE.write_text("\n".join([_HEAD, *order]), encoding="utf-8")


def _about() -> str:
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True)
    versions = ", ".join(f"{name} {version(name)}" for name in ("dvc", "mlflow", "torch"))
    return f"commit {commit.stdout.strip()}, {platform.system()} {platform.machine()}, {versions}"


if __name__ == "__main__":
    main()
