"""The git repository that a folder is the root of, if it is one. A repository around it belongs to somebody else."""

import os
import subprocess
from pathlib import Path


def is_git_root(folder: Path) -> bool:
    """Whether `folder` itself is the root of a git repository."""
    return (folder / ".git").exists()


def head_commit(folder: Path) -> str | None:
    """The commit that is checked out in `folder`; None if it is no root, has no commit, or there is no git."""
    return ask_git(folder, "rev-parse", "--verify", "--quiet", "HEAD") or None


def has_changes(folder: Path) -> bool:
    """Whether tracked files differ from the commit that is checked out in `folder`."""
    return bool(ask_git(folder, "status", "--porcelain", "--untracked-files=no"))


def ask_git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails."""
    if not is_git_root(folder):
        return None
    # Within a hook these variables name the repository of the hook, wherever git is called.
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5, env=ours)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
