"""The import walls of the design: read from the source, nothing is executed."""

from pathlib import Path

import pytest

from pipelines.ending import ROOT
from pipelines.imports import PACKAGES, closure, imported_modules, module_name

SOURCES = sorted(file for folder in PACKAGES.values() for file in folder.rglob("*.py"))
OURS = {module_name(file): file for file in SOURCES}

# From the top down: a layer imports itself and what stands below it.
LAYERS = [
    {"pipelines"},
    {"aimback.contest"},
    {"aimback.report", "aimback.plots", "aimback.tracking"},
    {"aimback.evaluate", "aimback.diagnose"},
    {"aimback.surrogate", "aimback.hybrid"},
    {"aimback.learning", "aimback.exactness"},
    {"aimback.dataset", "aimback.targets", "aimback.solution", "aimback.routes"},
    {"aimback.archive"},
    {"aimback.identity", "aimback.compiled", "aimback.smoothing"},
    {"aimback.solve", "aimback.tasks", "aimback.hardware"},
    {"aimback.ode", "aimback.ledger"},
    {"aimback.loop"},
    {"aimback.dual", "aimback.problem"},
    {"aimback.box"},
    {"aimback.files", "aimback.checks"},
    {"aimback.errors", "aimback.cpp", "aimback.process", "aimback.repository"},
    {"aimback"},
]

# What only these may import; a folder stands for everything in it.
AT_THE_RIM = {
    "hydra": ["pipelines"],
    "omegaconf": ["pipelines"],
    "yaml": ["pipelines"],
    "rich": ["pipelines"],
    "dvc": [],
    "mlflow": ["src/aimback/tracking"],
    "sqlalchemy": ["src/aimback/tracking"],
    "pytorch_lightning": ["src/aimback/learning/fit.py", "src/aimback/surrogate/training.py"],
    "lightning_fabric": ["src/aimback/learning/fit.py"],
    "lightning": [],
    "matplotlib": ["src/aimback/plots", "src/aimback/contest/figures.py"],
    "PIL": ["src/aimback/plots/sweep.py"],
    "plotly": ["src/aimback/plots/interactive.py"],
    "pickle": [],
    "scipy": [],
    "cmaes": ["src/aimback/solve/cma_es.py"],
}


def layer(name: str) -> int:
    """The layer of a module: that of the longest name in `LAYERS` that it is or lies in."""
    places = {entry: index for index, entries in enumerate(LAYERS) for entry in entries}
    while name not in places:
        name = name.rpartition(".")[0]
    return places[name]


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", SOURCES, ids=relative)
def test_imports_run_downward(file: Path) -> None:
    own = module_name(file)
    upward = [name for name in imported_modules(file) if name in OURS and layer(name) < layer(own)]
    assert upward == []


def test_there_are_no_circles() -> None:
    below = {name: {other for other in imported_modules(file) if other in OURS} for name, file in OURS.items()}
    while below:
        # Packages are empty but for what they hand on, so a name without imports left is a leaf.
        leaves = {name for name, others in below.items() if not (others & below.keys()) - {name}}
        assert leaves, f"these import each other: {sorted(below)}"
        below = {name: others for name, others in below.items() if name not in leaves}


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("solve", {"solve", "problem", "box", "checks", "errors"}),
        ("tasks", {"tasks", "ode", "box", "problem", "checks", "errors", "dual"}),
    ],
)
def test_solve_and_tasks_know_little(folder: str, allowed: set[str]) -> None:
    for file in (PACKAGES["aimback"] / folder).rglob("*.py"):
        names = {name for name in imported_modules(file) if name.startswith("aimback.")}
        assert {name.split(".")[1] for name in names if name in OURS or name.rpartition(".")[0] in OURS} <= allowed | {
            name.split(".")[1] for name in names if name not in OURS and name.count(".") == 1
        }, relative(file)


@pytest.mark.parametrize("package", AT_THE_RIM)
def test_what_belongs_at_the_rim_stays_there(package: str) -> None:
    users = [file for file in SOURCES if any(name.split(".")[0] == package for name in imported_modules(file))]
    allowed = [ROOT / place for place in AT_THE_RIM[package]]
    assert [relative(file) for file in users if not any(file.is_relative_to(place) for place in allowed)] == []


def test_a_stage_that_trains_nothing_does_not_import_lightning() -> None:
    training = PACKAGES["aimback"] / "learning" / "fit.py"
    users = [file.stem for file in PACKAGES["pipelines"].glob("*.py") if training in closure(file)]
    assert sorted(users) == ["amortise", "quality", "replicate", "train"]


def test_no_module_is_called_utils() -> None:
    assert [relative(file) for file in SOURCES if "util" in file.stem or "util" in file.parent.name] == []


@pytest.mark.parametrize("file", sorted(PACKAGES["aimback"].rglob("*.py")), ids=relative)
def test_no_global_random_state(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert [call for call in ("torch.manual_seed(", "np.random.seed(", "random.seed(") if call in text] == []
