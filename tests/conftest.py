"""What tests share: the device to compute on, and small tools for scratch copies of the repository."""

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
_LEFT_BEHIND = shutil.ignore_patterns(
    *("*.egg-info", "__pycache__", ".git", ".venv", ".*_cache", ".hypothesis", "mlflow.db*", ".mlflow.db*", "mlruns"),
    *("mlartifacts", "dvc.lock", "config.local", "tmp", "cache", "build"),
)


# Workers take whole files in the order of collection. Those of minutes come first, or one worker would wait at the end
# for the other.
_LONGEST_FIRST = (
    *("test_pipeline", "test_training", "test_study", "test_compiled", "test_browser", "test_init", "test_mlflow_ui"),
    *("test_executor", "test_shared", "test_parts", "test_ddp"),
    *(
        "test_tracking",
        "test_honesty",
        "test_experiments",
        "test_faults",
        "test_campaigns",
        "test_hybrid",
        "test_diagnose_landscape",
    ),
    *("test_tasks", "test_plots", "test_stages", "test_ode", "test_writer", "test_streams", "test_hydra_section"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each numeric test runs on the CPU, and on CUDA where there is one."""
    return torch.device(request.param)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Hydra makes handlers of the streams of a test, which are closed when it ends."""
    before = list(logging.getLogger().handlers)
    yield
    for handler in {*logging.getLogger().handlers} - {*before}:
        handler.close()
    logging.getLogger().handlers[:] = before


class Repository:
    """A copy of this repository in which real commands run, with this Python.

    Args:
        root: where it lies.
        git: whether it is a git repository with one commit.
    """

    def __init__(self, root: Path, *, git: bool) -> None:
        self.root = root
        self.given: dict[str, str] = {}
        shutil.copytree(ROOT, root, ignore=_LEFT_BEHIND, dirs_exist_ok=True)
        for left in (root / "outputs").iterdir():
            if left.is_dir():
                shutil.rmtree(left)
        if git:
            self.git("init", "--quiet", "--initial-branch=main")
            self.commit("copy")
        else:
            (root / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n")

    def clone(self, root: Path) -> "Repository":
        """What git takes along, in another place, reached in the same surroundings."""
        self.git("clone", "--quiet", str(self.root), str(root))
        other = Repository.__new__(Repository)
        other.root, other.given = root, dict(self.given)
        return other

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "MLFLOW_", "HYDRA_"))}
        return kept | {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(self.root / "src"),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
            **self.given,
        }

    @contextlib.contextmanager
    def preloaded(self) -> Iterator[None]:
        """While the block runs, stages are forks, as those of `aimback` are, whoever starts them."""
        name = f"aimback-test-{os.getpid()}"
        command = [sys.executable, "-m", "aimback.runtime.preload", name]
        with subprocess.Popen(command, cwd=self.root, env=self.environment(), stdin=subprocess.PIPE):
            self.given = {"AIMBACK_PRELOADED": f"{name}:{self.root}"}
            yield

    def run(self, *command: str, env: Mapping[str, str] | None = None, timeout: float = 900) -> "Finished":
        """Run `python -m ...`; what it printed and its exit code."""
        return Finished(
            subprocess.run(
                [sys.executable, "-m", *command],
                cwd=self.root,
                env=self.environment() | dict(env or {}),
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        )

    def run_and_kill(self, *command: str, when: Callable[[], bool]) -> None:
        """Run `python -m ...` and all that it starts, and kill it all at a moment."""
        quiet = subprocess.DEVNULL
        started = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env=self.environment(),
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        while not when():
            assert started.poll() is None, "it ended before the moment came"
            time.sleep(0.05)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.root / file
        text = path.read_text()
        assert text.count(old) == 1, f"{file}: {old!r} is there {text.count(old)} times"
        path.write_text(text.replace(old, new))

    def set(self, file: str, key: str, value: float) -> None:
        """Change a number in a YAML file, whatever it is."""
        path = self.root / file
        text, found = re.subn(rf"^{key}: \S+", f"{key}: {value}", path.read_text(), flags=re.MULTILINE)
        assert found == 1, f"{file}: {key} is there {found} times"
        path.write_text(text)


class Finished:
    """A command that has ended."""

    def __init__(self, done: "subprocess.CompletedProcess[str]") -> None:
        self.code = done.returncode
        self.printed = done.stdout + done.stderr
        self.stderr = done.stderr

    def ok(self) -> "Finished":
        assert self.code == 0, self.printed
        return self

    def stages(self) -> list[str]:
        """The stages that DVC, or aimback with it, ran, without what it skipped or took from its cache."""
        return re.findall(
            r"^(?:Running stage '|stage \d+ of \d+: )([^'\s,]+)'?:?(?:, about .*)?$", self.printed, re.MULTILINE
        )
