"""Every option of conf/ can be built, what cannot is refused in one line, and dvc.yaml tells the truth."""

import copy
import functools
import inspect
import itertools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import yaml
from imports import closure
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from aimback.core.errors import UserError
from aimback.runtime.project import ROOT
from aimback.settings.build import build
from aimback.settings.memory import check_memory
from aimback.settings.tree import Settings, read_settings
from aimback.solve.solver import Solver
from aimback.tasks.base import Task

CONF = ROOT / "conf"
FILES = [file.relative_to(CONF).with_suffix("") for file in CONF.rglob("*.yaml")]
# Those of hydra/ are for Hydra itself, see test_hydra_section and test_study.
OPTIONS = sorted(
    f"{group}={Path(*rest).as_posix()}" for group, *rest in (file.parts for file in FILES) if rest and group != "hydra"
)


@functools.cache
def composed(*overrides: str) -> DictConfig:
    """Each takes Hydra a tenth of a second, and many tests ask for the same."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


@pytest.fixture
def compose() -> Callable[..., Settings]:
    return lambda *overrides: read_settings(composed(*overrides))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_builds(compose: Any, option: str) -> None:
    group, name = option.split("=")
    if option in ("routes=no_boundary", "routes=hard_box"):  # another route's network
        option = f"routes=[neural_adjoint,{name}]"
    settings = compose(option, *(["preset=neural_adjoint"] if group == "profile" else []))
    if group == "task":
        assert list(settings.tasks) == [name.rpartition("/")[2]]
    if group == "preset":
        assert list(compose("task=[sine_wave]", option).tasks) == ["sine_wave"]
    if group == "routes":
        assert name in settings.routes


@pytest.mark.parametrize("option", [option for option in OPTIONS if re.match(r"(task|solver|executor)=\w+$", option)])
def test_files_spell_out_every_keyword_and_a_default_in_code_is_no_other_value(compose: Any, option: str) -> None:
    """conf/ is what people read: a constructor's keyword that is missing there would be a hidden setting."""
    settings, (group, name) = compose("task=cannon_vacuum", option), option.split("=")
    node = settings.tree["task"][name] if group == "task" else settings.tree[group]
    built = settings.tasks[name] if group == "task" else getattr(settings, group)
    keywords = inspect.signature(type(built)).parameters
    assert set(node) - {"_target_"} == set(keywords)
    if name == type(built).__module__.rpartition(".")[2]:  # not a variant of another file, such as neural_adjoint
        defaults = {key: keyword.default for key, keyword in keywords.items() if keyword.default is not keyword.empty}
        told = {key: tuple(value) if isinstance(value, list) else value for key, value in node.items()}
        drifted = {key for key, value in defaults.items() if value != told[key]}
        # None may stand for a value that is worked out.
        assert {key for key in drifted if getattr(type(built)(), key) != told[key]} == set()


def test_no_section_has_a_default() -> None:
    """Values live in conf/ alone."""
    sections, seen = [Settings], set()
    while sections:
        section = sections.pop()
        seen.add(section)
        fields = section.model_fields
        assert [name for name, field in fields.items() if not field.is_required()] == [], section
        annotations = [field.annotation for field in fields.values()]
        sections += [kind for kind in annotations if isinstance(kind, type) and issubclass(kind, BaseModel)]
    assert len(seen) > 5


def test_presets_change_what_they_say(compose: Any) -> None:
    article = compose("preset=article")
    assert (article.data.examples, article.training.max_epochs) == (1000, 100)
    assert compose("preset=article", "data.examples=77").data.examples == 77


