"""The whole pipeline for real: dvc, Hydra, Lightning and MLflow in a scratch copy, on a tiny configuration."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Finished, Repository

TASKS = ("cannon_vacuum", "cannon_drag")
SOLVING = ("invert", "optimise", "refine", "evaluate", "diagnose", "report")
STAGES = ("generate", "train", "amortise", *SOLVING)
ROUTES = {"train": "surrogate", "invert": "surrogate", "optimise": "direct", "amortise": "hybrid", "refine": "hybrid"}
pytestmark = [
    pytest.mark.slow,
    # mlflow, and what it brings, warns of its own deprecations.
    pytest.mark.filterwarnings("default"),
]


def of(tasks: tuple[str, ...], stages: tuple[str, ...] = STAGES) -> list[str]:
    turns = {stage: f"-{ROUTES[stage]}" if stage in ROUTES else "" for stage in stages}
    return sorted(f"{stage}@{task}{turn}" for stage, turn in turns.items() for task in tasks)


def shrink(repository: Repository) -> None:
    """A configuration that is over in seconds and still does everything."""
    repository.set("conf/data/default.yaml", "examples", 200)
    repository.set("conf/data/default.yaml", "targets", 20)
    repository.set("conf/training/default.yaml", "max_epochs", 3)
    repository.set("conf/surrogate/mlp.yaml", "hidden_width", 8)
    repository.set("conf/hybrid/default.yaml", "targets", 256)
    repository.set("conf/hybrid/default.yaml", "validation_targets", 64)
    repository.set("conf/hybrid/default.yaml", "max_epochs", 3)
    repository.set("conf/starts/box.yaml", "number", 2)
    for name, value in {"replicas": 1, "targets": 4, "starts": 2, "points": 17, "basin_points": 5}.items():
        repository.set("conf/diagnose/default.yaml", f"  {name}", value)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, Finished]]:
    """A repository whose pipeline has run once, and that run; its stages are forks, those elsewhere are not."""
    repository = Repository(tmp_path_factory.mktemp("aimback"), git=True)
    shrink(repository)
    repository.commit("small")
    with repository.preloaded():
        first = repository.run("dvc", "repro").ok()
        repository.commit("run")
        yield repository, first


@pytest.fixture
def repository(made: tuple[Repository, Finished]) -> Iterator[Repository]:
    """The same repository; afterwards it is put back to its commit."""
    repository, _ = made
    yield repository
    if repository.git("status", "--porcelain"):  # an output that has changed has changed dvc.lock
        repository.git("reset", "--quiet", "--hard")
        repository.git("clean", "--quiet", "--force", "-d")
        repository.run("dvc", "checkout", "--force", "--quiet").ok()
        assert repository.git("status", "--porcelain") == ""


def test_everything_runs_and_writes_what_it_says(made: tuple[Repository, Finished]) -> None:
    repository, first = made
    assert sorted(first.stages()) == sorted(["compose", *of(TASKS), "publish"])
    # DVC names a stage, and the stage says which of how many it is: the order is that of `dvc repro`.
    told = [int(number) for number in re.findall(r"^stage (\d+) of 20$", first.printed, re.MULTILINE)]
    assert told == list(range(2, 20))
    outputs = repository.root / "outputs"
    for task in TASKS:
        for stage in STAGES:
            turn = f"{stage}-{ROUTES[stage]}" if stage in ROUTES else stage
            meters = json.loads((outputs / "meters" / task / f"{turn}.json").read_text())
            assert meters["seconds"] > 0 and meters["peak_memory_bytes"] > 2**20 and meters["device"]
        metrics = json.loads((outputs / task / "evaluate" / "metrics.json").read_text())
        assert metrics["surrogate"]["training_examples"] == 200
        assert metrics["direct"]["simulations"] > 0 == metrics["direct"]["training_examples"]
        assert metrics["direct"]["solved_fraction"] > metrics["surrogate"]["solved_fraction"]
    # All that a stage writes is one of its outs, or lies where nothing is tracked.
    lock = yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"]
    outs = {out["path"] for stage in lock.values() for out in stage.get("outs", [])}
    apart = ("meters", "report", "checkpoints", "locks", "logs", "by_hand", "README.md")
    for file in (file for file in outputs.rglob("*") if file.is_file()):
        path = file.relative_to(repository.root)
        assert path.parts[1] in apart or any(path.is_relative_to(out) for out in outs), path
    assert (outputs / "report" / "index.html").stat().st_size > 10_000
    # What a killed training goes on from is removed with its end.
    assert not [file for file in (outputs / "checkpoints").rglob("*") if file.is_file()]
    assert not [out for out in outs if out.endswith((".ckpt", ".svg", ".pdf", ".pkl", ".pt"))]


def test_a_second_run_does_nothing(repository: Repository) -> None:
    again = repository.run("dvc", "repro").ok()
    assert again.stages() == ["publish"]
    assert "nothing to publish" in again.printed
    assert repository.git("status", "--porcelain") == ""


def test_dvc_answers_with_numbers_and_at_most_a_screen(repository: Repository) -> None:
    shown = repository.run("dvc", "metrics", "show", "--json").ok().printed
    metrics = {path: file["data"] for path, file in json.loads(shown)[""]["data"].items()}
    summaries = {
        f"outputs/{task}/summary/{route}.json" for task in TASKS for route in ("surrogate", "direct", "hybrid")
    }
    assert set(metrics) == summaries | {f"outputs/{task}/claims.json" for task in TASKS}
    direct, surrogate = (metrics[f"outputs/cannon_drag/summary/{route}.json"] for route in ("direct", "surrogate"))
    assert direct["miss_median_log10"] < -6 < surrogate["miss_median_log10"]
    assert surrogate["solved_fraction"] < direct["solved_fraction"] and surrogate["simulations"] == 200
    assert sorted(" ".join(metrics["outputs/cannon_drag/claims.json"].values()).split()) == [
        f"C{n}" for n in range(1, 9)
    ]
    table = repository.run("dvc", "metrics", "show").ok().printed.splitlines()
    assert len(table) < 50 and max(map(len, table)) < 200
    repository.set("params.yaml", "seed", 1)
    assert repository.run("dvc", "params", "diff").ok().printed.split()[-4:] == ["params.yaml", "seed", "0", "1"]


def test_dvc_shows_routes_over_each_other_without_network(repository: Repository) -> None:
    from chromium import CHROMIUM, launched

    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    repository.run("dvc", "plots", "show").ok()
    asked: list[str] = []
    with launched() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((repository.root / "dvc_plots" / "index.html").as_uri())
        drawn = {box.query_selector("h4").inner_text(): box for box in page.query_selector_all("div:has(> h4)")}
        legends = [
            text.text_content() for text in drawn["cannon_drag: median miss by step"].query_selector_all("svg text")
        ]
        assert [name for name in legends if name in ("surrogate", "direct", "hybrid")] == [
            "surrogate",
            "direct",
            "hybrid",
        ]
        metrics = json.loads((repository.root / "outputs/cannon_drag/evaluate/metrics.json").read_text())
        cells = [
            row.inner_text().split("\t")
            for row in drawn["cannon_drag: what became of the targets"].query_selector_all("tr")
        ]
        told = {row[0].strip(): dict(zip(cells[0][1:], row[1:], strict=True)) for row in cells[1:]}
        for route, measured in metrics.items():
            counts = {status: many for status, many in measured["status"].items() if many}
            assert {status: int(many) for status, many in told[route].items() if int(many)} == counts
        assert "cannon_drag, surrogate: loss" in drawn and "cannon_drag: r_T, the best of T candidates" in drawn
    assert not [url for url in asked if not url.startswith("file:")]


def test_a_run_by_hand_touches_nothing_that_dvc_tracks(repository: Repository) -> None:
    repository.run("pipelines.train", "task=cannon_drag", "training.learning_rate=1e-3", "training.max_epochs=1").ok()
    by_hand = repository.root / "outputs" / "by_hand"
    (weights,) = by_hand.glob("train/*/cannon_drag/routes/networks/surrogate/weights.safetensors")
    inputs = f"inputs=[{weights.parents[4]},outputs]"
    repository.run("pipelines.invert", "task=cannon_drag", inputs, "solver=adam", "solver.max_steps=3").ok()
    assert list(by_hand.glob("invert/*/cannon_drag/routes/surrogate/solution.npz"))
    status = repository.run("dvc", "status").ok().printed
    assert status.split() == ["publish:", "always", "changed"]


def test_an_edit_of_one_task_asks_for_that_task(repository: Repository) -> None:
    repository.set("conf/task/cannon_drag.yaml", "  launch_height", 0.5)
    repository.run("dvc", "repro", "compose").ok()
    changed = json.loads(repository.run("dvc", "status", "--json").ok().printed)
    assert sorted(changed) == sorted([*of(("cannon_drag",)), "publish"])


def test_an_edit_runs_what_depends_on_it(repository: Repository) -> None:
    repository.set("conf/diagnose/default.yaml", "  points", 15)
    edited = repository.run("dvc", "repro").ok()
    assert sorted(edited.stages()) == sorted(["compose", *of(TASKS, ("diagnose", "report")), "publish"])
    repository.git("checkout", "--quiet", "conf")
    # Back again: DVC has it all in its cache, and MLflow has this state already.
    assert sorted(repository.run("dvc", "repro").ok().stages()) == ["compose", "publish"]


def test_an_edit_of_an_option_that_is_not_chosen_runs_nothing(repository: Repository) -> None:
    repository.set("conf/solver/adam.yaml", "step_size", 0.04)
    assert sorted(repository.run("dvc", "repro").ok().stages()) == ["compose", "publish"]


def test_the_list_of_tasks_counts_in_the_very_next_run(repository: Repository) -> None:
    repository.edit("conf/config.yaml", "[cannon_vacuum, cannon_drag]", "[cannon_drag]")
    # DVC makes its stages before it runs the first, so it computes nothing by the old list and says so.
    stale = repository.run("dvc", "repro")
    assert stale.code != 0 and "other tasks or routes" in stale.stderr
    assert stale.stages() == ["compose"]
    edited = repository.run("dvc", "repro").ok()
    assert sorted(edited.stages()) == ["compose", "publish"]
    assert "cannon_vacuum" not in edited.printed
    assert list(yaml.safe_load((repository.root / "params.yaml").read_text())["task"]) == ["cannon_drag"]
    # What is recorded of the other task is no longer asked for.
    shutil.rmtree(repository.root / "outputs" / "cannon_vacuum")
    repository.run("aimback.workflow.verify").ok()
    # `make repro` composes before it calls DVC.
    repository.edit("conf/config.yaml", "[cannon_drag]", "[cannon_vacuum]")
    assert repository.run("aimback.workflow.run").ok().stages() == ["compose", "publish"]
    assert list(yaml.safe_load((repository.root / "params.yaml").read_text())["task"]) == ["cannon_vacuum"]


def test_overrides_by_dvc_also_where_it_is_killed(repository: Repository) -> None:
    overrides = ("task=cannon_vacuum", "solver=adam", "solver.max_steps=3", "tracking=off")
    experiment = ("dvc", "exp", "run", *(f"--set-param={override}" for override in overrides))
    solution = repository.root / "outputs/cannon_vacuum/routes/surrogate/solution.npz"
    repository.run_and_kill(*experiment, when=lambda: not solution.exists())  # dvc removes it before it runs the stage
    repository.run("aimback.runtime.doctor").ok()
    done = repository.run(*experiment).ok()
    assert "invert@cannon_vacuum-surrogate" in done.stages() and solution.exists()
    assert set(done.stages()) <= {"compose", *of(("cannon_vacuum",), SOLVING), "publish"}
    params = yaml.safe_load((repository.root / "params.yaml").read_text())
    assert params["solver"]["_target_"].endswith("Adam")
    assert params["solver"]["max_steps"] == 3
    # It stays in the workspace, as every experiment does, until conf/ is edited.
    assert repository.run("dvc", "repro", "compose").ok().stages() == []
    repository.set("conf/solver/adam.yaml", "step_size", 0.04)
    assert repository.run("aimback.workflow.run", "--cfg", "job").ok().stages() == []
    repository.run("pipelines.compose").ok()
    assert "damping" in (repository.root / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.learning_rate=abc", "error: training.learning_rate: must be a valid number, got 'abc'"),
        ("targets=nowhere.csv", "error: targets: there is no file 'nowhere.csv'"),
    ],
)
def test_a_wrong_override_is_refused_and_nothing_is_lost(repository: Repository, override: str, says: str) -> None:
    refused = repository.run("dvc", "exp", "run", "-S", override)
    assert refused.code != 0
    assert says in refused.printed
    assert "Traceback" not in refused.printed
    assert refused.stages() == ["compose"]
    # Not accepted, so the next plain run composes conf/ anew.
    assert not (repository.root / "params.yaml").read_text().startswith("#")
    repository.git("checkout", "--quiet", "params.yaml")
    # aimback notices before it writes anything or calls DVC.
    refused = repository.run("aimback.workflow.run", override)
    assert refused.code == 2
    assert [line for line in refused.printed.splitlines() if line] == [says]
    assert repository.git("status", "--porcelain") == ""


def answers(repository: Repository) -> dict[str, tuple[Any, Any]]:
    """The controls and what became of each start, of every route to a vacuum's targets."""
    found = {}
    for route in ("surrogate", "direct", "hybrid"):
        with np.load(repository.root / "outputs" / "cannon_vacuum" / "routes" / route / "solution.npz") as file:
            found[route] = file["controls"], file["start_status"]
    return found


