"""The contest as a pipeline: its dvc.yaml tells the truth, and a small one runs from nothing to MLflow."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from conftest import Repository
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from aimback.runtime.project import CONF, ROOT

HOME = ROOT / "benchmarks" / "neural_adjoint"
STAGES = yaml.safe_load((HOME / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
SIZE = yaml.safe_load((HOME / "params.yaml").read_text(encoding="utf-8"))
COMPOSED = [stage for stage, definition in STAGES.items() if "matrix" in definition]
# What a stage does not read, though Hydra composes it for every one.
ELSEWHERE = {"hybrid", "smoothing", "diagnose"}  # what only the pipeline itself does
UNREAD = {
    "generate": {"surrogate", "training", "solver", "tracking", "contest"},
    "adjoint": {"data", "solver", "tracking", "contest"},
    "smooth": {"data", "solver", "tracking", "contest"},
    "published": {"data", "surrogate", "training", "tracking", "solver/levenberg_marquardt", "solver/cma_es"},
    "ours": {"data", "surrogate", "training", "tracking", "solver/neural_adjoint", "solver/adam"},
    "quality": {"data", "tracking", "solver/neural_adjoint", "solver/adam", "solver/cma_es"},
}


def module_of(stage: str) -> str:
    found = re.search(r"-m pipelines\.(\w+)", STAGES[stage]["cmd"])
    assert found
    return found[1]


def filled(text: str, item: dict[str, Any]) -> str:
    """A string of dvc.yaml with everything put in."""
    values = {"home": "HOME", "quietly": "tracking=off", "profile": SIZE["profile"], "seeds[0]": SIZE["seeds"][0]}
    values |= {f"item.{name}": value for name, value in item.items()}
    return re.sub(r"\$\{(.+?)\}", lambda match: str(values[match[1]]), text)


def items(stage: str) -> list[dict[str, Any]]:
    axes = {
        name: SIZE[values[2:-1]] if isinstance(values, str) else values
        for name, values in STAGES[stage]["matrix"].items()
    }
    return [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]


def composed_files(config: str, overrides: list[str]) -> set[str]:
    """Every file below conf/ that Hydra puts together for a command line."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        listed = loader.compute_defaults_list(config, overrides, RunMode.RUN).defaults
    names = {entry.config_path for entry in listed if entry.config_path}
    return {name for name in names if (CONF / f"{name}.yaml").is_file()}


@pytest.mark.parametrize("stage", COMPOSED)
def test_a_stage_depends_on_every_config_that_it_reads(stage: str) -> None:
    for item in items(stage):
        words = filled(STAGES[stage]["cmd"], item).split()
        overrides = [word for word in words[words.index("contest") + 1 :] if "=" in word]
        dependencies = [Path(filled(path, item).removeprefix("../../")) for path in STAGES[stage]["deps"]]
        for name in composed_files("contest", overrides):
            group = name.split("/")[0]
            if name in UNREAD[stage] or group in UNREAD[stage] or group in ELSEWHERE:
                continue
            file = Path("conf") / f"{name}.yaml"
            assert any(file.is_relative_to(path) for path in dependencies), f"{stage}: {file}"
        for path in dependencies:
            assert not path.is_relative_to("conf") or (ROOT / path).exists(), path


@pytest.mark.parametrize("profile", ["benchmark", "paper"])
@pytest.mark.parametrize("what", ["data", "neural_adjoint/TASK", "contest"])
@pytest.mark.parametrize("task", SIZE["tasks"])
def test_every_profile_composes(profile: str, what: str, task: str) -> None:
    from aimback.workflow.settings import Settings

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [
            f"task=[{task}]",
            f"preset=neural_adjoint/{task}",
            f"profile={profile}/{what.replace('TASK', task)}",
        ]
        settings = Settings(hydra.compose("contest", overrides=overrides)).check()
    assert list(settings.methods) == [
        *("neural_adjoint", "no_boundary", "hard_box", "second_order", "direct", "cma_es")
    ]
    assert settings.methods["neural_adjoint"].solver.boundary == 25.0
    assert settings.methods["no_boundary"].solver.boundary == 0.0
    assert settings.methods["hard_box"].solver.boundary is None
    if profile == "paper" and what == "contest":
        assert settings.methods["neural_adjoint"].solver.starts == 2048
        assert settings.methods["direct"].solver.starts == 2048


