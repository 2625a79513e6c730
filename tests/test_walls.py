"""The import walls of the design: read from the source, nothing is executed."""

import subprocess
import sys
from pathlib import Path

import pytest
from imports import PACKAGES, closure, imported_modules, module_name

from aimback.runtime.project import ROOT

SOURCES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
OURS = {module_name(file): file for file in SOURCES}

# From the ground up: a room imports itself and what stands before it.
ROOMS = (
    *("core", "runtime", "autodiff", "simulators", "tasks", "solve", "compile", "data", "settings"),
    *("learn", "evaluate", "diagnose", "report", "tracking", "workflow", "library"),
)

# What only these may import; a folder stands for everything in it.
AT_THE_RIM = {
    "hydra": ["src/aimback/workflow"],
    "omegaconf": ["src/aimback/settings/tree.py", "src/aimback/settings/foreign.py", "src/aimback/workflow"],
    "yaml": ["src/aimback/workflow", "src/aimback/runtime/doctor.py"],
    "rich": ["src/aimback/workflow/progress.py"],
    "dvc": [],
    "mlflow": ["src/aimback/tracking"],
    "sqlalchemy": ["src/aimback/tracking"],
    "pytorch_lightning": ["src/aimback/learn"],
    "lightning_fabric": ["src/aimback/learn"],
    "lightning": [],
    "matplotlib": ["src/aimback/report"],
    "PIL": ["src/aimback/report/sweep.py"],
    "plotly": [],  # its JavaScript is what is used
    "pickle": [],
    "multiprocessing": ["src/aimback/simulators"],
    "scipy": [],
    "pandas": ["src/aimback/data/sheet.py", "src/aimback/library", "src/aimback/tracking"],
    "jax": ["src/aimback/simulators/maps.py"],
    "requests": ["src/aimback/simulators/umbridge.py"],
    "umbridge": ["src/aimback/simulators/umbridge.py"],
    "tesseract_core": ["src/aimback/simulators/tesseract.py"],
    "dask": ["src/aimback/simulators/dask_cluster.py"],
    "distributed": ["src/aimback/simulators/dask_cluster.py"],
    "dask_jobqueue": ["src/aimback/simulators/dask_cluster.py"],
    "ray": ["src/aimback/simulators/ray_cluster.py"],
    "fmpy": ["src/aimback/simulators/fmu.py"],
    "cmaes": ["src/aimback/solve/cma_es.py"],
    "botorch": ["src/aimback/solve/bayesian.py"],
    "gpytorch": ["src/aimback/solve/bayesian.py"],
}


def floor(name: str) -> int:
    """Where a module stands, by the room that it is or lies in."""
    package, *rooms = name.split(".")
    if package == "pipelines":
        return len(ROOMS)
    return ROOMS.index(rooms[0]) if rooms else -1


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_imports_run_downward(file: Path) -> None:
    own = module_name(file)
    upward = [name for name in imported_modules(file) if name in OURS and floor(name) > floor(own)]
    assert upward == []


def test_there_are_no_circles() -> None:
    below = {name: {other for other in imported_modules(file) if other in OURS} for name, file in OURS.items()}
    while below:
        # Packages are empty but for what they hand on, so a name without imports left is a leaf.
        leaves = {name for name, others in below.items() if not (others & below.keys()) - {name}}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in leaves}


def test_the_rooms_are_all_there_are() -> None:
    assert {folder.name for folder in PACKAGES["aimback"].iterdir() if (folder / "__init__.py").is_file()} == set(ROOMS)


@pytest.mark.parametrize(
    ("room", "allowed"),
    [("solve", {"solve", "core"}), ("tasks", {"tasks", "core", "autodiff", "simulators"})],
)
def test_solve_and_tasks_know_little(room: str, allowed: set[str]) -> None:
    for file in (PACKAGES["aimback"] / room).rglob("*.py"):
        names = [name.split(".") for name in imported_modules(file) if name.startswith("aimback.")]
        assert {parts[1] for parts in names} <= allowed, relative(file)


@pytest.mark.parametrize("package", AT_THE_RIM)
def test_what_belongs_at_the_rim_stays_there(package: str) -> None:
    users = [file for file in SOURCES if any(name.split(".")[0] == package for name in imported_modules(file))]
    allowed = [ROOT / place for place in AT_THE_RIM[package]]
    assert [relative(file) for file in users if not any(file.is_relative_to(place) for place in allowed)] == []


def test_a_stage_that_trains_nothing_does_not_import_lightning() -> None:
    training = PACKAGES["aimback"] / "learn" / "trainer.py"
    users = [file.stem for file in PACKAGES["pipelines"].glob("*.py") if training in closure(file)]
    assert sorted(users) == ["amortise", "diagnose", "invert", "train"]
    program = "import sys, pipelines.invert; print('pytorch_lightning' in sys.modules)"  # which trains in rounds alone
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_module_is_called_utils() -> None:
    assert [relative(file) for file in SOURCES if "util" in file.stem or "util" in file.parent.name] == []


@pytest.mark.parametrize("file", sorted(PACKAGES["aimback"].rglob("*.py")), ids=relative)
def test_no_global_random_state(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [call for call in ("torch.manual_seed(", "np.random.seed(", "random.seed(") if call in text] == []