def test_a_run_that_is_killed_leaves_nothing_to_be_committed_and_compiled_finds_the_same(
    repository: Repository,
) -> None:
    (repository.root / "README.md").write_text("staged\n")
    repository.git("add", "README.md")
    (repository.root / "README.md").write_text("edited since\n")
    plain = answers(repository)
    asked = ("aimback.workflow.run", "task=cannon_vacuum", "hardware.compile=on", "tracking=off")
    solution = repository.root / "outputs/cannon_vacuum/routes/surrogate/solution.npz"
    repository.run_and_kill(*asked, when=lambda: not solution.exists())
    status = set(repository.git("status", "--porcelain").splitlines())
    assert {"MM README.md"} <= status <= {"MM README.md", " M params.yaml", " M dvc.lock"}  # the record of a run
    done = repository.run(*asked).ok()
    assert "invert@cannon_vacuum-surrogate" in done.stages()
    assert "MM README.md" in repository.git("status", "--porcelain").splitlines()
    # It is an experiment like those that `dvc exp run` makes.
    name = done.printed.partition("saved as: ")[2].split()[0]
    assert name in repository.run("dvc", "exp", "list", "--name-only").ok().printed
    # Every route finds what it finds uncompiled.
    # Three routes, and the simulator that the hybrid's network is trained through.
    assert len(list((repository.root / "outputs" / "compiled").glob("*.so"))) == 4
    for name, (controls, status) in answers(repository).items():
        before, status_before = plain[name]
        same = status == status_before
        assert same.mean() > 0.9
        np.testing.assert_allclose(controls[same], before[same], rtol=1e-4, atol=1e-4, err_msg=name)
    assert not any((repository.root / "outputs" / "compiled").glob("[.]*"))


