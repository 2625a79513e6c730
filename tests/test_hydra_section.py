"""Config runs no code: what Hydra's own section could do is refused before Hydra does it."""

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from aimback.core.errors import UserError
from aimback.runtime.project import ROOT
from aimback.workflow import hydra_section
from aimback.workflow.entry import entry

# A handler that touches a file when logging is set up. PLACE is a folder outside of the project.
HANDLER = "{version: 1, handlers: {x: {'()': os.system, command: touch PLACE/ran}}, root: {handlers: [x]}}"

# Command lines; `preset=evil` chooses a file that holds what stands beside it.
HOSTILE = {
    "+hydra.job.env_set.CXX=PLACE/compiler": "",
    "+hydra.job.env_set.GIT_CONFIG_GLOBAL=PLACE/config": "",
    "hydra.job.env_set={LD_PRELOAD:library.so}": "",
    "hydra.job.env_copy=[HOME]": "",
    "+hydra.callbacks.one={_target_:evil.Callback}": "",
    "+hydra.callbacks.one={_target_:hydra.experimental.callbacks.PickleJobInfoCallback}": "",
    "hydra.callbacks.study._target_=evil.Callback": "",
    "+hydra.callbacks.study.more={_target_:evil.One}": "",
    "hydra.job_logging.handlers.file.filename=PLACE/log": "",
    "hydra.job_logging.handlers.console.class=evil.Handler": "",
    "hydra.job_logging.handlers.console.stream=ext://evil.stream": "",
    "+hydra.job_logging.handlers.console.level=ext://evil.level": "",
    "hydra.job_logging.formatters.simple.format=ext://evil.format": "",
    "+hydra.job_logging.formatters.simple.class=evil.Formatter": "",
    "+hydra.job_logging.filters={one:{class:evil.Filter}}": "",
    "hydra.hydra_logging.handlers.console.class=evil.Handler": "",
    "hydra/hydra_logging=hydra_debug": "",
    "hydra/job_logging=evil": "",
    "hydra/hydra_logging=evil": "",
    "preset=evil": f"hydra: {{job_logging: {HANDLER}}}",
    "preset=evil seed=1": f"hydra: {{hydra_logging: {HANDLER}}}",
    "preset=evil seed=2": "hydra: {job: {env_set: {CXX: PLACE/compiler}}}",
    "preset=evil seed=3": "{seed: 2, targets: {CXX: x}, hydra: {job: {env_set: '${targets}'}}}",
    "preset=evil seed=4": "{targets: {name: x, env_set: {CXX: x}}, hydra: {job: '${targets}'}}",
    "preset=evil seed=5": "hydra: {run: {dir: '${oc.env:ELSEWHERE}'}}",
    "preset=evil --cfg job": f"hydra: {{hydra_logging: {HANDLER}}}",
    "preset=evil --help": f"hydra: {{hydra_logging: {HANDLER}}}",
    "preset=evil --info": f"hydra: {{hydra_logging: {HANDLER}}}",
    "preset=evil --multirun": "hydra: {launcher: {x: {_target_: os.system, command: touch PLACE/ran}}}",
    "preset=evil seed=1 --multirun": "hydra: {sweeper: {params: {x: {_target_: evil.One}}}}",
    "preset=evil seed=2 --multirun": "hydra: {callbacks: {one: {_target_: evil.Callback}}}",
    "preset=null,evil --multirun": "hydra: {job: {env_set: {CXX: x}}}",
    "-cd PLACE/conf -cn primary": "",
    "-cp PLACE/conf -cn primary": "",
    "-cp pkg://evil": "",
    "-cp pkg://evil.inner": "",
    "hydra.searchpath=[pkg://evil]": "",
    "hydra.searchpath=[pkg://aimback.conf]": "",
    "hydra.searchpath=[file://PLACE/conf] preset=mine": "",
    "hydra.searchpath=[file://PLACE/conf]": "",
    "+hydra.searchpath=[file://PLACE/conf]": "",
    "hydra={searchpath:[file://PLACE/conf]}": "",
    "preset=evil seed=6": "hydra: {searchpath: ['file://PLACE/conf']}",
    "-cp pkg://aimback.tests": "",
    "--experimental-rerun=PLACE/pickle": "",
    "--exp PLACE/pickle": "",
    "hydra.job.name=../../../name": "",
    "hydra.output_subdir=PLACE/sub": "",
    "hydra.output_subdir=../../..": "",
    "hydra.run.dir=. hydra.output_subdir=conf": "",
    "hydra.run.dir=PLACE/run": "",
    "hydra.run.dir=../elsewhere": "",
    "hydra.run.dir=outputs/../../elsewhere": "",
    "hydra.run.dir=src/aimback": "",
    "hydra.run.dir=.git": "",
    "hydra.sweep.dir=PLACE/sweep --multirun": "",
    "hydra.sweep.subdir=PLACE/job --multirun": "",
    "hydra.sweep.subdir=../../../../../elsewhere --multirun": "",
    "hydra.sweep.subdir=${hydra.job.override_dirname} inputs=[x/../../../../../../elsewhere] --multirun": "",
    "hydra.launcher._target_=evil.Launcher --multirun": "",
    "+hydra.launcher.one={_target_:evil.One} --multirun": "",
    "hydra.sweeper._target_=evil.Sweeper --multirun": "",
    "+hydra.sweeper.one=os.system --multirun": "",
    "hydra/launcher=evil --multirun": "",
    "hydra/launcher=slurm hydra.launcher.setup=[PLACE/evil] --multirun": "",
    "hydra/launcher=slurm hydra.launcher.partition='a\nb' --multirun": "",
    "hydra/launcher=submitit_local hydra.launcher.submitit_folder=PLACE/jobs --multirun": "",
    "hydra/sweeper=optuna hydra.sweeper.storage=sqlite:///PLACE/base --multirun": "",
    "hydra/sweeper=optuna hydra.sweeper.sampler._target_=evil.One --multirun": "",
    "hydra/sweeper=optuna hydra.sweeper.custom_search_space=evil.extend --multirun": "",
}

