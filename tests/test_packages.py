"""The lock files: what pyproject.toml asks for, each package with the hashes of its files."""

import re
import tomllib

import pytest
from packaging.requirements import Requirement

from aimback.runtime.project import ROOT

LOCKS = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("requirements.lock", "requirements-cpu.lock")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ASKED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def locked(lock: str) -> set[tuple[str, str]]:
    """Packages and versions, without the local part: PyTorch's CPU build is the same release."""
    return set(re.findall(r"^([\w.-]+)==([^\s;\\+]+)", LOCKS[lock], re.MULTILINE))


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_what_is_asked_for_is_locked(asked: Requirement, lock: str) -> None:
    name = re.sub(r"[-_.]+", "-", asked.name).lower()
    versions = [version for package, version in locked(lock) if package == name]
    assert versions and all(map(asked.specifier.contains, versions)), "run `make lock`"


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_its_hashes_and_no_place(lock: str) -> None:
    packages = re.split(r"\n(?=\S)", LOCKS[lock].strip())
    assert len(packages) > 100
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", package) for package in packages)
    assert "://" not in LOCKS[lock]


def test_both_locks_name_the_same_releases() -> None:
    assert locked("requirements-cpu.lock") <= locked("requirements.lock")


@pytest.mark.parametrize(
    ("name", "bad"), [("pytorch-lightning", "2.6.2"), ("pytorch-lightning", "2.6.3"), ("mlflow", "3.9.0")]
)
def test_releases_known_to_be_bad_are_excluded(name: str, bad: str) -> None:
    (asked,) = (asked for asked in ASKED if asked.name == name)
    assert not asked.specifier.contains(bad)