@pytest.mark.parametrize(
    ("choice", "played", "files"),
    [
        (("routes=[direct]",), [("optimise", "direct")], {"miss", "loss", "r_t", "trajectories"}),
        (
            ("routes=[surrogate,direct]", "diagnose=none"),
            [("invert", "surrogate"), ("optimise", "direct")],
            {"surfaces"},
        ),
    ],
    ids=["a single route", "without claims"],
)
def test_fewer_routes(
    repository: Repository, choice: tuple[str, ...], played: list[tuple[str, str]], files: set[str]
) -> None:
    config = (repository.root / "conf/config.yaml").read_bytes()
    done = repository.run("aimback.workflow.run", "task=cannon_vacuum", *choice, "tracking=off").ok()
    assert {f"{stage}@cannon_vacuum-{route}" for stage, route in played}.isdisjoint(done.stages())  # as they were
    assert not [stage for stage in done.stages() if stage.startswith(("train", "amortise", "refine"))]
    assert ("diagnose@cannon_vacuum" in done.stages()) == ("diagnose=none" not in choice)
    outputs = repository.root / "outputs"
    metrics = json.loads((outputs / "cannon_vacuum/evaluate/metrics.json").read_text())
    assert list(metrics) == [route for _, route in played]
    assert files <= {file.stem for file in (outputs / "cannon_vacuum/figures").iterdir()}
    page = (outputs / "report/index.html").read_text()
    assert "Not diagnosed in this run." in page and "the hybrid route" not in page
    assert (repository.root / "conf/config.yaml").read_bytes() == config


