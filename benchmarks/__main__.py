"""`python -m benchmarks`: measure, print, and write benchmarks/RESULTS.md.

`python -m benchmarks direct` measures one part only and writes nothing.
"""

import logging
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.direct import direct_against_scipy, jacobian_against_forward
from benchmarks.pipeline import pipeline_by_the_clock
from benchmarks.training import training_against_loader

PARTS: dict[str, tuple[str, Callable[[], list[str]]]] = {
    "direct": ("Direct route, cannon_drag, 10 000 targets, one thread", direct_against_scipy),
    "jacobian": ("Value and Jacobian in one pass, cannon_drag, one thread", jacobian_against_forward),
    "training": ("Training through Lightning, the default network, batch 1024, one thread", training_against_loader),
    "pipeline": ("The default pipeline", pipeline_by_the_clock),
}


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
        section = f"## {title}\n\n" + "\n".join(f"- {row}" for row in measure()) + "\n"
        print(section, flush=True)
        sections.append(section)
    if not sys.argv[1:]:
        text = "\n".join([_about(), *sections])
        Path(__file__).with_name("RESULTS.md").write_text(text, encoding="utf-8", newline="\n")


def _about() -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "scipy", "pytorch-lightning", "dvc"))
    return (
        "# Speed\n\nWritten by `python -m benchmarks`. Rivals run in turns; a ratio is the median over the rounds, "
        "with its range. Shared machines drift: trust the ratios, not the times.\n\n"
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, {torch.get_num_threads()} thread; "
        f"commit {commit.stdout.strip() or 'unknown'}.\n"
    )


if __name__ == "__main__":
    main()
