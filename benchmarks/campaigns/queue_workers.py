"""SIGKILL at random moments of a worker of DVC's queue, in a project whose one stage takes its time."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from aimback.runtime.doctor import find_dvcs, mend

_SECONDS = 10.0  # about what a worker takes for two experiments on an idle machine
_STAGE = """
import os, pathlib, time
pathlib.Path(os.environ["DVC_ROOT"], f"started-{os.getpid()}").touch()
time.sleep(float(os.environ.get("SECONDS", "0")))
pathlib.Path("out").write_text(pathlib.Path("params.yaml").read_text())
"""
_PIPELINE = "stages:\n  work:\n    cmd: python work.py\n    deps: [work.py]\n    params: [x]\n    outs: [out]\n"
_FILES = {"work.py": _STAGE, "dvc.yaml": _PIPELINE, "params.yaml": "x: 1\n", ".gitignore": "started-*\n"}
_WANTED = {"two": "success x=2", "three": "success x=3"}


def queue_workers(count: int, folder: Path) -> list[str]:
    """So many kills. Every other one strikes the worker alone, the others all that it has started too."""
    chance = random.Random(count)
    struck = again = finished = right = left = 0
    while struck < count:
        queue = Queue(folder / str(struck))
        for name, x in (("two", 2), ("three", 3)):
            queue.put(name, x, "--queue")
        while True:
            queue.start_worker(0.5)
            time.sleep(chance.uniform(0, _SECONDS))
            workers = queue.processes("queue-worker")
            if struck == count or not workers:
                queue.wait(queue.has_ended)
                break
            struck += 1
            for worker in workers:
                if struck % 2:
                    os.killpg(os.getpgid(worker.pid), signal.SIGKILL)
                else:
                    worker.kill()
            queue.wait(queue.is_quiet)
            again += len(mend(queue.root))
        finished += 1
        right += queue.states() == _WANTED
        left += len(list(queue.exps.glob("tmp*")))
        for worker in queue.processes("queue-worker"):
            worker.kill()
    return [
        f"{struck} workers killed, every other one alone: the doctor said {again} times what it had done; "
        f"{finished} queues came to their end, {right} of them with the right experiments; {left} copies were left"
    ]


class Queue:
    """A DVC project under git, with a stage that takes its time.

    Args:
        root: where it shall lie.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.exps = root / ".dvc/tmp/exps"
        self.broker = self.exps / "celery/broker"
        root.mkdir()
        for name, text in _FILES.items():
            (root / name).write_text(text)
        self.git("init", "--quiet", "--initial-branch=main")
        self.run("dvc", "init", "--quiet")
        self.run("dvc", "config", "core.analytics", "false")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "all")

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> str:
        done = subprocess.run(
            command,
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(self, seconds: float = 0) -> None:
        quiet = subprocess.DEVNULL  # the worker keeps open what it is given
        command = ["dvc", "queue", "start"]
        subprocess.run(command, cwd=self.root, env=self.environment(seconds), stdout=quiet, stderr=quiet, check=True)

    def environment(self, seconds: float = 0) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {**kept, "PATH": path, "DVC_SITE_CACHE_DIR": str(self.root / ".dvc/site"), "SECONDS": str(seconds)}

    def git(self, *arguments: str) -> str:
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments, check=False)

    def put(self, name: str, x: int, option: str) -> None:
        self.run("dvc", "exp", "run", option, "--name", name, "--set-param", f"x={x}")

    def states(self) -> dict[str, str]:
        """Of every experiment that DVC tells of, by name: what it is, and its param."""
        shown = json.loads(self._show())
        (baseline,) = (one for one in shown if one["rev"] != "workspace")
        found = {}
        for experiment in baseline["experiments"] or []:
            told = (experiment["revs"][0].get("data") or {}).get("params") or {}
            # DVC has an error in place of the data where a worker has just moved the experiment's files.
            params = told.get("params.yaml", {}).get("data")
            assert params, "it has been taken and not yet begun"
            x = params["x"]
            executor = experiment["executor"] or {"state": "done"}
            assert experiment["name"] not in found
            found[experiment["name"]] = f"{executor['state']} x={x}"
        return found

    def _show(self) -> str:
        """What `dvc exp show` says. A thread of it may fail on what a worker is writing, and then it never ends."""
        for _ in range(3):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.run("dvc", "exp", "show", "--json", timeout=40)
        raise AssertionError("dvc exp show has not ended three times")

    def wait(self, ready: Callable[[], bool]) -> None:
        until = time.monotonic() + 300
        while not ready():
            assert time.monotonic() < until, "it takes too long"
            time.sleep(0.1)

    def are(self, wanted: dict[str, str]) -> bool:
        """Whether the experiments are in these states; not yet, while DVC cannot tell of one that it has just taken."""
        try:
            return self.states() == wanted
        except AssertionError:
            return False

    def has_ended(self) -> bool:
        try:
            return all(state.startswith(("success", "failed")) for state in self.states().values())
        except AssertionError:
            return False

    def processes(self, word: str) -> list[psutil.Process]:
        """The dvcs at work here whose command has this word."""
        found = []
        for number in find_dvcs(self.root):
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(number)
                if word in process.cmdline():
                    found.append(process)
        return found

    def is_quiet(self) -> bool:
        return not find_dvcs(self.root)

    def stage(self) -> int:
        """The number of the stage's process, once it is at work."""
        self.wait(lambda: bool(list(self.root.glob("started-*"))))
        (file,) = self.root.glob("started-*")
        file.unlink()
        return int(file.name.partition("-")[2])

    def left(self) -> dict[str, bytes]:
        """The files of the queue that matter, and its stash."""
        files = [*self.broker.glob("*/*.celery.msg"), *self.exps.glob("celery/result/*"), *self.exps.glob("tmp*")]
        found = {str(file.relative_to(self.root)): file.read_bytes() if file.is_file() else b"" for file in files}
        return {**found, "stash": self.git("log", "-g", "--format=%H %gs", "refs/exps/celery/stash").encode()}
