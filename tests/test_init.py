"""A project of one's own: `aimback init` writes what is its user's, and the pipeline runs in it as it does here."""

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import jinja2
import pytest
import yaml
from conftest import Finished, Repository

from aimback.runtime.project import ROOT, find_project
from aimback.workflow import scaffold

SMALL = ("routes=[direct]", "data.targets=5", "data.examples=20", "diagnose=none", "tracking=off")
WRITTEN = [
    *(".dvc/.gitignore", ".dvc/config", ".dvc/config.local", ".dvcignore", ".gitignore", "Makefile", "README.md"),
    *(f".dvc/plots/{file.name}" for file in (ROOT / ".dvc/plots").iterdir()),
    *("conf/config.yaml", "dvc.yaml", "params.yaml", "pyproject.toml", "src/mylab/__init__.py", "tests/test_laws.py"),
]


class Lab(Repository):
    """A project in a folder of its own, for which this checkout is the installed aimback."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir(exist_ok=True)
        self.root = folder
        self.given = {"PYTHONPATH": str(ROOT / "src")}
        self.aimback("init", "mylab", *arguments).ok()
        self.root = folder / "mylab"

    def aimback(self, *arguments: str) -> Finished:
        return self.run("aimback.workflow.run", *arguments)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """One that tests only read."""
    return Lab(tmp_path_factory.mktemp("lab"), "--example", "cannon_vacuum")


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The command in an empty folder, without the time that a process takes to start."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def make(*arguments: str) -> Path:
        scaffold.main(["mylab", *arguments])
        return tmp_path / "mylab"

    return make


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def read(file: Path) -> dict:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


# ---- what is written


def test_it_holds_only_what_is_its_users(lab: Lab) -> None:
    assert files(lab.root) == sorted([*WRITTEN, "conf/task/cannon_vacuum.yaml"])
    assert [file.name for file in lab.root.parent.iterdir()] == ["mylab"]
    assert find_project(lab.root / "src" / "mylab") == lab.root


def test_its_table_of_contents_is_ours() -> None:
    """But for the tasks."""
    ours = read(ROOT / "conf" / "config.yaml")["defaults"]
    text = (ROOT / "src/aimback/workflow/templates/conf/config.yaml").read_text(encoding="utf-8")
    templates = jinja2.Environment()
    templates.filters["yaml"] = str
    told = {"task": "x", "routes": ["surrogate", "direct", "hybrid"], "dear": False, "measured": False}
    theirs = yaml.safe_load(templates.from_string(text).render(told))["defaults"]
    assert theirs == [{"task": ["x"]}, *ours[1:]]


def test_its_stages_are_ours_of_the_installed_package(lab: Lab) -> None:
    ours, theirs = (read(folder / "dvc.yaml")["stages"] for folder in (ROOT, lab.root))
    assert list(ours) == list(theirs)
    for name, stage in theirs.items():
        assert stage["cmd"].startswith(f"python -m aimback.pipelines.{name}")
        kept = [place for place in ours[name]["deps"] if place.startswith("outputs")]
        assert stage.get("deps", []) == (["conf", "src"] if name == "compose" else kept)
        apart = ("cmd", "deps", "always_changed")
        assert {k: v for k, v in stage.items() if k not in apart} == {
            k: v for k, v in ours[name].items() if k not in apart
        }


def test_without_a_simulator_it_has_an_example(init: Callable[..., Path]) -> None:
    project = init()
    assert files(project) == sorted([*WRITTEN, "conf/task/mylab.yaml", "src/mylab/simulator.py"])
    assert read(project / "conf/task/mylab.yaml") == {
        "mylab": {
            "simulator": {"call": "mylab.simulator:simulate", "derivatives": "auto", "workers": 2, "timeout": 60.0},
            "controls": {"speed": [1.0, 10.0, "m/s"], "angle": [0.1, 1.4, "rad"]},
            "conditions": {"wind": [-2.0, 2.0, "m/s"]},
            "outcomes": {"distance": {"unit": "m", "tolerance": 0.01}},
        }
    }
    assert read(project / "conf/config.yaml")["trust"] == ["mylab"]


def test_a_name_may_be_a_word_of_yaml(init: Callable[..., Path], tmp_path: Path) -> None:
    scaffold.main(["on"])
    assert list(read(tmp_path / "on/conf/task/on.yaml")) == ["on"]
    assert read(tmp_path / "on/params.yaml")["tasks"] == ["on"]


DROP = "def drop(speed, angle, drag=0.5, *, mass=0, name='ball'):\n    return speed\n"


@pytest.mark.parametrize("call", ["drop.py:drop", "drop:drop"])
def test_a_function_in_a_file_is_copied(
    init: Callable[..., Path], capsys: pytest.CaptureFixture[str], call: str
) -> None:
    Path("drop.py").write_text(DROP)
    project = init("--call", call, "--conditions", "angle=0:1:rad")
    assert (project / "src/mylab/simulator.py").read_text() == DROP
    task = read(project / "conf/task/mylab.yaml")["mylab"]
    assert task["simulator"]["call"] == "mylab.simulator:drop"
    assert task["controls"] == {"speed": [0.0, 1.0], "drag": [0.25, 1.0], "mass": [0.0, 1.0]}
    assert task["conditions"] == {"angle": [0.0, 1.0, "rad"]}
    text = (project / "conf/task/mylab.yaml").read_text()
    assert "drag: [0.25, 1.0] # made up: half and twice its default, 0.5\n" in text
    assert "first edit the values that conf/task/mylab.yaml calls made up" in capsys.readouterr().out


def test_a_package_here_is_copied(init: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lander/inner").mkdir(parents=True)
    Path("lander/__init__.py").touch()
    Path("lander/inner/fall.py").write_text(DROP)
    project = init("--call", "lander.inner.fall:drop", "--controls", "speed=1:2,angle=3")
    for name in [name for name in sys.modules if name.startswith("lander")]:
        monkeypatch.delitem(sys.modules, name)
    assert (project / "src/lander/inner/fall.py").read_text() == DROP
    assert read(project / "conf/task/mylab.yaml")["mylab"]["controls"] == {"speed": [1.0, 2.0], "angle": 3.0}
    assert read(project / "conf/config.yaml")["trust"] == ["lander"]


def test_an_installed_function_is_called_where_it_is(init: Callable[..., Path]) -> None:
    project = init("--call", "colorsys:rgb_to_hls", "--outcomes", "hue,light,full:1:0.1")
    assert files(project) == sorted([*WRITTEN, "conf/task/mylab.yaml"])
    task = read(project / "conf/task/mylab.yaml")["mylab"]
    assert list(task["controls"]) == ["r", "g", "b"]
    assert task["outcomes"] == {
        "hue": {"tolerance": 0.01},
        "light": {"tolerance": 0.01},
        "full": {"unit": "1", "tolerance": 0.1},
    }
    assert read(project / "conf/config.yaml")["trust"] == ["colorsys"]


def test_a_command_is_trusted_as_a_whole_and_its_files_are_copied(init: Callable[..., Path]) -> None:
    Path("drop").write_text("#!/bin/sh\necho 1\n")
    Path("drop").chmod(0o755)
    line = "./drop {speed} '{angle}'"
    project = init("--command", line, "--controls", "speed=1:10:m/s,angle=0.1:1.4:rad", "--outcomes", "distance:m:0.01")
    assert os.access(project / "drop", os.X_OK)
    task = read(project / "conf/task/mylab.yaml")["mylab"]
    assert task == {
        "simulator": {"command": line, "derivatives": "auto", "workers": 2, "timeout": 60.0},
        "controls": {"speed": [1.0, 10.0, "m/s"], "angle": [0.1, 1.4, "rad"]},
        "outcomes": {"distance": {"unit": "m", "tolerance": 0.01}},
    }
    assert read(project / "conf/config.yaml")["trust"] == [line]
    assert read(project / "dvc.yaml")["stages"]["compose"]["deps"] == ["conf", "src", "drop"]


def test_data_tell_their_ranges_and_are_searched_through_a_network_alone(init: Callable[..., Path]) -> None:
    Path("runs.csv").write_text("speed [m/s],wind,distance [m]\n1,0,2\n3,1,12\n")
    project = init("--data", "runs.csv", "--conditions", "wind", "--outcomes", "distance")
    assert read(project / "conf/task/mylab.yaml")["mylab"] == {
        "data": "runs.csv",
        "controls": {"speed": [1.0, 3.0, "m/s"]},
        "conditions": {"wind": [0.0, 1.0]},
        "outcomes": {"distance": {"unit": "m", "tolerance": 0.1}},
    }
    config = read(project / "conf/config.yaml")
    assert (config["trust"], config["defaults"][1]) == ([], {"routes": ["surrogate"]})
    assert (project / "runs.csv").is_file()


def test_a_folder_a_file_and_an_address(init: Callable[..., Path], tmp_path: Path) -> None:
    Path("ball").mkdir()
    Path("ball/tesseract_api.py").touch()
    Path("ball.fmu").touch()
    for option, value in (("tesseract", "ball"), ("fmu", "ball.fmu"), ("umbridge", "http://localhost:4242")):
        scaffold.main([f"lab_{option}", f"--{option}", value, "--controls", "speed=1:10"])
        project = tmp_path / f"lab_{option}"
        assert read(project / f"conf/task/lab_{option}.yaml")[f"lab_{option}"]["simulator"][option] == value
        assert read(project / "conf/config.yaml")["trust"] == [value]
        assert option == "umbridge" or (project / value).exists()
        asked = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        assert (asked["name"], asked["dependencies"]) == (f"lab_{option}", [f"aimback[{option}]"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "the following arguments are required: NAME"),
        ("my-lab", "'my-lab': can be no name of a package"),
        ("class", "can be no name of a package"),
        ("_lab", "can be no name of a package"),
        ("json", "json: is the name of an installed package"),
        ("aimback", "aimback: is the name of an installed package"),
        ("full", "full: is there, and not empty"),
        ("full/mine.txt/lab", "full/mine.txt: there is no such folder"),
        ("lab --cal x", "unrecognized arguments: --cal x"),
        ("lab --call drop.py:drop --command {a}", "not allowed with argument"),
        ("lab --call drop", "is typed package.module:function or file.py:function"),
        ("lab --call :drop", "is typed package.module:function or file.py:function"),
        ("lab --call ../drop:drop", "is typed package.module:function or file.py:function"),
        ("lab --call drop.py:nothing", "there is no function 'nothing'"),
        ("lab --call nowhere.py:drop", "there is no file 'nowhere.py'"),
        ("lab --call no.where:drop", "cannot be imported (ModuleNotFoundError: No module named 'no')"),
        ("lab --call broken.py:drop", "cannot be imported (ZeroDivisionError: division by zero)"),
        ("lab --call drop.py:drop --controls speed=1:2", "angle: must be among --controls or --conditions"),
        ("lab --call drop.py:drop --controls sped=1:2", "sped: there is no such name; there are speed, angle, drag"),
        ("lab --call drop.py:drop --controls speed=2:1", "the lower bound must be below"),
        ("lab --call drop.py:drop --controls speed=1:x", "'x' is no finite number"),
        ("lab --call drop.py:drop --controls speed=1:nan", "'nan' is no finite number"),
        ("lab --call drop.py:drop --controls speed=1,speed=2", "each once"),
        ("lab --call drop.py:drop --controls speed,angle --conditions speed", "speed: is one thing only"),
        ("lab --call drop.py:drop --conditions speed,angle,drag,mass", "there must be one that is solved for"),
        ("lab --call drop.py:drop --outcomes x:m:0", "the tolerance must be above 0"),
        ("lab --call drop.py:drop --outcomes x:m:1:2", "is typed name:unit:tolerance"),
        ("lab --command ./drop", "names its controls in braces"),
        ("lab --command './drop {a}'", "there is no file './drop' here"),
        ("lab --data drop.py --outcomes x", "is no table of numbers"),
        ("lab --data runs.csv", "name the outcomes among its columns, by --outcomes; they are speed, distance"),
        ("lab --data runs.csv --outcomes height", "height: there is no such name; there are speed, distance"),
        ("lab --data twice.csv --outcomes x", "has two columns of the same name"),
        ("lab --tesseract full", "there is no such folder with a tesseract_api.py"),
        ("lab --fmu nothing.fmu", "there is no such file"),
        ("lab --fmu runs.csv", "does not tell its controls; name them"),
        ("lab --umbridge localhost", "is an address such as http://localhost:4242"),
        ("lab --example cannon", "there is no such task; choose one of ball_ground_wall, "),
        ("lab --example cannon_drag --controls speed=1:2", "says itself what its controls"),
        ("lab --controls speed=1:2", "belong to a simulator"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    (tmp_path / "drop.py").write_text(DROP)
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "runs.csv").write_text("speed,distance\n1,2\n2,4\n")
    (tmp_path / "twice.csv").write_text("x,y,x\n1,2,3\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as ended:
        scaffold.main(shlex.split(words))
    complaint = capsys.readouterr().err
    assert (ended.value.code, complaint.count("\n")) == (2, 1)
    assert complaint.startswith("error: ") and says in complaint
    assert sorted(tmp_path.rglob("*")) == before


def test_what_fails_halfway_leaves_nothing(
    init: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "there")

    monkeypatch.setattr(scaffold, "tell_of_git", fail)
    with pytest.raises(SystemExit):
        init()
    assert list(tmp_path.iterdir()) == []


# ---- commands in it


def test_where_there_is_no_project_the_command_says_how_to_make_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aimback.workflow.run", "solver=adam"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: here is no project of aimback; to make one, type: aimback init NAME\n"
    assert list(tmp_path.iterdir()) == []


def test_groups_come_out_of_the_package(lab: Lab) -> None:
    told = yaml.safe_load(lab.aimback("--cfg", "job", "solver=adam", "task=[cannon_vacuum,trebuchet]").ok().printed)
    assert told["solver"]["_target_"] == "aimback.solve.adam.Adam"
    assert list(told["task"]) == ["cannon_vacuum", "trebuchet"]
    assert told["tracking"]["experiment"] == "mylab"


def test_help_and_completion_know_the_groups_of_the_package(lab: Lab) -> None:
    assert "solver: adam, bayesian, cma_es" in lab.aimback("--help").ok().printed
    typed = {"COMP_LINE": "aimback solver=ad", "COMP_POINT": "17"}
    done = lab.run("aimback.workflow.run", "-sc", "query=bash", env=typed).ok()
    assert done.printed.split() == ["solver=adam"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("hydra.searchpath=[pkg://evil]", "hydra.searchpath: stands in conf/config.yaml alone"),
        ("hydra.searchpath=[file:///tmp]", "hydra.searchpath: stands in conf/config.yaml alone"),
        ("solver=adm", "did you mean adam? Choose one of adam, bayesian, cma_es, "),
        ("task=nosuch", "choose one of ball_ground_wall, ball_with_wall, "),
        ("traning.max_epochs=1", "did you mean training.max_epochs?"),
    ],
)
def test_a_wrong_override_is_one_line(lab: Lab, override: str, says: str) -> None:
    refused = lab.aimback(override)
    assert refused.code == 2
    assert says in refused.stderr and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("copy", [False, True])
def test_a_stage_finds_the_package_of_the_project_that_it_runs_in(lab: Lab, tmp_path: Path, copy: bool) -> None:
    """Also in DVC's copy for an experiment, where the original is installed."""
    here = tmp_path / "original" / ".dvc" / "tmp" / "exps" / "copy" if copy else lab.root
    if copy:
        shutil.copytree(lab.root, here)
    code = "import aimback.runtime.project as project, mylab; print(project.ROOT, mylab.__file__)"
    env = {**lab.environment(), "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(lab.root / "src")])}
    done = subprocess.run(
        [sys.executable, "-c", f"import aimback.runtime; {code}"],
        cwd=here / "conf",
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(here), str(here / "src/mylab/__init__.py")]


@pytest.mark.slow
def test_the_pipeline_runs_in_it_as_here(tmp_path: Path) -> None:
    lab = Lab(tmp_path, "--example", "cannon_vacuum")
    assert lab.aimback(*SMALL).ok().stages()[:3] == [
        "compose",
        "generate@cannon_vacuum",
        "optimise@cannon_vacuum-direct",
    ]
    assert (lab.root / "outputs/report/index.html").is_file()
    stale = ["compose", "publish"]  # these always run
    assert lab.run("dvc", "repro").ok().stages() == stale

    # What the user edits, and a new file of theirs beside the package's.
    lab.edit("conf/config.yaml", "tracking: {", "data: {examples: 20, targets: 5}\ntracking: {enabled: false, ")
    lab.edit("conf/config.yaml", "[surrogate, direct, hybrid]", "[direct]")
    lab.edit("conf/config.yaml", "diagnose: default", "diagnose: none")
    assert lab.run("dvc", "repro").ok().stages() == stale
    lab.edit("conf/task/cannon_vacuum.yaml", "tolerance: 0.01", "tolerance: 0.02")
    assert "generate@cannon_vacuum" in lab.run("dvc", "repro").ok().stages()
    (lab.root / "conf/solver").mkdir()
    (lab.root / "conf/solver/mine.yaml").write_text("defaults: [adam]\nmax_steps: 7\n")
    assert yaml.safe_load(lab.aimback("--cfg", "job", "solver=mine").ok().printed)["solver"]["max_steps"] == 7

    # By hand, and as experiments, also in DVC's copy of the project.
    lab.run("aimback.pipelines.generate", "--multirun", "seed=1,2").ok()
    assert len(list(lab.root.glob("outputs/by_hand/generate/*/*/cannon_vacuum/data/targets.npz"))) == 2
    lab.git("init", "--quiet", "--initial-branch=main")
    lab.run("aimback.runtime.doctor").ok()
    lab.commit("all")
    done = lab.run("dvc", "exp", "run", "-S", "solver=adam", "--name", "by-adam").ok()
    assert done.stages() == [
        *("compose", "optimise@cannon_vacuum-direct", "evaluate@cannon_vacuum", "report@cannon_vacuum", "publish")
    ]
    assert read(lab.root / "params.yaml")["solver"]["_target_"] == "aimback.solve.adam.Adam"
    lab.git("checkout", "--quiet", ".")
    lab.run("dvc", "exp", "run", "--temp", "-S", "solver=mine", "--name", "by-mine").ok()
    (by_mine,) = (
        ref for ref in lab.git("for-each-ref", "--format=%(refname)", "refs/exps").split() if "by-mine" in ref
    )
    assert "    max_steps: 7\n" in lab.git("show", f"{by_mine}:params.yaml")
    made = subprocess.run(
        ["make", "test"], cwd=lab.root, env=lab.environment(), capture_output=True, text=True, check=False
    )
    assert made.returncode == 0 and "6 passed" in made.stdout, made.stdout + made.stderr


@pytest.mark.slow
def test_an_edit_of_the_installed_conf_is_noticed(tmp_path: Path) -> None:
    installed = Repository(tmp_path / "installed", git=False)
    lab = Lab(tmp_path / "lab", "--example", "cannon_vacuum")
    lab.given = {"PYTHONPATH": str(installed.root / "src")}
    lab.run("dvc", "repro", "compose").ok()
    before = read(lab.root / "params.yaml")["solver"]["max_steps"]
    installed.set("conf/solver/levenberg_marquardt.yaml", "max_steps", 77)
    lab.run("dvc", "repro", "compose").ok()
    assert (before, read(lab.root / "params.yaml")["solver"]["max_steps"]) == (100, 77)