TINY = {
    "data": {"data": {"examples": 300, "targets": 5}},
    "neural_adjoint/sine_wave": {"surrogate": {"hidden_width": 16}, "training": {"max_epochs": 3}},
    "contest": {
        "methods": {
            **{
                name: {"solver": {"starts": 12, "max_steps": 20}}
                for name in ("neural_adjoint", "no_boundary", "hard_box")
            },
            "second_order": {"solver": {"starts": 12}},
            "direct": {"solver": {"starts": 12}},
            "cma_es": {"solver": {"starts": 2, "max_steps": 20}},
        }
    },
}


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # mlflow, and what it brings, warns of its own deprecations
def test_a_small_contest_from_nothing_to_mlflow(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "copy", git=True)
    home = repository.root / "benchmarks" / "neural_adjoint"
    for what, settings in TINY.items():
        file = repository.root / "conf" / "profile" / "tiny" / f"{what}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# @package _global_\n" + yaml.safe_dump(settings))
    repository.set("conf/surrogate/smooth.yaml", "hidden_width", 16)
    repository.set("conf/training/smooth.yaml", "max_epochs", 20)
    repository.edit("conf/contest.yaml", "sweep: [100, 200, 500, 1000, 2000, 4000, 8000]", "sweep: [50, 100]")
    (home / "params.yaml").write_text(yaml.safe_dump({**SIZE, "profile": "tiny", "tasks": ["sine_wave"], "seeds": [3]}))
    (home / "RESULTS.md").unlink(missing_ok=True)
    command = ("dvc", "--cd", "benchmarks/neural_adjoint", "repro")
    repository.run(*command, timeout=600).ok()
    folder = home / "outputs" / "3" / "sine_wave"
    metrics = {
        name: measured
        for group in ("published", "ours")
        for name, measured in json.loads((folder / group / "metrics.json").read_text()).items()
    }
    assert list(metrics) == ["neural_adjoint", "no_boundary", "hard_box", "second_order", "direct", "cma_es"]
    assert metrics["direct"]["r_1"] < 1e-12
    assert metrics["direct"]["solved_fraction"] == 1.0
    assert metrics["direct"]["training_examples"] == 0
    assert metrics["cma_es"]["gradients"] == 0
    assert metrics["neural_adjoint"]["training_examples"] == 300
    page = (home / "RESULTS.md").read_text()
    assert "5.8e-3" not in page  # ballistics is not in this contest
    assert "sine_wave" in page and "tiny" in page
    assert {file.name for file in (home / "figures").glob("*.png")} >= {"r_t.png", "quality.png", "ledger.png"}
    runs = stored_runs(repository)
    assert sorted(run.data.params["route"] for run in runs) == sorted(metrics)
    direct = next(run for run in runs if run.data.params["route"] == "direct")
    assert direct.data.metrics["r_1"] == metrics["direct"]["r_1"]
    assert direct.data.params["method.solver.starts"] == "12"

    again = repository.run(*command, timeout=300).ok()
    assert again.stages() == ["standings"]
    assert "0 runs written" in again.printed
    assert len(stored_runs(repository)) == len(metrics)


def stored_runs(repository: Repository) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{repository.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("aimback-neural-adjoint")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods.second_order.margin=0.5", r"^methods\.second_order\.margin: in \[0, 0\.5\), got 0\.5$"),
        ("+methods.direct.sover=1", "methods.direct.sover: unknown key; did you mean methods.direct.solver"),
        ("groups.ours=[dircet]", "methods.dircet: unknown key; did you mean methods.direct"),
        ("group=theirs", "groups.theirs: unknown key"),
        ("sweep=[5]", "sweep: must be a whole number from 10 to"),
    ],
)
def test_a_wrong_setting_of_the_contest_is_named(override: str, message: str) -> None:
    from aimback.core.errors import UserError
    from aimback.workflow.settings import Settings

    with (
        hydra.initialize_config_dir(str(CONF), version_base="1.3"),
        pytest.raises(UserError, match=message),
    ):
        Settings(hydra.compose("contest", overrides=[override])).check()
