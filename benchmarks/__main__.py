"""`python -m benchmarks`: measure, print, and write benchmarks/RESULTS.md.

`python -m benchmarks aim` measures one part only and leaves RESULTS.md alone.
"""

import logging
import platform
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

# Each part is a module of its own name, imported when its turn comes: what JAX finds set when it is
# imported, other parts need not have.
PARTS = {
    "aim": ("Aiming, side by side with what a user could take instead", "aimed_side_by_side"),
    "memory": ("Time and memory by number of targets", "memory_by_targets"),
    "break_even": ("When a surrogate pays", "break_even_by_price"),
    "jacobian": ("Value and Jacobian in one pass, cannon_drag, one thread", "jacobian_against_forward"),
    "work_precision": ("Error, time and memory by number of steps, cannon_drag, one thread", "precision_by_steps"),
    "training": ("Training through Lightning, the default network, batch 1024, one thread", "training_against_loader"),
    "pipeline": ("The default pipeline", "pipeline_by_the_clock"),
}
LIBRARIES = ("torch", "pytorch-lightning", "dvc", "numpy", "scipy", "numba", "jax", "optimistix", "diffrax")


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    # The peer's loader without worker processes, as tutorials write it, draws advice every epoch.
    warnings.filterwarnings("ignore", message=".*does not have many workers", module="pytorch_lightning")
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sections = []
    for name in chosen:
        title, measure = PARTS[name]
        measured = getattr(import_module(f"benchmarks.{name}"), measure)()
        body = measured if isinstance(measured, str) else "\n".join(f"- {row}" for row in measured)
        section = f"## {title}\n\n{body}\n"
        print(section, flush=True)
        sections.append(section)
    if not sys.argv[1:]:
        text = "\n".join([_about(), *sections])
        Path(__file__).with_name("RESULTS.md").write_text(text, encoding="utf-8", newline="\n")


def _about() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    return (
        "# Speed\n\nWritten by `python -m benchmarks`. Rivals run in turns; a ratio is the median over the rounds, "
        "with its range. Shared machines drift: trust the ratios, not the times.\n\n"
        f"{_processor()}, {torch.get_num_threads()} thread on one core; "
        f"Python {platform.python_version()}, {versions}; commit {commit.stdout.strip() or 'unknown'}.\n"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _processor() -> str:
    """The CPU's name, where the system tells it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'unknown CPU'} ({platform.machine()})"


if __name__ == "__main__":
    main()
