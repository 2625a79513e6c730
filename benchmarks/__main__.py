"""`python -m benchmarks`: measure, print, and write benchmarks/RESULTS.md, or FIELD.md where the field has published.

`python -m benchmarks aim floor` measures these parts only and puts them in the place of the old ones.
`python -m benchmarks field` prints all parts of FIELD.md, with fewer seeds, tasks and examples, and writes no page.
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

from benchmarks.extent import IS_SHORT

# Each part is a module of its own name, imported when its turn comes: what JAX finds set when it is
# imported, other parts need not have.
PARTS = {
    "aim": ("Aiming, side by side with what a user could take instead", "aimed_side_by_side"),
    "asked": ("Asked and measured", "asked_and_measured"),
    "floor": ("Where the time of a solve goes", "time_by_part"),
    "memory": ("Time and memory by number of targets", "memory_by_targets"),
    "inversion": ("Inverting the surrogate: second order against Adam", "second_order_against_adam"),
    "break_even": ("When a surrogate pays", "break_even_by_price"),
    "jacobian": ("Value and Jacobian in one pass, cannon_drag, one thread", "jacobian_against_forward"),
    "work_precision": ("Error, time and memory by number of steps, cannon_drag, one thread", "precision_by_steps"),
    "lorenz": ("Many Lorenz systems at once, with and without derivatives", "solved_side_by_side"),
    "training": ("Training through Lightning, the default network, batch 1024, one thread", "training_against_loader"),
    "kernels": ("What a GPU would run, compiled without one", "kernels_by_task"),
    "pipeline": ("The default pipeline", "pipeline_by_the_clock"),
}
FIELD = {
    "standings": ("Which route wins where", "ranked_by_task"),
    "franka": ("Inverse kinematics of a Franka arm, beside the published figures", "solved_beside_published"),
    "contact": ("Contact by exact events, beside published simulators", "hit_beside_published"),
    "heat": ("Conductivity recovery, beside the published figures", "recovered_beside_published"),
    "heat_surrogate": ("Conductivity recovery by networks", "recovered_by_networks"),
    "heat_claims": ("Conductivity recovery by the default run, and its claims", "decided_by_default"),
    "thin_film": ("A stack of thin films, beside the published figures", "spectra_beside_published"),
    "horizon": ("Chaos: a double pendulum by horizon", "solved_by_horizon"),
    "shell": ("A particle of eight shells, beside the published figures", "spectra_beside_published"),
    "fidelity": ("Does a better forward surrogate give a better inverse?", "misses_by_forward_error"),
    "coverage": ("May a believed hit be trusted?", "kept_by_task"),
    "refitting": ("A surrogate that learns from its own answers", "learned_in_rounds"),
    "jacobians": ("A surrogate that learns from Jacobians too", "learned_with_and_without"),
    "frugality": ("Simulations until solved, with and without derivatives", "counted_until_solved"),
}
PAGES = {"RESULTS.md": PARTS, "FIELD.md": FIELD}
LIBRARIES = ("torch", "pytorch-lightning", "dvc", "numpy", "scipy", "numba", "jax", "optimistix", "diffrax")


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    # The peer's loader without worker processes, as tutorials write it, draws advice every epoch.
    warnings.filterwarnings("ignore", message=".*does not have many workers", module="pytorch_lightning")
    pages = {name: page for page, parts in PAGES.items() for name in parts}
    chosen = list(FIELD) if IS_SHORT else sys.argv[1:] or list(pages)
    unknown = [name for name in chosen if name not in pages]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(pages)}")
    for name in chosen:
        page, parts = Path(__file__).with_name(pages[name]), PAGES[pages[name]]
        title, measure = parts[name]
        measured = getattr(import_module(f"benchmarks.{name}"), measure)()
        body = measured if isinstance(measured, str) else "\n".join(f"- {row}" for row in measured)
        # Read only now: another part may have been measured meanwhile.
        sections = _read_sections(page)
        sections[title] = f"## {title}\n\n{body}\n\nMeasured at commit {_commit()} on {_processor()}.\n"
        print(sections[title], flush=True)
        if IS_SHORT:
            continue
        ordered = [sections[heading] for heading, _ in parts.values() if heading in sections]
        page.write_text("\n".join([_describe(page), *ordered]), encoding="utf-8", newline="\n")


def _read_sections(page: Path) -> dict[str, str]:
    """The parts that stand on a page, by their headings."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    parts = [f"## {part.strip()}\n" for part in text.split("\n## ")[1:]]
    return {part[3:].partition("\n")[0]: part for part in parts}


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _describe(page: Path) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in LIBRARIES)
    title = "Speed" if page.name == "RESULTS.md" else "The field's own problems, beside what was published of them"
    return (
        f"# {title}\n\nWritten by `python -m benchmarks`. Rivals run in turns; a ratio is the median over the rounds, "
        "with its range. Shared machines drift: trust the ratios, not the times.\n\n"
        f"{torch.get_num_threads()} thread on one core; "
        f"Python {platform.python_version()}, {versions}.\n"
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