HARMLESS = (
    "hydra.run.dir=outputs/here hydra.output_subdir=null",
    "hydra.output_subdir=a/b hydra.verbose=[aimback] preset=article",
    "hydra/job_logging=none hydra/hydra_logging=none",
    "hydra/job_logging=stdout hydra.job_logging.root.level=DEBUG",
    "hydra.job.name=another",
    "hydra.job.chdir=true",
    "hydra.mode=MULTIRUN seed=1,2",
    "--multirun seed=1,2",
    "--multirun seed=1,2 hydra.sweep.dir=outputs/here hydra.sweep.subdir=${seed}/${hydra.job.override_dirname}",
    "-cd PLACE/conf preset=swept hydra.sweeper.max_batch_size=1",
    "-cd . -cn params hydra.run.dir=outputs/here hydra.output_subdir=null hydra/job_logging=none",
    "-cd PLACE/conf preset=mine",
    "task=[sine_wave] preset=neural_adjoint profile=benchmark",
)
SHOWN = ("--cfg job", "--info", "--help", "--hydra-help", "-sc install=bash")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with conf of a stranger's, and a package that leaves a mark where it is imported."""
    (tmp_path / "evil" / "inner").mkdir(parents=True)
    for package in ("evil", "evil/inner"):
        (tmp_path / package / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "pickle").write_bytes(f"cos\nsystem\n(S'touch {tmp_path}/ran'\ntR.".encode())
    files = {
        "preset/mine": "# @package _global_\nseed: 7\n",
        "preset/swept": "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n",
        "hydra/job_logging/evil": HANDLER,
        "hydra/hydra_logging/evil": HANDLER,
        "hydra/launcher/evil": "_target_: evil.Launcher\n",
        "primary": "hydra: {searchpath: ['pkg://evil'], job: {env_set: {CXX: x}}}\n",
    }
    for name, text in files.items():
        file = tmp_path / "conf" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.replace("PLACE", str(tmp_path)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "elsewhere"))
    # So deep that whatever is written beside the project is still in the folder that is looked through.
    project = tmp_path / "1/2/3/4/5/6/project"
    for folder in (".git", "conf", "src/aimback"):
        (project / folder).mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", project)
    monkeypatch.setattr(hydra_section, "ROOT", project)
    monkeypatch.chdir(project)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    root = logging.getLogger()
    told, level = root.handlers[:], root.level
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)
    root.handlers[:] = told
    root.setLevel(level)
    GlobalHydra.instance().clear()
    sys.modules.pop("evil", None)


@pytest.mark.parametrize(("words", "preset"), HOSTILE.items(), ids=HOSTILE)
def test_what_could_run_or_write_elsewhere_is_refused_in_one_line(
    words: str, preset: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "conf/preset/evil.yaml").write_text(f"# @package _global_\n{preset.replace('PLACE', str(place))}\n")
    before = written(place)

    @entry
    def main(cfg: DictConfig) -> None:
        if "null" not in words:  # of two jobs the harmless one, which comes first
            (place / "ran").touch()

    argv = words.replace("PLACE", str(place)).split(" ")
    monkeypatch.setattr(sys, "argv", ["main", *argv, *([] if "-c" in words else ["-cd", f"{place}/conf"])])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capfd.readouterr().err.startswith("error: ")
    assert written(place) == before


def written(place: Path) -> list[Path]:
    """All but the log of the error, and what the one job of two wrote that was harmless."""
    return sorted(file for file in place.rglob("*") if not {"__pycache__", "outputs"} & {*file.parts})


@pytest.mark.parametrize(
    "words", [HARMLESS[0], *(pytest.param(words, marks=pytest.mark.slow) for words in (*HARMLESS[1:], *SHOWN))]
)
def test_what_only_chooses_works(words: str, place: Path) -> None:
    program = place / "test_hydra_section.py"
    program.write_text(f"""
from pathlib import Path
from aimback.workflow import entry as commands
from aimback.workflow import hydra_section
from aimback.workflow.entry import entry

hydra_section.ROOT = commands.ROOT = Path.cwd()

@entry
def main(cfg):
    Path({str(place)!r}, f"ran with {{cfg.seed}}").touch()

main()
""")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    command = [sys.executable, str(program), *words.replace("PLACE", str(place)).split(" ")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ran = len(list(place.glob("ran with *")))
    assert ran == (0 if words in SHOWN else 2 if "1,2" in words or "swept" in words else 1)
    assert not (place / "ran").exists()


@pytest.mark.parametrize("section", ["{searchpath: ['pkg://evil']}", "{job: {env_set: {CXX: x}}}"])
def test_the_stage_compose_is_guarded_too(section: str, place: Path) -> None:
    (place / "conf/config.yaml").write_text(f"hydra: {section}\n")
    composing = hydra.initialize_config_dir(str(place / "conf"), version_base="1.3")
    with composing, pytest.raises(UserError, match=r"pkg://evil|hydra\.job\.env_set"):
        hydra.compose("config")
    assert not (place / "ran").exists()