@pytest.mark.parametrize(
    ("key", "ordinary", "dear"),
    [
        ("data.targets", 1000, 32),
        ("hybrid.targets", 8192, 2048),
        ("diagnose.targets", 32, 4),
        ("diagnose.basin_points", 33, 4),
    ],
)
def test_less_is_done_of_a_task_of_many_controls_unless_a_number_is_asked_for(
    compose: Any, key: str, ordinary: int, dear: int
) -> None:
    section, name = key.split(".")
    for overrides, counts in ((), [ordinary, dear]), ((f"{key}=500",), [500, 500]):
        settings = compose("task=[cannon_drag,heat]", *overrides)
        asked = settings.amortise["hybrid"] if section == "hybrid" else getattr(settings, section)
        assert [getattr(asked, f"count_{name}")(task) for task in settings.tasks.values()] == counts


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.learning_rate=abc", "training.learning_rate: must be a valid number"),
        ("training.learning_rate='0.1'", "training.learning_rate: must be a valid number"),
        ("training.learning_rate=nan", "training.learning_rate: must be a finite number"),
        ("training.learning_rate=1e400", "training.learning_rate: must be a finite number"),
        ("training.learning_rate=-1", "training.learning_rate"),
        ("training.learning_rate=null", "training.learning_rate"),
        ("surrogate.hidden_width=0", "surrogate.hidden_width"),
        ("surrogate.hidden_width=2.5", "surrogate.hidden_width: must be a valid integer"),
        ("surrogate.activation=rlu", "surrogate.activation"),
        ("+training.learning_rat=1", "training.learning_rat: unknown key; did you mean learning_rate?"),
        ("data.examples=0", "data.examples: must be at least 10 and at most 100,000,000, got 0"),
        ("data.validation_fraction=1", "data.validation_fraction: must be above 0 and below 1"),
        ("data.targets=-3", "data.targets: must be at least 1 and at most 100,000,000"),
        ("executor._target_=aimback.solve.adam.Adam", "executor._target_: must name an Executor of aimback"),
        ("executor._target_=os.system", "executor._target_: must name an Executor of aimback, got 'os.system'"),
        ("starts.number=0", "starts.number: must be at least 1 and at most 65,536, got 0"),
        ("starts.number=true", "starts.number: must be a valid integer"),
        ("solver.precision=inf", "solver.precision: must be a finite number"),
        ("smoothing.samples=3", "smoothing.samples: must be a multiple of 2"),
        ("smoothing.sigmas=[0.01,0.1]", "smoothing.sigmas: must have the widest first"),
        ("smoothing.sigmas=[2,0.1]", "smoothing.sigmas.0: must be above 0 and at most 1"),
        ("smoothing.order=second", "smoothing.order: must be 'zeroth', 'first' or 'switch', got 'second'"),
        ("task.cannon_drag.speed=[3,1]", "task.cannon_drag.speed: the lower bound must be below"),
        ("task.cannon_drag.speed=[1]", "task.cannon_drag.speed"),
        ("task.cannon_drag.speed=[0,nan]", "task.cannon_drag.speed"),
        ("task.cannon_drag.drag=-1", "task.cannon_drag.drag"),
        ("hybrid.refine=never", "hybrid.refine: must be 'outside_tolerance' or 'always'"),
        ("hybrid.batch_size=2.5", "hybrid.batch_size: must be a valid integer"),
        ("seed=-1", "seed: must be at least 0 and at most 9,223,372,036,854,775,807"),
        ("seed=1.5", "seed: must be a valid integer"),
        ("hardware.dtype=float16", "hardware.dtype: must be 'float32' or 'float64'"),
        ("hardware.threads=0", "hardware.threads: must be at least 1 and at most 1,024"),
        ("+sede=1", "did you mean seed?"),
        ("task=[]", "task: choose at least one"),
        ("tasks=[trebuchet]", "tasks: follows from task; choose by task=[trebuchet]"),
        ("+data._target_=aimback.core.files.sha256", "data._target_: unknown key"),
        ("~data.examples", "data.examples: is missing"),
        ("inputs=outputs", "inputs: must be a valid list"),
        ("inputs=[5]", "inputs.0: must be the path of a file or a folder"),
        ("routes=[]", "routes: choose at least one"),
        ("routes=[no_boundary]", "invert.no_boundary.network: is that of the route neural_adjoint; choose it beside"),
        (
            "routes.invert=[direct]",
            "routes.invert: follows from the routes; choose by routes=[surrogate,direct,hybrid]",
        ),
        ("+invert.surrogate.margn=0.1", "invert.surrogate.margn: unknown key; did you mean margin?"),
        ("invert.surrogate.margin=0.5", "invert.surrogate.margin: must be at least 0 and below 0.5, got 0.5"),
        ("+optimise.networks={}", "optimise.networks"),
        ("+train.surrogate.by_task.cannon_drag.network.hiden_width=3", "hiden_width: unknown key"),
        ("+train.surrogate.by_task.cannon_drag.training.batch_size=0", "by_task.cannon_drag.training.batch_size"),
        ("+train.surrogate.by_task.cannon_drag.netwrk={}", "train.surrogate.by_task.cannon_drag.netwrk"),
        ("published=ren", "published: must be 'neural_adjoint'"),
        ("only.route=nosuch", "only.route: no route 'nosuch' here; there is surrogate, direct, hybrid"),
        ("only.task=trebuchet", "task: there is no 'trebuchet', which only.task asks for"),
        ("+only.tsk=1", "only.tsk: unknown key; did you mean task?"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_key(compose: Any, override: str, says: str) -> None:
    with pytest.raises(UserError) as refused:
        compose(override)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def changed(settings: Settings, values: dict[str, Any]) -> dict[str, Any]:
    """The same tree with other values, which need not be ones that Hydra can be told."""
    tree = copy.deepcopy(settings.tree)
    for key, value in values.items():
        *above, name = key.split(".")
        node = tree
        for part in above:
            node = node[part]
        node[name] = value
    return tree


def whole_numbers(node: Any, above: str = "") -> Iterator[str]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from whole_numbers(value, f"{above}{name}.")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{above}{name}"


# A group's files have the same keys, but for those that name a class.
@pytest.mark.parametrize("option", [option for option in OPTIONS if re.match(r"(task|solver|executor)=\w+$", option)])
def test_every_whole_number_has_an_upper_bound(compose: Any, option: str) -> None:
    settings = compose("task=cannon_vacuum", option)
    group = option.partition("=")[0]
    tree = settings.tree if option == "solver=adam" else {group: settings.tree[group]}
    for key in whole_numbers(tree):
        for value in (2**63, 10**30, -2):
            wanted = rf"^{key}: must be .*(whole number from|at least) \d[\d,]* (to|and at most) \d[\d,]*, got {value}$"
            with pytest.raises(UserError, match=wanted):
                read_settings(changed(settings, {key: value}))


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"data.examples": 10**8}, "data.examples"),
        ({"starts.number": 65536, "data.targets": 10**5}, "starts.number"),
        ({"surrogate.hidden_width": 65536}, "surrogate.hidden_width"),
        ({"surrogate.hidden_width": 4096, "surrogate.hidden_layers": 256}, "surrogate.hidden_width"),
        ({"training.batch_size": 10**6, "data.examples": 10**6, "surrogate.hidden_width": 1024}, "training.batch_size"),
        ({"surrogate.members": 100, "surrogate.hidden_width": 2048}, "surrogate.members"),
        ({"surrogate.members": 100, "data.examples": 4 * 10**6}, "surrogate.members"),
        ({"hybrid.targets": 10**8}, "hybrid.targets"),
        ({"hybrid.hidden_width": 65536, "hybrid.dtype": "float64"}, "hybrid.hidden_width"),
    ],
)
def test_what_no_memory_can_hold_is_refused_at_once(
    compose: Any, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], key: str
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=4 * 10**9))
    check_memory(compose())
    settings = compose(*(f"{name}={value}" for name, value in values.items()))
    with pytest.raises(UserError, match=rf"^{key}: needs about \d[\d,]* GB of memory, here are 4; lower it$"):
        check_memory(settings)


