"""No environment variable of a library changes a result or ends a run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aimback.runtime.project import ROOT
from aimback.runtime.surroundings import clean
from benchmarks.campaigns.environments import HOSTILE, made

KEPT = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "AWS_ACCESS_KEY_ID", "PGPASSWORD", "https_proxy"),
    *("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME", "PATH", "HOME", "TMPDIR", "LANG", "TZ", "COMP_LINE", "COLUMNS"),
    *("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "CXX", "SLURM_JOB_ID", "RANKING"),
)


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith(("SLURM_", "LSB_", "JSM_", "LC_"))])
def test_what_libraries_read_is_taken_away(name: str) -> None:
    assert clean({name: HOSTILE[name]}).get(name) == {"OMP_NUM_THREADS": "1"}.get(name)


@pytest.mark.parametrize("name", KEPT)
def test_what_must_be_obeyed_stays(name: str) -> None:
    assert clean({name: "x"})[name] == "x"


@pytest.mark.slow
def test_under_all_of_them_at_once_come_the_same_bytes(tmp_path: Path) -> None:
    plain = made(tmp_path / "plain", {})
    assert len(plain) == 64, plain  # a hash, not a complaint
    assert made(tmp_path / "hostile", HOSTILE) == plain


@pytest.mark.parametrize("again", [False, True])
def test_a_command_starts_anew_as_the_same_process(again: bool, tmp_path: Path) -> None:
    """And only once, where something sets a variable whenever Python starts."""
    if again:
        (tmp_path / "sitecustomize.py").write_text("import os; os.environ['MKL_CBWR'] = 'COMPATIBLE'\n")
    code = "import os, sys; from aimback.runtime.surroundings import start_clean; start_clean()\n"
    code += "print(os.getpid(), sys.argv, [name for name in os.environ if name.startswith(('MKL_', 'PL_'))])"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PL_TRAINER_MAX_STEPS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code, "a b"], env=env, stdout=subprocess.PIPE, text=True)
    printed, _ = child.communicate(timeout=60)
    assert (child.returncode, printed) == (0, f"{child.pid} ['-c', 'a b'] []\n")


def test_who_imports_a_stage_keeps_the_environment() -> None:
    code = "import os, pipelines; print(os.environ['PL_TRAINER_MAX_STEPS'])"
    assert printed("-c", code, env={"PL_TRAINER_MAX_STEPS": "1"}) == "1\n"


@pytest.mark.parametrize("command", [["-m", "aimback.workflow.verify"], ["-m", "aimback.workflow.run", "--cfg", "job"]])
def test_commands_start_clean(command: list[str], tmp_path: Path) -> None:
    """A warning that is made an error ends Hydra; Python takes that from its environment alone."""
    env = {"PYTHONWARNINGS": "error", "HYDRA_MAIN_MODULE": "x"}
    code = f"import atexit, os; atexit.register(lambda: print(sorted({set(env)} & {{*os.environ}})))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    assert printed(*command, env=env, place=str(tmp_path)).splitlines()[-1] == "[]"


def printed(*command: str, env: dict[str, str], place: str = "") -> str:
    ours = {**os.environ, **env, "PYTHONPATH": f"{place}:{ROOT}"}
    return subprocess.run(
        [sys.executable, *command], env=ours, capture_output=True, text=True, check=False, cwd=ROOT
    ).stdout
