"""Mend what killed experiments leave behind, which DVC shows as running for ever; a part of the doctor.

| killed | what is done here |
|---|---|
| a worker of the queue, with what it ran | the experiment is queued again, under its name and with its settings |
| `dvc exp run --temp` | what it left is removed; nothing tells that it is still wanted |

DVC keeps its queue in files below .dvc/tmp/exps/celery. A worker moves the message of an experiment from broker/in to
broker/processed and takes its commit from a stash in git; its last word is a file in result. So an experiment is queued
again by putting its commit and its message back. Where the files are not as DVC 3 writes them, nothing is touched.
"""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TASK = "dvc.repo.experiments.queue.tasks.run_exp"
_ENDED = ("SUCCESS", "FAILURE", "REVOKED")  # what Celery calls a result that is one
_COMMITS = ("stash_rev", "head_rev", "baseline_rev")


def mend_experiments(folder: Path, is_at_work: Callable[[], bool]) -> list[str]:
    """Queue killed experiments again, and remove the copies of the repository in which they ran.

    Args:
        folder: of the .dvc.
        is_at_work: whether a dvc is at work in it; asked only where something seems to be left behind.

    Returns:
        What was done, a line each.
    """
    exps = folder / ".dvc" / "tmp" / "exps"
    taken, copies = _find_taken(exps, folder), _find_copies(exps / "standalone")
    if not (taken or copies) or is_at_work():
        return []
    # A worker may have ended by itself after the first look and before it was asked for.
    still = _find_taken(exps, folder)
    done = [_queue_again(exps, message, entry) for message, entry in taken.items() if message in still]
    for copy, name in copies.items():
        if copy.exists():
            shutil.rmtree(copy, ignore_errors=True)
            done.append(f"experiment {name}: `dvc exp run --temp` was killed; what it left is removed, run it again")
    return done


def _find_taken(exps: Path, folder: Path) -> dict[Path, dict[str, Any]]:
    """The experiments of this folder's queue that a worker has taken and not brought to an end, by their messages."""
    found = {}
    for message in sorted((exps / "celery" / "broker" / "processed").glob("*.celery.msg")):
        content = _read(message)
        try:
            if content["headers"]["task"] != _TASK or _read(_find_result(exps, content)).get("status") in _ENDED:
                continue
            entry = json.loads(base64.b64decode(content["body"]))[0][0]
            known = {name: entry[name] for name in (*_COMMITS, "name", "branch", "scm_root")}
            # In a copy of a project, the queue is still that of the original.
            own = Path(entry["dvc_root"]).resolve() == folder.resolve()
            if own and all(re.fullmatch(r"[0-9a-f]{40,64}", known[name]) for name in _COMMITS):
                found[message] = {**known, "result": _find_result(exps, content)}
        except (AttributeError, LookupError, TypeError, ValueError):
            continue
    return found


def _find_copies(place: Path, commit: str = "*") -> dict[Path, str]:
    """The copies of the repository in which experiments run, and the experiments' names."""
    found = {}
    for file in place.glob(f"run/{commit}/*.run"):
        info = _read(file)
        copy = Path(str(info.get("root_dir")))
        if copy.parent == place and copy.is_dir():
            found[copy] = str(info.get("name") or file.stem[:7])
    return found


def _queue_again(exps: Path, message: Path, entry: dict[str, Any]) -> str:
    commit = entry["stash_rev"]
    name = entry["name"] or commit[:7]
    noted = exps / "run" / commit / commit
    # DVC would kill the process of this number, which by now may be anybody's.
    noted.with_suffix(".json").unlink(missing_ok=True)
    try:
        _stash(entry)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().partition("\n")[0]
        return (
            f"experiment {name}: its worker was killed, and git cannot queue it again ({reason}); "
            f"`dvc queue kill {name}` marks it as failed"
        )
    for copy in _find_copies(exps, commit):
        shutil.rmtree(copy, ignore_errors=True)
    for suffix in (".run", ".pid"):
        noted.with_suffix(suffix).unlink(missing_ok=True)
    entry["result"].unlink(missing_ok=True)
    message.replace(message.parents[1] / "in" / message.name)
    return f"experiment {name}: its worker was killed; it is queued again, `dvc queue start` takes it up"


def _stash(entry: dict[str, Any]) -> None:
    """Put an experiment's commit back on the queue's stash, as DVC puts that of a failed one on another."""
    commit, place = entry["stash_rev"], "refs/exps/celery/stash"
    git = ["git", "-C", entry["scm_root"]]
    listed = [*git, "log", "--walk-reflogs", "--format=%H", place, "--"]
    if commit in subprocess.run(listed, capture_output=True, text=True, check=False).stdout.split():
        return  # the kill came before the worker took it
    words = ["dvc-exp", entry["head_rev"], entry["baseline_rev"], entry["name"] or "", *filter(None, [entry["branch"]])]
    add = [*git, "update-ref", "--create-reflog", "-m", f"commit: {':'.join(words)}", place, commit]
    subprocess.run(add, capture_output=True, text=True, check=True)


def _find_result(exps: Path, content: Any) -> Path:
    return exps / "celery" / "result" / f"celery-task-meta-{content['headers']['id']}"


def _read(path: Path) -> Any:
    """A JSON object; an empty one where there is none, or a torn one."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
