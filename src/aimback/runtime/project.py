"""Where the project lies, and the paths in its configuration: relative ones belong to its root, whoever asks."""

import os
import re
from pathlib import Path

from aimback import HOME

# Below a copy of a project that a sweep made: the file that names the project itself.
ORIGINAL = ".dvc/original"
SWEEP = "AIMBACK_SWEEP"  # the variable by which the stages of a job know the sweep that they belong to
_OURS = re.compile(rb"python -m (aimback\.)?pipelines\.compose\b")


def find_project(folder: Path) -> Path | None:
    """The nearest folder from here upward that holds a project: a dvc.yaml whose stages are aimback's."""
    return next((place for place in (folder, *folder.parents) if _has_stages(place / "dvc.yaml")), None)


def _has_stages(file: Path) -> bool:
    try:
        return _OURS.search(file.read_bytes()) is not None
    except OSError:
        return False


def _find_root() -> Path:
    """The project that this process works in; where it was started in none, the checkout that this file lies in."""
    checkout = HOME if (HOME / "src").is_dir() else None
    return find_project(Path.cwd()) or checkout or Path.cwd()


ROOT = _find_root()
CONF = ROOT / "conf"
IS_CHECKOUT = (ROOT / "src" / "aimback").is_dir()  # of aimback itself, and no project of a user's own
# Where files of settings are looked for: what a user's own project does not say, aimback does.
CONFS = (CONF,) if IS_CHECKOUT else (CONF, HOME / "conf")
# The package that the stages of dvc.yaml lie in.
STAGES = "pipelines" if IS_CHECKOUT else "aimback.pipelines"


def name_below_root(path: str, folder: str | Path = ROOT) -> str:
    """A path, seen from a folder, as the configuration holds it: relative to the root if it lies in the project, so
    that it means the same on every machine."""
    whole = Path(folder, path)
    plain = Path(os.path.normpath(whole))
    if os.path.realpath(plain) != os.path.realpath(whole):  # ".." after a link is not what it looks like
        plain = whole
    root = next((root for root in (ROOT, find_original(ROOT)) if plain.is_relative_to(root)), None)
    return plain.relative_to(root).as_posix() if root else str(plain)


def locate(path: str | Path) -> Path:
    """A path of the configuration as it is seen from here."""
    whole, here = ROOT / path, Path.cwd()
    return whole.relative_to(here) if whole.is_relative_to(here) else whole


def locate_untracked(path: str | Path) -> Path:
    """The same of a file that git may not track: what a copy of the project lacks is read from the original."""
    there = find_original(ROOT) / path
    return locate(path) if (ROOT / path).exists() or not there.exists() else there


def find_original(root: Path) -> Path:
    """The repository that `root` is, or was copied from: by DVC for a queued experiment, or for a job of a sweep."""
    if (root / ORIGINAL).is_file():
        return Path((root / ORIGINAL).read_text(encoding="utf-8"))
    # Not DVC_ROOT: where another project's dvc runs ours, that is its folder.
    for place in root.parents:
        if place.parts[-2:] == (".dvc", "tmp"):
            return place.parents[1]
    return root