def test_another_task_and_a_users_targets_for_one_run(repository: Repository) -> None:
    before = (repository.root / "conf/config.yaml").read_bytes()
    csv = repository.root / "mine.csv"
    csv.write_text("distance,wind\n3.0,0.5\noops,0\n")
    done = repository.run("aimback.workflow.run", "task=cannon_drag", "targets=mine.csv", "tracking=off").ok()
    # Other targets, the same examples: nothing is trained again.
    asking = of(("cannon_drag",), ("generate", *SOLVING))
    assert sorted(done.stages()) == sorted(["compose", *asking, "publish"])
    assert (repository.root / "conf/config.yaml").read_bytes() == before
    answers = (repository.root / "outputs/cannon_drag/evaluate/answers.csv").read_text()
    assert "invalid_input" in answers and "solved" in answers
    # An edit of the file is never passed over in silence, and the cure that is named cures.
    csv.write_text("distance,wind\n3.1,0.5\n")
    stale = repository.run("pipelines.publish")
    assert stale.code == 2 and "mine.csv was edited after" in stale.stderr
    # Without overrides it is conf/ again.
    repository.run("aimback.workflow.run", "tracking=off").ok()
    assert tuple(yaml.safe_load((repository.root / "params.yaml").read_text())["task"]) == TASKS