STRANGE = [
    *("a\nb\r\nc", "\x1b[31mred\x1b[0m", "\x00\x07", "x" * 10_000, "\u2028", "\udcff", 10**5000, [["x" * 99] * 99]),
    *({"a": "\n" * 999}, b"bytes", float("nan")),
]
KEYS = ("starts.number", "solver._target_", "hardware.dtype", "task", "data", "tracking.enabled", "seed")


def test_a_wrong_value_is_one_line_whatever_it_holds(compose: Any) -> None:
    settings = compose("task=cannon_vacuum")
    for key, value in itertools.product(KEYS, STRANGE):
        with pytest.raises(UserError) as refused:
            read_settings(changed(settings, {key: value}))
        said = str(refused.value)
        assert said.startswith(key) and said.isprintable() and len(said) < 400, (key, value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.open",
        "builtins.eval",
        "subprocess.Popen",
        "aimback.workflow.run.main",
        "aimback",
        "aimback.core.files.write_text",
        "aimback.core.files.os.system",
        "aimback.core.files.tempfile.NamedTemporaryFile",
        "aimback.solve.solver.Stepper",
        "aimback.solve.solver.Solver",
        "aimback.tasks.cannon_drag.CannonDrag",
        "aimback..solve.adam.Adam",
        "aimback/solve/adam.Adam",
        "aimback.solve.adam.Adamm",
        "aimback.solve.nowhere.Adam",
        "",
        None,
        7,
        ["os.system"],
    ],
)
def test_a_target_that_is_no_solver_of_ours_is_refused(target: object) -> None:
    with pytest.raises(UserError, match="must name a Solver of aimback"):
        build({"_target_": target, "command": "exit"}, Solver, "solver")


