"""Mend what a killed dvc leaves behind and the next one stumbles over: `python -m aimback.runtime.doctor`.

DVC writes two files in place, so that a kill can leave their beginning only:

| file | what DVC makes of it | what is done here |
|---|---|---|
| `.dvc/tmp/rwlock`, which paths a dvc works on | refuses to run | removed, if no dvc works here |
| `dvc.lock` | refuses to run, or takes it for a shorter one | cut back to its last whole stage; DVC caches the rest |

A downloaded archive has no git, even where it lies in somebody else's repository; DVC wants to be told, and is here.
What killed experiments leave behind stands in `aimback.runtime.experiments`.
Nothing is touched that is whole or that a running dvc uses, and one line tells what was done. `make repro`
and `aimback` do this first; before a plain `dvc repro` it is needed only after a kill.
"""

import configparser
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from aimback.core.errors import UserError
from aimback.core.files import write_whole
from aimback.core.repository import is_git_root
from aimback.runtime.exits import report_errors
from aimback.runtime.experiments import mend_experiments
from aimback.runtime.locks import hold_lock
from aimback.runtime.project import ROOT

_HEADER = b"schema: '2.0'\nstages:\n"
_UNTRACKED = ("by_hand", "checkpoints", "compiled")  # may be large, and nobody stumbles over what lies there
_STAGE = re.compile(rb"^  [^\s-]", re.MULTILINE)
# Eight times as fast, where PyYAML was built with it.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def mend(folder: Path) -> list[str]:
    """Repair the state of DVC in `folder`, unless a dvc is using it; what was repaired, a line each.

    Raises:
        UserError: something is damaged, and not by a kill, or while another dvc relies on it.
    """
    temporary = folder / ".dvc" / "tmp"
    done = []
    if folder.is_relative_to(ROOT):
        tell_of_git(folder / ".dvc" / "config.local", is_git_root(ROOT))
    try:
        # DVC's own locks, in its own order.
        with hold_lock(temporary / "lock"):
            done += _mend_lock_file(folder / "dvc.lock")
            for place in (temporary, temporary / "exps"):
                if (place / "rwlock").exists():
                    with hold_lock(place / "rwlock.lock"):
                        done += _mend_rwlock(place / "rwlock", folder)
            if not (temporary / "rwlock").exists() or not _read_holders((temporary / "rwlock").read_bytes()):
                done += _sweep(folder / "outputs")
            done += mend_experiments(folder, lambda: bool(find_dvcs(folder)))
    except BlockingIOError:
        pass  # a dvc is at work, so what looks torn is being written
    return done


def tell_of_git(local: Path, has_git: bool) -> None:
    """Have DVC's own settings for this machine, `.dvc/config.local`, say whether there is a git repository."""
    config = configparser.RawConfigParser(strict=False)
    config.read(local, encoding="utf-8")
    if config.getboolean("core", "no_scm", fallback=False) is not has_git:
        return
    if has_git:
        config.remove_option("core", "no_scm")
    else:
        config.read_dict({"core": {"no_scm": "true"}})
    with write_whole(local) as temporary, temporary.open("w", encoding="utf-8") as file:
        config.write(file)


def find_writer(folder: Path) -> int | None:
    """A dvc that is running a stage in `folder`, by the outputs that it has locked; None if there is none."""
    try:
        text = (folder / ".dvc" / "tmp" / "rwlock").read_bytes()
    except OSError:
        return None  # nothing is locked
    return next(iter(find_dvcs(folder, _read_holders(text, reading=False) or set())), None)


def _mend_rwlock(path: Path, folder: Path) -> list[str]:
    holders = _read_holders(path.read_bytes())
    if holders == set():
        return []
    running = find_dvcs(folder, holders)
    if not running:
        path.unlink()
        return [f"{path.relative_to(folder)}: left by a dvc that was killed; removed"]
    if holders is None:
        raise UserError(f"{path}: is damaged, and dvc (process {running[0]}) is running; let it end, then run again")
    return []