def test_an_experiment_in_a_copy_finds_targets_that_git_does_not_track(repository: Repository) -> None:
    (repository.root / "tä r.csv").write_text("distance,wind\n3.0,0.5\n")
    overrides = ('targets="tä r.csv"', "task=cannon_drag", "tracking=off")
    experiment = ("dvc", "exp", "run", "--temp", *(f"--set-param={override}" for override in overrides))
    done = repository.run(*experiment, "generate@cannon_drag").ok()
    assert done.stages()[-1] == "generate@cannon_drag"
    # Nothing was applied to the project itself.
    assert repository.git("status", "--porcelain", "--untracked-files=no") == ""


def test_without_git(made: tuple[Repository, Finished], tmp_path: Path) -> None:
    original, _ = made
    plain = Repository(tmp_path / "archive", git=False)
    shrink(plain)
    # A cache that is there already saves the test the time of everything that ran before.
    shutil.copytree(original.root / ".dvc/cache", plain.root / ".dvc/cache")
    before = (plain.root / "conf/config.yaml").read_bytes()
    # It was unpacked inside somebody else's repository, and DVC has not been told yet.
    (plain.root / ".dvc" / "config.local").unlink()
    around = Repository.__new__(Repository)
    around.root = tmp_path
    around.git("init", "--quiet")
    around.git("commit", "--quiet", "--allow-empty", "--message", "theirs")
    done = plain.run("aimback.workflow.run", "task=cannon_vacuum", "diagnose.examples=[40,120]", "tracking=off").ok()
    assert around.git("for-each-ref").count("\n") == 1
    assert sorted(done.stages()) == sorted(["compose", *of(("cannon_vacuum",), ("diagnose", "report")), "publish"])
    assert (plain.root / "conf/config.yaml").read_bytes() == before
    assert yaml.safe_load((plain.root / "params.yaml").read_text())["diagnose"]["examples"] == [40, 120]
    # The ninth claim trains networks of its own, two seeds of either size.
    outputs = plain.root / "outputs"
    ninth = json.loads((outputs / "cannon_vacuum/evaluate/claims/metrics.json").read_text())["C9"]
    assert min(ninth[f"{name}_{size}"] for name in ("forward_error", "miss") for size in (40, 120)) > 0
    assert "Better networks" in (outputs / "report/index.html").read_text(encoding="utf-8")