def test_refusing_a_target_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    program = (
        "from aimback.core.errors import UserError\nfrom aimback.tasks.base import Task\n"
        "from aimback.settings.tree import build\n"
        "try: build({'_target_': 'trap.Trap'}, Task, 'task.x')\nexcept UserError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}:{ROOT / 'src'}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "task.x._target_: must name a Task of aimback, got 'trap.Trap'"


def test_a_task_is_built(compose: Any) -> None:
    task = compose("task=cannon_drag").tasks["cannon_drag"]
    assert isinstance(task, Task)


# ---- dvc.yaml

SEARCHES = ("invert", "optimise", "refine")
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
# What a stage's own code asks the settings for -> the sections of params.yaml that it must name.
SECTIONS = {
    **{name: name for name in ("targets", "data", "solver", "starts", "diagnose", "routes", "budget")},
    **{name: name for name in ("invert", "optimise", "amortise", "refine")},
    **{
        "network_of": "train",
        "replicas_of": "diagnose",
        "examined": "examined",
        "compared": "routes",
        "train": "routes",
    },
}


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "publish"])
def test_a_stage_depends_on_the_folders_of_all_that_it_imports(stage: str) -> None:
    """`publish` always runs."""
    folders = [ROOT / place for place in STAGES[stage]["deps"]]
    assert [place for place in folders if not place.exists() and "${" not in str(place)] == []
    loose = [file for file in closure(ROOT / "pipelines" / f"{stage}.py") if file.name != "__init__.py"]
    assert [file for file in loose if not any(file.is_relative_to(place) for place in folders)] == []
    assert {ROOT / "src/aimback" / room for room in ("autodiff", "tasks", "solve")} <= set(folders)  # by conf/
    assert (ROOT / "src/aimback/report" in folders) == (stage == "report")


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in ("compose", "publish")])
def test_params_are_the_sections_that_the_stage_reads(stage: str) -> None:
    files = {
        file for file in closure(ROOT / "pipelines" / f"{stage}.py") if file.parent.name in ("pipelines", "workflow")
    }
    apart = ("settings", "memory", "entry", "exits", "runs", "live")
    text = "\n".join(file.read_text(encoding="utf-8") for file in files if file.stem not in apart)
    read = {section for name, section in SECTIONS.items() if f"settings.{name}" in text or f"{name} = settings" in text}
    read |= {"data"} if "settings.hardware, settings.data" in text else set()
    read |= {"routes"} if "replicas_of" in text else set()
    read |= {"budget", "jacobians"} if "replicas_of" in text or "count_examples" in text else set()
    read |= {"seed"} if "job.generator" in text or "job.seed(" in text else set()
    read |= {"targets_sha256"} if "targets" in read else set()
    params = {param if param.startswith("task.") else param.split(".")[0] for param in STAGES[stage]["params"]}
    assert params == read | {"hardware", "task.${item.task}"}


def test_stages_stand_in_an_order_in_which_they_can_run() -> None:
    """`aimback` runs those of a task one by one, as they stand there."""

    def paths(stage: str, *kinds: str) -> list[str]:
        entries = [entry for kind in kinds for entry in STAGES[stage].get(kind, [])]
        return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]

    names = list(STAGES)
    for place, stage in enumerate(names):
        for later in names[place:]:
            outs = [Path(out) for out in paths(later, "outs", "metrics", "plots")]
            needed = [Path(dep) for dep in paths(stage, "deps") if stage != "publish"]
            assert not [out for out in outs for dep in needed if out.is_relative_to(dep) or dep.is_relative_to(out)]


def test_the_list_of_tasks_has_one_home() -> None:
    config = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))
    assert [list(entry) for entry in config["defaults"][:2]] == [["task"], ["routes"]]
    for stage, definition in STAGES.items():
        if stage not in ("compose", "publish"):
            tasks = "${examined}" if stage == "diagnose" else "${tasks}"
            route = {"route": f"${{routes.{stage}}}"} if stage in ("train", *SEARCHES, "amortise") else {}
            assert definition["matrix"] == {"task": tasks, **route}
    tasks = config["defaults"][0]["task"]
    for file in (ROOT / "dvc.yaml", ROOT / "Makefile", *sorted((ROOT / "pipelines").glob("*.py"))):
        said = [line for line in file.read_text(encoding="utf-8").splitlines() if all(task in line for task in tasks)]
        assert said == [], file


def test_params_yaml_is_composed_from_conf() -> None:
    from aimback.workflow.compose import HEADER, compose_conf, hash_conf

    first, *_ = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    assert first == f"{HEADER}{hash_conf()}", "conf/ was edited: run `dvc repro compose` and commit params.yaml"
    made = OmegaConf.to_container(compose_conf(), resolve=True)
    assert yaml.safe_load((ROOT / "params.yaml").read_text()) == {**made, "targets_sha256": None}


def test_the_part_of_a_stage_is_not_written_to_params_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from aimback.workflow import compose

    monkeypatch.setattr(compose, "PARAMS", tmp_path / "params.yaml")
    cfg = compose.compose_conf("task=[cannon_vacuum]", "only.task=cannon_vacuum")
    with pytest.raises(UserError, match=r"^only: .* chosen by task="):
        compose.write_params(cfg)
    assert list(tmp_path.iterdir()) == []


def test_what_hydra_cannot_read_in_conf_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """YAML takes a bare `off` for a truth value, and Hydra has no words of its own for that."""
    from aimback.workflow import compose

    (tmp_path / "config.yaml").write_text("defaults:\n  - tracking: off\n")
    monkeypatch.setattr(compose, "CONF", tmp_path)
    monkeypatch.setattr(compose, "PARAMS", tmp_path / "params.yaml")
    with pytest.raises(UserError, match="Unsupported item value in defaults : bool"):
        compose._compose()