def _read_holders(text: bytes, reading: bool = True) -> set[int] | None:
    """The processes that an rwlock names, those that read or only those that write; None where it is torn."""
    try:
        tree = json.loads(text)
        holders = list(tree.get("write", {}).values())
        if reading:
            holders += [reader for readers in tree.get("read", {}).values() for reader in readers]
        return {int(holder["pid"]) for holder in holders}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def find_dvcs(folder: Path, among: set[int] | None = None) -> list[int]:
    """The numbers of the processes that are a dvc at work in this folder, among some or all there are."""
    import psutil

    found = []
    for number in psutil.pids() if among is None else among:
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):  # it has ended, or no process can have that number
            if _is_dvc(psutil.Process(number), folder):
                found.append(number)
    return found


def _is_dvc(process: Any, folder: Path) -> bool:
    """Whether a process is a dvc at work in this folder, and not a later process of the same number."""
    import psutil

    try:
        if "dvc" not in [Path(part).stem for part in process.cmdline()]:
            return False
        # A dvc that has ended may leave a fork of itself that only waits for its look for updates.
        if any("daemon" in child.cmdline() for child in process.children()):
            return False
        with contextlib.suppress(psutil.AccessDenied):  # another user's, so it may well be here
            return Path(process.cwd()).is_relative_to(folder)
        return True
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _sweep(outputs: Path) -> list[str]:
    """Remove what stages were writing when they were killed; see `aimback.core.files`, whose temporaries are hidden."""
    tracked = [place for place in outputs.glob("*") if place.name not in _UNTRACKED]
    with contextlib.ExitStack() as stages:
        for lock in [lock for place in tracked for lock in place.rglob("*@*") if lock.parent.name == "locks"]:
            stages.enter_context(hold_lock(lock))
        left = [file for place in tracked for file in place.rglob(".*-*") if file.is_file()]
        for file in left:
            file.unlink()
    return [f"{file.relative_to(outputs.parent)}: half of a file, left by a kill; removed" for file in left]


def _mend_lock_file(path: Path) -> list[str]:
    text = path.read_bytes() if path.exists() else None
    if text is None or _is_whole(text):
        return []
    kept = _cut_short(text)
    if kept is None:
        raise UserError(
            f"{path}: is damaged, and not by a kill; `git checkout {path.name}` or remove it, then `dvc repro`"
        )
    if not kept:
        path.unlink()
        return [f"{path.name}: cut short by a kill, no stage was left; removed"]
    with write_whole(path) as temporary:
        temporary.write_bytes(kept)
    return [f"{path.name}: cut short by a kill; kept its {len(_STAGE.findall(kept))} whole stages"]


def _is_whole(text: bytes) -> bool:
    """Whether DVC has come to the end of writing a lock file; a shorter one of whole stages may seem so too."""
    try:
        last = list(yaml.load(text, _LOADER)["stages"].values())[-1]
        # The last word on a file is its size, and on a folder the number of its files.
        ends = all(("nfiles" if out["md5"].endswith(".dir") else "size") in out for out in last.get("outs", []))
        return text.endswith(b"\n") and "cmd" in last and ends
    except (yaml.YAMLError, UnicodeDecodeError, LookupError, TypeError, AttributeError):
        return False


def _cut_short(text: bytes) -> bytes | None:
    """All but the last stage of a lock file whose end is missing; None where more than the end is wrong."""
    written = text.partition(b"\0")[0]  # a crash of the machine can leave zeros
    starts = [found.start() for found in _STAGE.finditer(written)]
    if len(starts) < 2 and _HEADER.startswith(written[: len(_HEADER)]):
        return b""
    kept = written[: starts[-1]] if starts else b""
    return kept if _is_whole(kept) else None


def main() -> None:
    with report_errors("doctor"):
        for line in mend(ROOT):
            print(line)


if __name__ == "__main__":
    main()