def test_the_same_bytes_elsewhere(made: tuple[Repository, Finished], tmp_path: Path) -> None:
    """In another folder, with other threads, locale, time zone and umask, and nothing from a cache."""
    original, _ = made
    other = Repository(tmp_path / "another place", git=False)
    shrink(other)
    other.edit("conf/config.yaml", "[cannon_vacuum, cannon_drag]", "[cannon_drag]")
    other.set("conf/hardware/auto.yaml", "threads", 2)
    other.run("pipelines.compose").ok()
    surroundings = {"OMP_NUM_THREADS": "2", "LC_ALL": "C", "TZ": "Asia/Kathmandu", "PYTHONHASHSEED": "1"}
    before = os.umask(0o077)
    try:
        other.run("dvc", "repro", "--no-run-cache", env={**surroundings, "GIT_CEILING_DIRECTORIES": str(tmp_path)}).ok()
    finally:
        os.umask(before)
    here, there = (outputs_by_hash(repository) for repository in (original, other))
    assert len(there) > 10
    assert there.items() <= here.items()


def outputs_by_hash(repository: Repository) -> dict[str, str]:
    """But for params.yaml, which tells what was asked for."""
    stages = yaml.safe_load((repository.root / "dvc.lock").read_text())["stages"].values()
    outs = (out for stage in stages for out in stage.get("outs", []))
    return {out["path"]: out["md5"] for out in outs if out["path"] != "params.yaml"}


def test_mlflow_has_one_complete_set_for_every_state(repository: Repository) -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{repository.root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("aimback")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    counted = Counter((run.data.tags["state"], run.data.tags["task"], run.data.tags["route"]) for run in runs)
    assert set(counted.values()) == {1}
    assert {run.info.status for run in runs} == {"FINISHED"}
    for state in {state for state, _, _ in counted}:
        kinds = sorted(route for of_state, _, route in counted if of_state == state)
        assert kinds == ["diagnosis", "direct", "hybrid", "proposer", "surrogate", "training"]
    drag = {run.data.tags["route"]: run for run in runs if run.data.tags["task"] == "cannon_drag"}
    direct, surrogate = drag["direct"].data, drag["surrogate"].data
    own = {name for name in direct.params.keys() ^ surrogate.params.keys() if not name.startswith("route.")}
    assert own == set()
    # Of a route that hits nothing there are no distinct answers to count.
    assert direct.metrics.keys() - surrogate.metrics.keys() <= {"distinct_answers_median"}
    for name in ("miss_median", "solved_fraction", "simulations", "gradients", "seconds_solve", "loss", "miss"):
        assert name in direct.metrics
    assert len(client.get_metric_history(drag["direct"].info.run_id, "miss")) > 1
    assert "mlflow.source.git.commit" in direct.tags
    assert drag["training"].inputs.dataset_inputs
    claims = drag["diagnosis"].data
    assert claims.tags["C7"] == "supported" and claims.metrics["C7"] > 0.95
    assert "refuted" in claims.tags["mlflow.note.content"]
    assert [item.path for item in client.list_artifacts(drag["diagnosis"].info.run_id, "report")] == [
        "report/index.html"
    ]
    assert "surfaces.png" in [item.path for item in client.list_artifacts(drag["direct"].info.run_id)]
    versions = Counter((one.name, one.tags["state"]) for one in client.search_model_versions())
    assert versions == Counter((task, state) for state, task, route in counted if route == "training")


def test_the_copy_runs_its_own_code(repository: Repository) -> None:
    """A queued experiment is a copy; what is installed is the original."""
    other = Path(__file__).resolve().parents[1] / "src"
    (repository.root / "where.py").write_text("import pipelines, aimback\nprint(aimback.__file__)\n")
    done = repository.run("where", env={"PYTHONPATH": str(other)}).ok()
    (repository.root / "where.py").unlink()
    assert Path(done.printed.strip()).is_relative_to(repository.root)


def test_commands_explain_themselves(repository: Repository) -> None:
    assert (
        "levenberg_marquardt"
        in repository.run("aimback.workflow.run", "--cfg", "job", "--package", "solver").ok().printed
    )
    assert "cannon_drag" in repository.run("aimback.workflow.run", "--info", "defaults-tree").ok().printed
    completed = repository.run(
        "aimback.workflow.run", "-sc", "query=bash", env={"COMP_LINE": "aimback solver=", "COMP_POINT": "99"}
    )
    assert "solver=adam" in completed.ok().printed.split()
