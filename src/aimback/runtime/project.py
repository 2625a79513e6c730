"""Where the project lies, and the paths in its configuration: relative ones belong to its root, whoever asks."""

import os
from pathlib import Path

# What an installed aimback brings along for a project of its own; a checkout has it all at its root.
PACKED = Path(__file__).resolve().parents[1] / "project"


def _find_root() -> Path:
    """The checkout that this file lies in; for an installed aimback the folder from here upward with a dvc.yaml."""
    checkout = Path(__file__).resolve().parents[3]
    if not PACKED.is_dir() and (checkout / "dvc.yaml").is_file():
        return checkout
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here)


ROOT = _find_root()
CONF = ROOT / "conf"


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
    """The repository that `root` is, or that DVC made it of, for a queued experiment, in a folder of its own."""
    # Not DVC_ROOT: where another project's dvc runs ours, that is its folder.
    for place in root.parents:
        if place.parts[-2:] == (".dvc", "tmp"):
            return place.parents[1]
    return root
